"""What flows are stacked from: couplings, masked and linear layers, splines, normalisations."""
