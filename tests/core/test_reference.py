"""A style picture's attention: StyleID and shared attention against softmax maps in float64, AdaIN in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from diffstyler_core.diffusion.schedule import NoiseSchedule
from diffstyler_core.diffusion.trajectory import Trajectory
from diffstyler_core.injection.adain import adain, adain_latent
from diffstyler_core.injection.attention import QKV, Mixture, attend_mixed
from diffstyler_core.injection.capture import Capture, CaptureRequest, ContentRun
from diffstyler_core.injection.plan import InjectionPlan
from diffstyler_core.injection.reference import Reference, ReferencePlan, ReferenceTap, SharedAttention, StyleID
from diffstyler_core.injection.sites import Site
from diffstyler_core.injection.taps import ByChunk, Injector

SITE, OTHER = Site("self-attention", 6), Site("self-attention", 7)
SCHEDULE = NoiseSchedule.leading([1 - i / 1001 for i in range(1, 1001)], "eps", 4)
TRAJECTORY = Trajectory((torch.zeros(1, 4, 8, 8),) * 5, SCHEDULE)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as a UNet computes it: fp32, fused, no map."""
    parts = (x.unflatten(-1, (4, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


def softmax_map(q: Tensor, k: Tensor) -> Tensor:
    q, k = (x.double().unflatten(-1, (4, -1)).transpose(1, 2) for x in (q, k))
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


def through(attention: Tensor, v: Tensor) -> Tensor:
    return (attention @ v.double().unflatten(-1, (4, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)


def captured(layers=(6, 7), steps=4, values=True, kind="self-attention") -> Capture:
    request = CaptureRequest((), tuple(Site(kind, layer) for layer in layers), 0, steps, values)
    return Capture(TRAJECTORY, request, ContentRun(None), None)


def drawn(seed: int, style_tokens: int = 36) -> tuple[QKV, QKV, torch.Tensor]:
    """A run's own of two rows, the style's of one, the content's queries of one."""
    generator = torch.Generator().manual_seed(seed)
    own = QKV(*(torch.randn(2, 64, 32, generator=generator) for _ in range(3)))
    style = QKV(*(torch.randn(1, style_tokens, 32, generator=generator) * 2 + 1 for _ in range(3)))
    return own, style, torch.randn(1, 64, 32, generator=generator)


def tapped(method, own, style, q_content, below=None):
    tap = ReferenceTap(ReferencePlan(method, (SITE,), 0, 4), 0, {SITE: style}, {SITE: (q_content, q_content)}, below)
    return attend_mixed(tap.attention(SITE, own), attend)


@pytest.mark.parametrize("tokens", [64, 36])
@pytest.mark.parametrize(("gamma", "tau"), [(0.75, 1.5), (0.0, 1.0), (1.0, 3.0)])
def test_styleid_is_its_equation(seed, gamma, tau, tokens):
    own, style, q_c = drawn(seed, tokens)
    q = gamma * q_c.double() + (1 - gamma) * own.q.double()
    k, v = (x.double().expand(2, -1, -1) for x in style[1:])
    ours = tapped(StyleID(gamma, tau), own, style, q_c)
    assert (ours - through(softmax_map(tau * q, k), v)).abs().max() <= 1e-5


def normalised(x, s):
    x, s = x.double(), s.double()
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True) * s.std(1, keepdim=True) + s.mean(1, keepdim=True)


@pytest.mark.parametrize("tokens", [64, 36])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("mode", ["swap", "extend"])
def test_shared_attention_is_one_softmax_over_its_tokens(seed, mode, normalise, tokens):
    own, style, q_c = drawn(seed, tokens)
    q, k = (normalised(x, s) if normalise else x.double() for x, s in zip(own[:2], style[:2], strict=True))
    k_s, v_s = (x.double().expand(2, -1, -1) for x in style[1:])
    if mode == "extend":
        k_s, v_s = torch.cat([k, k_s], 1), torch.cat([own.v.double(), v_s], 1)
    ours = tapped(SharedAttention(mode, normalise), own, style, q_c)
    assert (ours - through(softmax_map(q, k_s), v_s)).abs().max() <= 1e-5


def test_a_style_that_is_the_run_itself_changes_nothing(seed):
    own, *_ = drawn(seed)
    one = QKV(*(x[:1] for x in own))
    for method in (SharedAttention("swap", True), SharedAttention("extend", True), StyleID(0.5, 1.0)):
        assert (tapped(method, one, one, one.q) - attend(*one)).abs().max() <= 1e-5, method


@pytest.mark.parametrize(("blend", "kappa_step"), [("qk", (3, 251)), ("map", (3, 251)), ("map", (0, 981))])
def test_it_acts_on_what_the_injection_makes(seed, blend, kappa_step):
    """The content's q comes first, then the style's k, v: in each of the two maps where there are two."""
    own, style, q_c = drawn(seed)
    plan = InjectionPlan(4, 0, 2, attention_sites=(SITE,), blend=blend)
    below = Injector(plan, *kappa_step, {SITE: (q_c, q_c)})
    kappa = plan.kappa(*kappa_step)
    ours = tapped(SharedAttention("swap", False), own, style, q_c, below)
    k, v = (x.expand(2, -1, -1) for x in style[1:])
    maps = [softmax_map(q, k) for q in (q_c.expand(2, -1, -1), own.q)]
    mixed = (1 - kappa) * maps[0] + kappa * maps[1]
    if blend == "qk":
        mixed = softmax_map((1 - kappa) * q_c.double() + kappa * own.q.double(), k)
    assert (ours - through(mixed, v)).abs().max() <= 1e-5


def test_where_it_does_not_act_the_injection_stands(seed):
    own, style, q_c = drawn(seed)
    below = Injector(InjectionPlan(4, 0, 4, attention_sites=(OTHER,)), 0, 981, {OTHER: (q_c, q_c)})
    tap = ReferenceTap(ReferencePlan(StyleID(), (SITE,), 0, 4), 0, {SITE: style}, {SITE: (q_c, q_c)}, below)
    assert tap.sites == {SITE, OTHER}
    assert torch.equal(tap.attention(OTHER, own).first.q, below.attention(OTHER, own).first.q)
    assert ReferenceTap(ReferencePlan(StyleID(), (SITE,), 1, 4), 0, {}, {}).sites == frozenset()


def test_chunks_of_other_numbers_of_keys_keep_their_order(seed):
    own, style, _ = drawn(seed)
    plans = [ReferencePlan(SharedAttention(mode, False), (SITE,), 0, 4) for mode in ("extend", "swap")]
    extend, swap = (ReferenceTap(plan, 0, {SITE: style}, {}) for plan in plans)
    rows = QKV(*(torch.cat([x, x]) for x in own))
    mixtures = ByChunk([extend, None, swap, swap]).attention(SITE, rows)
    assert [len(m.first.q) for m in mixtures] == [1, 1, 2]
    parts = [QKV(*(x[i : i + 1] for x in rows)) for i in range(4)]
    apart = [extend.attention(SITE, parts[0]), Mixture(parts[1]), *(swap.attention(SITE, p) for p in parts[2:])]
    ours, theirs = (torch.cat([attend_mixed(m, attend) for m in some]) for some in (mixtures, apart))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_adain_in_closed_form(seed):
    generator = torch.Generator().manual_seed(seed)
    x, style = torch.randn(1, 4, 8, 6, generator=generator), torch.randn(1, 4, 5, 7, generator=generator) * 3 + 2
    out = adain(x, style, (-2, -1))
    for c in range(4):
        a, s = x[0, c].double(), style[0, c].double()
        expected = (a - a.mean()) * (s.std() / a.std()) + s.mean()
        assert (out[0, c] - expected).abs().max() <= 1e-5
    flat = adain(torch.full((1, 4, 8, 6), 3.0), style, (-2, -1))
    torch.testing.assert_close(flat, style.mean((-2, -1), keepdim=True).expand_as(flat))


def test_adain_of_a_latent_goes_by_its_share(seed):
    generator = torch.Generator().manual_seed(seed)
    x, style = torch.randn(1, 4, 8, 6, generator=generator), torch.randn(1, 4, 5, 7, generator=generator) * 3
    whole, mask = adain_latent(x, style), torch.zeros(8, 6)
    assert torch.equal(adain_latent(x, style, 0.0), x)
    assert torch.equal(adain_latent(x, style, mask), x)
    assert torch.equal(adain_latent(x, style, mask + 1), whole)
    mask[:, 3:] = 1.0
    half = adain_latent(x, style, mask)
    assert torch.equal(half[..., :3], x[..., :3])
    assert torch.equal(half[..., 3:], whole[..., 3:])
    torch.testing.assert_close(adain_latent(x, style, 0.5), (x + whole) / 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StyleID(query_blend=1.5), "query_blend must be a number in 0..1, got 1.5"),
        (lambda: StyleID(query_blend=float("nan")), "query_blend must be .*got nan"),
        (lambda: StyleID(temperature=0.0), "temperature must be a number above 0.*got 0"),
        (lambda: StyleID(temperature=float("inf")), "temperature must be .*got inf"),
        (lambda: SharedAttention(mode="add"), "mode must be one of swap, extend, got 'add'"),
        (lambda: Reference(captured(values=False), StyleID()), "style_features: kept without values"),
        (lambda: Reference(captured(), StyleID(), (6, 9)), "layers: 9 are to be used.*self-attention layers 6-7"),
        (lambda: Reference(captured(), StyleID(), ()), "layers: none was given"),
        (lambda: Reference(captured(), StyleID(), None, 0.5, 0.5), "end_percent must lie above start_percent"),
        (lambda: Reference(captured(), StyleID(), None, -0.5, 0.5), "start_percent must be a share"),
        (lambda: Reference(captured(steps=2), StyleID()), "step 2, self-attention of layer 6: .*not captured"),
    ],
)
def test_what_makes_no_style_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_shorter_window_needs_fewer_steps_and_content_needs_its_queries():
    plan = Reference(captured(steps=2), StyleID(), (7,), 0.0, 0.5).plan()
    assert plan.sites_at(1) == {OTHER}
    assert plan.sites_at(2) == frozenset()
    plan.require_queries(captured(values=False))
    with pytest.raises(ValueError, match=r"layer 7: query_blend takes the content's queries, but .*not captured"):
        plan.require_queries(captured(layers=(6,), values=False))
    Reference(captured(), StyleID(query_blend=0.0)).plan().require_queries(captured(layers=()))


def test_values_without_self_attention_are_refused():
    request = captured(kind="cross-attention").request
    with pytest.raises(ValueError, match="values: no self-attention is captured"):
        request.check(4)
    captured().request.check(4)
