"""Reconstruction Report: distances against diffusers' loops, PSNR as DDIM Invert says it, and what it costs."""

from __future__ import annotations

import re

import analysis_bench as ab
import comfy.model_management
import diffusers
import pytest
import reference
import steps
import tiny
import torch
from probes import Ending, counting, state_of

STEPS = 8


@pytest.fixture(scope="module")
def pair():
    """diffusers' UNet and our MODEL with the same weights, so tame that few large steps are refined quickly."""
    with torch.inference_mode():
        yield reference.pair("small", 5, damping=0.2)


@pytest.fixture(scope="module")
def content(pair):
    """(z in the model's own scale, LATENT, prompt)."""
    with torch.inference_mode():
        z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
        yield z, {"samples": pair[1].model.process_latent_out(z)}, tiny.make_prompt(5)


def test_distances_of_plain_inversion_are_diffusers(pack, pair, content, measured):
    unet, model = pair
    z, latent, source = content
    _, rows, _ = ab.report(pack, model, latent, source, steps=STEPS)
    path = reference.inverted(unet, z, source[0][0], STEPS)[::-1]
    ddim, at = reference.scheduler(diffusers.DDIMScheduler, STEPS), path[0]
    expected = [0.0]
    for t, there in zip(ddim.timesteps, path[1:], strict=True):
        at = ddim.step(unet(at, t, encoder_hidden_states=source[0][0]).sample, t, at).prev_sample
        expected.append(((at - there).norm() / there.norm()).item())
    ours = [row["distance_plain"] for row in rows]
    measured("distance at the end", expected[-1], at_least=1e-3)
    worst = max(abs(a - b) for a, b in zip(ours, expected, strict=True))
    measured("largest gap to diffusers' distances", worst, at_most=1e-5)


def test_refinement_keeps_to_the_path(pack, pair, content, measured):
    _, latent, source = content
    _, rows, _ = ab.report(pack, pair[1], latent, source, steps=STEPS, refinement=8)
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert [row["timestep"] for row in rows] == [*range(876, 0, -125), 0]
    assert max(rows[0]["distance_plain"], rows[0]["distance_refined"]) < 1e-6, "both start on the path"
    for row in rows[1:]:
        assert row["distance_refined"] < row["distance_plain"]
    measured("plain over refined, at the end", rows[-1]["distance_plain"] / rows[-1]["distance_refined"], at_least=10)


@pytest.mark.parametrize("refinement", [1, 3])
def test_psnr_is_what_ddim_invert_says(pack, pair, content, refinement):
    _, latent, source = content
    (_, _, text), _, _ = ab.report(pack, pair[1], latent, source, steps=4, refinement=refinement)
    said = re.findall(r"([0-9.]+) dB", text)
    for ours, refinements in zip(said, (0, refinement), strict=True):
        out = pack.pipeline.invert.DDIMInvert.execute(
            model=pair[1], latent=latent, source=source, steps=4, spacing="leading", refinement=refinements,
            reconstruct=True,
        )  # fmt: skip
        assert f"reconstruction {ours} dB" in out.ui["text"][0]


@pytest.mark.parametrize(("changes", "parts"), [
    ({}, (8, 16)), ({"refinement": 1}, (8, 12)), ({"steps": 5, "refinement": 4}, (10, 30)), ({"steps": 1}, (2, 4)),
])  # fmt: skip
def test_what_it_costs(pack, pair, content, changes, parts):
    """S (4 + refinement): both inversions, and both ways back."""
    model, counted = counting(pair[1])
    settings = {"steps": steps.STEPS, "refinement": 2, **changes}
    (_, _, text), _, _ = ab.report(pack, model, content[1], content[2], **settings)
    assert counted == [1] * sum(parts)
    assert sum(parts) == settings["steps"] * (4 + settings["refinement"])
    assert f"{sum(parts)} UNet evaluations ({parts[0]} + {parts[1]})" in text.splitlines()


@pytest.mark.parametrize(("how", "at"), [("completes", 0), ("error", 2), ("error", 15), ("interrupt", 20)])
def test_nothing_is_left_on_the_model(pack, monkeypatch, how, at):
    model, latent, source = tiny.make_model("small"), tiny.make_latent(size=8), tiny.make_prompt(1)
    before, samples, ending = state_of(model), latent["samples"].clone(), Ending(monkeypatch)
    ending.plan(how, at)
    stops = {"error": RuntimeError, "interrupt": comfy.model_management.InterruptProcessingException}
    if how == "completes":
        ab.report(pack, model, latent, source)
    else:
        with pytest.raises(stops[how]):
            ab.report(pack, model, latent, source)
    assert state_of(model) == before
    assert torch.equal(latent["samples"], samples)


def test_the_plot_shows_the_distances(pack, pair, content):
    """Each line's own colour at each of its points."""
    (plot, _, _), rows, picture = ab.report(pack, pair[1], content[1], content[2], steps=STEPS)
    names = ("distance_plain", "distance_refined")
    kind = pack.evaluate.reconstruction.Report
    reports = [kind(name, 0, tuple(row[name] for row in rows), 1.0) for name in names]
    with pack.drawing.page.dark_style():
        page = pack.drawing.plot.plot_page(pack.evaluate.reconstruction.distance_plot(reports))
        pack.drawing.page.render(page)  # which lays it out
    for index, (name, line) in enumerate(zip(names, page.axes[0].lines, strict=True)):
        assert line.get_ydata().tolist() == [row[name] for row in rows[1:]]
        across, up = page.axes[0].transData.transform((STEPS, rows[-1][name]))
        colour = torch.tensor(pack.drawing.palette.colour_of(index))
        last = plot[0, round(plot.shape[1] - up), round(across) - 2]
        assert torch.allclose(last, colour, atol=0.02), name
    assert picture.shape == plot.shape[1:]
