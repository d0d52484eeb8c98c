"""A capture that does not fit is refused after its first step, exactly."""

from __future__ import annotations

import pytest
import torch

from diffstyler_core.injection.capture import CaptureRequest
from diffstyler_core.injection.sites import Site
from diffstyler_core.injection.size import bytes_to_come, fitting, split
from diffstyler_core.injection.store import DiskStore, MemoryStore, bytes_of

FEATURE, OTHER = Site("feature", 4), Site("feature", 7)
ATTENTION, CROSS = Site("self-attention", 5), Site("cross-attention", 5)


def taken(site: Site, dtype: torch.dtype = torch.float16) -> tuple[torch.Tensor, ...]:
    """Tensors of a size that differs from site to site, and from q to k in cross-attention."""
    if site.kind == "feature":
        return (torch.ones(1, 3, site.layer, 2, dtype=dtype),)
    return torch.ones(1, 8, 5, dtype=dtype), torch.ones(1, 77 if site.kind == "cross-attention" else 8, 5, dtype=dtype)


def sites_of(request: CaptureRequest) -> list[tuple[Site, ...]]:
    return [request.sites_at(step) for step in range(request.steps())]


REQUESTS = [
    CaptureRequest((FEATURE, OTHER), (ATTENTION, CROSS), 2, 5),
    CaptureRequest((FEATURE,), (ATTENTION,), 5, 1),
    CaptureRequest((FEATURE,), (ATTENTION,), 0, 3),
    CaptureRequest((), (CROSS,), 0, 1),
]


class Capturing:
    """Makes steps, and counts them."""

    def __init__(self, request: CaptureRequest, dtype: torch.dtype = torch.float16) -> None:
        self.request, self.dtype, self.made = request, dtype, 0

    def __iter__(self):
        for sites in sites_of(self.request):
            self.made += 1
            yield tuple(t for site in sites for t in taken(site, self.dtype))


def test_a_flat_step_is_split_by_its_sites():
    sites = (FEATURE, ATTENTION, OTHER, CROSS)
    flat = tuple(t for site in sites for t in taken(site))
    assert {site: [t.shape for t in own] for site, own in split(flat, sites).items()} == {
        site: [t.shape for t in taken(site)] for site in sites
    }


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_estimate_is_the_size(request_, dtype):
    steps = list(Capturing(request_, dtype))
    assert bytes_to_come(steps[0], sites_of(request_)) == sum(bytes_of(step) for step in steps[1:])


@pytest.mark.parametrize("request_", [r for r in REQUESTS if r.steps() > 1])
@pytest.mark.parametrize(("storage", "words"), [("memory", "Choose disk"), ("disk", "choose recompute")])
@pytest.mark.parametrize(("dtype", "shorter"), [(torch.float32, " or in fp16."), (torch.float16, " or steps.")])
def test_what_does_not_fit_is_refused_before_the_second_step(tmp_path, request_, storage, words, dtype, shorter):
    whole = list(Capturing(request_, dtype))
    coming = sum(bytes_of(step) for step in whole[1:])
    told = []

    def keep(free: int):
        steps = fitting(run, sites_of(request_), storage, lambda wanted: told.append(wanted) or free)
        return MemoryStore(steps) if storage == "memory" else DiskStore(tmp_path / "capture", steps)

    run = Capturing(request_, dtype)
    assert keep(coming).nbytes == sum(bytes_of(step) for step in whole)
    assert run.made == request_.steps()
    run = Capturing(request_, dtype)
    with pytest.raises(
        ValueError, match=rf"storage: .*other {request_.steps() - 1} steps need .* {storage} has"
    ) as error:
        keep(coming - 1)
    assert words in str(error.value)
    assert str(error.value).endswith(shorter)
    assert run.made == 1
    assert told == [coming, coming]
    assert not (tmp_path / "capture").exists()


def test_one_step_is_all_there_is():
    run = Capturing(REQUESTS[3])
    assert len(MemoryStore(fitting(run, sites_of(run.request), "memory", lambda wanted: 0))) == 1


def test_values_are_counted_and_split():
    request = CaptureRequest((FEATURE,), (ATTENTION, CROSS), 2, 3, values=True)

    def made(site):
        return (*taken(site), torch.ones(1, 8, 5, dtype=torch.float16)) if site is ATTENTION else taken(site)

    steps = [tuple(t for site in sites for t in made(site)) for sites in sites_of(request)]
    assert bytes_to_come(steps[0], sites_of(request), True) == sum(bytes_of(step) for step in steps[1:])
    assert [len(own) for own in split(steps[0], sites_of(request)[0], True).values()] == [1, 3, 2]
    with pytest.raises(ValueError, match="the capture's other 2 steps need"):
        list(fitting(steps, sites_of(request), "memory", lambda wanted: wanted - 1, True))
    assert list(fitting(steps, sites_of(request), "memory", float, True)) == steps
