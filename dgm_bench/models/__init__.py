"""Models, one family a file, each from its paper's own definition."""
