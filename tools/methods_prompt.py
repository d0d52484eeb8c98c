"""The prompts behind demo/methods.md: one content in every style, by each of four ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools import results_prompt as rp
from tools.comfy_client import Api

LORA, STYLE_ID, SHARED, INST = "LoRA, preset paper 2026", "StyleID", "shared attention, swap", "InST"
METHODS = (LORA, STYLE_ID, SHARED, INST)
FREE: Mapping[str, Mapping[str, Any]] = {
    STYLE_ID: {
        "method": "StyleID", "method.query_blend": 0.75, "method.temperature": 1.5, "method.adain_start": True
    },
    SHARED: {"method": "shared attention", "method.mode": "swap", "method.normalise": True},
}  # fmt: skip
EMBEDDING_STEPS = 100


def results_of(styles: Sequence[rp.Style] = rp.STYLES) -> Iterator[tuple[rp.Style, str, str]]:
    """(style, method, what their nodes are called)."""
    for style in styles:
        for method in METHODS:
            yield style, method, f"{style.name}, {method}"


def trained_by(style: rp.Style, method: str) -> str | None:
    """The node that trains for a method; None for those that need none."""
    return {LORA: f"lora {style.name}", INST: f"embedding {style.name}"}.get(method)


def prepared_by(style: rp.Style, method: str) -> tuple[str, ...]:
    """The nodes that look at the pictures before a method samples."""
    content = ("inversion", "capture")
    free = (*content, f"{style.name} inversion", f"{style.name} capture")
    return {LORA: content, INST: (f"{style.name}, {method} - start",)}.get(method, free)


def content_prompt(content: str, styles: Sequence[rp.Style] = rp.STYLES, given: rp.Settings | None = None) -> Api:
    """One content, inverted and captured once; each style's picture likewise; every method sampled and compared."""
    settings = given or rp.Settings()
    nodes = rp.Nodes()
    rp.add_models(nodes, settings)
    rp.add_picture(nodes, "content", content, settings)
    rp.add_inverted(nodes, settings)
    _captured(nodes, "capture", "inversion", "4", "4-11", values=False)
    for style in styles:
        rp.add_style(nodes, style, settings)
        _looked_at(nodes, style, settings)
        for method in METHODS:
            title = f"{style.name}, {method}"
            latent = _inst(nodes, style, settings) if method == INST else _injected(nodes, style, method)
            rp.add_compared(nodes, style, title, latent)
    return nodes.api


def _captured(nodes: rp.Nodes, title: str, trajectory: str, features: str, attention: str, values: bool) -> None:
    nodes.add(
        title, "DiffStyler_Capture", model=["checkpoint", 0], trajectory=[trajectory, 0], source=["empty", 0],
        storage="memory", precision="fp16", feature_layers=features, self_attention_layers=attention,
        cross_attention_layers="", feature_end_percent=1.0, attention_end_percent=1.0, lora_strength=1.0, values=values,
    )  # fmt: skip


def _looked_at(nodes: rp.Nodes, style: rp.Style, settings: rp.Settings) -> None:
    """The style picture's own latent, noise, keys and values."""
    rp.add_inverted(nodes, settings, f"{style.name} style", f"{style.name} inversion")
    _captured(nodes, f"{style.name} capture", f"{style.name} inversion", "", "6-11", values=True)


def _injected(nodes: rp.Nodes, style: rp.Style, method: str) -> str:
    title = f"{style.name}, {method}"
    inputs: dict[str, Any] = {
        "model": ["checkpoint", 0], "features": ["capture", 0], "negative": ["negative", 0], "preset": "paper 2026",
        "lora_name": "none", "lora_strength": 1.0, "outside": "content", "mask_grow": 0, "mask_feather": 0,
    }  # fmt: skip
    if method == LORA:
        inputs |= {"positive": [f"{style.name} learnt", 0], "lora": [f"lora {style.name}", 0], "cfg": 4.0}
        return nodes.add(f"{title} - latent", "DiffStyler_InjectedSampler", **inputs)
    chain = nodes.add(
        f"{title} - style", "DiffStyler_StyleFromFeatures", positive=["empty", 0],
        style_features=[f"{style.name} capture", 0], layers="6-11", start_percent=0.0, end_percent=1.0, strength=1.0,
        name="", **FREE[method],
    )  # fmt: skip
    inputs |= {"positive": ["empty", 0], "styles": [chain, 0], "cfg": 1.0}
    return nodes.add(f"{title} - latent", "DiffStyler_InjectedSampler", **inputs)


def _inst(nodes: rp.Nodes, style: rp.Style, settings: rp.Settings) -> str:
    """Plain textual inversion, the content from its stochastic inversion on, by a stock sampler."""
    title = f"{style.name}, {INST}"
    learnt = nodes.add(
        f"embedding {style.name}", "DiffStyler_TrainStyleEmbedding", model=["checkpoint", 0], clip=["checkpoint", 1],
        vae=["checkpoint", 2], style_image=[f"{style.name} style", 0], prompt="*", method="embedding",
        steps=EMBEDDING_STEPS, seed=0, resolution=settings.side, batch_size=1, gradient_checkpointing=False,
        precision="auto", preview_every=0, save=True, filename_prefix="DiffStyler/embedding",
        **{"method.learning_rate": 0.02, "method.vectors": 2, "method.initial_word": style.learnt.split()[0]},
    )  # fmt: skip
    start = nodes.add(
        f"{title} - start", "DiffStyler_StochasticInversion", model=["checkpoint", 0], latent=["inversion latent", 0],
        style=[learnt, 0], strength=0.7, steps=settings.steps, seed=0,
        style_latent=[f"{style.name} inversion latent", 0],
    )  # fmt: skip
    nodes.add(f"{title} - sampler", "KSamplerSelect", sampler_name="ddim")
    return nodes.add(
        f"{title} - latent", "SamplerCustom", model=["checkpoint", 0], add_noise=False, noise_seed=0, cfg=4.0,
        positive=[learnt, 0], negative=["empty", 0], sampler=[f"{title} - sampler", 0], sigmas=[start, 1],
        latent_image=[start, 0],
    )  # fmt: skip
