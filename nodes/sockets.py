"""The pack's socket types. Their values are the core's own classes."""

from comfy_api.latest import io

Trajectory = io.Custom("DIFFSTYLER_TRAJECTORY")
Features = io.Custom("DIFFSTYLER_FEATURES")
Injection = io.Custom("DIFFSTYLER_INJECTION")
LoraSchedule = io.Custom("DIFFSTYLER_LORA_SCHEDULE")
Styles = io.Custom("DIFFSTYLER_STYLES")
LoraModel = io.Custom("LORA_MODEL")
LossMap = io.Custom("LOSS_MAP")
DEADiff = io.Custom("DIFFSTYLER_DEADIFF")
ImagePrompt = io.Custom("DIFFSTYLER_IMAGE_PROMPT")

CATEGORY = "DiffStyler"
EVALUATE = f"{CATEGORY}/evaluate"
PROMPTS = f"{CATEGORY}/prompts"
