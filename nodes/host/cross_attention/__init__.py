"""What cross-attention reads, changed by a patch on a MODEL."""
