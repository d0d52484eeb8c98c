"""Set-up, demo, tests and benchmark. Nothing in here is part of the pack as ComfyUI loads it."""
