"""What is captured of the content, and how it is injected."""
