"""How drawn images compare with real ones: fidelity and diversity, through torch-fidelity.

``enough`` is light, and tells before training whether there are images enough. The other modules
import torch-fidelity, and are therefore imported only where a number is taken.
"""
