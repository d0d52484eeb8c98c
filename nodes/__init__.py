"""ComfyUI nodes of the DiffStyler method, a file each, in rooms; ``nodes.host`` is the only code that knows the host."""
