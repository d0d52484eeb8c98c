"""Masks, and the objects that prompts choose."""
