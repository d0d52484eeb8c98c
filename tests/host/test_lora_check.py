"""LoRA tensors and families: what would give NaN or act otherwise than in the weights is refused before the run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import comfy.lora
import comfy.utils
import pytest
import safetensors.torch
import tiny
import torch
from node_bench import refused, table

pytest_plugins = ("guards",)

LINEAR = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"  # [32, 32] of 'small'
NORM = "lora_unet_down_blocks_0_resnets_0_norm1"
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
    ({"lora": pair(reshape_weight=torch.tensor(32))}, "lora: layer", "[32, 32]", "do not fit", "model's family"),
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
    ({"lora": pair(lora_mid__weight=r(2, 2))}, "lora: layer", "[2, 2]", "do not fit"),
    ({"lora": pair(CONV, (2, 32), (32, 2), lora_mid__weight=MIDDLE)}, "lora: layer", "[2, 2, 3, 3]", "do not fit"),
    ({"lora": pair(CONV, (2, 288), (32, 2), reshape_weight=torch.tensor([64, 32, 3, 3]))}, "lora: layer", "do not fit"),
    ({"lora": of(LINEAR, **{**LOHA, "hada_w1_b": r(4, 48)})}, "lora: layer", "[4, 48]", "do not fit"),
    ({"lora": of(LINEAR, **{**LOKR, "lokr_w2": r(4, 9)})}, "lora: layer", "[4, 9]", "do not fit"),
    ({"lora": of(CONV, lokr_w1=r(8, 4), lokr_w2_a=r(4, 2), lokr_w2_b=r(2, 36))}, "lora: layer", "[2, 36]"),
    ({"lora": pair(lora_magnitude_vector=torch.ones(32))}, "DoRA in peft's form", "lora_magnitude_vector", "Convert"),
    ({"lora": pair(dora_scale=torch.ones(64, 1))}, "lora: layer", "DoRA", "[64, 1]", "do not fit"),
    ({"lora": pair(dora_scale=torch.ones(32))}, "lora: layer", "DoRA", "[32]", "do not fit"),
    ({"lora": pair(dora_scale=torch.full((32, 1), 6e4))}, "lora: layer", "up to 6e+04", "NaN"),
    ({"lora": pair(dora_scale=torch.full((32, 1), math.nan))}, "lora: layer", "dora_scale", "not finite"),
    ({"lora": pair(up=(64, 2), dora_scale=torch.ones(64, 1))}, "lora does not fit this model", "[64, 32]"),
    ({"lora": pair(up=(32, 3), dora_scale=torch.ones(32, 1))}, "lora: layer", "lora_up has rank 3"),
    ({"lora": of(LINEAR, **LOHA, dora_scale=torch.ones(1, 64))}, "lora: layer", "DoRA", "[1, 64]", "do not fit"),
    ({"lora": of(LINEAR, oft_blocks=r(8, 4, 4), **FULL_DORA)}, "lora: layer", "OFT with dora_scale", "Remove"),
    ({"lora": of(LINEAR, **{**GLORA, "a2__weight": r(4, 48)})}, "lora: layer", "GLoRA", "[4, 48]", "do not fit"),
    ({"lora": of(LINEAR, **{**GLORA, "b1__weight": r(32, 5)})}, "lora: layer", "GLoRA", "[32, 5]", "do not fit"),
    ({"lora": of(LINEAR, **{k: t for k, t in GLORA.items() if k[0] == "a"})}, "lora: layer", "without .b1.weight"),
    ({"lora": of(LINEAR, **{**GLORA, "b2__weight": r(4, 32) * math.inf})}, "lora: layer", "b2.weight", "not finite"),
    ({"lora": of(LINEAR, **{**GLORA, "b1__weight": r(32, 4) * 1e4, "b2__weight": r(4, 32) * 1e4})}, "lora", "NaN"),
    ({"lora": of(LINEAR, oft_blocks=r(8, 4, 3))}, "lora: layer", "OFT", "[8, 4, 3]", "do not fit"),
    ({"lora": of(LINEAR, oft_blocks=r(4, 4, 4))}, "lora: layer", "OFT", "[4, 4, 4]", "do not fit"),
    ({"lora": of(LINEAR, oft_blocks=r(8, 4, 4) * math.nan)}, "lora: layer", "oft_blocks", "not finite"),
    ({"lora": of(LINEAR, oft_blocks=r(8, 4, 4), alpha=torch.ones(2))}, "lora: layer", "alpha must be one number"),
    ({"lora": of(LINEAR, oft_blocks=r(5, 8, 4, 4))}, "lora: layer", "BOFT", "[5, 8, 4, 4]", "do not fit"),
    ({"lora": of(LINEAR, oft_blocks=r(2, 8, 4, 4), rescale=r(32))}, "lora: layer", "BOFT", "[32]", "do not fit"),
    ({"lora": of(LINEAR, diff=r(32, 48))}, "lora: layer", "'diff' of [32, 48]", "[32, 32]"),
    ({"lora": of(LINEAR, diff=r(32, 32) * math.inf)}, "lora: layer", "diff", "not finite"),
    ({"lora": of(LINEAR, set_weight=6e4 * r(32, 32).sign())}, "lora: layer", "changes weights by up to 6e+04", "NaN"),
    ({"lora": of(NORM, w_norm=r(64))}, "lora: layer", "'diff' of [64]", "[32]"),
    ({"lora": {**pair(), **of(LINEAR, diff=r(32, 32))}}, "changed twice", ".lora_up.weight", ".diff", "Remove one"),
    ({"lora": {**pair(), **pair(LINEAR.replace("lora_unet", "lycoris"))}}, "changed twice", "lycoris_down_blocks"),
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


MERGED = {
    "lora linear, kernels": (LINEAR, {"lora_down__weight": r(4, 32, 1, 1), "lora_up__weight": r(32, 4, 1, 1)}),
    "lokr conv, factored": (CONV, {"lokr_w1": r(8, 4), "lokr_w2_a": r(4, 2), "lokr_w2_b": r(2, 72)}),
    "lokr, two ranks": (
        LINEAR, {"lokr_w1_a": r(8, 3), "lokr_w1_b": r(3, 4), "lokr_w2_a": r(4, 2), "lokr_w2_b": r(2, 8)},
    ),
    "dora": (LINEAR, {"lora_down__weight": r(4, 32), "lora_up__weight": r(32, 4), **FULL_DORA}),
    "dora, columns": (
        LINEAR, {"lora_down__weight": r(4, 32), "lora_up__weight": r(32, 4), "dora_scale": 1 + r(1, 32).abs()},
    ),
    "dora conv": (
        STRIDED,
        {"lora_down__weight": r(4, 32, 3, 3), "lora_up__weight": r(32, 4, 1, 1), "dora_scale": 1 + r(32, 1, 1, 1)},
    ),
    "dora of a loha": (LINEAR, {**LOHA, **FULL_DORA}),
    "dora of a lokr": (LINEAR, {**LOKR, **FULL_DORA}),
    "dora of a glora": (LINEAR, {**GLORA, **FULL_DORA}),
    "glora": (LINEAR, GLORA),
    "glora, of old": (
        LINEAR, {"a1__weight": r(4, 32), "a2__weight": r(32, 4), "b1__weight": r(4, 32), "b2__weight": r(32, 4)},
    ),
    "glora conv": (
        CONV,
        {
            "a1__weight": r(32, 4, 1, 1), "a2__weight": r(4, 32, 1, 1), "b1__weight": r(32, 4, 1, 1),
            "b2__weight": r(4, 32, 3, 3),
        },
    ),
    "oft": (LINEAR, {"oft_blocks": r(8, 4, 4)}),
    "oft conv": (CONV, {"oft_blocks": r(4, 8, 8)}),
    "boft": (LINEAR, {"oft_blocks": r(3, 8, 4, 4), "rescale": 1 + r(32, 1)}),
    "boft conv": (STRIDED, {"oft_blocks": r(2, 4, 8, 8), "rescale": 1 + r(32, 1, 1, 1)}),
    "difference": (CONV, {"diff": r(32, 32, 3, 3)}),
    "set": (LINEAR, {"set_weight": r(32, 32)}),
    "norm": (NORM, {"w_norm": r(32), "b_norm": r(32)}),
    "bias beside a lora": (
        CONV, {"lora_down__weight": r(4, 288), "lora_up__weight": r(32, 4), "diff_b": r(32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("alpha", [None, 2.0])
@pytest.mark.parametrize("family", [*RUNS, *MERGED])
def test_what_is_let_through_acts_as_in_the_weights(pack, measured, family, alpha):
    layer, tensors = {**RUNS, **MERGED}[family]
    lora = of(layer, **tensors, **({} if alpha is None else {"alpha": torch.tensor(alpha)}))
    model, strength = tiny.make_model("small"), 0.7
    forward = pack.host.lora.adapters.ForwardLora(model, lora, strength)
    (path,) = forward.layers
    unet = model.model.diffusion_model
    module = unet.get_submodule(path)
    x = torch.randn(2, 5, 32) if module.weight.ndim == 2 else torch.randn(2, 32, 8, 8)
    base, before = module(x), {key: weight.clone() for key, weight in unet.state_dict().items()}
    with pack.host.lora.forwards.Forwards().on(unet, [None, forward]):
        rows = module(torch.cat([x, x]))
        again = module(torch.cat([x, x]))
    assert torch.equal(rows, again)
    assert torch.equal(rows[:2], base)
    assert torch.equal(module(x), base)
    assert all(torch.equal(weight, before[key]) for key, weight in unet.state_dict().items())
    assert not {"weight_function", "bias_function", "forward"} & module.__dict__.keys()
    if family.startswith("boft") and alpha is None:  # the host's merge fails where no constraint is said; 0 is none
        lora[f"{layer}.alpha"] = torch.tensor(0.0)
    _merge(model, lora, strength)
    theirs = module(x)
    size = (theirs - base).norm()
    assert size > 1e-3 * base.norm()
    error = ((rows[2:] - theirs).norm() / size).item()
    measured("change against the host's merged weights, relative", error, at_most=1e-4)


def test_a_lokr_with_a_middle_factor_acts_by_its_equation(pack, measured):
    """The host's own merge of these factors fails, and leaves the weight: w1 (x) (w2a^T t2 w2b), by alpha / rank."""
    w1, w2a, w2b, t2 = r(8, 4), r(3, 4), r(3, 8), r(3, 3, 3, 3)
    lora = of(CONV, lokr_w1=w1, lokr_w2_a=w2a, lokr_w2_b=w2b, lokr_t2=t2, alpha=torch.tensor(2.0))
    model = tiny.make_model("small")
    forward = pack.host.lora.adapters.ForwardLora(model, lora, 0.7)
    (path,) = forward.layers
    module, x = model.model.diffusion_model.get_submodule(path), torch.randn(1, 32, 8, 8)
    base = module(x)
    with pack.host.lora.forwards.Forwards().on(model.model.diffusion_model, [forward]):
        ours = module(x) - base
    w2 = torch.zeros(4, 8, 3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            w2 += w2a[i].double()[:, None, None, None] * w2b[j].double()[None, :, None, None] * t2[i, j].double()
    kernel = torch.stack([torch.kron(w1.double(), w2[:, :, a, b]) for a in range(3) for b in range(3)], -1)
    change = torch.nn.functional.conv2d(x.double(), kernel.view(32, 32, 3, 3) * 0.7 * 2 / 3, padding=1)
    measured("against float64, relative", ((ours - change).norm() / change.norm()).item(), at_most=1e-4)


def _merge(model, lora, strength):
    """The host's own merge, into the weights."""
    patches = comfy.lora.load_lora(lora, comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=False)
    for key, patch in patches.items():
        parameter = comfy.utils.get_attr(model.model, key)
        merged = comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], parameter.clone(), key)
        assert not torch.equal(merged, parameter)
        parameter.copy_(merged)


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


TEXT_ENCODERS = {
    "SD1.x": ("clip_l",),
    "SD2.x": ("clip_h",),
    "SDXL": ("clip_l", "clip_g"),
    "SD3": ("clip_l", "clip_g", "t5xxl"),
}


@pytest.mark.parametrize("family", TEXT_ENCODERS)
def test_every_name_that_the_host_has_for_a_text_encoders_layer_is_known(pack, family):
    """kohya's, diffusers' and the generic names, for each encoder: none of their keys is taken for the UNet's."""
    layers = [f"text_model.encoder.layers.{i}.{part}" for i in (0, 31) for part in comfy.lora.LORA_CLIP_MAP]
    names = {f"{encoder}.transformer.{layer}.weight": None for encoder in TEXT_ENCODERS[family] for layer in layers}
    names |= {f"{e}.transformer.text_projection.weight": None for e in TEXT_ENCODERS[family]}
    if "t5xxl" in TEXT_ENCODERS[family]:
        names["t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.k.weight"] = None
    known = comfy.lora.model_lora_keys_clip(SimpleNamespace(state_dict=lambda: names), {})
    assert len(known) > 3 * len(layers)
    assert set(names) <= set(known.values())
    keys = {f"{name}.{half}.weight": r(2, 2) for name in known for half in ("lora_up", "lora_down")}
    assert pack.host.lora.keys.of_unet(keys) == {}
    forward = pack.host.lora.adapters.ForwardLora(tiny.make_model("small"), {**pair(), **keys}, 1.0, "lora")
    assert forward.notes == (
        f"note: {len(keys)} text-encoder keys of lora are not applied here: send the CLIP through Load LoRA (Model and "
        "CLIP) with strength_model 0",
    )


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
