"""Checks of what users type and wire in, before any long work starts. Errors name the input, the value, the remedy."""
