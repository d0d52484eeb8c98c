"""The method's steps, one node a file."""
