"""FastSAM and what its prompts mean."""
