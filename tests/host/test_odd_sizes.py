"""Pictures of any multiple of 8 pixels from 64 on: latents with odd sides and narrow ones, through every node."""

from __future__ import annotations

from typing import Any

import analysis_bench as ab
import apply_bench
import evaluation_bench as eb
import pytest
import regions_bench as rb
import steps
import tiny
import torch

PICTURES = [(72, 136), (64, 200)]
"""Heights and widths: latents of 9 x 17 and 8 x 25, the smallest side that there is."""
AUTO = {f"{kind}_layers": "auto" for kind in ("feature", "self_attention", "cross_attention")}
STYLE_ID = {"method": "StyleID", "query_blend": 0.75, "temperature": 1.5, "adain_start": True}
SHARED = {"method": "shared attention", "mode": "extend", "normalise": True}


class Scene:
    """A model, a picture and its path, prompts and LoRAs."""

    def __init__(self, pack: Any, seed: int, size: tuple[int, int], kind: str = "small") -> None:
        self.pack, self.seed, self.size = pack, seed, size
        xl = kind == "sdxl"
        self.model, self.vae = tiny.make_model(kind, seed=seed), tiny.make_vae(seed)
        self.picture = rb.pictures(seed, *size)
        self.latent = {"samples": self.vae.encode(self.picture)}
        self.prompts = [tiny.make_prompt(seed + i, sdxl=xl) for i in range(3)]
        self.empty, self.positive, self.negative = self.prompts
        self.source = self.empty
        self.trajectory, self.x_T, self.back = steps.invert(
            pack, self.model, self.latent, self.empty, reconstruct=True, refinement=1
        )
        self.features = self.capture()
        self.lora = steps.random_lora(pack, self.model, seed, size=0.3)

    def capture(self, **changes: Any) -> Any:
        return steps.capture(self.pack, self.model, self.trajectory, self.empty, **{**AUTO, **changes})

    def sample(self, **changes: Any) -> torch.Tensor:
        return steps.sample(self.pack, self.model, self.features, self.positive, self.negative, **changes)

    def masks(self) -> list[torch.Tensor]:
        """Of three sizes, none the picture's: soft, hard on the left, and a corner."""
        soft = torch.rand(1, 37, 53, generator=torch.Generator().manual_seed(self.seed))
        left, corner = torch.zeros(1, 64, 64), torch.zeros(1, *self.size)
        left[..., :29] = 1.0
        corner[:, : self.size[0] // 2 + 3, : self.size[1] // 3 + 2] = 0.6
        return [soft, left, corner]

    def styles(self) -> tuple:
        return steps.chain(
            self.pack, *({"lora": self.lora, "positive": self.positive, "mask": mask} for mask in self.masks())
        )

    def check(self, samples: torch.Tensor) -> torch.Tensor:
        """A finite latent of the content's size, whose picture has the content's as well."""
        assert samples.shape == self.latent["samples"].shape
        assert torch.isfinite(samples).all()
        assert self.vae.decode(samples).shape == self.picture.shape
        return samples


@pytest.fixture(params=PICTURES, ids=[f"{height}x{width}" for height, width in PICTURES])
def scene(pack, seed, request):
    return Scene(pack, seed, request.param)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("sd15", (88, 72)), ("sd21", (72, 136)), ("sdxl", (104, 88))],
    ids=["sd15 88x72", "sd21 72x136", "sdxl 104x88"],
)
def test_every_family(pack, seed, kind, size):
    scene = Scene(pack, seed, size, kind)
    scene.check(scene.sample(styles=scene.styles(), outside="content"))
    lora = steps.train(pack, scene.model, scene.vae, scene.picture, scene.positive, save=False)[0]
    assert all(torch.isfinite(weight).all() for weight in lora.values())


@pytest.mark.parametrize("size", [(8, 8), (56, 200), (64, 40)])
def test_smaller_pictures_are_refused_by_their_size(pack, seed, size):
    latent = {"samples": torch.randn(1, 4, size[0] // 8, size[1] // 8)}
    said = rf"a picture of at least 64 pixels on each side is needed, .* \(a picture of {size[1]} x {size[0]}\)"
    with pytest.raises(ValueError, match=said):
        steps.invert(pack, tiny.make_model("small", seed=seed), latent, tiny.make_prompt(seed))


def test_inversion_and_capture(scene):
    scene.check(scene.x_T["samples"])
    scene.check(scene.back["samples"])
    for storage in ("disk", "recompute"):
        features = scene.capture(storage=storage)
        ours = steps.sample(scene.pack, scene.model, features, scene.positive, scene.negative)
        torch.testing.assert_close(ours, scene.sample(), rtol=1e-4, atol=1e-3)


def test_what_a_capture_takes_is_said_exactly(scene):
    run = scene.pack.host.sampling.capture
    asked = (scene.model, scene.features.request, scene.trajectory.content, scene.empty, torch.float32)
    assert run.bytes_needed(*asked) == scene.features.store.nbytes


def test_one_style_and_regions(scene):
    one = scene.check(scene.sample(lora=scene.lora))
    assert not torch.equal(one, scene.sample())
    for outside in ("content", "regenerate"):
        chosen = {"styles": scene.styles(), "outside": outside, "mask_grow": 5, "mask_feather": 9}
        scene.check(scene.sample(**chosen))


def test_a_mask_of_ones_is_no_mask_at_any_size(scene):
    whole = steps.chain(scene.pack, {"lora": scene.lora, "positive": scene.positive, "mask": torch.ones(1, 30, 50)})
    assert torch.equal(scene.sample(styles=whole), scene.sample(lora=scene.lora))


def test_a_switch_in_a_mask(scene):
    first = rb.switch(scene.pack, scene.lora, end_percent=0.5)[0][0]
    turns = {"start_percent": 0.5, "end_percent": 1.0, "previous": first}
    both = rb.switch(scene.pack, steps.random_lora(scene.pack, scene.model, scene.seed + 1, size=0.3), **turns)[0][0]
    ramp = rb.ramp(scene.pack, width=scene.size[1], height=scene.size[0])[0][0]
    styles = steps.chain(scene.pack, {"lora": both, "positive": scene.positive, "mask": ramp})
    scene.check(scene.sample(styles=styles))


def test_the_hosts_samplers(scene):
    prompts = (scene.positive, scene.negative)
    injected = apply_bench.injected(scene.pack, scene.model, scene.features)
    ours = scene.check(apply_bench.at_own_levels(injected, scene.trajectory, *prompts))
    torch.testing.assert_close(ours, scene.sample(), rtol=1e-4, atol=1e-3)
    styled = apply_bench.styled(scene.pack, scene.model, scene.features, scene.styles(), outside="content")
    empty = {"samples": torch.zeros_like(scene.latent["samples"])}
    scene.check(apply_bench.ksampler(styled, *prompts, empty, sampler="dpmpp_2m", scheduler="karras"))
    guider, _ = steps.guider(scene.pack, scene.model, scene.features, *prompts, styles=scene.styles())
    assert guider is not None


@pytest.mark.parametrize("method", [STYLE_ID, SHARED], ids=["StyleID", "shared attention"])
def test_training_free_styles_of_a_picture_of_another_size(pack, scene, method):
    style = {"samples": scene.vae.encode(rb.pictures(scene.seed + 1, 88, 72))}
    path = steps.invert(pack, scene.model, style, scene.empty)[0]
    layers = {"feature_layers": "", "self_attention_layers": "2-3"}
    looked_at = steps.capture(pack, scene.model, path, scene.empty, values=True, **layers)
    scene.features = scene.capture(self_attention_layers="2-3")
    made = pack.pipeline.style_from_features.StyleFromFeatures.execute(
        positive=scene.positive, style_features=looked_at, method=method, layers="all", mask=scene.masks()[0]
    ).args[0]
    scene.check(scene.sample(styles=made, cfg=1.0))


def test_two_prompts_blended_by_mask(pack, scene):
    styles = steps.chain(pack, *({"positive": scene.prompts[i + 1], "mask": scene.masks()[i]} for i in range(2)))
    node = pack.prompts.blend.BlendConditionings
    blended = node.execute(model=scene.model, styles=styles, mask_grow=3, mask_feather=4).args[0]
    empty = {"samples": torch.zeros_like(scene.latent["samples"])}
    scene.check(apply_bench.ksampler(blended, scene.positive, scene.negative, empty))


def test_stochastic_and_cycle_inversion(pack, scene):
    started, sigmas = pack.pipeline.stochastic.StochasticInversion.execute(
        model=scene.model, latent=scene.latent, style=scene.positive, strength=0.6, steps=4, seed=3,
        style_latent={"samples": torch.randn(1, 4, 9, 11)},
    ).args  # fmt: skip
    scene.check(started["samples"])
    assert len(sigmas) > 1
    trajectory = pack.pipeline.cycle_invert.CycleDiffusionInvert.execute(
        model=scene.model, latent=scene.latent, source=scene.empty, steps=4, skip=0, eta=0.5,
        formula="DDIM", cfg=1.0, seed=3, reconstruct=False,
    ).args[0]  # fmt: skip
    assert torch.isfinite(trajectory.noise).all()


def test_looking_at_features_and_reconstruction(pack, scene):
    table, _ = ab.similarities(pack, scene, lora=scene.lora)
    assert all(-1.0 <= value <= 1.0 + 1e-6 for pair in table.values() for value in pair)
    (picture, _), _, _ = ab.pca(pack, scene)
    assert torch.isfinite(picture).all()
    _, rows, _ = ab.report(pack, scene.model, scene.latent, scene.empty)
    assert len(rows) == steps.STEPS + 1


def test_comparing_and_pasting(pack, scene):
    result = rb.pictures(scene.seed + 1, *scene.size)
    (_, _, table), _, _ = eb.compare(pack, result, scene.picture, mask=scene.masks()[0], style=rb.pictures(3, 50, 70))
    assert eb.rows(table)
    pasted, _ = rb.paste(pack, result, scene.picture, mask=scene.masks()[1], grow=1, feather=2)
    assert pasted.shape == scene.picture.shape
    (drawn,), _, _ = rb.preview(pack, scene.styles(), scene.picture, mask_grow=2, mask_feather=3)
    assert drawn.shape[1] >= scene.size[0]
