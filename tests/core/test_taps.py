"""Taps: what is recorded, and what is put in its place."""

from __future__ import annotations

import pytest
import torch

from diffstyler_core.injection.attention import QKV, Mixture, attend_mixed
from diffstyler_core.injection.plan import InjectionPlan
from diffstyler_core.injection.sites import Site
from diffstyler_core.injection.taps import ByChunk, Injector, Recorder

FEATURE, ATTENTION, CROSS = Site("feature", 4), Site("self-attention", 4), Site("cross-attention", 4)


def attend(q, k, v):
    return (q @ k.transpose(1, 2)).softmax(-1) @ v


def plan(**changes) -> InjectionPlan:
    settings = {"feature_sites": (FEATURE,), "attention_sites": (ATTENTION,), "blend": "map", **changes}
    return InjectionPlan(50, 30, 25, **settings)


def test_a_recorder_takes_values_of_self_attention_where_asked(seed):
    generator = torch.Generator().manual_seed(seed)
    own = QKV(*(torch.randn(1, 4, 5, generator=generator) for _ in range(3)))
    recorder = Recorder(frozenset({ATTENTION, CROSS}), values=True)
    for site in (ATTENTION, CROSS):
        assert recorder.attention(site, own) == Mixture(own)
    assert [len(recorder.taken[site]) for site in (ATTENTION, CROSS)] == [3, 2]
    assert all(torch.equal(a, b) and a is not b for a, b in zip(recorder.taken[ATTENTION], own, strict=True))


def test_a_recorder_changes_nothing_and_keeps_copies(seed):
    generator = torch.Generator().manual_seed(seed)
    hidden, q, k, v = (torch.randn(1, 4, 5, generator=generator) for _ in range(4))
    before = [x.clone() for x in (hidden, q, k, v)]
    recorder = Recorder(frozenset({FEATURE, ATTENTION}))
    assert recorder.feature(FEATURE, hidden) is hidden
    assert torch.equal(attend_mixed(recorder.attention(ATTENTION, QKV(q, k, v)), attend), attend(q, k, v))
    hidden.zero_()
    q.zero_()
    assert torch.equal(recorder.taken[FEATURE][0], before[0])
    assert [torch.equal(a, b) for a, b in zip(recorder.taken[ATTENTION], before[1:3], strict=True)] == [True, True]


@pytest.mark.parametrize(("step", "t", "kappa"), [(0, 981, 0.0), (29, 401, 0.198), (49, 1, 0.998)])
def test_an_injector_overrides_and_blends_by_the_plan(seed, step, t, kappa):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 4, 5, generator=generator) for _ in range(3))
    q_c, k_c = (torch.randn(1, 4, 5, generator=generator) for _ in range(2))
    feature = torch.randn(1, 3, 2, 2, generator=generator)
    injector = Injector(plan(), step, t, {FEATURE: (feature,), ATTENTION: (q_c, k_c)})
    out = attend_mixed(injector.attention(ATTENTION, QKV(q, k, v)), attend)
    content = attend(q_c.expand(2, -1, -1), k_c.expand(2, -1, -1), v)
    assert torch.allclose(out, (1 - kappa) * content + kappa * attend(q, k, v), atol=1e-6)
    assert (FEATURE in injector.sites) == (step < 30)
    if step < 30:
        hidden = torch.randn(2, 3, 2, 2, generator=generator)
        assert torch.equal(injector.feature(FEATURE, hidden), feature.expand(2, -1, -1, -1))


@pytest.mark.parametrize("missing", [FEATURE, ATTENTION])
def test_an_injector_needs_what_the_plan_names(missing):
    content = {FEATURE: (torch.zeros(1, 3, 2, 2),), ATTENTION: (torch.zeros(1, 4, 5),) * 2}
    del content[missing]
    with pytest.raises(ValueError, match=f"step 0 needs the {missing}, which was not captured"):
        Injector(plan(), 0, 981, content)


def test_an_injector_outside_every_window_has_no_sites():
    assert Injector(plan(mode="fixed"), 30, 381, {}).sites == frozenset()


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (2, 6, 2, 2)])
def test_a_feature_of_another_size_is_refused(shape):
    injector = Injector(plan(attention_sites=()), 0, 981, {FEATURE: (torch.zeros(1, 3, 2, 2),)})
    with pytest.raises(ValueError, match=r"feature of layer 4: .*captured at \(3, 2, 2\), this run has"):
        injector.feature(FEATURE, torch.zeros(shape))


def test_an_attention_of_another_size_is_refused():
    injector = Injector(plan(feature_sites=()), 0, 981, {ATTENTION: (torch.zeros(1, 4, 5),) * 2})
    with pytest.raises(ValueError, match=r"self-attention of layer 4: .*4 tokens"):
        injector.attention(ATTENTION, QKV(*(torch.zeros(2, 9, 5),) * 3))


def chunked(seed: int, blend: str = "map"):
    """(two injectors of different contents and steps, their contents, q, k, v of six rows)."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(6, 4, 5, generator=generator) for _ in range(3))
    contents = [{ATTENTION: tuple(torch.randn(1, 4, 5, generator=generator) for _ in "qk")} for _ in range(2)]
    taps = [
        Injector(plan(feature_sites=(), blend=blend), s, t, c)
        for (s, t), c in zip(((0, 981), (40, 181)), contents, strict=True)
    ]
    return taps, q, k, v


@pytest.mark.parametrize("blend", ["qk", "map"])
def test_every_chunk_goes_through_its_own_tap(seed, blend):
    """Three chunks of two rows: one's full override, one's blend, and one that nothing is injected into."""
    (first, second), q, k, v = chunked(seed, blend)
    (mixture,) = ByChunk([first, None, second]).attention(ATTENTION, QKV(q, k, v))
    together = attend_mixed(mixture, attend)
    apart = [
        attend_mixed(first.attention(ATTENTION, QKV(q[:2], k[:2], v[:2])), attend),
        attend(q[2:4], k[2:4], v[2:4]),
        attend_mixed(second.attention(ATTENTION, QKV(q[4:], k[4:], v[4:])), attend),
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-6)
    assert (together[:2] - attend(q[:2], k[:2], v[:2])).abs().max() > 1e-3
    assert torch.equal(together[2:4], attend(q, k, v)[2:4]), "an untouched chunk keeps its bits"


def test_neighbours_with_one_tap_are_given_to_it_together(seed):
    (first, second), *own = chunked(seed)
    seen = []

    class Watched:
        sites, given, tapped = first.sites, first.given, first.tapped

        def feature(self, site, hidden):
            return hidden

        def attention(self, site, own) -> Mixture:
            seen.append(len(own.q))
            return first.attention(site, own)

    watched = Watched()
    ByChunk([watched, watched, second]).attention(ATTENTION, QKV(*own))
    ByChunk([watched, watched, watched]).attention(ATTENTION, QKV(*own))
    assert seen == [4, 6]


def test_a_chunks_feature_is_its_own(seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, 3, 2, 2, generator=generator)
    f, g = (torch.randn(1, 3, 2, 2, generator=generator) for _ in range(2))
    taps = [Injector(plan(attention_sites=()), 0, 981, {FEATURE: (x,)}) for x in (f, g)]
    out = ByChunk([taps[0], None, taps[1], taps[0]]).feature(FEATURE, hidden)
    assert torch.equal(out, torch.cat([f, hidden[1:2], g, f]))
    nothing = ByChunk([None, None])
    assert nothing.given == nothing.tapped == frozenset()
    with pytest.raises(RuntimeError, match="4 rows cannot be shared by 3"):
        ByChunk([taps[0], None, taps[1]]).feature(FEATURE, hidden)


@pytest.mark.parametrize("step", [0, 40])
def test_what_is_overridden_whole_need_not_be_computed(seed, step):
    """At kappa 0 q and k are the content's, whatever the UNet would project; later its own are blended in."""
    generator = torch.Generator().manual_seed(seed)
    held = {
        FEATURE: (torch.randn(1, 3, 2, 2, generator=generator),),
        ATTENTION: tuple(torch.randn(1, 4, 5, generator=generator) for _ in "qk"),
    }
    injector = Injector(plan(), step, 981 - 20 * step, held)
    assert injector.given.keys() | injector.tapped == injector.sites
    assert injector.given.keys() == ({FEATURE, ATTENTION} if step == 0 else set())
    chunks = ByChunk([injector, None])
    assert chunks.givers(ATTENTION) == [injector.given.get(ATTENTION), None]
    if step == 0:
        x = torch.randn(2, 4, 7, generator=generator)
        given = [injector.given[ATTENTION].projected(ATTENTION, index, x) for index in range(2)]
        mixture = injector.attention(ATTENTION, QKV(*(torch.zeros(2, 4, 5),) * 3))
        assert all(torch.equal(a, b) for a, b in zip(given, mixture.first[:2], strict=True))
        with pytest.raises(ValueError, match=r"self-attention of layer 4: .*4 tokens"):
            injector.given[ATTENTION].projected(ATTENTION, 0, x[:, :3])
