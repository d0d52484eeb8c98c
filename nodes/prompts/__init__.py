"""Nodes for what is told to a model besides a prompt: blends of prompts, image prompts, descriptions."""
