"""Models by family, each from its paper's own definition; ``names`` says which recipes know."""
