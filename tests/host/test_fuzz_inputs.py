"""Random inputs as the API lets them through: a refusal that names an input, or outputs that are finite."""

from __future__ import annotations

import math
import random

import analysis_bench as ab
import pytest
import tiny
import torch
from node_bench import EMPTY, STYLE

NUMBERS = (math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0, -1.0, 0.5, 3.0)
WHOLE = (0, -1, 1, 2, 5, 999, 10**9)
TEXTS = (
    "", " ", "a", "\ud800", "a\nb", "x" * 100_000, "../..", "\0", "1-2", "0,3", "n" * 300 + ".pt", "\ud800.pth",
)  # fmt: skip
PICTURES = (
    torch.rand(1, 64, 64, 3), torch.rand(2, 64, 64, 3), torch.rand(0, 64, 64, 3), torch.rand(1, 64, 64, 4),
    torch.rand(1, 1, 1, 3), torch.full((1, 64, 64, 3), math.nan), torch.full((1, 64, 64, 3), 1e30),
    torch.rand(64, 64, 3), torch.rand(1, 68, 70, 3),
)  # fmt: skip
MASKS = (
    None, torch.rand(1, 64, 64), torch.zeros(1, 64, 64), torch.full((1, 64, 64), math.nan), torch.rand(0, 64, 64),
    torch.rand(64, 64), torch.full((1, 8, 8), 7.0), torch.rand(1, 1, 1),
)  # fmt: skip
LATENTS = (
    tiny.make_latent(), tiny.make_latent(batch=2), {}, {"samples": torch.zeros(1, 4, 0, 0)}, {"samples": None},
    {"samples": torch.full((1, 4, 16, 16), 1e30)}, {"samples": torch.full((1, 4, 16, 16), math.nan)},
    {"samples": torch.rand(1, 4, 1, 40)}, {"samples": torch.rand(1, 4, 9, 11).half()},
)  # fmt: skip
WIDE = torch.rand(1, 77, 64)
PROMPTS = (
    EMPTY, [], None, EMPTY + STYLE, [[WIDE, {}]], [[EMPTY[0][0] * math.nan, {}]], [[EMPTY[0][0] * 1e20, {}]],
    [[EMPTY[0][0], {"start_percent": 0.5}]], [[EMPTY[0][0], {"pooled_output": None}]], [[EMPTY[0][0][:, :0], {}]],
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(pack):
    with torch.inference_mode():
        yield ab.scene(pack, 1)


def loras(scene):
    key = next(key for key in scene.lora if key.endswith("up.weight"))
    spoilt = [{**scene.lora, key: scene.lora[key] * factor} for factor in (math.nan, 1e20, 1.0)]
    return [*spoilt, {}, {k: t for k, t in scene.lora.items() if not k.endswith("down.weight")}]


def cases(pack, scene):
    """node -> (class, {input: what may come})."""
    style = pack.pipeline.style.StyleNode.execute(lora=scene.lora, positive=EMPTY, strength=1.0, mask=MASKS[1]).args[0]
    runs = {"model": [scene.model], "latent": LATENTS, "source": PROMPTS}
    looks = {
        "model": [scene.model], "trajectory": [scene.trajectory], "source": PROMPTS, "layers": TEXTS,
        "timestep": WHOLE, "lora_strength": NUMBERS, "lora": [None, *loras(scene)],
    }  # fmt: skip
    return {
        "invert": (pack.pipeline.invert.DDIMInvert, {
            **runs, "steps": (1, 3, 0, -1, 10**9), "spacing": ("leading", "x"), "refinement": (0, 1, -1),
            "reconstruct": (False, True)}),
        "report": (pack.evaluate.reconstruction.ReconstructionReport, {
            **runs, "steps": (1, 3, 0), "refinement": (0, 1, -1)}),
        "pca": (pack.evaluate.feature_pca.FeaturePCA, looks),
        "similarity": (pack.evaluate.feature_similarity.FeatureSimilarity, looks),
        "switch": (pack.pipeline.switch.LoraSwitch, {
            "lora": [{}], "strength": NUMBERS, "start_percent": NUMBERS, "end_percent": NUMBERS,
            "ramp_in_percent": NUMBERS, "ramp_out_percent": NUMBERS, "name": TEXTS}),
        "ramp": (pack.masks.ramp.SpatialRampMask, {
            "width": (0, -1, 1, 40, 10**9), "height": (0, -1, 1, 40, 10**9),
            "profile": ("linear", "logistic", "step", "x"), "sharpness": NUMBERS, "angle": NUMBERS,
            "centre_x": NUMBERS, "centre_y": NUMBERS, "image": (None, *PICTURES)}),
        "paste": (pack.masks.paste.PasteContent, {
            "result": PICTURES, "content": PICTURES, "grow": (0, 3, -3, 10**9), "feather": (0, 3, -3, 10**9),
            "styles": (None, style, ()), "mask": MASKS}),
        "preview": (pack.masks.preview.PreviewStyles, {
            "styles": (style, ()), "content": PICTURES, "mask_grow": (0, 3, -3, 10**9),
            "mask_feather": (0, 3, -3, 10**9)}),
        "compare": (pack.evaluate.compare.CompareResult, {
            "result": PICTURES, "content": PICTURES, "halves": (False, True), "lpips_weights": ("none", *TEXTS),
            "source_prompt": TEXTS, "target_prompt": TEXTS, "style": (None, *PICTURES), "mask": MASKS}),
        "consistency": (pack.evaluate.frame_consistency.FrameConsistency, {
            "frames": PICTURES, "content": PICTURES}),
        "evaluate": (pack.evaluate.evaluate_set.EvaluateSet, {
            "results_folder": TEXTS, "content_folder": TEXTS, "style_folder": TEXTS, "filename_prefix": TEXTS,
            "size": WHOLE, "lpips_weights": ("none", *TEXTS), "fid_weights": ("none", *TEXTS)}),
        "example": (pack.examples.example.ExamplePicture, {
            "picture": (*TEXTS, *pack.inputs.examples.example_names())}),
        "fastsam": (pack.masks.fastsam.FastSAMMask, {
            "image": PICTURES, "fastsam_name": TEXTS, "mode": ("text", "points", "boxes", "everything", "x"),
            "text": TEXTS, "points": TEXTS, "boxes": TEXTS, "confidence": NUMBERS, "iou": NUMBERS, "image_size": WHOLE,
            "best_n": WHOLE, "combine": ("merge", "x"), "when_none": ("error", "x"), "clip_folder": TEXTS}),
    }  # fmt: skip


def finite(value):
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return all(finite(item) for item in value.values())
    return all(finite(item) for item in value) if isinstance(value, (list, tuple)) else True


def drawn(draw, choices, valid):
    """One input's value: often the first of its choices, so that later checks are reached as well."""
    return choices[0] if draw.random() < valid else draw.choice(choices)


NODES = (
    "invert", "report", "pca", "similarity", "switch", "ramp", "paste", "preview", "compare", "consistency", "evaluate",
    "example", "fastsam",
)  # fmt: skip


@pytest.mark.parametrize("node", NODES)
def test_refused_by_name_or_finite(pack, scene, seed, node):
    draw, (kind, choices) = random.Random(f"{seed} {node}"), cases(pack, scene)[node]
    for number in range(30):
        given = {name: drawn(draw, list(values), 0.75) for name, values in choices.items()}
        try:
            out = kind.execute(**given).args
        except ValueError as error:
            words = str(error)
            named = [name for name in given if name.replace("_", " ") in words.replace("_", " ")]
            assert named, f"run {number}: {words!r:.300} names none of {list(given)}"
            assert len(words) < 2000, f"run {number}: {len(words)} letters"
        else:
            assert finite(out), f"run {number}: {given!r:.300}"
