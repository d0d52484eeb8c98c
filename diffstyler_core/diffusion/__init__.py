"""Noise schedules, DDIM both ways, the content's trajectory."""
