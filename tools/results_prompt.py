"""The prompts behind demo/results.md: one content in every style, by every variant of the injection, all compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tools.comfy_client import Api

CONTENTS = (
    "content_astronaut.jpg", "content_chelsea.jpg", "content_coffee.jpg", "content_bay.jpg", "content_houses.jpg",
)  # fmt: skip
LAYERS = (2, 5, 7)
PICTURE_SIDE = 512
"""Pixels along a side of the demo's style pictures."""


class Style(NamedTuple):
    """learnt: the prompt that its LoRA is trained and sampled with. described: the style in words, without a LoRA."""

    picture: str
    learnt: str
    described: str

    @property
    def name(self) -> str:
        return name_of(self.picture)


STYLES = (
    Style("style_oil_painting.jpg", "painting of <sss>", "oil painting"),
    Style("style_ink_drawing.jpg", "drawing of <sss>", "hatching drawing"),
    Style("style_mosaic.jpg", "mosaic of <sss>", "mosaic mosaic"),
    Style("style_watercolour.jpg", "painting of <sss>", "watercolour painting"),
)


class Variant(NamedTuple):
    """A row of the tables. settings: of the sampler. inverted: the content's own noise, else another's."""

    name: str
    settings: Mapping[str, Any]
    lora: bool = True
    inverted: bool = True


def _windows(feature_end: float, attention_end: float, mode: str = "adaptive") -> Mapping[str, Any]:
    settings = {"feature_end_percent": feature_end, "attention_end_percent": attention_end, "attention_mode": mode}
    return MappingProxyType(settings)


NOTHING, FIXED = _windows(0.0, 0.0, "fixed"), _windows(0.6, 0.5, "fixed")
RANDOM = Variant("LoRA, random noise", NOTHING, inverted=False)
NOISE = Variant("LoRA, the content's noise", NOTHING)
FEATURE = Variant("+ features, 30 steps", _windows(0.6, 0.0, "fixed"))
ATTENTION = Variant("+ attention, fixed, 25 steps", FIXED)
ADAPTIVE = Variant("+ attention, adaptive after 25", _windows(0.6, 0.5))
PARTIAL = Variant("attention, fixed, 30 of 50 steps", _windows(0.6, 0.6, "fixed"))
FULL = Variant("attention, fixed, all 50 steps", _windows(0.6, 1.0, "fixed"))
PROMPT_NOISE = Variant("prompt alone, the content's noise", NOTHING, lora=False)
PROMPT = Variant("prompt alone, all injected", _windows(0.6, 0.5), lora=False)
VARIANTS = (RANDOM, NOISE, FEATURE, ATTENTION, ADAPTIVE, PARTIAL, FULL, PROMPT_NOISE, PROMPT)


class Settings(NamedTuple):
    """steps: of sampling; the windows above are counted in 50 and go along. side: of the pictures, in pixels.

    feature, attention: the layers captured. cropped: side of the style picture's middle that is learnt.
    """

    checkpoint: str = "diffstyler-demo.safetensors"
    steps: int = 50
    train_steps: int = 160
    side: int = 256
    cfg: float = 4.0
    feature: str = "4"
    attention: str = "4-11"
    storage: str = "memory"
    learning_rate: float = 0.006
    batch: int = 2
    checkpointing: bool = False
    cropped: int = 256
    saved: bool = True


def name_of(picture: str) -> str:
    """'oil painting' of 'style_oil_painting.jpg'."""
    return picture.split("_", 1)[1].rsplit(".", 1)[0].replace("_", " ")


class Nodes:
    """A prompt being written; `add` names a node and answers with its id."""

    def __init__(self) -> None:
        self.api: Api = {}

    def add(self, title: str, class_type: str, **inputs: Any) -> str:
        self.api[title] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}
        return title


def content_prompt(
    content: str,
    styles: Sequence[Style] = STYLES,
    variants: Sequence[Variant] = VARIANTS,
    given: Settings | None = None,
) -> Api:
    """One content: it is inverted and captured once, and every variant of every style is sampled and compared."""
    settings = given or Settings()
    nodes = Nodes()
    add_models(nodes, settings)
    add_picture(nodes, "content", content, settings)
    add_inverted(nodes, settings)
    add_capture(nodes, settings)
    for style in styles:
        add_style(nodes, style, settings)
        for variant in variants:
            _result(nodes, style, variant, settings)
    return nodes.api


def similarity_prompt(styles: Sequence[Style] = STYLES, given: Settings | None = None) -> Api:
    """Table 1: each style picture and the first content, looked at by every LoRA."""
    settings = given or Settings()
    nodes = Nodes()
    add_models(nodes, settings)
    for style in styles:
        add_style(nodes, style, settings)
    for picture in seen_pictures(styles):
        seen = name_of(picture)
        add_picture(nodes, f"seen {seen}", picture, settings)
        add_inverted(nodes, settings, f"seen {seen}", f"inversion {seen}")
        for style in styles:
            title = similarity_title(picture, style)
            nodes.add(
                title, "DiffStyler_FeatureSimilarity", model=["checkpoint", 0], trajectory=[f"inversion {seen}", 0],
                source=["empty", 0], layers=",".join(map(str, LAYERS)), timestep=540, lora_strength=1.0,
                lora=[f"lora {style.name}", 0],
            )  # fmt: skip
            nodes.add(f"{title} - csv", "PreviewAny", source=[title, 1])
    return nodes.api


def seen_pictures(styles: Sequence[Style] = STYLES) -> tuple[str, ...]:
    """What the features of table 1 are of: the style pictures, then the contents."""
    return (*(style.picture for style in styles), *CONTENTS)


def similarity_title(picture: str, style: Style) -> str:
    return f"similarity of {name_of(picture)} by {style.name}"


def results_of(
    styles: Sequence[Style] = STYLES, variants: Sequence[Variant] = VARIANTS
) -> Iterator[tuple[Style, Variant, str]]:
    """The variants of a content's prompt, with what their nodes are called."""
    for style in styles:
        for variant in variants:
            yield style, variant, f"{style.name}, {variant.name}"


def add_models(nodes: Nodes, settings: Settings) -> None:
    nodes.add("checkpoint", "CheckpointLoaderSimple", ckpt_name=settings.checkpoint)
    nodes.add("empty", "CLIPTextEncode", text="", clip=["checkpoint", 1])
    negative = "ugly, blurry, black, low res, unrealistic"
    nodes.add("negative", "CLIPTextEncode", text=negative, clip=["checkpoint", 1])


def add_picture(nodes: Nodes, title: str, picture: str, settings: Settings) -> None:
    nodes.add(f"{title} file", "DiffStyler_ExamplePicture", picture=picture)
    nodes.add(
        title, "ImageScale", image=[f"{title} file", 0], upscale_method="lanczos", width=settings.side,
        height=settings.side, crop="center",
    )  # fmt: skip


def add_inverted(nodes: Nodes, settings: Settings, picture: str = "content", title: str = "inversion") -> None:
    nodes.add(f"{title} latent", "VAEEncode", pixels=[picture, 0], vae=["checkpoint", 2])
    nodes.add(
        title, "DiffStyler_DDIMInvert", model=["checkpoint", 0], latent=[f"{title} latent", 0], source=["empty", 0],
        steps=settings.steps, spacing="leading", refinement=0, reconstruct=False,
    )  # fmt: skip


def add_capture(nodes: Nodes, settings: Settings, title: str = "capture", **changes: Any) -> None:
    """All steps of the inversion at the settings' layers; changes: of the node's inputs."""
    layers = {"feature_layers": settings.feature, "self_attention_layers": settings.attention}
    inputs: dict[str, Any] = {
        "model": ["checkpoint", 0], "trajectory": ["inversion", 0], "source": ["empty", 0],
        "storage": settings.storage, "precision": "fp16", **layers, "cross_attention_layers": "",
        "feature_end_percent": 1.0, "attention_end_percent": 1.0,
    }  # fmt: skip
    nodes.add(title, "DiffStyler_Capture", **inputs | changes)


def add_style(nodes: Nodes, style: Style, settings: Settings) -> None:
    """The style picture's middle, as in the workflows, and its LoRA."""
    whole = nodes.add(f"{style.name} file", "DiffStyler_ExamplePicture", picture=style.picture)
    edge, size = (PICTURE_SIDE - settings.cropped) // 2, settings.cropped
    region = {"x": edge, "y": edge, "width": size, "height": size}
    middle = nodes.add(f"{style.name} style", "ImageCropV2", image=[whole, 0], crop_region=region)
    for kind, text in (("learnt", style.learnt), ("described", style.described)):
        nodes.add(f"{style.name} {kind}", "CLIPTextEncode", text=text, clip=["checkpoint", 1])
    nodes.add(
        f"lora {style.name}", "DiffStyler_TrainStyleLoRA", model=["checkpoint", 0], vae=["checkpoint", 2],
        style_image=[middle, 0], prompt=[f"{style.name} learnt", 0], rank=16, alpha=16.0, steps=settings.train_steps,
        learning_rate=settings.learning_rate, weight_decay=0.01, seed=0, resolution=settings.side, targets="q, k, v",
        batch_size=settings.batch, gradient_checkpointing=settings.checkpointing, precision="auto", preview_every=0,
        save=settings.saved, filename_prefix="DiffStyler/style",
    )  # fmt: skip


def _result(nodes: Nodes, style: Style, variant: Variant, settings: Settings) -> None:
    title = f"{style.name}, {variant.name}"
    windows = {f"preset.{name}": value for name, value in variant.settings.items()}
    inputs: dict[str, Any] = {
        "model": ["checkpoint", 0], "features": ["capture", 0], "negative": ["negative", 0], "cfg": settings.cfg,
        "positive": [f"{style.name} {'learnt' if variant.lora else 'described'}", 0],
        "lora_name": "none", "lora_strength": 1.0, "outside": "content", "mask_grow": 0, "mask_feather": 0,
        "preset": "custom", "preset.blend": "qk", **windows,
    }  # fmt: skip
    if variant.lora:
        inputs["lora"] = [f"lora {style.name}", 0]
    if variant.inverted:
        latent = nodes.add(f"{title} - latent", "DiffStyler_InjectedSampler", **inputs)
    else:
        latent = _random(nodes, title, inputs, settings)
    add_compared(nodes, style, title, latent)


def add_compared(nodes: Nodes, style: Style, title: str, latent: str) -> None:
    """The result's picture, and its figures as text."""
    nodes.add(f"{title} - picture", "VAEDecode", samples=[latent, 0], vae=["checkpoint", 2])
    nodes.add(f"{title} - saved", "PreviewImage", images=[f"{title} - picture", 0])
    nodes.add(
        f"{title} - compared", "DiffStyler_CompareResult", result=[f"{title} - picture", 0], content=["content", 0],
        style=[f"{style.name} style", 0], halves=False, lpips_weights="none", source_prompt="", target_prompt="",
    )  # fmt: skip
    nodes.add(f"{title} - csv", "PreviewAny", source=[f"{title} - compared", 2])


def _random(nodes: Nodes, title: str, inputs: dict[str, Any], settings: Settings) -> str:
    """The same prediction and noise levels from the seed's noise: nothing of the content comes in."""
    guider = nodes.add(f"{title} - guider", "DiffStyler_InjectedGuider", **copy.deepcopy(inputs))
    nodes.add(f"{title} - noise", "RandomNoise", noise_seed=0)
    nodes.add(f"{title} - sampler", "KSamplerSelect", sampler_name="euler")
    nodes.add(f"{title} - size", "EmptyLatentImage", width=settings.side, height=settings.side, batch_size=1)
    return nodes.add(
        f"{title} - latent", "SamplerCustomAdvanced", noise=[f"{title} - noise", 0], guider=[guider, 0],
        sampler=[f"{title} - sampler", 0], sigmas=[guider, 1], latent_image=[f"{title} - size", 0],
    )  # fmt: skip
