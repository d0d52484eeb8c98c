"""After any run, error or interrupt: the MODEL is as it was, and so is everything that was wired in."""

from __future__ import annotations

import copy

import comfy.model_management
import folder_paths
import pytest
import steps
import tiny
import torch
from probes import Ending, picture_of, state_of

import nodes as host_nodes


class Scene:
    """A MODEL with another pack's wrapper and patch on it, and everything that is wired into the nodes."""

    def __init__(self, pack) -> None:
        self.pack = pack
        self.model = tiny.make_model("small")
        self.model.model_options["transformer_options"]["theirs"] = {"deep": [1, torch.ones(2)]}
        self.model.set_model_attn1_replace(self.theirs, "output", 3)
        self.latent, self.vae, self.picture = tiny.make_latent(size=8), tiny.make_vae(), torch.rand(1, 64, 80, 3)
        self.content, self.positive, self.negative = (tiny.make_prompt(i) for i in range(3))
        self.lora = steps.random_lora(pack, self.model, 0)
        self.trajectory, *_ = steps.invert(pack, self.model, self.latent, self.content)
        self.features = steps.capture(pack, self.model, self.trajectory, self.content)
        self.recomputed = steps.capture(pack, self.model, self.trajectory, self.content, storage="recompute")

    @staticmethod
    def theirs(q, k, v, extra_options):
        return v

    def inputs(self):
        wired = (self.latent, self.picture, self.content, self.positive, self.negative, self.lora)
        return picture_of((wired, list(self.trajectory.latents), [list(step) for step in self.features.store]))

    def ksampler(self) -> torch.Tensor:
        """A stock run on the same MODEL."""
        args = (self.model, 5, 2, 2.0, "euler", "normal", self.positive, self.negative, self.latent, 1.0)
        return host_nodes.KSampler().sample(*args)[0]["samples"]


def invert(s: Scene, **changes):
    return steps.invert(s.pack, s.model, s.latent, s.content, **changes)


def capture(s: Scene, **changes):
    return steps.capture(s.pack, s.model, s.trajectory, s.content, cross_attention_layers="2", **changes)


def sample(s: Scene, features=None, **changes):
    return steps.sample(s.pack, s.model, features or s.features, s.positive, s.negative, lora=s.lora, **changes)


def train(s: Scene, **changes):
    return steps.train(s.pack, s.model, s.vae, s.picture, s.positive, **changes)


RUNS = {
    "invert": invert,
    "invert, refined, reconstructed": lambda s: invert(s, refinement=1, reconstruct=True),
    "capture to memory": capture,
    "capture to disk": lambda s: capture(s, storage="disk"),
    "sample": sample,
    "sample, map blend, cfg 1": lambda s: sample(s, blend="map", cfg=1.0),
    "sample, recomputed": lambda s: sample(s, s.recomputed),
    "train": train,
    "train, checkpointed, previewed": lambda s: train(s, gradient_checkpointing=True, preview_every=1, save=False),
}
ENDINGS = [("completes", 0), ("error", 1), ("error", 2), ("interrupt", 2)]


@pytest.mark.parametrize(("how", "at"), ENDINGS, ids=[f"{how} {at or ''}".strip() for how, at in ENDINGS])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_nothing_is_left_behind(pack, monkeypatch, tmp_path, run, how, at):
    scene, ending = Scene(pack), Ending(monkeypatch)
    expected = scene.ksampler()
    state, inputs, vae = state_of(scene.model), scene.inputs(), picture_of(scene.vae.first_stage_model.state_dict())
    ending.plan(how, at)
    if how == "completes":
        run(scene)
    else:
        stop = RuntimeError if how == "error" else comfy.model_management.InterruptProcessingException
        with pytest.raises(stop):
            run(scene)
        left = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert left == [], "a broken run leaves no file"
        assert not list((tmp_path / "temp").rglob("step_*")), folder_paths.get_temp_directory()
    ending.plan("completes", 0)
    assert scene.inputs() == inputs
    assert state_of(scene.model) == state
    assert picture_of(scene.vae.first_stage_model.state_dict()) == vae
    assert torch.equal(scene.ksampler(), expected)
    assert state_of(scene.model) == state
    comfy.model_management.throw_exception_if_processing_interrupted()


RESULTS = {
    "invert": lambda s: invert(s)[0].latents,
    "capture": lambda s: list(capture(s).store),
    "sample": sample,
    "train": lambda s: train(s, save=False)[0],
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS.keys())
def test_the_same_run_after_an_interrupt_gives_what_it_always_gave(pack, monkeypatch, result):
    scene, ending = Scene(pack), Ending(monkeypatch)
    expected = picture_of(result(scene))
    ending.plan("interrupt", 2)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        result(scene)
    ending.plan("completes", 0)
    assert picture_of(result(scene)) == expected


def test_the_probe_sees_a_trace():
    """The comparison above is not blind: each kind of trace shows."""
    model = tiny.make_model("small")
    state = state_of(model)
    assert state_of(model) == state
    module = model.model.diffusion_model.output_blocks[2][1].transformer_blocks[0].attn1.to_q
    handle = module.register_forward_hook(lambda *args: None)
    assert state_of(model) != state
    handle.remove()
    module.forward = module.forward
    assert state_of(model) != state
    del module.forward
    options = copy.copy(model.model_options)
    model.model_options["transformer_options"]["patches"] = {}
    assert state_of(model) != state
    model.model_options = options
    model.model_options["transformer_options"].pop("patches")
    module.weight[0, 0] += 1e-3
    assert state_of(model) != state
