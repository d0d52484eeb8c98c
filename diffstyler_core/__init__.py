"""The DiffStyler method in plain torch. Knows no host: everything here runs without ComfyUI."""
