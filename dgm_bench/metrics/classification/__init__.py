"""Numbers of models of an image's class."""
