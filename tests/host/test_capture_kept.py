"""How captured steps are kept: damage is found, what does not fit is refused early, fp16 does not overflow."""

from __future__ import annotations

import math
import shutil
from collections import namedtuple

import comfy.memory_management
import comfy.model_management
import pytest
import steps
import tiny
import torch
from comfy_execution.caching import RAMPressureCache
from node_bench import EMPTY, STEPS, STYLE, UGLY, files_below, refused
from versions import needs_host

pytest_plugins = ("guards",)

Usage = namedtuple("Usage", "total used free")
FEATURE, QK = 32 * 8 * 8, 2 * 32 * (16 * 16 + 16 * 16)
"""Numbers of one step: the feature of layer 1, q and k of layers 2 and 3, for a latent of 16 x 16."""


@pytest.fixture
def on_disk(bench, host_folders):
    """Features kept on disk, and the files of their steps."""
    features = bench.capture(storage="disk")[0]
    return features, sorted((host_folders / "temp" / "diffstyler").rglob("step_*"))


def test_a_cut_step_is_refused_before_the_run(bench, on_disk):
    features, files = on_disk
    files[3].write_bytes(files[3].read_bytes()[:-100])
    with refused(bench, "features: step 3 of the capture is damaged", "Capture again"):
        bench.sampler(features=features)


def test_swapped_steps_are_refused_when_the_run_comes_to_them(bench, on_disk):
    features, (_, second, third, _) = on_disk
    ours, theirs = second.read_bytes(), third.read_bytes()
    assert len(ours) == len(theirs)
    whole = bench.sampler(features=features)[0]["samples"]
    second.write_bytes(theirs)
    third.write_bytes(ours)
    with pytest.raises(ValueError, match=r"features: step 1 of the capture is .* not the one that was written"):
        bench.sampler(features=features)
    second.write_bytes(ours)
    third.write_bytes(theirs)
    assert torch.equal(bench.sampler(features=features)[0]["samples"], whole)


def test_two_samplers_share_a_capture_on_disk(bench, on_disk):
    features, _ = on_disk
    memory = bench.capture(storage="memory")[0]
    for changes in ({}, {"attention_mode": "fixed"}, {}):
        found, expected = (bench.sampler(features=f, **changes)[0]["samples"] for f in (features, memory))
        assert torch.equal(found, expected)


def with_free(pack, monkeypatch, storage: str, free: float) -> None:
    """What the host says is free on the disk, or in RAM when the node asks: to attention it tells the truth."""
    if storage == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))
        return
    room_in_memory = pack.host.sampling.capture.room_in_memory

    def room(wanted):
        with monkeypatch.context() as patch:
            patch.setattr(comfy.model_management, "get_free_memory", {torch.device("cpu"): free}.__getitem__)
            return room_in_memory(wanted)

    monkeypatch.setattr(pack.host.sampling.capture, "room_in_memory", room)


@pytest.mark.parametrize(
    ("storage", "spare", "remedy"), [("memory", 0.9, "Choose disk"), ("disk", 1.0, "Free some space, choose recompute")]
)
@pytest.mark.parametrize(("precision", "size"), [("fp16", 2), ("fp32", 4)])
def test_what_does_not_fit_is_refused_before_its_first_step(
    bench, pack, host_folders, monkeypatch, storage, spare, remedy, precision, size
):
    """Attention of all 4 steps and the feature of 2."""
    whole = size * (2 * FEATURE + 4 * QK)
    trajectory = bench.invert()[0]
    request = {"trajectory": trajectory, "feature_steps": 2, "storage": storage, "precision": precision}
    with monkeypatch.context() as patch:
        with_free(pack, patch, storage, math.ceil(whole / spare))
        features = bench.capture(**request)[0]
    assert features.store.nbytes == whole
    del features
    with_free(pack, monkeypatch, storage, whole / spare - 1)
    before = bench.evaluations
    gigabytes = rf"{whole / 1e9:.3g} GB, and {storage} has room for"
    with pytest.raises(ValueError, match=rf"storage: the capture needs {gigabytes}.*{remedy}"):
        bench.capture(**request)
    assert bench.evaluations == before
    assert files_below(host_folders / "temp" / "diffstyler") == []


def test_the_host_first_lets_go_of_results_that_nobody_uses(bench, pack, monkeypatch):
    """The capture that is made anew may be in its cache, in the old form."""
    trajectory = bench.invert()[0]
    asked = []
    with_free(pack, monkeypatch, "memory", 1e12)

    def release(target, free_active=False):
        asked.append((target, free_active))

    monkeypatch.setattr(comfy.memory_management, "extra_ram_release_callback", release)
    bench.capture(trajectory)
    step = 2 * (FEATURE + QK)
    assert asked == [(math.ceil(4 * step / 0.9), False)]


@needs_host("0.30.0", "a cache that says what it freed")
def test_the_hosts_cache_counts_a_capture_in_memory(bench):
    """As its RAM-pressure cache does: tensors in tuples and lists, and nothing within other objects."""
    features = bench.capture()[0]
    entry = namedtuple("Entry", "outputs")([[features]])
    freed = []
    for outputs in ([[None]], entry.outputs):
        cache = RAMPressureCache(lambda *args: None)
        cache.cache, cache.used_generation, cache.timestamps = {0: entry._replace(outputs=outputs)}, {0: -1}, {0: 0.0}
        freed.append(cache.ram_release(target=1 << 60))
    assert freed[1] - freed[0] >= features.store.nbytes == 2 * STEPS * (FEATURE + QK)


def loud(model):
    """The model with the hidden state of layer 1 beyond fp16; the normalisation that follows brings it down again."""
    with torch.no_grad():
        for parameter in model.model.diffusion_model.output_blocks[1][0].out_layers[-1].parameters():
            parameter.mul_(2.0**18)
    return model


def captured(pack, model, trajectory, **changes):
    """(features, words) of the Capture node."""
    settings = {"feature_layers": "1", "self_attention_layers": "2-3", "cross_attention_layers": "",
                "feature_steps": 3, "attention_steps": STEPS, "storage": "memory", **changes}  # fmt: skip
    out = pack.pipeline.capture.CaptureFeatures.execute(
        model=model, trajectory=trajectory, source=EMPTY, **steps.shares(trajectory.schedule.steps, settings)
    )
    return out.args[0], out.ui["text"][0]


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_values_beyond_fp16_are_kept_in_bf16_and_said(pack, seed, measured, storage):
    model = loud(tiny.make_model("small", seed=seed))
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(seed, 8), EMPTY)
    kept = {p: captured(pack, model, trajectory, precision=p, storage=storage) for p in ("fp16", "bf16", "fp32")}
    assert f"fp16; 3 of {3 + 4 * STEPS} tensors exceed fp16 and are kept in bf16" in kept["fp16"][1]
    assert all("exceed" not in kept[precision][1] for precision in ("bf16", "fp32"))
    for step in range(STEPS):
        exact = kept["fp32"][0].at(step)
        for site, tensors in kept["fp16"][0].at(step).items():
            dtype = torch.bfloat16 if site.kind == "feature" else torch.float16
            assert all(torch.equal(t, e.to(dtype)) for t, e in zip(tensors, exact[site], strict=True))
            assert {t.dtype for t in tensors} == {dtype}
    picture = {p: steps.sample(pack, model, features, STYLE, UGLY) for p, (features, _) in kept.items()}
    error = float((picture["fp16"] - picture["fp32"]).norm() / picture["fp32"].norm())
    measured("capture partly in bf16, relative error of the result", error, at_most=2e-2)


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_what_a_capture_in_half_precision_costs(pack, seed, measured, precision, bound):
    model = tiny.make_model("small", seed=seed)
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(seed, 8), EMPTY)
    exact, kept = (
        steps.sample(pack, model, captured(pack, model, trajectory, precision=p)[0], STYLE, UGLY)
        for p in ("fp32", precision)
    )
    measured(f"{precision} capture, relative error of the result", float((kept - exact).norm() / exact.norm()), bound)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_model_that_gives_nan_is_refused_by_name(pack, host_folders, value, storage, precision):
    model = tiny.make_model("small")
    trajectory, *_ = steps.invert(pack, model, tiny.make_latent(size=8), EMPTY)
    with torch.no_grad():
        model.model.diffusion_model.output_blocks[3][1].transformer_blocks[0].attn1.to_k.weight[0] = value
    with pytest.raises(ValueError, match=r"model: its UNet gave NaN or Inf at step 0, self-attention of layer 3\."):
        captured(pack, model, trajectory, precision=precision, storage=storage)
    assert files_below(host_folders / "temp" / "diffstyler") == []
