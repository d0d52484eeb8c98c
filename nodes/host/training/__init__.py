"""Training on a private copy of the host's UNet, and where LoRAs are kept."""
