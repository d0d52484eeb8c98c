"""Image prompts: what a picture becomes as tokens, and which layers of cross-attention read them."""
