"""LoRA files and schedules."""
