"""A layer's rows under several LoRAs of one batch, and a LoRA's own weights of a run, against each LoRA alone."""

from __future__ import annotations

import pytest
import steps
import tiny
import torch
from test_lora_check import LINEAR, MERGED, RUNS, of

KINDS = {
    "two of one rank": (("a", 3, 1.0), ("b", 3, 1.0)),
    "one at two strengths": (("a", 3, 1.0), ("a", 3, 0.5)),
    "several of one rank, some at other strengths": (("a", 3, 1.0), ("b", 3, -0.5), ("c", 3, 0.3), ("a", 3, 1.0)),
    "two ranks, nothing between": (("a", 3, 1.0), None, ("b", 5, 0.7), ("c", 5, 1.0)),
    "nothing at both ends": (None, ("a", 3, 1.0), ("b", 3, 0.7), None),
}


class Bench:
    """The 'small' model and LoRAs by name and rank."""

    def __init__(self, pack, seed: int) -> None:
        self.pack, self.seed = pack, seed
        self.model = tiny.make_model("small", seed=seed)
        self.unet = self.model.model.diffusion_model
        self._known: dict = {}

    def lora(self, name: str, rank: int, strength: float):
        if (name, rank) not in self._known:
            state = steps.random_lora(self.pack, self.model, self.seed + ord(name), rank=rank, size=0.3)
            self._known[name, rank] = self.of(state)
        return self._known[name, rank].at(strength)

    def of(self, state, strength: float = 1.0):
        return self.pack.host.lora.adapters.ForwardLora(self.model, state, strength)

    def forwards(self):
        return self.pack.host.lora.forwards.Forwards()

    def layer(self, lora) -> torch.nn.Module:
        return self.unet.get_submodule(sorted(lora.layers)[0])


@pytest.fixture
def bench(pack, seed):
    return Bench(pack, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_every_chunk_has_its_own(bench, seed, measured, kind):
    loras = [chosen if chosen is None else bench.lora(*chosen) for chosen in KINDS[kind]]
    module = bench.layer(next(filter(None, loras)))
    x = torch.randn(2 * len(loras), 5, module.in_features, generator=torch.Generator().manual_seed(seed))
    alone = []
    for lora, rows in zip(loras, x.chunk(len(loras)), strict=True):
        with bench.forwards().on(bench.unet, [lora]):
            alone.append(module(rows))
    plain, forwards = module(x), bench.forwards()
    for _ in range(2):
        with forwards.on(bench.unet, loras):
            together = module(x)
    measured("together against alone", (together - torch.cat(alone)).abs().max().item(), at_most=1e-5)
    assert (together - plain).abs().max() > 1e-2
    untouched = [i for i, lora in enumerate(loras) if lora is None]
    for i in untouched:
        assert torch.equal(together.chunk(len(loras))[i], plain.chunk(len(loras))[i])
    assert torch.equal(module(x), plain)
    assert "forward" not in module.__dict__
    with bench.forwards().on(bench.unet, loras), pytest.raises(RuntimeError, match="cannot be shared by"):
        module(x[:1])


def test_forms_of_every_kind_in_one_batch(bench, measured):
    """Added by matrices, added by the host's adapters, and merged; in each chunk another."""
    forms = [RUNS["lora"], RUNS["loha"], MERGED["oft"], RUNS["lokr"], MERGED["dora"]]
    assert {layer for layer, _ in forms} == {LINEAR}
    loras = [bench.of(of(layer, **tensors), 0.7) for layer, tensors in forms]
    module = bench.layer(loras[0])
    x, alone = torch.randn(len(loras) + 1, 5, module.in_features), []
    for lora, rows in zip((*loras, None), x.split(1), strict=True):
        with bench.forwards().on(bench.unet, [lora]):
            alone.append(module(rows))
    with bench.forwards().on(bench.unet, [*loras, None]):
        together = module(x)
    measured("together against alone", (together - torch.cat(alone)).abs().max().item(), at_most=1e-5)
    changes = [(rows - plain).abs().max() for rows, plain in zip(alone[:-1], module(x).split(1), strict=False)]
    assert min(changes) > 1e-3


def test_strengths_that_change_at_every_call(bench, measured):
    """As a ramp of a switch has them: what was made for one strength is not used for another."""
    forwards, module = bench.forwards(), bench.layer(bench.lora("a", 3, 1.0))
    x = torch.randn(2, 5, module.in_features)
    base = module(x)
    for strength in torch.linspace(-1.0, 1.0, 21).tolist():
        loras = [bench.lora("a", 3, strength), bench.lora("b", 3, 0.5)]
        with forwards.on(bench.unet, loras):
            ramped = module(x)
        with bench.forwards().on(bench.unet, [bench.lora("a", 3, 1.0)]):
            whole = module(x[:1]) - base[:1]
        gap = (ramped[:1] - base[:1] - strength * whole).abs().max().item()
        measured("against so much of the whole", gap, at_most=1e-5)


def test_weights_of_its_own(bench, measured, monkeypatch):
    """A lasting LoRA alone: W' is made at the first call and used until the run ends; the model's weight stays."""
    lora = bench.lora("a", 3, 0.7)
    lasting, module = lora.at(0.7, lasting=True), bench.layer(lora)
    kind = bench.pack.host.lora.merged_linear.MergedLinear
    made, merge = [], kind._merge
    monkeypatch.setattr(kind, "_merge", lambda self, weight: made.append(self) or merge(self, weight))
    x, before = torch.randn(4, 5, module.in_features), module.weight.clone()
    with bench.forwards().on(bench.unet, [lora, lora], fixed=True):
        added = module(x)
    assert not made, "one that does not last"
    with bench.forwards().on(bench.unet, [lasting, bench.lora("b", 3, 1.0)], fixed=True):
        module(x)
    with bench.forwards().on(bench.unet, [lasting, lasting]):
        module(x)
    assert not made, "several LoRAs, or weights that hooks change"
    forwards, outs = bench.forwards(), []
    for _ in range(3):
        with forwards.on(bench.unet, [lasting, lasting], fixed=True):
            outs.append(module(x))
    assert len(made) == 1
    assert torch.equal(outs[1], outs[2])
    for out in outs:
        measured("merged against added", (out - added).abs().max().item(), at_most=1e-5)
    assert torch.equal(module.weight, before)
    monkeypatch.setattr(bench.pack.host.lora.merged_linear, "has_room", lambda weight: False)
    forwards = bench.forwards()
    for _ in range(2):
        with forwards.on(bench.unet, [lasting, lasting], fixed=True):
            scarce = module(x)
    measured("without room, merged against added", (scarce - added).abs().max().item(), at_most=1e-5)


def test_another_packs_forward_stays_below(bench):
    """One that stands on the layer before is called, also when it comes between two calls of a run; its output is its
    own."""
    lora = bench.lora("a", 3, 1.0).at(1.0, lasting=True)
    module, forwards = bench.layer(lora), bench.forwards()
    x = torch.randn(2, 5, module.in_features)
    theirs = torch.randn(2, 5, module.out_features)
    kept = theirs.clone()
    with forwards.on(bench.unet, [lora], fixed=True):
        change = module(x) - type(module).forward(module, x)
    module.forward = lambda x: theirs
    try:
        for _ in range(2):
            with forwards.on(bench.unet, [lora], fixed=True):
                out = module(x)
            torch.testing.assert_close(out - kept, change, rtol=1e-4, atol=1e-5)
            assert torch.equal(theirs, kept)
        assert module.forward(x) is theirs
    finally:
        del module.forward
