"""ComfyUI nodes of the DiffStyler method: one file per step, and the only code that knows the host."""
