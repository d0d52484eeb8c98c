"""Styles and the regions that they share a picture by."""
