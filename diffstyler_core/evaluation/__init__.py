"""What the papers report of features."""
