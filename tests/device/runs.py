"""The stages of the pack's path with a tiny model, their results by name."""

from __future__ import annotations

from typing import Any

import apply_bench
import comfy.model_management
import comfy.model_patcher
import regions_bench
import steps
import tiny
import torch

LAYERS = {
    "sd15": {"feature_layers": "4", "self_attention_layers": "4-11", "cross_attention_layers": "5"},
    "sd21": {"feature_layers": "4", "self_attention_layers": "4-11", "cross_attention_layers": "5"},
    "sdxl": {"feature_layers": "1", "self_attention_layers": "0-5", "cross_attention_layers": "1"},
}
Results = dict[str, torch.Tensor]


def make_model(kind: str, seed: int, weights: torch.dtype = torch.float32, computing: torch.dtype | None = None) -> Any:
    """The same random weights in any number format. computing: the host's manual cast."""
    exact = tiny.make_model(kind, velocity=kind == "sd21", seed=seed)
    config = tiny.CLASSES[kind](dict(tiny.CONFIGS[kind]))
    config.velocity = kind == "sd21"
    config.set_inference_dtype(weights, computing)
    model = config.get_model({}, "", device="cpu")
    model.diffusion_model.load_state_dict(exact.model.diffusion_model.state_dict())
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


class Path:
    """One content, three prompts and two LoRAs, taken through every stage on any model of a kind."""

    def __init__(self, pack: Any, kind: str, seed: int) -> None:
        self.pack, self.kind, self.seed = pack, kind, seed
        self.latent = tiny.make_latent(seed, 8)
        prompts = (tiny.make_prompt(seed + i, sdxl=kind == "sdxl") for i in range(4))
        self.empty, self.negative, *self.prompts = prompts
        like = tiny.make_model(kind, seed=seed)
        self.loras = [steps.random_lora(pack, like, seed + i, size=0.3) for i in range(2)]

    def run(self, model: Any) -> Results:
        """Inversion, capture, one LoRA (from disk too), regions with a switch, Apply Injection and Apply Styles."""
        trajectory, *_ = steps.invert(self.pack, model, self.latent, self.empty)
        features, on_disk = (
            steps.capture(self.pack, model, trajectory, self.empty, **LAYERS[self.kind], storage=storage)
            for storage in ("memory", "disk")
        )
        prompts = self.prompts[0], self.negative
        return {
            "inversion": trajectory.noise,
            **self.captured(features),
            **self.sampled(model, features),
            "one LoRA, from disk": steps.sample(self.pack, model, on_disk, *prompts, lora=self.loras[0]),
        }

    def captured(self, features: Any) -> Results:
        """By kind of site, what the third step of four holds."""
        held: dict[str, list[torch.Tensor]] = {}
        for site, tensors in features.at(2).items():
            held.setdefault(site.kind, []).extend(tensor.flatten() for tensor in tensors)
        return {f"captured {kind}": torch.cat(tensors) for kind, tensors in held.items()}

    def sampled(self, model: Any, features: Any) -> Results:
        """What each node that samples makes of a capture."""
        positive, prompts = self.prompts[0], (self.prompts[0], self.negative)
        styles, trajectory = two_styles(self.pack, self.loras, self.prompts, 32), features.trajectory
        injected = apply_bench.injected(self.pack, model, features)
        styled = apply_bench.styled(self.pack, model, features, styles)
        return {
            "one LoRA": steps.sample(self.pack, model, features, *prompts, lora=self.loras[0]),
            "two maps": steps.sample(self.pack, model, features, *prompts, blend="map"),
            "regions": steps.sample(self.pack, model, features, *prompts, styles=styles, outside="regenerate"),
            "Apply Injection": apply_bench.at_own_levels(injected, trajectory, positive, self.negative),
            "Apply Styles": apply_bench.at_own_levels(styled, trajectory, positive, self.negative),
        }


def two_styles(pack: Any, loras: Any, prompts: Any, side: int) -> tuple:
    """The first LoRA on the left half of a square, both in turns on a quarter."""
    left, corner = torch.zeros(1, side, side), torch.zeros(1, side, side)
    left[..., : side // 2] = 1.0
    corner[:, : side // 2, side // 2 :] = 0.7
    first = regions_bench.switch(pack, loras[0], end_percent=0.5)[0][0]
    both = regions_bench.switch(pack, loras[1], start_percent=0.5, end_percent=1.0, previous=first)[0][0]
    return steps.chain(
        pack,
        {"lora": loras[0], "positive": prompts[0], "mask": left},
        {"lora": both, "positive": prompts[1], "mask": corner},
    )


def gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative distance."""
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()
