"""Masks and regions, one node a file."""
