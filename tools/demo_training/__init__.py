"""How the demo checkpoint is made: pictures, autoencoder, diffusion model, export."""
