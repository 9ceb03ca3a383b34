"""The colours of figures."""

from __future__ import annotations

# The colour-blind safe palette of Okabe and Ito (2008).
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
#: Colour of text and lines; the page turns it into the reader's own text colour.
INK = "#24292f"
