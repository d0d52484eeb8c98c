"""Training: the same request gives the same LoRA and is not trained twice; pictures, posteriors, patched models."""

from __future__ import annotations

import comfy.model_sampling
import comfy.sd
import pytest
import steps
import tiny
import torch
from probes import Ending

from tools.bench.measure import Counts


def picture(seed: int, height: int = 64, width: int = 64, count: int = 1) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def same(a: dict, b: dict, tolerance: float = 0.0) -> bool:
    assert a.keys() == b.keys()
    return all((a[key] - b[key]).abs().max().item() <= tolerance for key in a)


class Request:
    """Everything that a training is made of, with one part exchanged."""

    def __init__(self, pack, **changes) -> None:
        self.pack = pack
        parts = {"model": tiny.make_model("small"), "vae": tiny.make_vae(), "picture": picture(1)}
        parts |= {"prompt": tiny.make_prompt(1), "settings": {}, **changes}
        self.parts = parts

    def train(self):
        p = self.parts
        return steps.train(self.pack, p["model"], p["vae"], p["picture"], p["prompt"], **p["settings"])


def with_lora(pack, strength: float = 1.0, alpha: float | None = None):
    """A MODEL that carries a stock LoRA patch."""
    model = tiny.make_model("small")
    lora = steps.random_lora(pack, model, 3, size=0.1)
    if alpha is not None:
        lora = {k: torch.tensor(alpha) if k.endswith(".alpha") else v for k, v in lora.items()}
    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0.0)[0]


def as_velocity():
    """The same weights, sampled as a v-prediction model by the stock ModelSamplingDiscrete."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(tiny.make_model("small"), "v_prediction", False)[0]


def with_zsnr():
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(tiny.make_model("small"), "eps", True)[0]


OTHERS = {
    "prompt": lambda pack: {"prompt": tiny.make_prompt(2)},
    "longer prompt": lambda pack: {"prompt": tiny.make_prompt(1, tokens=154)},
    "picture": lambda pack: {"picture": picture(2)},
    "one more picture": lambda pack: {"picture": torch.cat([picture(1), picture(2)])},
    "vae": lambda pack: {"vae": tiny.make_vae(9)},
    "weights": lambda pack: {"model": tiny.make_model("small", seed=9)},
    "model patch": lambda pack: {"model": with_lora(pack)},
    "prediction": lambda pack: {"model": as_velocity()},
    "noise schedule": lambda pack: {"model": with_zsnr()},
    "seed": lambda pack: {"settings": {"seed": 1}},
    "steps": lambda pack: {"settings": {"steps": 3}},
    "rank": lambda pack: {"settings": {"rank": 3}},
    "alpha": lambda pack: {"settings": {"alpha": 1.0}},
    "learning rate": lambda pack: {"settings": {"learning_rate": 2e-2}},
    "weight decay": lambda pack: {"settings": {"weight_decay": 0.5}},
    "resolution": lambda pack: {"settings": {"resolution": 128}},
    "targets": lambda pack: {"settings": {"targets": "q, k, v, out"}},
    "batch": lambda pack: {"settings": {"batch_size": 2}},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_request_is_trained_once_and_another_one_anew(pack, monkeypatch, other):
    ending = Ending(monkeypatch)
    first, losses, name = Request(pack).train()
    assert len(ending.rows) == 2
    again, losses_again, name_again = Request(pack).train()  # fresh objects: nothing but the file is shared
    assert len(ending.rows) == 2, "an unchanged request is loaded"
    assert same(first, again)
    assert name == name_again
    assert losses_again["loss"] == pytest.approx(losses["loss"], abs=1e-6)
    changed, _, changed_name = Request(pack, **OTHERS[other](pack)).train()
    assert len(ending.rows) > 2, "another request is trained"
    assert changed_name != name
    sizes = {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in changed.items()}
    assert not sizes or not same(first, changed)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"strength": 1.0}, {"strength": 0.5}),
        ({"alpha": 3.0}, {"alpha": 1.0}),  # the same matrices, another scale
    ],
)
def test_patches_that_differ_in_one_number_are_other_models(pack, one, two):
    models = [with_lora(pack, **settings) for settings in (one, two)]
    names = [Request(pack, model=model).train()[2] for model in models]
    assert names[0] != names[1]
    assert Request(pack, model=with_lora(pack, **one)).train()[2] == names[0]


@pytest.mark.parametrize("changes", [{"save": False}, {"filename_prefix": "elsewhere/x"}])
def test_the_same_seed_gives_the_same_lora_bit_for_bit(pack, changes):
    first, *_ = Request(pack).train()
    second, *_ = Request(pack, settings=changes).train()
    assert same(first, second)


def test_gradient_checkpointing_gives_the_same_lora(pack, seed, measured):
    model = tiny.make_model("sd21", seed=seed)
    loras = [
        Request(pack, model=model, settings={"gradient_checkpointing": on, "save": False, "steps": 3}).train()[0]
        for on in (False, True)
    ]
    worst = max((loras[0][k] - loras[1][k]).abs().max().item() for k in loras[0])
    measured("LoRA with against without gradient checkpointing", worst, at_most=1e-5)
    assert max(v.abs().max().item() for k, v in loras[0].items() if k.endswith("lora_up.weight")) > 1e-3


def test_training_on_a_patched_model_is_training_on_the_merged_one(pack, measured):
    patched = with_lora(pack, 0.8)
    merged = tiny.make_model("small")
    weights = {}
    for key, (weight, *patches) in patched.get_key_patches("diffusion_model.").items():
        value = weight[0].clone()
        for strength, adapter, *_ in patches:
            up, down, alpha = adapter.weights[:3]
            value += strength * alpha / down.shape[0] * (up @ down)
        weights[key] = value
    merged.model.load_state_dict(weights, strict=False)
    loras = [Request(pack, model=m, settings={"save": False}).train()[0] for m in (patched, merged)]
    worst = max((loras[0][k] - loras[1][k]).abs().max().item() for k in loras[0])
    plain = Request(pack, settings={"save": False}).train()[0]
    assert not same(plain, loras[0], 1e-4)
    measured("LoRA of a patched model against a merged one", worst, at_most=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "count", "resolution"),
    [(64, 64, 1, 64), (64, 96, 1, 64), (300, 100, 1, 64), (80, 64, 3, 64), (2000, 3000, 1, 128), (64, 64, 1, 96)],
)
def test_pictures_are_resized_before_they_are_encoded(pack, monkeypatch, height, width, count, resolution):
    seen, vae = [], tiny.make_vae()
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pixels: (seen.append(tuple(pixels.shape)), encode(pixels))[1])
    pictures = picture(1, height, width, count)
    lora, *_ = Request(pack, vae=vae, picture=pictures, settings={"resolution": resolution, "save": False}).train()
    assert seen == [(count, resolution, resolution, 3)]
    assert all(torch.isfinite(v).all() for v in lora.values())


def test_every_picture_of_a_batch_is_used(pack):
    pictures = picture(1, 64, 64, 3)
    with torch.inference_mode(False):
        draw, shape, _ = pack.host.training.latents.latent_source(tiny.make_vae(), tiny.make_model("small"), pictures)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.cat([draw(1, generator) for _ in range(40)])
    assert shape == (4, 8, 8)
    assert len(torch.unique(drawn, dim=0)) == 3


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 384), (256, 128)])
def test_shrinking_keeps_means_and_crops_the_centre(pack, height, width):
    """A quarter of the size by area: every pixel is the mean of the block it stands for."""
    pixels = picture(4, height, width)
    side = min(height, width)
    resolution = side // 2
    made = pack.host.training.latents.prepare_pictures(pixels, resolution)
    top, left = (height - side) // 2, (width - side) // 2
    centre = pixels[:, top : top + side, left : left + side]
    means = centre.unflatten(1, (resolution, 2)).unflatten(3, (resolution, 2)).mean(dim=(2, 4))
    assert made.shape == (1, resolution, resolution, 3)
    assert (made - means).abs().max() < 1e-5


@pytest.mark.parametrize("posterior", [True, False])
def test_a_posterior_gives_a_fresh_latent_each_time(pack, posterior):
    vae = tiny.make_posterior_vae() if posterior else tiny.make_vae()
    if posterior:  # deviations far from 1, where its square or its logarithm could pass for it
        vae.first_stage_model.quant_conv.bias[4:] = torch.tensor([-4.0, -2.0, 2.0, 3.0])
    model, pictures = tiny.make_model("small"), picture(1)
    with torch.inference_mode(False):
        draw, *_ = pack.host.training.latents.latent_source(vae, model, pictures)
        drawn = draw(64, torch.Generator().manual_seed(0)) / model.model.process_latent_in(torch.ones(1))
    if not posterior:
        assert torch.equal(drawn, drawn[:1].expand_as(drawn))
        return
    seen = []
    hook = vae.first_stage_model.regularization.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    vae.encode(pictures)
    hook.remove()
    mean, log_variance = seen[0].float().cpu().chunk(2, dim=1)
    assert log_variance.abs().mean() > 1.0
    standard = (drawn - mean) / (0.5 * log_variance).exp()
    for channel in standard.unbind(1):
        assert channel.mean() == pytest.approx(0.0, abs=0.08)
        assert channel.std() == pytest.approx(1.0, abs=0.08)
    assert len(torch.unique(drawn, dim=0)) == 64


def test_a_posterior_vae_trains_and_repeats(pack):
    loras = [Request(pack, vae=tiny.make_posterior_vae(), settings={"save": False}).train()[0] for _ in range(2)]
    assert same(*loras)


def test_training_teaches_the_picture(pack, seed, measured):
    """The loss at fixed noise and timesteps is lower with the LoRA than without."""
    model, vae, prompt = tiny.make_model("small", seed=seed), tiny.make_vae(), tiny.make_prompt(seed)
    settings = {"rank": 8, "alpha": 8.0, "steps": 60, "batch_size": 4, "save": False, "learning_rate": 1e-2}
    lora, losses, _ = steps.train(pack, model, vae, picture(seed), prompt, **settings)
    assert len(losses["loss"]) == 60
    abar = torch.tensor(pack.host.model.abar_of(model))
    latents = model.model.process_latent_in(vae.encode(picture(seed))).expand(16, -1, -1, -1)
    unet, forward = model.model.diffusion_model, pack.host.lora.adapters.ForwardLora(model, lora, 1.0)

    def loss() -> float:
        generator = torch.Generator().manual_seed(0)
        context = prompt[0][0].expand(16, -1, -1)
        rows = pack.core.training.train.diffusion_loss(
            lambda z, t: unet(z, t.float(), context=context), latents, abar, "eps", generator
        )
        return rows.mean().item()

    before = loss()
    with pack.host.lora.forwards.Forwards().on(unet, [forward]):
        after = loss()
    measured("loss with the LoRA over loss without", after / before, at_most=0.97)


def test_attention_keeps_no_maps_for_the_backward_pass(pack):
    """PyTorch's own, whatever the host's is: its backward pass makes them anew."""
    with Counts() as counts:
        Request(pack, settings={"save": False}).train()
    attentions = {name.removeprefix("aten."): count for name, count in counts.calls.items() if "attention" in name}
    assert sum(attentions.values()) == 2 * 2 * 2 * 4  # two steps there and back, two attentions in four transformers
    assert "aten._softmax" not in counts.calls
