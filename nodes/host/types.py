"""The host's types by the names that nodes use for what is wired in and handed out."""

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_execution.graph_utils import ExecutionBlocker

__all__ = ["CLIP", "VAE", "ExecutionBlocker", "ModelPatcher"]
