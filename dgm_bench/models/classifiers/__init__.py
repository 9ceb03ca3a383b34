"""Models of the probability of an image's class."""
