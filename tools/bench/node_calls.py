"""The pack's nodes and the host's samplers on one subject, each as a call that can be timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tools.bench.models import Subject
from tools.pack_loader import LoadedPack

Work = Callable[[], Any]
PAPER = {"feature_end_percent": 0.6, "attention_end_percent": 0.5, "attention_mode": "adaptive", "blend": "qk"}
NOTHING = {**PAPER, "feature_end_percent": 0.0, "attention_end_percent": 0.0, "attention_mode": "fixed"}
FIXED = {**PAPER, "attention_mode": "fixed"}
RANK = 16


@dataclass(frozen=True)
class NodeCalls:
    """host: ComfyUI's ``nodes`` module. Everything runs without gradients, as nodes do."""

    host: Any
    pack: LoadedPack
    subject: Subject
    steps: int

    def invert(self, latent: dict[str, Tensor] | None = None, spacing: str = "leading") -> Any:
        """DDIM Invert, not refined and not checked. -> TRAJECTORY"""
        wanted = latent or self.subject.latent()
        execute = self.pack.pipeline.invert.DDIMInvert.execute
        return execute(self.subject.model, wanted, self.subject.empty, self.steps, spacing, 0, False).args[0]

    def capture(self, trajectory: Any, storage: str = "memory", lora: Any = None) -> Any:
        """Capture Features/Attention with the paper's layers, all steps. -> FEATURES"""
        more = {} if lora is None else {"lora": lora}
        return self.pack.pipeline.capture.CaptureFeatures.execute(
            self.subject.model, trajectory, self.subject.empty, feature_layers="4", self_attention_layers="4-11",
            cross_attention_layers="", feature_end_percent=1.0, attention_end_percent=1.0, storage=storage,
            precision="fp16", **more,
        ).args[0]  # fmt: skip

    def sample(
        self,
        features: Any,
        lora: Any = None,
        windows: dict[str, Any] = PAPER,
        styles: Any = None,
        strength: float = 1.0,
    ) -> Any:
        """Injected LoRA Sampler. -> LATENT"""
        subject, preset = self.subject, {"preset": "custom", **windows}
        return self.pack.pipeline.sampler.InjectedLoRASampler.execute(
            subject.model, features, subject.positive, subject.negative, subject.cfg, "none", strength, lora=lora,
            styles=styles, preset=preset,
        ).args[0]  # fmt: skip

    def applied(self, model: Any, features: Any) -> Any:
        """Apply Injection. -> MODEL"""
        execute = self.pack.pipeline.apply_injection.ApplyInjection.execute
        return execute(model, features, "interpolated", preset={"preset": "custom", **PAPER}).args[0]

    def styles(self, loras: Sequence[Any]) -> Any:
        """Style, one for each LoRA in a stripe of the picture. -> STYLES"""
        node, styles = self.pack.pipeline.style.StyleNode, ()
        for lora, mask in zip(loras, stripes(self.subject.side, len(loras)), strict=True):
            styles = node.execute(self.subject.positive, 1.0, lora, mask, styles).args[0]
        return styles

    def switch(self, loras: Sequence[Any]) -> Any:
        """The LoRAs one after the other, each for its share of the run."""
        core = self.pack.core.lora.schedule
        share = 1.0 / len(loras)
        return core.LoraSchedule(tuple(core.LoraEntry(x, 1.0, i * share, (i + 1) * share) for i, x in enumerate(loras)))

    def train(self, steps: int, **changes: Any) -> Any:
        """Train Style LoRA, nothing saved. -> LORA_MODEL"""
        settings: dict[str, Any] = {
            "targets": "q, k, v", "precision": "fp32", "preview_every": 0, "save": False, "filename_prefix": "bench",
            "rank": RANK, "alpha": float(RANK), "steps": steps, "learning_rate": 2e-4, "weight_decay": 1e-2, "seed": 0,
            "resolution": self.subject.side, "batch_size": 1, "gradient_checkpointing": False, **changes,
        }  # fmt: skip
        subject = self.subject
        return self.pack.pipeline.train.TrainStyleLoRA.execute(
            model=subject.model, vae=subject.vae, style_image=subject.style, prompt=subject.positive, **settings
        ).args[0]

    def ksampler(self, noise: Any, model: Any = None, prompts: Any = None, cfg: float | None = None) -> Any:
        """KSampler (Advanced) with as many steps. -> LATENT"""
        subject = self.subject
        positive, negative = prompts or (subject.positive, subject.negative)
        return self.host.KSamplerAdvanced().sample(
            model or subject.model, "disable", 0, self.steps, subject.cfg if cfg is None else cfg, "euler",
            "ddim_uniform", positive, negative, noise, 0, self.steps, "disable",
        )[0]  # fmt: skip

    def random_lora(self, seed: int) -> dict[str, Tensor]:
        """A LORA_MODEL on q, k and v of every attention."""
        core, generator = self.pack.core.lora.file, torch.Generator().manual_seed(seed)
        names = self.pack.host.training.private_copy.module_names(self.subject.model)
        unet = self.pack.host.model.unet_of(self.subject.model)
        lora = {
            path: core.LowRank(
                torch.randn(RANK, module.in_features, generator=generator) * module.in_features**-0.5,
                torch.randn(module.out_features, RANK, generator=generator) * 0.05,
            )
            for path, module in unet.named_modules()
            if path.endswith(("to_q", "to_k", "to_v"))
        }
        state: dict[str, Tensor] = core.kohya_state(lora, names, float(RANK))
        return state

    def with_lora(self, lora: Any, model: Any = None) -> Any:
        """Load LoRA. -> MODEL"""
        import comfy.sd

        return comfy.sd.load_lora_for_models(model or self.subject.model, None, lora, 1.0, 0.0)[0]


def stripes(side: int, count: int) -> list[Tensor]:
    """MASKs [1, side, side] that share the picture among them."""
    masks = []
    for i in range(count):
        mask = torch.zeros(1, side, side)
        mask[..., side * i // count : side * (i + 1) // count] = 1.0
        masks.append(mask)
    return masks
