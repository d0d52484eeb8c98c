"""Image prompts: pictures as tokens that cross-attention reads beside the text."""
