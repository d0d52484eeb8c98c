"""All that knows ComfyUI, apart from the schema classes in the nodes."""
