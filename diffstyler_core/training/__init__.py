"""Training of a style LoRA."""
