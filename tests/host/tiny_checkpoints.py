"""What Load Checkpoint would return, in miniature, for each family of UNet; and the host's own run of a prompt."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import tiny
import tiny_clip
import torch

import nodes as host_nodes

FAMILIES: dict[str, dict[str, Any]] = {
    "SD1.5": {"kind": "sd15"},
    "SD2.1 eps": {"kind": "sd21"},
    "SD2.1 v": {"kind": "sd21", "velocity": True},
    "SDXL eps": {"kind": "sdxl"},
    "SDXL v, zero-terminal SNR": {"kind": "sdxl", "velocity": True, "zsnr": True},
}
HALF = {**tiny_clip.TEXT, "hidden_size": 16, "intermediate_size": 32, "projection_dim": 16,
        "num_hidden_layers": 3}  # fmt: skip
"""Each of SDXL's two encoders gives half of what the tiny UNet's cross-attention reads."""


class TwoEncoders(comfy.sdxl_clip.SDXLClipModel):
    """SDXL's two text encoders with random weights; the pooled output has the 32 values that the UNet takes."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None, **_: Any) -> None:
        torch.nn.Module.__init__(self)
        settings = {"layer": "hidden", "layer_idx": -2, "layer_norm_hidden_state": False, "dtype": dtype,
                    "textmodel_json_config": dict(HALF), "device": device}  # fmt: skip
        self.clip_l, self.clip_g = (
            comfy.sd1_clip.SDClipModel(
                **settings, return_projected_pooled=projected,
                special_tokens={"start": 49406, "end": 49407, "pad": pad},
                model_options={**(model_options or {}), "model_name": name},
            )
            for name, pad, projected in (("clip_l", 49407, False), ("clip_g", 0, True))
        )  # fmt: skip
        self.clip_g.transformer.text_projection = torch.nn.Linear(16, 32, bias=False)
        self.dtypes = {dtype}


class OneEncoder(comfy.sd1_clip.SD1ClipModel):
    """The text encoder of SD1 and SD2 with random weights."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None, **_: Any) -> None:
        super().__init__(device, dtype=dtype, model_options=model_options or {}, clip_name="l", clip_model=Layers)


class Layers(comfy.sd1_clip.SDClipModel):
    """Two layers, 32 wide."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None, **_: Any) -> None:
        super().__init__(device, dtype=dtype, textmodel_json_config=dict(tiny_clip.TEXT), return_projected_pooled=False,
                         model_options=model_options or {})  # fmt: skip


def make_clip(family: str, seed: int) -> comfy.sd.CLIP:
    """The family's text encoder, or its two, with random weights."""
    double = FAMILIES[family]["kind"] == "sdxl"
    clip = comfy.sd.CLIP(
        SimpleNamespace(
            params={},
            clip=TwoEncoders if double else OneEncoder,
            tokenizer=comfy.sdxl_clip.SDXLTokenizer if double else comfy.sd1_clip.SD1Tokenizer,
        ),
        parameters=1,
    )
    tiny.fill(clip.cond_stage_model, seed + 1)
    return clip


def make_checkpoint(family: str, seed: int) -> tuple[Any, Any, Any]:
    """(MODEL, CLIP, VAE) with random weights, as the stock Load Checkpoint returns them."""
    return tiny.make_model(seed=seed, **FAMILIES[family]), make_clip(family, seed), tiny.make_vae(seed + 2)


def load_stock_nodes() -> None:
    """Makes the host's own extra nodes of the bundled workflows known, as its server does at its start."""
    folder = Path(os.environ["COMFYUI_PATH"]) / "comfy_extras"
    for name in (
        "nodes_custom_sampler",
        "nodes_images",
        "nodes_mask",
        "nodes_string",
        "nodes_primitive",
        "nodes_train",
        "nodes_video",
    ):
        assert asyncio.run(host_nodes.load_custom_node(str(folder / f"{name}.py"), module_parent="comfy_extras")), name


class Host:
    """The host's own executor in this process. It keeps what nodes gave from one prompt to the next."""

    def __init__(self) -> None:
        import execution

        self.outputs: dict[str, dict[str, Any]] = {}
        self.errors: list[str] = []
        server = SimpleNamespace(client_id="test", last_node_id=None, sockets_metadata={}, send_sync=self._send)
        kept = {"lru": 1000, "ram": 0.0, "ram_inactive": 0.0}
        self._executor = execution.PromptExecutor(server, execution.CacheType.LRU, kept)

    def run(self, prompt: dict[str, Any]) -> None:
        """Pictures, words and errors of this prompt are in ``outputs`` and ``errors`` afterwards."""
        import execution

        self.outputs, self.errors = {}, []
        valid, error, ends, wrong = asyncio.run(execution.validate_prompt("test", prompt, None))
        if valid:
            self._executor.execute(prompt, "test", {"client_id": "test"}, ends)
        else:
            self.errors.append(f"{error} {wrong}")

    def _send(self, event: Any, data: Any, *_: Any) -> None:
        if event == "executed":
            self.outputs[data["node"]] = data["output"] or {}
        if event == "execution_error":
            self.errors.append(f"{data['node_type']}: {data['exception_message']}")
