"""Inputs that several nodes have."""
