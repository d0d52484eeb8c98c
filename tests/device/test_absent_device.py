"""What the device that is not there notices, what it knows, and what it refuses to answer."""

from __future__ import annotations

import pytest
import torch
from absent_device import CUDA


def test_what_does_not_belong_on_a_gpu_is_noticed(absent):
    with absent() as device:
        with pytest.raises(Exception, match=r"cuda.*cpu|cpu.*cuda"):
            torch.ones(2, device=CUDA) + torch.ones(2)
        torch.empty(2, 2, device=CUDA) @ torch.empty(2, 2, device=CUDA)
        assert set(device.seen.products) == {frozenset({torch.float32})}
        assert device.seen.wide == [((2, 2), (2, 2))]
        torch.empty(5, 7).to(CUDA, torch.float16).cpu()
        torch.empty(3, device=CUDA).copy_(torch.ones(3))
        assert device.seen.moved == {("cpu", "cuda"): 70 + 12, ("cuda", "cpu"): 70}
        torch.empty(9, 11, device=CUDA)
        assert device.seen.widest == 99


def test_values_that_began_on_the_cpu_are_followed(absent, seed):
    values = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))
    expected = torch.lerp(values[1:], values[:-1], 0.3).sum().item()
    with absent() as device:
        there = values.to(CUDA)
        assert torch.lerp(there[1:], there[:-1], 0.3).sum().item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(there.cpu(), values), "what comes back with its values is a real tensor"
        assert len(there[there < 0.5]) == int((values < 0.5).sum())
        assert device.seen.waits == 2
        there[0] += 1.0
        assert there.max().item() == pytest.approx(max(values[0].max().item() + 1.0, values.max().item()))


def test_what_has_no_values_answers_few_questions(absent):
    with absent():
        weights, known = torch.empty(4, device=CUDA), torch.ones(4).to(CUDA)
        assert torch.isfinite(weights).all()
        assert torch.count_nonzero(weights) > 0
        with pytest.raises(RuntimeError, match="a decision depends on values that are not there"):
            bool((weights > 0).all())
        ones = weights.new_ones([2]) * 3.0 + torch.full_like(weights, 0.5)[:2]
        assert ones.tolist() == [3.5, 3.5], "whose values hang on no other's"
        view = known[1:]
        known.copy_(weights)
        with pytest.raises(RuntimeError, match="a decision depends on values that are not there"):
            bool((view > 0).all())


def test_the_memory_of_tensors_is_counted(absent):
    with absent() as device:
        live = device.live
        start = live.now
        first = torch.empty(10, 10, device=CUDA)
        view, second = first[2:].t(), first + 1.0
        assert live.now - start == 800
        del first
        assert live.now - start == 800, "its view holds it"
        del view
        assert (live.now - start, live.peak - start) == (400, 800)
        assert live.restart() == live.now
        second = (second * 2.0).half()
        assert (live.now - start, live.peak - start) == (200, 1000), "the product was there beside both"
        there = torch.ones(4).to(CUDA)
        assert live.now - start == 216
        del second, there
        assert live.now == start
