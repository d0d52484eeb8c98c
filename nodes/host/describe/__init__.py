"""Pictures put into words by vision language models."""
