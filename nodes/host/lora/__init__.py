"""Style LoRAs in the forward pass of the host's UNets."""
