"""The prompts behind demo/dual-style.md: one content in the document's two style pairs by its four methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tools.comfy_client import Api
from tools.results_prompt import Nodes

CONTENTS = {
    "content_astronaut.jpg": "a face", "content_chelsea.jpg": "a cat", "content_coffee.jpg": "a cup of coffee",
    "content_bay.jpg": "the sea", "content_houses.jpg": "houses",
}  # fmt: skip
"""What [prompt] stands for."""

STYLES = {
    "Minecraft": "A Minecraft-inspired rendering of [prompt], featuring distinct pixelated textures, blocky 3D cube "
    "structures, limited color palette with no gradients, sharp right angles and perfect squares, characteristic "
    "voxel-based terrain with visible block edges.",
    "Van Gogh": "A Van Gogh-style painting of [prompt], with bold, swirling brushstrokes, rich textures, and vibrant, "
    "expressive colors reminiscent of Starry Night",
    "Mosaic": "A highly detailed mosaic of [prompt], made of small, colorful tiles with visible grout lines, creating "
    "a textured and handcrafted appearance",
    "Andy Warhol Pop": "A vibrant Andy Warhol-style pop art image of [prompt], featuring bold, contrasting colors, "
    "high saturation, thick outlines, and a repeated or silkscreen-like print effect.",
}
PAIRS = (("Minecraft", "Van Gogh"), ("Mosaic", "Andy Warhol Pop"))
"""(left, right)."""
PROFILES = {"linear": 1.0, "logistic": 20.0}
"""With their sharpness."""
CROSS, EPSILON, PIXEL, ONE = "Cross Attn", "Epsilon", "Pixel", "2 prompts"
METHODS = (CROSS, EPSILON, PIXEL)
"""Of each profile; ONE, one prompt that names the arrangement, has none."""


class Settings(NamedTuple):
    """The document's, but for cfg (20 there). steps: whole run, a tenth of which is skipped; side: in pixels."""

    checkpoint: str = "diffstyler-demo.safetensors"
    steps: int = 100
    eta: float = 0.1
    cfg: float = 20.0
    side: int = 256


class Result(NamedTuple):
    """One picture of a content's prompt. profile: '' for one prompt."""

    pair: tuple[str, str]
    profile: str
    method: str

    @property
    def title(self) -> str:
        return " ".join(filter(None, (*self.pair, self.profile, self.method)))


def results() -> Iterator[Result]:
    """Every picture of a content, the saved ones' titles."""
    for pair in PAIRS:
        yield from (Result(pair, profile, method) for profile in PROFILES for method in METHODS)
        yield Result(pair, "", ONE)


def words(style: str, content: str) -> str:
    """A style's prompt for a content."""
    return STYLES[style].replace("[prompt]", CONTENTS[content])


def source(content: str) -> str:
    """What the content is, in words: the prompt that it is encoded with."""
    return f"a photo of {CONTENTS[content]}"


def arranged(pair: tuple[str, str], content: str) -> str:
    """One prompt that names where each style goes."""
    left, right = (words(style, content).rstrip(".") for style in pair)
    return f"On the left: {left}. On the right: {right}."


def content_prompt(content: str, settings: Settings) -> Api:
    """A content: encoded once, and sampled by every method in every pair and profile."""
    nodes = Nodes()
    nodes.add("checkpoint", "CheckpointLoaderSimple", ckpt_name=settings.checkpoint)
    _text(nodes, "empty", "")
    _text(nodes, "source", source(content))
    side = {"width": settings.side, "height": settings.side}
    picture = nodes.add("content file", "DiffStyler_ExamplePicture", picture=content)
    nodes.add("content", "ImageScale", image=[picture, 0], upscale_method="lanczos", crop="center", **side)
    nodes.add("content - saved", "PreviewImage", images=["content", 0])
    nodes.add("latent", "VAEEncode", pixels=["content", 0], vae=["checkpoint", 2])
    nodes.add(
        "encoded", "DiffStyler_CycleDiffusionInvert", model=["checkpoint", 0], latent=["latent", 0],
        source=["source", 0], steps=settings.steps, skip=settings.steps // 10, eta=settings.eta, formula="DDIM",
        cfg=1.0, seed=0, reconstruct=False,
    )  # fmt: skip
    for profile, sharpness in PROFILES.items():
        ramp: dict[str, Any] = {"profile": profile, "sharpness": sharpness, "angle": 0.0, **side}
        nodes.add(profile, "DiffStyler_SpatialRamp", centre_x=0.5, centre_y=0.5, **ramp)
    for pair in PAIRS:
        _pair(nodes, pair, content, settings)
    return nodes.api


def _pair(nodes: Nodes, pair: tuple[str, str], content: str, settings: Settings) -> None:
    for style in pair:
        _text(nodes, style, words(style, content))
        _picture(nodes, f"{style} alone", settings, style)
    together = " ".join(pair)
    _text(nodes, f"{together} arranged", arranged(pair, content))
    _save(nodes, Result(pair, "", ONE), _picture(nodes, f"{together} one", settings, f"{together} arranged"))
    for profile in PROFILES:
        styles = _styles(nodes, pair, profile)
        model = nodes.add(
            f"{together} {profile} model", "DiffStyler_BlendConditionings", model=["checkpoint", 0], styles=[styles, 0],
            mask_grow=0, mask_feather=0,
        )  # fmt: skip
        cross = _picture(nodes, f"{together} {profile} cross", settings, "source", model=[model, 0])
        epsilon = _picture(nodes, f"{together} {profile} epsilon", settings, "source", styles=[styles, 0])
        pixel = nodes.add(
            f"{together} {profile} pixel", "ImageCompositeMasked", destination=[f"{pair[0]} alone", 0],
            source=[f"{pair[1]} alone", 0], x=0, y=0, resize_source=False, mask=[profile, 0],
        )  # fmt: skip
        for method, picture in ((CROSS, cross), (EPSILON, epsilon), (PIXEL, pixel)):
            _save(nodes, Result(pair, profile, method), picture)


def _styles(nodes: Nodes, pair: tuple[str, str], profile: str) -> str:
    """The chain of the pair's prompts: the left one where the ramp is low."""
    left, right = pair
    first = nodes.add(
        f"{left} {profile}", "DiffStyler_RegionalStyle", positive=[left, 0], strength=1.0, mask=[profile, 1], name=left
    )
    return nodes.add(
        f"{right} {profile}", "DiffStyler_RegionalStyle", positive=[right, 0], strength=1.0, mask=[profile, 0],
        name=right, previous=[first, 0],
    )  # fmt: skip


def _text(nodes: Nodes, title: str, text: str) -> None:
    nodes.add(title, "CLIPTextEncode", text=text, clip=["checkpoint", 1])


def _picture(nodes: Nodes, title: str, settings: Settings, positive: str, **wires: Any) -> str:
    """Decoded from the content's own noises with a prompt."""
    inputs: dict[str, Any] = {
        "model": ["checkpoint", 0], "features": ["encoded", 0], "positive": [positive, 0], "negative": ["empty", 0],
        "cfg": settings.cfg, "lora_name": "none", "lora_strength": 1.0, "preset": "paper 2026", "outside": "content",
        "mask_grow": 0, "mask_feather": 0, **wires,
    }  # fmt: skip
    latent = nodes.add(f"{title} latent", "DiffStyler_InjectedSampler", **inputs)
    return nodes.add(title, "VAEDecode", samples=[latent, 0], vae=["checkpoint", 2])


def _save(nodes: Nodes, result: Result, picture: str) -> None:
    nodes.add(result.title, "PreviewImage", images=[picture, 0])
