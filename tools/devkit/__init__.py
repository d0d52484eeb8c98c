"""What tools/dev.py is made of. Standard library only: it runs before there is an environment."""
