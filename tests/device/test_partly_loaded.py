"""A model that is not whole on the computing device: the same results as one that is, the host told what fits."""

from __future__ import annotations

import comfy.model_management as management
import comfy.sd
import pytest
import runs
import steps
import torch


@pytest.fixture
def fits(monkeypatch):
    """``fits(share)``: from here on the host loads that share of a model's weights, the rest it casts at every call."""
    load = management.LoadedModel.model_load

    def told(share: float) -> list[int]:
        offloaded: list[int] = []

        def model_load(self, lowvram_model_memory=0, force_patch_weights=False):
            more = share * self.model.model_size() - self.model.loaded_size()
            real = load(self, max(more, 0.1), force_patch_weights)
            offloaded.append(sum(getattr(m, "comfy_cast_weights", False) for m in real.modules()))
            return real

        monkeypatch.setattr(management.LoadedModel, "model_load", model_load)
        return offloaded

    yield told
    management.unload_all_models()


@pytest.mark.parametrize(
    ("kind", "share"), [("sd15", 0.0), ("sd15", 0.5), ("sdxl", 0.3)], ids=["sd15 lowvram", "sd15 half", "sdxl a third"]
)
def test_the_whole_path_is_that_of_a_loaded_model(pack, seed, measured, fits, kind, share):
    """With a LoRA of the MODEL in the weights, which the host then adds at every call."""
    path = runs.Path(pack, kind, seed)

    def model():
        lora = steps.random_lora(pack, runs.make_model(kind, seed), seed + 9, size=0.3)
        return comfy.sd.load_lora_for_models(runs.make_model(kind, seed), None, lora, 0.8, 0.0)[0]

    whole = path.run(model())
    offloaded = fits(share)
    partly = path.run(model())
    assert min(offloaded) > 0, "everything was loaded: the test tests nothing"
    for stage, theirs in whole.items():
        assert torch.isfinite(partly[stage]).all()
        measured(f"{stage}, relative", runs.gap(partly[stage], theirs), at_most=1e-4)
