"""Image prompts: their checkpoints read, and what they make of a picture."""
