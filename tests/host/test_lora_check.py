"""LoRA tensors and families: what would give NaN or act otherwise than in the weights is refused before the run."""

from __future__ import annotations

import math

import comfy.lora
import pytest
import safetensors.torch
import tiny
import torch
from node_bench import refused, table

pytest_plugins = ("guards",)

LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"  # [32, 32] of 'small'
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"  # [32, 32, 3, 3]
STRIDED = "lora_unet_down_blocks_0_downsamplers_0_conv"
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
FLOAT = torch.Generator().manual_seed(6)


def r(*shape):
    return 0.3 * torch.randn(*shape, generator=FLOAT)


def of(layer, **tensors):
    return {f"{layer}.{part.replace('__', '.')}": tensor for part, tensor in tensors.items()}


def pair(layer=LINEAR, down=(2, 32), up=(32, 2), **more):
    return of(layer, lora_down__weight=r(*down), lora_up__weight=r(*up), **more)


def spoilt(value, part="lora_up.weight"):
    lora = {**pair(), f"{LINEAR}.alpha": torch.tensor(2.0)}
    lora[f"{LINEAR}.{part}"] = lora[f"{LINEAR}.{part}"].clone().fill_(value)
    return lora


def without(end):
    return {key: tensor for key, tensor in pair().items() if not key.endswith(end)}


LOHA = {"hada_w1_a": r(32, 4), "hada_w1_b": r(4, 32), "hada_w2_a": r(32, 4), "hada_w2_b": r(4, 32)}
LOKR = {"lokr_w1": r(8, 4), "lokr_w2": r(4, 8)}
GLORA = {"a1__weight": r(32, 4), "a2__weight": r(4, 32), "b1__weight": r(32, 4), "b2__weight": r(4, 32)}
FULL_DORA = {"dora_scale": torch.ones(32, 1)}
TORN = {key: tensor for key, tensor in LOHA.items() if key != "hada_w2_b"}
LARGE, MIDDLE = torch.full((2, 32), 6e4), r(2, 2, 3, 3)
SCALAR = torch.tensor(1.0)
REFUSED = [
    ({"lora": of(LINEAR, lora_down__weight=SCALAR, lora_up__weight=SCALAR)}, "lora: layer", "must be a matrix", "[]"),
    ({"lora": of(LINEAR, **{**LOHA, "hada_w1_b": SCALAR})}, "lora: layer", LINEAR, "hada_w1_b must be a matrix"),
    ({"lora": of(LINEAR, lokr_w1=SCALAR, lokr_w2=r(4, 8))}, "lora: layer", "lokr_w1 must be a matrix"),
    ({"lora": pair(reshape_weight=torch.tensor(32))}, "lora: layer", "[32, 32]", "Apply it with Load LoRA"),
    ({"lora": {"unet.mid_block.attn.to_q.lora_B": r(32, 2)}}, "layer 'unet.mid_block.attn.to_q'", "without .lora_A"),
    ({"lora": pair(alpha=torch.tensor(2.0 + 1j))}, "lora: layer", "alpha is a tensor of torch.complex64"),
    ({"lora": of(LINEAR, lora_down__weight=r(2, 32), lora_up__weight=r(32, 2).to("meta"))}, "without values"),
    ({"lora": of(LINEAR, lora_down__weight=r(2, 32), lora_up__weight=r(32, 2).to_sparse())}, "torch.sparse_coo"),
    ({"lora": {**pair(), 3: r(2, 2)}}, "lora: its keys are names of layers, got 3"),
    ({"lora": spoilt(math.nan)}, "lora: layer", LINEAR, "lora_up.weight", "not finite", "Train or fetch it again"),
    ({"lora": spoilt(math.inf, "lora_down.weight")}, "lora: layer", "lora_down.weight", "not finite"),
    ({"lora": spoilt(1e20)}, "lora: layer", "lora_up.weight", "1e+20", "beyond 65504"),
    ({"lora": of(LINEAR, lora_down__weight=LARGE, lora_up__weight=LARGE.T)}, "lora: layer", "up to 7.2e+09", "NaN"),
    ({"lora": spoilt(math.nan, "alpha")}, "lora: layer", "alpha", "not finite"),
    ({"lora": spoilt(-math.inf, "alpha")}, "lora: layer", "alpha", "not finite"),
    ({"lora": spoilt(0.0, "alpha")}, "lora: layer", "alpha must be one number other than 0", "got 0"),
    ({"lora": pair(alpha=torch.ones(3))}, "lora: layer", "alpha must be one number", "[3]"),
    ({"lora": without("lora_down.weight")}, "lora: layer", ".lora_up.weight without .lora_down.weight", "incomplete"),
    ({"lora": without("lora_up.weight")}, "lora: layer", ".lora_down.weight without .lora_up.weight", "incomplete"),
    ({"lora": of(LINEAR, **TORN)}, "lora: layer", "without .hada_w2_b", "incomplete"),
    ({"lora": of(LINEAR, lokr_w1=r(8, 4), lokr_w2_a=r(4, 2))}, "lora: layer", "without .lokr_w2_b"),
    ({"lora": pair(up=(32, 3))}, "lora: layer", "lora_up has rank 3 and lora_down 2", "not of one LoRA"),
    ({"lora": pair(down=(0, 32), up=(32, 0))}, "lora: layer", "is empty", "[0, 32]"),
    ({"lora": pair(down=(2, 32, 1, 1), up=(32, 2, 1, 1))}, "lora: layer", "[32, 32]", "Load LoRA"),
    ({"lora": pair(lora_mid__weight=r(2, 2))}, "lora: layer", "[2, 2]", "Load LoRA"),
    ({"lora": pair(CONV, (2, 32), (32, 2), lora_mid__weight=MIDDLE)}, "lora: layer", "[2, 2, 3, 3]", "Load LoRA"),
    ({"lora": pair(CONV, (2, 288), (32, 2), reshape_weight=torch.tensor([64, 32, 3, 3]))}, "lora: layer", "Load LoRA"),
    ({"lora": of(LINEAR, **{**LOHA, "hada_w1_b": r(4, 48)})}, "lora: layer", "[4, 48]", "Load LoRA"),
    ({"lora": of(LINEAR, **{**LOKR, "lokr_w2": r(4, 9)})}, "lora: layer", "[4, 9]", "Load LoRA"),
    ({"lora": of(CONV, lokr_w1=r(8, 4), lokr_w2_a=r(4, 2), lokr_w2_b=r(2, 72))}, "lora: layer", "Load LoRA"),
    (
        {"lora": of(LINEAR, lokr_w1_a=r(8, 3), lokr_w1_b=r(3, 4), lokr_w2_a=r(4, 2), lokr_w2_b=r(2, 8),
                    alpha=torch.tensor(1.0))}, "lora: layer", "Load LoRA",
    ),
    ({"lora": pair(**FULL_DORA)}, "lora is a DoRA", "Load LoRA instead"),
    ({"lora": of(LINEAR, **LOHA, **FULL_DORA)}, "lora is a DoRA", "Load LoRA instead"),
    ({"lora": of(LINEAR, **LOKR, **FULL_DORA)}, "lora is a DoRA", "Load LoRA instead"),
    ({"lora": of(LINEAR, **GLORA, **FULL_DORA)}, "lora is a DoRA", "Load LoRA instead"),
    ({"lora": of(LINEAR, oft_blocks=r(8, 4, 4), **FULL_DORA)}, "lora is a DoRA", "Load LoRA instead"),
    ({"lora": pair(lora_magnitude_vector=torch.ones(32))}, "lora is a DoRA", "lora_magnitude_vector", "Load LoRA"),
    ({"lora": of(LINEAR, **GLORA)}, "lora changes", "forward pass (GLoRAAdapter)", "Load LoRA"),
    ({"lora": of(LINEAR, oft_blocks=r(8, 4, 4))}, "lora changes", "forward pass (OFTAdapter)", "Load LoRA"),
    ({"lora": of(LINEAR, oft_blocks=r(2, 8, 4, 4))}, "lora changes", "forward pass (BOFTAdapter)", "Load LoRA"),
    ({"lora": of(LINEAR, diff=r(32, 32))}, "lora changes", "forward pass ('diff')", "Load LoRA"),
    ({"lora": {f"{LINEAR}.lora_up.weight": "text"}}, "lora: layer", "no tensor but str"),
]  # fmt: skip


@pytest.fixture(scope="module")
def features(shared_bench):
    return shared_bench.capture()[0]


@pytest.mark.parametrize(**table(REFUSED))
def test_refused_before_the_run(bench, features, changes, words):
    with refused(bench, *words):
        bench.sampler(features=features, **changes)


RUNS = {
    "lora": (LINEAR, {"lora_down__weight": r(4, 32), "lora_up__weight": r(32, 4)}),
    "lora conv": (CONV, {"lora_down__weight": r(4, 32, 3, 3), "lora_up__weight": r(32, 4, 1, 1)}),
    "lora conv, flat": (CONV, {"lora_down__weight": r(4, 288), "lora_up__weight": r(32, 4)}),
    "locon": (
        CONV,
        {"lora_down__weight": r(4, 32, 1, 1), "lora_mid__weight": r(4, 4, 3, 3), "lora_up__weight": r(32, 4, 1, 1)},
    ),
    "locon, strided": (
        STRIDED,
        {"lora_down__weight": r(4, 32, 1, 1), "lora_mid__weight": r(4, 4, 3, 3), "lora_up__weight": r(32, 4, 1, 1)},
    ),
    "loha": (LINEAR, LOHA),
    "loha conv": (CONV, {**LOHA, "hada_w1_b": r(4, 288), "hada_w2_b": r(4, 288)}),
    "loha tensor": (
        CONV,
        {
            **{key: r(4, 32) for key in LOHA},
            "hada_t1": r(4, 4, 3, 3),
            "hada_t2": r(4, 4, 3, 3),
        },
    ),
    "lokr": (LINEAR, LOKR),
    "lokr factored": (LINEAR, {"lokr_w1_a": r(8, 2), "lokr_w1_b": r(2, 4), "lokr_w2_a": r(4, 2), "lokr_w2_b": r(2, 8)}),
    "lokr conv": (CONV, {"lokr_w1": r(8, 4), "lokr_w2": r(4, 8, 3, 3)}),
}


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("family", RUNS)
def test_what_is_let_through_acts_as_in_the_weights(pack, measured, family, alpha):
    layer, tensors = RUNS[family]
    lora = of(layer, **tensors, **({} if alpha is None else {"alpha": torch.tensor(alpha)}))
    model, strength = tiny.make_model("small"), 0.7
    forward = pack.host.lora.adapters.ForwardLora(model, lora, strength)
    (path,) = forward.layers
    unet = model.model.diffusion_model
    module = unet.get_submodule(path)
    x = torch.randn(2, 32, 8, 8) if module.weight.ndim == 4 else torch.randn(2, 5, 32)
    base = module(x)
    with pack.host.lora.adapters.loras_applied(unet, [forward]):
        ours = module(x)
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    ((key, adapter),) = comfy.lora.load_lora(lora, key_map, log_missing=False).items()
    before = module.weight.clone()
    module.weight.copy_(adapter.calculate_weight(before.clone(), key, strength, 1.0, None, lambda w: w))
    theirs = module(x)
    module.weight.copy_(before)
    size = (theirs - base).norm()
    assert size > 1e-3 * base.norm()
    measured("change against the host's merged weights, relative", ((ours - theirs).norm() / size).item(), at_most=1e-4)


def test_what_is_not_applied_is_counted_and_named(pack):
    lora = {**pair(), **pair(TEXT, (2, 768), (3072, 2)), **pair("lora_unet_no_such_layer")}
    forward = pack.host.lora.adapters.ForwardLora(tiny.make_model("small"), lora, 1.0, "lora")
    text, rest = forward.notes
    assert "2 text-encoder keys of lora" in text
    assert "Load LoRA (Model and CLIP)" in text
    assert "2 of 6 keys of lora match no layer" in rest
    assert "lora_unet_no_such_layer" in rest
    assert forward.at(0.5).notes == forward.notes
    assert pack.host.lora.adapters.ForwardLora(tiny.make_model("small"), pair(), 1.0).notes == ()


def test_a_file_that_shrinks_while_in_use_changes_nothing(pack, host_folders):
    """Memory-mapped, a read after the cut is SIGBUS: it ends the server. Large enough to span pages."""
    path = host_folders / "loras" / "style.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(300_000), "b": torch.ones(300_000)}))
    lora = pack.host.lora.files.lora_from_file("style.safetensors")
    path.write_bytes(b"")
    assert lora["b"].sum() == 300_000


HEADERS = {
    "empty": b"",
    "short": b"\x10\0\0",
    "a huge header": (2**40).to_bytes(8, "little") + b"{}",
    "no JSON": (4).to_bytes(8, "little") + b"abcd",
    "tensors beyond the end": (60).to_bytes(8, "little")
    + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(60),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_file_is_named(pack, host_folders, kind):
    (host_folders / "loras" / "bad.safetensors").write_bytes(HEADERS[kind])
    with pytest.raises(ValueError, match=r"lora_name: 'bad\.safetensors' cannot be read as safetensors"):
        pack.host.lora.files.lora_from_file("bad.safetensors")


NAMES = ("../outside", "/etc/hosts", "a\0", "\ud800", "a" * 5000, "b" * 300)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_no_file_in_the_folder_are_refused(pack, host_folders, name):
    (host_folders / "outside.safetensors").write_bytes(safetensors.torch.save(pair()))
    with pytest.raises(ValueError, match=r"^lora_name"):
        pack.host.lora.files.lora_from_file(f"{name}.safetensors")
