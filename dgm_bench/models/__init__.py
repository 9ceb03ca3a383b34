"""Models by family, each as its paper defines it; ``names`` lists those that recipes declare."""
