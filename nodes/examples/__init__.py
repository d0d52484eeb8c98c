"""What the pack brings to try it on."""
