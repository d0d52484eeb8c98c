"""The host's nodes that captured attention cannot go with are refused by name, on every node that evaluates."""

from __future__ import annotations

import analysis_bench as ab
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_tomesd as tomesd
import pytest
import tiny
import torch
from node_bench import EMPTY, refused

pytest_plugins = ("guards",)

PATCHES = {
    "EasyCache": lambda model: easycache.EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False).args[0],
    "LazyCache": lambda model: easycache.LazyCacheNode.execute(model, 0.2, 0.15, 0.95, False).args[0],
    "HyperTile": lambda model: hypertile.HyperTile.execute(model, 32, 2, 1, False)[0],
    "ToMe": lambda model: tomesd.TomePatchModel.execute(model, 0.5).args[0],
}


@pytest.fixture(scope="module")
def scene(pack, shared_bench):
    with torch.inference_mode():
        yield ab.scene(pack, 1, model=shared_bench.model)


@pytest.mark.parametrize("name", PATCHES)
def test_refused_by_every_node(pack, bench, scene, name):
    model = PATCHES[name](bench.model)
    remedy = "Wire the MODEL from before that node"
    with refused(bench, f"model carries {name}", remedy):
        bench.invert(model=model)
    with refused(bench, f"model carries {name}", remedy):
        ab.report(pack, model, tiny.make_latent(), EMPTY)
    with refused(bench, f"model carries {name}", remedy):
        ab.pca(pack, scene, model=model)
    with refused(bench, f"second_model carries {name}", remedy):
        ab.similarities(pack, scene, second_model=model)


def test_other_patches_are_welcome(pack, bench, scene):
    model = freelunch.FreeU_V2.execute(bench.model, 1.3, 1.4, 0.9, 0.2).args[0]
    model.set_model_attn1_patch(lambda q, k, v, options: (q, k, v))
    pack.host.model.require_compatible(model)
    bench.invert(model=model)
    ab.pca(pack, scene, model=model)


def test_tome_draws_other_tokens_at_each_call(measured):
    """Why ToMe is refused though it runs: queries captured in one call lie at other places than those of the next."""
    queries = torch.randn(1, 64, 32)
    first, second = (tomesd.get_functions(queries, 0.5, (1, 4, 8, 8))[0](queries) for _ in range(2))
    assert first.shape == second.shape == (1, 32, 32)
    measured("merged queries of two calls, relative", ((first - second).norm() / first.norm()).item(), at_least=0.5)
