"""The self-checks, each a claim of the pack held against the host's own nodes on this checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tools.devkit.console import Failure
from tools.results_prompt import add_capture
from tools.verify.bench import Bench, gap_in
from tools.verify.outcome import Verdict, at_least, at_most, equal
from tools.verify.scene import LORA, NOTHING, PAPER, Link, Scene

MISSED = 0.01
"""Share of the host's own LoRA effect that may be missed with fp32 weights; the host rounds the sum to half ones."""
SHOWS = 1e-3
KINDS = {"tensors": "live tensors", "gpu": "GPU memory"}


class Check(NamedTuple):
    """claim: what holds when it passes."""

    claim: str
    run: Callable[[Bench], Verdict]


def repeats(bench: Bench) -> Verdict:
    """The host's own run twice; also remembers its bits, and how well the host repeats."""
    nodes = bench.scene()
    first, second = nodes.host("plain"), nodes.host("plain again", start=nodes.again(["inversion", 1], 1))
    nodes.add("bits", "DiffStylerVerify_Digest", latent=first)
    nodes.compare(second, first)
    found = bench.run(nodes)
    bench.known |= {"bits": found["bits"]["digest"], "repeat": gap_in(found)}
    return at_most(bench.known["repeat"], 1e-3, why="0: bit for bit")


def clean_before(bench: Bench) -> Verdict:
    """Also remembers the weights, and what hangs on the MODEL."""
    nodes = bench.scene()
    nodes.add("state", "DiffStylerVerify_State", model=["checkpoint", 0], after=nodes.host("plain"))
    bench.known["state"] = bench.run(nodes)["state"]
    return equal("hooks and replaced forwards", bench.known["state"]["left"], [])


def sensitivity(bench: Bench) -> Verdict:
    """What one millionth of noise at the start does to the host's own result."""
    nodes = bench.scene()
    nodes.add("nudged", "DiffStylerVerify_Perturbed", latent=["plain start", 0], size=1e-6)
    floor = bench.gap(nodes, nodes.host("plain nudged", start=["nudged", 0]), nodes.host("plain"))
    bench.known["floor"] = floor
    return at_most(floor, bench.cap, why=f"in {bench.facts['computes']}; beyond it nothing here says anything")


def nothing_injected(bench: Bench) -> Verdict:
    """The host's x is x_vp sqrt(1 + sigma^2), also at the last level, which is not 0."""
    nodes = bench.scene()
    last = bench.facts["last_sigma"]
    nodes.add("unscaled", "LatentMultiply", samples=nodes.host("plain"), multiplier=(1 + last * last) ** -0.5)
    ours = nodes.ours("ours plain", ["capture", 0], NOTHING)
    return _within(bench, bench.gap(nodes, ours, ["unscaled", 0]))


def apply_injection(bench: Bench) -> Verdict:
    nodes = bench.scene()
    host = nodes.host("host applied", nodes.applied(["capture", 0], PAPER))
    return _within(bench, bench.gap(nodes, host, nodes.ours("ours injected", ["capture", 0], PAPER)))


def injection_shows(bench: Bench) -> Verdict:
    nodes = bench.scene()
    ours = nodes.ours("ours injected", ["capture", 0], PAPER)
    return _shows(bench, bench.gap(nodes, ours, nodes.ours("ours plain", ["capture", 0], NOTHING)))


def guider(bench: Bench) -> Verdict:
    nodes = bench.scene()
    nodes.add("guider", "DiffStyler_InjectedGuider", **nodes.injected(["capture", 0], PAPER, lora=[LORA, 0]))
    return _within(bench, bench.gap(nodes, nodes.sampled("guided", ["guider", 0]), _styled(nodes)))


def lora(bench: Bench) -> Verdict:
    """As a share of the LoRA's effect: the host rounds the sum of weights, the pack adds in the forward pass."""
    nodes = bench.scene()
    host = nodes.host("host lora", nodes.with_lora())
    nodes.compare(nodes.ours("ours lora", ["capture", 0], NOTHING, lora=[LORA, 0]), host)
    nodes.compare(nodes.host("plain"), host, title="effect")
    found = bench.run(nodes)
    missed, effect = gap_in(found), gap_in(found, "effect")
    if effect < SHOWS:
        raise Failure("compare LoRAs", f"the LoRA changes the picture by {effect:.2g} only.", "raise --train-steps.")
    share = MISSED if bench.facts["weights"] == "float32" else 0.5
    return at_most(missed / effect, share, why=f"of the LoRA's effect, {effect:.3g}")


def lora_shows(bench: Bench) -> Verdict:
    nodes = bench.scene()
    ours = nodes.ours("ours lora", ["capture", 0], NOTHING, lora=[LORA, 0])
    return _shows(bench, bench.gap(nodes, ours, nodes.ours("ours plain", ["capture", 0], NOTHING)))


def outside(bench: Bench) -> Verdict:
    nodes = bench.scene()
    return at_most(bench.gap(nodes, _left(nodes), ["inversion latent", 0], "right"), 1e-6)


def inside(bench: Bench) -> Verdict:
    nodes = bench.scene()
    return _shows(bench, bench.gap(nodes, _left(nodes), ["inversion latent", 0], "left"))


def plain_inversion(bench: Bench) -> Verdict:
    """A low bar: how near plain DDIM comes hangs on the model and the steps."""
    plain = _reconstruction(bench, 0)
    bench.known["plain inversion"] = plain
    return at_least(plain, 10.0, "dB", "plain DDIM is approximate; more steps come nearer")


def refined_inversion(bench: Bench) -> Verdict:
    if "plain inversion" not in bench.known:
        raise Failure("compare with plain", "the plain inversion failed (see above).", "mend that first.")
    return at_least(_reconstruction(bench, 3), bench.known["plain inversion"], "dB", "no worse than plain")


def disk(bench: Bench) -> Verdict:
    return at_most(_kept(bench, "disk"), 0.0, why="the same numbers from files")


def recompute(bench: Bench) -> Verdict:
    return _within(bench, _kept(bench, "recompute"))


def capture_size(bench: Bench) -> Verdict:
    nodes = bench.scene()
    nodes.add(
        "size", "DiffStylerVerify_CaptureSize", model=["checkpoint", 0], source=["empty", 0],
        latent=["short latent", 0], features=_short(nodes, "memory"), bits=32,
    )  # fmt: skip
    found = bench.run(nodes)["size"]
    verdict = equal("as said before the run", found["taken"], found["expected"])
    each = found["taken"] / 2 / found["steps"] / 1e6
    return verdict._replace(figure=f"{verdict.figure}: {each:.3g} MB a step in fp16") if verdict.passed else verdict


def sampling_holds_nothing(bench: Bench) -> Verdict:
    """Bytes of live tensors: two further runs leave no more than their latents."""

    def sample(nodes: Scene, number: int) -> Link:
        return _styled(nodes, nodes.again(["capture", 0], number))

    return _grown(bench, sample, max(1.0, bench.facts["weight_bytes"] / 1e8), "or a hundredth of the UNet")


def training_holds_nothing(bench: Bench) -> Verdict:
    def train(nodes: Scene, number: int) -> Link:
        inputs = dict(nodes.api[LORA]["inputs"], steps=1)
        inputs["style_image"] = nodes.again(inputs["style_image"], number)
        return [nodes.add(f"train {number}", "DiffStyler_TrainStyleLoRA", **inputs), 0]

    bound = 0.5 * bench.facts["weight_bytes"] / 1e6
    return _grown(bench, train, bound, "half of the UNet: the LoRAs that the host keeps, and no copy of the UNet")


def cancelled(bench: Bench) -> Verdict:
    nodes = bench.scene()
    features = nodes.again(["capture", 0], 1)
    latent = nodes.ours("to be cancelled", features, PAPER, lora=[LORA, 0])
    nodes.add("bits", "DiffStylerVerify_Digest", latent=latent)
    bench.cancel(nodes, "to be cancelled")
    return _as_before(bench, 2)


def untouched(bench: Bench) -> Verdict:
    """After all other checks, stages and cancelled runs: weights, hooks, patches and the host's own result."""
    verdict, nodes = _as_before(bench, 3), bench.scene()
    if "state" not in bench.known:
        raise Failure("compare with before", "the MODEL could not be looked at (see above).", "mend that first.")
    after = nodes.host("plain after", start=nodes.again(["inversion", 1], 3))
    nodes.add("state", "DiffStylerVerify_State", model=["checkpoint", 0], after=after)
    now, before = bench.run(nodes)["state"], bench.known["state"]
    changed = [name for name in before if now[name] != before[name]]
    if changed or now["left"]:
        return Verdict(f"changed: {', '.join(changed) or now['left']}", verdict.bound, False)
    return verdict


BEFORE = (
    Check("The host repeats its own picture", repeats),
    Check("Nothing hangs on the MODEL before", clean_before),
    Check("The host's sensitivity: its result after 1e-6 of noise at the start", sensitivity),
    Check("Nothing injected: the Injected LoRA Sampler is the host's euler over the same levels", nothing_injected),
    Check("Apply Injection under the host's euler is the Injected LoRA Sampler", apply_injection),
    Check("The injection shows in the result", injection_shows),
    Check("Injected LoRA Guider in SamplerCustomAdvanced is the Injected LoRA Sampler", guider),
    Check("A LoRA trained here acts as in the host's Load LoRA Model", lora),
    Check("The LoRA shows in the result", lora_shows),
    Check("Outside of a mask the latent is the content's", outside),
    Check("Inside of the mask it is not", inside),
    Check("Inverted and sampled back, plain", plain_inversion),
    Check("Inverted and sampled back, three refinements", refined_inversion),
    Check("A capture on disk gives what one in memory gives", disk),
    Check("A capture recomputed while sampling gives what one in memory gives", recompute),
    Check("A capture takes what the pack says beforehand", capture_size),
    Check("Sampling again holds no more memory", sampling_holds_nothing),
    Check("Training again holds no more memory", training_holds_nothing),
    Check("After Cancel in the middle of a run the MODEL's own picture is as before", cancelled),
)
AFTER = (Check("After all of it the MODEL's weights, patches, hooks and own picture are as before", untouched),)


def _styled(nodes: Scene, features: Link | None = None) -> Link:
    return nodes.ours("ours styled", features or ["capture", 0], PAPER, lora=[LORA, 0])


def _grown(bench: Bench, work: Callable[[Scene, int], Link], bound: float, why: str) -> Verdict:
    """MB that live tensors grow by from the first to the third run of the same work, and the GPU's memory."""
    held = []
    for number in (21, 22, 23):
        nodes = bench.scene()
        nodes.add("held", "DiffStylerVerify_Held", after=work(nodes, number))
        held.append(bench.run(nodes)["held"])
    kind = max(("tensors", "gpu"), key=lambda one: held[-1][one] - held[0][one])
    verdict = at_most((held[-1][kind] - held[0][kind]) / 1e6, bound, "MB", why)
    return verdict._replace(figure=f"{verdict.figure}, of {held[-1][kind] / 1e6:.0f} MB of {KINDS[kind]}")


def _left(nodes: Scene) -> Link:
    """The left half in the style, the content outside."""
    nodes.add("left half", "DiffStylerVerify_LeftHalf", image=["content", 0])
    nodes.add(
        "region", "DiffStyler_RegionalStyle", positive=nodes.positive, strength=1.0, lora=[LORA, 0],
        mask=["left half", 0],
    )  # fmt: skip
    return nodes.ours("ours left", ["capture", 0], PAPER, styles=["region", 0])


def _reconstruction(bench: Bench, refinements: int) -> float:
    nodes, title = bench.scene(), f"inversion {refinements}"
    nodes.add(
        title, "DiffStyler_DDIMInvert", model=["checkpoint", 0], latent=["inversion latent", 0], source=["empty", 0],
        steps=nodes.settings.steps, spacing="leading", refinement=refinements, reconstruct=True,
    )  # fmt: skip
    nodes.decibels([title, 2], ["inversion latent", 0])
    found = bench.run(nodes)["psnr"]
    if not found["finite"]:
        raise Failure("invert", "the reconstruction is not finite (NaN or Inf).", "try another --checkpoint or dtype.")
    return float(found["psnr"])


def _short(nodes: Scene, storage: str) -> Link:
    changes = {"storage": storage, "precision": "fp32", "trajectory": ["short", 0]}
    add_capture(nodes, nodes.settings, f"short {storage}", **changes)
    return [f"short {storage}", 0]


def _kept(bench: Bench, storage: str) -> float:
    nodes = bench.scene()
    links = {kind: nodes.ours(f"ours {kind}", _short(nodes, kind), PAPER) for kind in (storage, "memory")}
    return bench.gap(nodes, links[storage], links["memory"])


def _as_before(bench: Bench, number: int) -> Verdict:
    """The host's own picture now against the first one; where the host does not repeat, as near as it does."""
    if "bits" not in bench.known:
        raise Failure("compare with before", "the host's own run failed (see above).", "mend that first.")
    nodes = bench.scene()
    after = nodes.host("plain after", start=nodes.again(["inversion", 1], number))
    repeat = bench.known["repeat"]
    if repeat:
        gap = bench.gap(nodes, after, nodes.host("plain"), kept="plain")
        return at_most(gap, 10 * repeat, why="10 x what the host itself differs by")
    nodes.add("bits", "DiffStylerVerify_Digest", latent=after)
    return equal("bit for bit", bench.run(nodes)["bits"]["digest"], bench.known["bits"])


def _within(bench: Bench, gap: float) -> Verdict:
    bound, why = bench.bound()
    return at_most(gap, bound, why=why)


def _shows(bench: Bench, gap: float) -> Verdict:
    return at_least(gap, max(SHOWS, 2 * bench.floor), why="or twice the host's sensitivity")
