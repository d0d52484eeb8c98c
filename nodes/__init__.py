"""ComfyUI nodes of the DiffStyler method, a file each, in rooms; only ``nodes.host`` knows the host."""
