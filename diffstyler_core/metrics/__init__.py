"""Figures of two pictures, or of two sets."""
