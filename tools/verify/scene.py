"""The prompts of `dev.py verify`: one content, its inversion, capture and style LoRA, and runs over them."""

from __future__ import annotations

from typing import Any

from tools import results_prompt as rp
from tools.results_prompt import Nodes, Settings

CONTENT, STYLE = "content_astronaut.jpg", rp.STYLES[0]
LORA = f"lora {STYLE.name}"
SHORT = 4
"""Steps of the inversion that captures of several kinds are compared on."""
NOTHING = {"feature_end_percent": 0.0, "attention_end_percent": 0.0, "attention_mode": "fixed"}
PAPER = dict(rp.ADAPTIVE.settings)
Link = list[Any]


class Scene(Nodes):
    """A prompt that has the checkpoint, one content and one style in it; what no finding needs is not run.

    Every prompt holds all of it, so that the server keeps what one has made for the next.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        rp.add_models(self, settings)
        rp.add_picture(self, "content", CONTENT, settings)
        rp.add_inverted(self, settings)
        rp.add_capture(self, settings)
        rp.add_style(self, STYLE, settings)
        rp.add_inverted(self, settings._replace(steps=SHORT), title="short")
        self.add("levels", "DiffStyler_InjectedGuider", **self.injected(["inversion", 0]))
        self.add("no noise", "DisableNoise")
        self.add("euler", "KSamplerSelect", sampler_name="euler")
        self.add("plain start", "DiffStylerVerify_Again", value=["inversion", 1], number=0)

    @property
    def positive(self) -> Link:
        """The style's prompt, as it was learnt."""
        return [f"{STYLE.name} learnt", 0]

    def injected(self, features: Link, windows: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Inputs of the pack's sampler and guider; windows: of the injection, none unless told."""
        preset = {f"preset.{name}": value for name, value in (windows or NOTHING).items()}
        inputs = {
            "model": ["checkpoint", 0], "features": features, "positive": self.positive, "negative": ["negative", 0],
            "cfg": self.settings.cfg, "lora_name": "none", "lora_strength": 1.0, "outside": "content",
            "mask_grow": 0, "mask_feather": 0, "preset": "custom", "preset.blend": "qk", **preset,
        }  # fmt: skip
        return inputs | changes

    def ours(self, title: str, features: Link, windows: dict[str, Any] | None = None, **changes: Any) -> Link:
        """The pack's sampler. -> its latent"""
        return [self.add(title, "DiffStyler_InjectedSampler", **self.injected(features, windows, **changes)), 0]

    def host(self, title: str, model: Link | None = None, start: Link | None = None, cfg: float | None = None) -> Link:
        """The host's own euler over the trajectory's levels, from the content's noise. -> its latent"""
        self.add(
            f"{title} - guider", "CFGGuider", model=model or ["checkpoint", 0], positive=self.positive,
            negative=["negative", 0], cfg=self.settings.cfg if cfg is None else cfg,
        )  # fmt: skip
        return self.sampled(title, [f"{title} - guider", 0], start)

    def sampled(self, title: str, guider: Link, start: Link | None = None) -> Link:
        """The host's SamplerCustomAdvanced with a guider. -> its latent"""
        self.add(
            title, "SamplerCustomAdvanced", noise=["no noise", 0], guider=guider, sampler=["euler", 0],
            sigmas=["levels", 1], latent_image=start or ["plain start", 0],
        )  # fmt: skip
        return [title, 0]

    def again(self, value: Link, number: int) -> Link:
        """The same value; what lies behind it runs anew for another number."""
        name = f"{value[0]} {value[1]} again {number}"
        return [self.add(name, "DiffStylerVerify_Again", value=value, number=number), 0]

    def applied(self, features: Link, windows: dict[str, Any]) -> Link:
        """The MODEL of Apply Injection."""
        preset = {f"preset.{name}": value for name, value in windows.items()}
        self.add(
            "applied", "DiffStyler_ApplyInjection", model=["checkpoint", 0], features=features, between="interpolated",
            preset="custom", **{"preset.blend": "qk", **preset},
        )  # fmt: skip
        return ["applied", 0]

    def with_lora(self) -> Link:
        """The MODEL that the host's own node gives the trained LoRA to."""
        self.add(
            "host's lora", "LoraModelLoader", model=["checkpoint", 0], lora=[LORA, 0], strength_model=1.0, bypass=False
        )
        return ["host's lora", 0]

    def compare(self, a: Link, b: Link, part: str = "whole", title: str = "gap") -> None:
        """A finding: how far two latents lie apart."""
        self.add(title, "DiffStylerVerify_Compare", a=a, b=b, part=part)

    def decibels(self, a: Link, b: Link, title: str = "psnr") -> None:
        """A finding: PSNR of two latents, decoded."""
        for name, latent in (("a", a), ("b", b)):
            self.add(f"{title} {name}", "VAEDecode", samples=latent, vae=["checkpoint", 2])
        self.add(title, "DiffStylerVerify_Decibels", a=[f"{title} a", 0], b=[f"{title} b", 0])
