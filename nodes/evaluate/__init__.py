"""Measures and what they look like, one node a file."""
