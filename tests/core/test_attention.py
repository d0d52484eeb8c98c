"""Blended attention against softmax maps written out in float64 (DiffStyler 2026, eq. 5)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from diffstyler_core.injection.attention import QKV, Mixture, attend_mixed, fit_rows, mix, mix_rows
from diffstyler_core.injection.sites import Site

HEADS = 4


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as a UNet computes it: fp32, fused, no map."""
    parts = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


def inject_attention(q, k, v, q_content, k_content, kappa, blend, attend):
    """The blend of eq. 5, applied."""
    return attend_mixed(mix(QKV(q, k, v), q_content, k_content, kappa, blend), attend)


def softmax_map(q: Tensor, k: Tensor) -> Tensor:
    q, k = (x.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k))
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)


def through(attention: Tensor, v: Tensor) -> Tensor:
    return (attention @ v.double().unflatten(-1, (HEADS, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)


def drawn(seed: int, own: int, keys: int, rows: int = 2) -> list[Tensor]:
    """The style run's q, k, v and the content's q, k."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, own, 32), (rows, keys, 32), (rows, keys, 32), (1, own, 32), (1, keys, 32)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("kappa", [0.0, 0.1, 0.5, 0.998, 1.0])
@pytest.mark.parametrize(("own", "keys"), [(64, 64), (49, 77)])
def test_map_blend_is_the_mean_of_the_two_maps(seed, kappa, own, keys):
    q, k, v, q_c, k_c = drawn(seed, own, keys)
    rows = [x.expand(2, -1, -1) for x in (q_c, k_c)]
    ours = inject_attention(q, k, v, *rows, kappa, "map", attend)
    mixed = (1 - kappa) * softmax_map(*rows) + kappa * softmax_map(q, k)
    assert mixed.sum(-1) == pytest.approx(1.0)
    assert (ours - through(mixed, v)).abs().max() <= 1e-5


@pytest.mark.parametrize("kappa", [0.0, 0.1, 0.5, 0.998, 1.0])
def test_qk_blend_is_the_map_of_the_blended_q_and_k(seed, kappa):
    q, k, v, q_c, k_c = drawn(seed, 64, 64)
    rows = [x.expand(2, -1, -1) for x in (q_c, k_c)]
    ours = inject_attention(q, k, v, *rows, kappa, "qk", attend)
    q_mixed, k_mixed = ((1 - kappa) * c.double() + kappa * s.double() for c, s in zip(rows, (q, k), strict=True))
    assert (ours - through(softmax_map(q_mixed, k_mixed), v)).abs().max() <= 1e-5


def test_the_blends_differ_between_the_ends_and_agree_at_them(seed):
    q, k, v, q_c, k_c = drawn(seed, 64, 64, rows=1)
    for kappa, same in ((0.0, True), (0.5, False), (1.0, True)):
        pair = [inject_attention(q, k, v, q_c, k_c, kappa, blend, attend) for blend in ("qk", "map")]
        assert torch.equal(*pair) == same


@pytest.mark.parametrize("blend", ["qk", "map"])
@pytest.mark.parametrize(("kappa", "calls"), [(0.0, 1), (0.5, None), (1.0, 1)])
def test_the_ends_cost_one_attention_and_give_its_bits(seed, blend, kappa, calls):
    q, k, v, q_c, k_c = drawn(seed, 64, 64, rows=1)
    seen = []

    def counted(*args: Tensor) -> Tensor:
        seen.append(args)
        return attend(*args)

    out = inject_attention(q, k, v, q_c, k_c, kappa, blend, counted)
    assert len(seen) == (calls or {"qk": 1, "map": 2}[blend])
    if calls:
        assert torch.equal(out, attend(q, k, v) if kappa else attend(q_c, k_c, v))


@pytest.mark.parametrize("kappa", [-0.01, 1.01, float("nan"), float("inf")])
def test_kappa_outside_is_refused(kappa):
    with pytest.raises(ValueError, match=rf"kappa must lie in \[0, 1\], got {kappa}"):
        inject_attention(*drawn(0, 4, 4), kappa, "qk", attend)


@pytest.mark.parametrize(
    ("kind", "content", "own"),
    [("self-attention", 64, 64), ("cross-attention", 77, 77), ("cross-attention", 77, 231)],
)
def test_fit_rows_repeats_the_content_for_every_row_and_chunk(seed, kind, content, own):
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(1, content, 8, generator=generator)
    fitted = fit_rows(tensor, torch.empty(3, own, 8, dtype=torch.float64), Site(kind, 4))
    assert fitted.shape == (3, own, 8)
    assert fitted.dtype == torch.float64
    for row in fitted.split(1):
        for chunk in row.split(content, dim=1):
            assert torch.equal(chunk, tensor.double())


def test_repeated_keys_leave_the_attention_as_it_is(seed):
    """Why a short prompt may be repeated: softmax over a set that is repeated whole gives the same output."""
    q, k, v, *_ = drawn(seed, 16, 77, rows=1)
    repeated = attend(q, k.repeat(1, 3, 1), v.repeat(1, 3, 1))
    assert (repeated - attend(q, k, v)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "content", "own"),
    [
        ("self-attention", (1, 64, 8), (2, 128, 8)),
        ("self-attention", (1, 64, 8), (2, 63, 8)),
        ("self-attention", (1, 64, 8), (2, 64, 16)),
        ("cross-attention", (1, 77, 8), (2, 78, 8)),
        ("cross-attention", (1, 154, 8), (2, 77, 8)),
    ],
)
def test_fit_rows_refuses_other_sizes(kind, content, own):
    with pytest.raises(
        ValueError, match=f"{kind} of layer 4: .*{content[1]} tokens of {content[2]} .*{own[1]} of {own[2]}"
    ):
        fit_rows(torch.zeros(content), torch.zeros(own), Site(kind, 4))


def test_mixtures_of_rows_keep_each_rows_share(seed):
    q, k, v, q_c, k_c = drawn(seed, 16, 16)
    own = QKV(q, k, v)
    one, other = (QKV(*(x[rows] for x in own)) for rows in (slice(1), slice(1, None)))
    parts = [Mixture(one), Mixture(QKV(q_c, k_c, other.v), 0.3, other)]
    (mixture,) = mix_rows(parts)
    together = attend_mixed(mixture, attend)
    assert torch.equal(together[:1], attend(q, k, v)[:1])
    expected = 0.7 * attend(q_c, k_c, v[1:]) + 0.3 * attend(q[1:], k[1:], v[1:])
    torch.testing.assert_close(together[1:], expected, rtol=0, atol=1e-6)
    (plain,) = mix_rows([Mixture(one), Mixture(other)])
    assert plain.second is None, "no second attention where none is needed"
    assert all(torch.equal(a, b) for a, b in zip(plain.first, own, strict=True))


def test_rows_of_other_numbers_of_keys_are_attended_apart(seed):
    q, k, v, *_ = drawn(seed, 16, 16, rows=3)
    longer = QKV(q[1:2], k[:2].reshape(1, 32, -1), v[:2].reshape(1, 32, -1))
    parts = [Mixture(QKV(q[:1], k[:1], v[:1])), Mixture(longer), Mixture(QKV(q[2:], k[2:], v[2:]))]
    assert [len(m.first.q) for m in mix_rows(parts)] == [1, 1, 1]
    assert [m.first.k.shape[1] for m in mix_rows([*parts[1:2], *parts[1:2], parts[0]])] == [32, 16]
    together = torch.cat([attend_mixed(m, attend) for m in mix_rows(parts)])
    assert torch.equal(together[1:2], attend(*longer))
    assert torch.equal(together[::2], attend(q, k, v)[::2])
