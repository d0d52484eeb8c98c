"""LoRAs that the sampler refuses, before any UNet evaluation, and the MODEL that it leaves as it was."""

from __future__ import annotations

import folder_paths
import pytest
import safetensors.torch
import torch
from node_bench import refused, table

pytest_plugins = ("guards",)

KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(inner=32, outer=32, rank=2, key=KEY, **extra):
    """A LoRA in kohya's form on one cross-attention; ``extra`` adds tensors of the same layer."""
    generator = torch.Generator().manual_seed(6)
    return {
        f"{key}.lora_down.weight": torch.randn(rank, inner, generator=generator),
        f"{key}.lora_up.weight": torch.randn(outer, rank, generator=generator),
        f"{key}.alpha": torch.tensor(float(rank)),
        **{f"{key}.{name}": tensor for name, tensor in extra.items()},
    }


REFUSED = [
    ({"lora": {}}, "lora matches 0 layers", "(0, ", "this model's family"),
    ({"lora": lora(key="lora_te_text_model_encoder_layers_0")}, "lora matches 0 layers", "(3, ", "lora_te_text_model"),
    ({"lora": lora(key="unet.down_blocks.0.attentions.0.to_q")}, "lora matches 0 layers", "unknown form"),
    ({"lora": lora(inner=768)}, "lora does not fit this model", "(32, 32)", "[32, 768]", "this model's family"),
    ({"lora": lora(outer=64)}, "lora does not fit this model", "(32, 32)", "[64, 32]", "this model's family"),
    ({"lora": lora(lora_magnitude_vector=torch.ones(32))}, "lora is a DoRA in peft's form", "Convert it"),
    ({"lora": {f"{KEY}.diff": torch.zeros(32, 64)}}, "lora: layer", "'diff' of [32, 64]", "this model's family"),
    ({"lora": lora(), "lora_name": "a.safetensors"}, "lora and lora_name", "'a.safetensors'", "unplug lora"),
    ({"lora_name": "style.pt"}, "lora_name", "'style.pt'", "convert it"),
    ({"lora_name": "gone.safetensors"}, "lora_name", "'gone.safetensors'", "refresh the list"),
    ({"lora_name": "corrupt.safetensors"}, "lora_name", "'corrupt.safetensors'", "Train or fetch it again"),
    ({"lora_name": "cut.safetensors"}, "lora_name", "'cut.safetensors'", "Train or fetch it again"),
    ({"lora_name": "other.safetensors"}, "lora_name: 'other.safetensors' does not fit", "[32, 768]"),
]


@pytest.fixture(scope="module")
def features(shared_bench):
    return shared_bench.capture()[0]


@pytest.fixture(autouse=True)
def files(host_folders):
    """A folder of LoRA files of every kind of bad."""
    folder = host_folders / "loras"
    whole = safetensors.torch.save(lora())
    (folder / "corrupt.safetensors").write_bytes(b"<html>404</html>")
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "style.pt").write_bytes(b"")
    (folder / "good.safetensors").write_bytes(whole)
    (folder / "other.safetensors").write_bytes(safetensors.torch.save(lora(inner=768)))
    return folder


@pytest.mark.parametrize(**table(REFUSED))
@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_refused_before_the_run(bench, features, changes, words, strength):
    with refused(bench, *words):
        bench.sampler(features=features, lora_strength=strength, **changes)


@pytest.mark.parametrize(
    "changes", [{"lora": lora()}, {"lora_name": "good.safetensors"}, {}], ids=["wired", "file", "no"]
)
def test_a_good_one_changes_nothing_but_the_result(bench, features, changes):
    given = changes.get("lora", {})
    before = {name: tensor.clone() for name, tensor in given.items()}
    bench.sampler(features=features, **changes)
    assert before.keys() == given.keys()
    assert all(torch.equal(before[name], given[name]) for name in before)


def test_a_file_that_changed_under_its_name_is_another_input(pack, files):
    node = pack.pipeline.sampler.InjectedLoRASampler
    first = node.fingerprint_inputs(lora_name="good.safetensors")
    (files / "good.safetensors").write_bytes(safetensors.torch.save(lora(rank=4)))
    assert node.fingerprint_inputs(lora_name="good.safetensors") != first
    assert node.fingerprint_inputs(lora_name="gone.safetensors") == node.fingerprint_inputs() == ""


def test_only_safetensors_are_listed(pack):
    assert "style.pt" in folder_paths.get_filename_list("loras")
    assert "style.pt" not in pack.host.lora.files.lora_names()
    assert "good.safetensors" in pack.host.lora.files.lora_names()


def test_names_of_no_file_have_no_fingerprint(pack):
    """Folders make names long, and a name may be none at all: it is executing that refuses."""
    long = "/".join(["folder" * 20] * 3) + "/x.safetensors"
    assert len(long) > 200
    for node in (pack.pipeline.sampler.InjectedLoRASampler, pack.pipeline.guider.InjectedLoRAGuider):
        assert node.fingerprint_inputs(lora_name=long) == ""
        assert node.fingerprint_inputs(lora_name="\ud800.safetensors") == ""
