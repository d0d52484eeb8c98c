"""Networks that judge pictures, and their files."""
