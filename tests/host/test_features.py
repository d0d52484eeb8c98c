"""Feature PCA and Feature Similarity: the features are Capture's and diffusers', and what is made of them is right."""

from __future__ import annotations

import itertools

import analysis_bench as ab
import comfy.model_management
import numpy as np
import pytest
import reference
import steps
import tiny
import torch
from probes import Ending, counting, state_of


@pytest.fixture(scope="module")
def small(pack):
    """A scene that many tests share; none of them changes it."""
    with torch.inference_mode():
        yield ab.scene(pack, 7)


def test_features_are_those_that_capture_takes(pack, seed):
    s = ab.scene(pack, seed)
    taken = steps.capture(pack, s.model, s.trajectory, s.source, feature_layers="0-3", feature_steps=4)
    for step, t in enumerate(s.trajectory.schedule.timesteps):
        looked = ab.looked(pack, s, timestep=t)
        base = looked.models["base"]
        stored = {site.layer: tensors[0] for site, tensors in taken.at(step).items() if site.kind == "feature"}
        assert looked.t == t
        assert base.keys() == stored.keys() == {0, 1, 2, 3}
        assert all(torch.equal(base[layer], stored[layer]) for layer in base)


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_features_are_those_of_diffusers(pack, seed, measured, kind):
    unet, model = reference.pair(kind, seed)
    s = ab.scene(pack, seed, kind, model, size=16, steps=2)
    looked = ab.looked(pack, s, layers="0-11", timestep=400)
    theirs: dict[int, torch.Tensor] = {}
    for layer in range(12):
        conv = unet.up_blocks[layer // 3].resnets[layer % 3].conv2
        conv.register_forward_hook(lambda module, args, output, layer=layer: theirs.__setitem__(layer, output))
    unet(s.trajectory.latents[0], torch.tensor(looked.t), encoder_hidden_states=s.source[0][0])
    worst = max((looked.models["base"][layer] - theirs[layer]).abs().max().item() for layer in range(12))
    measured("features against diffusers'", worst, at_most=1e-5)


@pytest.mark.parametrize("kind", ["small", "sdxl"])
def test_a_lora_acts_as_the_hosts_own_loader_makes_it(pack, seed, measured, kind):
    """In the forward pass, and patched into the weights by Load LoRA."""
    s = ab.scene(pack, seed, kind)
    patched = ab.loaded(s.model, s.lora, 0.7)
    looked = ab.looked(pack, s, lora=s.lora, lora_strength=0.7, second_model=patched, layers="1-3")
    base, forward, second = looked.models.values()
    assert list(looked.models) == ["base", "LoRA x 0.7", "second model"]
    gap = max((second[layer] - forward[layer]).abs().max().item() for layer in base)
    effect = min((base[layer] - forward[layer]).abs().max().item() for layer in (2, 3))
    measured("LoRA in the forward pass against patched weights", gap, at_most=1e-3)
    measured("what the LoRA changes", effect, at_least=20 * gap)


def test_a_model_is_like_itself(pack, small):
    table, words = ab.similarities(pack, small, second_model=small.model.clone())
    assert set(table.values()) == {(1.0, 1.0)}
    assert set(table) == {("second model", layer) for layer in range(4)}
    assert "note: second model gives exactly the base's features" in words
    left, right = halves(pack, ab.pca(pack, small, second_model=small.model.clone())[2])
    assert np.array_equal(left, right)


def test_a_lora_of_no_strength_changes_nothing(pack, small):
    table, words = ab.similarities(pack, small, lora=small.lora, lora_strength=0.0)
    assert set(table.values()) == {(1.0, 1.0)}
    assert "note: LoRA x 0 gives exactly the base's features" in words
    left, right = halves(pack, ab.pca(pack, small, lora=small.lora, lora_strength=0.0)[2])
    assert np.array_equal(left, right)


def halves(pack, picture):
    """The two columns' tiles [H, W, 3] of a PCA picture."""
    pca = pack.drawing.layer_grid
    tiles = picture[pca.TOP : -pca.END, pca.LABELS :]
    return tiles[:, : pca.TILE], tiles[:, pca.TILE + pca.GAP :][:, : pca.TILE]


def test_similarity_falls_with_strength(pack, measured, small):
    """For small strengths the angle grows with it: 1 - cos grows with its square. Layers 0 and 1 lie before the LoRA's
    decoder attention, but behind that of the encoder.
    """
    strengths = (0.02, 0.04, 0.2, 1.0)
    losses = []
    for strength in strengths:
        table, _ = ab.similarities(pack, small, lora=small.lora, lora_strength=strength)
        losses.append([1 - value for pair in table.values() for value in pair])
    for weaker, stronger in itertools.pairwise(losses):
        assert all(a < b for a, b in zip(weaker, stronger, strict=True))
    ratios = [b / a for a, b in zip(losses[0], losses[1], strict=True)]
    measured("smallest growth of 1 - cos from strength 0.02 to 0.04", min(ratios), at_least=3.5)
    measured("largest growth", max(ratios), at_most=4.5)


def test_similarity_is_torchs_on_captured_features(pack, small):
    looked = ab.looked(pack, small, lora=small.lora)
    table, words = ab.similarities(pack, small, lora=small.lora)
    base, styled = looked.models.values()
    for layer in range(4):
        a, b = base[layer].double(), styled[layer].double()
        pixels = torch.nn.functional.cosine_similarity(a, b, dim=1).mean().item()
        whole = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
        assert table["LoRA x 1", layer] == pytest.approx((pixels, whole), abs=1e-8)
        assert f"layer {layer}: {pixels:.4f} ({whole:.4f})" in words


@pytest.mark.parametrize(
    ("timestep", "words"),
    [
        (540, "step 1 of 4, t = 501, the nearest to 540; 2 UNet evaluations"),
        (501, "step 1 of 4, t = 501; 2 UNet evaluations"),
        (999, "step 0 of 4, t = 751, the nearest to 999; 2 UNet evaluations"),
        (0, "step 3 of 4, t = 1, the nearest to 0; 2 UNet evaluations"),
    ],
)
def test_the_step_is_named(pack, small, timestep, words):
    _, said, _ = ab.pca(pack, small, lora=small.lora, timestep=timestep)
    assert said.splitlines()[0] == words
    assert "note:" not in said


def test_another_prompt_is_noted(pack, small):
    _, said, _ = ab.pca(pack, small, source=tiny.make_prompt(99))
    assert "note: another prompt than the inversion's" in said


@pytest.mark.parametrize(
    ("second", "lora", "rows"), [(False, False, 1), (False, True, 2), (True, False, 2), (True, True, 3)]
)
def test_one_evaluation_for_each_column(pack, small, second, lora, rows):
    model, counted = counting(small.model)
    wired = {"second_model": model.clone()} if second else {}
    wired |= {"lora": small.lora} if lora else {}
    (drawn, _), words, _ = ab.pca(pack, small, model=model, **wired)
    assert counted == [1] * rows
    assert f"; {rows} UNet evaluations" in words
    pca = pack.drawing.layer_grid
    assert drawn.shape == (1, pca.TOP + 4 * (pca.TILE + pca.GAP) + pca.END, pca.LABELS + rows * (pca.TILE + pca.GAP), 3)
    if rows > 1:
        counted.clear()
        ab.similarities(pack, small, model=model, **wired)
        assert counted == [1] * rows


@pytest.mark.parametrize("how", ["completes", "error", "interrupt"])
def test_nothing_is_left_on_the_model(pack, monkeypatch, how):
    s, ending = ab.scene(pack, 3), Ending(monkeypatch)
    second = s.model.clone()
    before = state_of(s.model), state_of(second)
    ending.plan(how, 3)
    stops = {"error": RuntimeError, "interrupt": comfy.model_management.InterruptProcessingException}
    run = lambda: ab.similarities(pack, s, lora=s.lora, second_model=second)  # noqa: E731
    if how == "completes":
        run()
    else:
        with pytest.raises(stops[how]):
            run()
    assert (state_of(s.model), state_of(second)) == before


def test_tiles_show_components_on_a_common_basis(pack, small):
    """Columns in another order have the same colours, and the picture holds them where they belong."""
    pca = pack.evaluate.feature_pca
    looked = ab.looked(pack, small, lora=small.lora)
    base, styled = looked.models.values()
    row = pca.layer_picture(3, [base[3], styled[3]])
    other = pca.layer_picture(3, [styled[3], base[3]])
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(row.tiles, reversed(other.tiles), strict=True))
    assert row.shares == pytest.approx(other.shares)
    (drawn, _), words, picture = ab.pca(pack, small, lora=small.lora)
    side = pack.drawing.layer_grid.TILE
    below = pack.drawing.layer_grid.GAP
    for part, expected in zip(halves(pack, picture), row.tiles, strict=True):
        tile, square = np.array(part[-side - below : -below]), side // 8
        assert np.allclose(tile[square // 2 :: square, square // 2 :: square], 255 * expected.numpy(), atol=1)
    assert np.allclose(picture, 255 * drawn[0].numpy(), atol=1)
    vectors = torch.cat([f[0].flatten(1).T for f in (base[3], styled[3])]).double().numpy()
    values = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False) ** 2
    shares = 100 * values[:3] / values.sum()
    line = " + ".join(f"{share:.1f}" for share in shares)
    assert f"layer 3: {line} = {shares.sum():.1f} % of the variance" in words


@pytest.mark.parametrize("shape", [(2, 16), (16, 2), (1, 8)])
def test_features_of_any_shape_are_drawn(pack, shape):
    pca = pack.evaluate.feature_pca
    features = [torch.randn(1, 32, *shape) for _ in range(2)]
    grid = pack.drawing.layer_grid
    drawn = grid.draw_layers(["base", "a very long name of a column, wider than the column"], [
        pca.layer_picture(layer, features) for layer in range(2)
    ])  # fmt: skip
    tall = max(round(grid.TILE * shape[0] / shape[1]), grid.LEAST)
    assert drawn.shape[1] == grid.TOP + 2 * (tall + grid.GAP) + grid.END


def test_the_plot_has_a_point_for_each_layer(pack, small):
    """Rings and dots at the heights that the table says."""
    out = pack.evaluate.feature_similarity.FeatureSimilarity.execute(**ab.wires(small, lora=small.lora, layers="1,3"))
    plot, looked = out.args[0][0], ab.looked(pack, small, lora=small.lora, layers="1,3")
    similarity, plots = pack.evaluate.feature_similarity, pack.drawing.plot
    (compared,) = similarity.compare(looked)
    with pack.drawing.page.dark_style():
        page = plots.plot_page(similarity.similarity_plot([compared], looked.t))
        assert torch.equal(pack.drawing.page.render(page)[0], plot)
    dots, rings = (line.get_ydata().tolist() for line in page.axes[0].lines)
    assert dots == [s.pixels for s in compared.layers.values()]
    assert rings == [s.whole for s in compared.layers.values()]
    assert [label.get_text() for label in page.axes[0].get_xticklabels()] == ["1", "3"]
