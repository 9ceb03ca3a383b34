"""Flows and networks that solve differential equations."""
