"""Figures of results, and of whole folders of them."""
