"""The private copy that training works on: the weights of the model's runs, once, however the host holds the model."""

from __future__ import annotations

import gc
import threading
import weakref

import comfy.model_management as management
import comfy.model_patcher
import comfy.sd
import comfy_aimdo.host_buffer
import pytest
import steps
import tiny
import torch
from comfy.quant_ops import QuantizedTensor
from node_bench import files_below
from probes import state_of
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
BIG = "diffusion_model.output_blocks.2.0.in_layers.2.weight"


def inputs(seed: int):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, 16, 16, generator=generator)
    return x, torch.tensor([500.0]), torch.randn(1, 7, 32, generator=generator)


def forward(unet, seed: int = 5) -> torch.Tensor:
    x, t, context = (value.clone() for value in inputs(seed))
    return unet(x.to(unet.dtype), t, context=context.to(unet.dtype))


def private(pack, model, dtype=torch.float32):
    """(the copy, its prediction)."""
    with torch.inference_mode(False), torch.no_grad():
        unet = pack.host.training.private_copy.private_unet(model, dtype)
        return unet, forward(unet)


def with_patches(pack, model):
    """A LoRA on q, k, v, and a plain difference with a norm's weight in it."""
    lora = steps.random_lora(pack, model, 3, size=0.3)
    patched = comfy.sd.load_lora_for_models(model, None, lora, 0.8, 0.0)[0]
    shape = model.model.state_dict()[BIG].shape
    patched.add_patches({BIG: (0.02 * torch.ones(shape),)}, 0.7)
    return patched


def expected(pack, model):
    """What the model predicts with every patch merged, as the host's own full load makes it."""
    patched = with_patches(pack, model)
    patched.patch_model(CPU)
    try:
        return forward(patched.model.diffusion_model)
    finally:
        patched.detach()


def partly(patched, share: float):
    """Loaded by the host with so much of the weights patched in place and the rest patched in the forward pass."""
    patched.partially_load(CPU, int(share * patched.model_size()))
    return patched


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("kind", ["sd21", "sd15"])
def test_the_copy_of_a_partly_loaded_model_has_its_lora_once(pack, measured, kind, share):
    theirs = expected(pack, tiny.make_model(kind))
    model = partly(with_patches(pack, tiny.make_model(kind)), share)
    modules = [m for m in model.model.modules() if getattr(m, "weight_function", [])]
    assert modules, "nothing is patched in the forward pass: the test tests nothing"
    before = state_of(model)
    unet, ours = private(pack, model)
    assert state_of(model) == before
    plain = forward(tiny.make_model(kind).model.diffusion_model)
    assert (theirs - plain).abs().max() > 1e-2
    measured("copy of a partly loaded model against merged weights", (ours - theirs).abs().max().item(), at_most=1e-4)
    assert not [name for name, m in unet.named_modules() if getattr(m, "weight_function", [])]
    model.detach()


@pytest.mark.parametrize("load", ["not loaded", "loaded", "unloaded in part"])
def test_the_copy_is_the_same_however_the_model_is_loaded(pack, load):
    theirs = private(pack, with_patches(pack, tiny.make_model("small")))[1]
    model = with_patches(pack, tiny.make_model("small"))
    if load != "not loaded":
        model.patch_model(CPU)
    if load == "unloaded in part":
        model.partially_unload(CPU, model.model_size() // 2)
    assert torch.equal(private(pack, model)[1], theirs)


def test_hooks_and_weight_wrappers(pack):
    """Another pack's forward hook on the live UNet stays there; a wrapper that the host runs on a weight counts."""
    model = tiny.make_model("small")
    model.add_weight_wrapper(BIG, lambda weight: 1.5 * weight)
    calls = []
    layer = model.model.diffusion_model.output_blocks[2][0].in_layers[2]
    layer.register_forward_hook(lambda *args: calls.append(1))
    ours = private(pack, model)[1]
    assert not calls
    with torch.no_grad():
        layer.weight.mul_(1.5)
    assert (ours - forward(model.model.diffusion_model)).abs().max() < 1e-5


class StandInBuffer:
    """In place of pinned memory, which needs the host's native library and a GPU."""

    def __init__(self, *args, **kwargs):
        self.lock = threading.Lock()  # no more to be copied than the real one


@pytest.fixture
def dynamic(monkeypatch):
    """Makes the host's real ModelPatcherDynamic of a MODEL, without a file to load it from again."""
    monkeypatch.setattr(comfy_aimdo.host_buffer, "HostBuffer", StandInBuffer)
    monkeypatch.setattr(comfy.model_patcher.ModelPatcherDynamic, "__del__", lambda self: None)

    def make(model):
        made = object.__new__(comfy.model_patcher.ModelPatcherDynamic)
        made.__init__(model.model, CPU, CPU)
        made.patches = {key: list(patches) for key, patches in model.patches.items()}
        return made

    return make


@pytest.mark.parametrize("loaded", [False, True])
def test_a_dynamic_model_is_copied_without_its_file(pack, dynamic, loaded):
    theirs = private(pack, with_patches(pack, tiny.make_model("small")))[1]
    model = dynamic(with_patches(pack, tiny.make_model("small")))
    assert model.is_dynamic()
    assert model.cached_patcher_init is None
    if loaded:
        model.load(CPU)
        assert any(getattr(m, "weight_lowvram_function", None) for m in model.model.modules())
    assert torch.equal(private(pack, model)[1], theirs)


def test_a_dynamic_model_trains_through_the_node(pack, dynamic, host_folders):
    model = dynamic(tiny.make_model("small"))
    arguments = (tiny.make_vae(), torch.rand(1, 64, 64, 3), tiny.make_prompt(1))
    name = steps.train(pack, model, *arguments)[2]
    assert name in files_below(host_folders / "loras")


def test_layers_that_are_exchanged_at_every_run_are_refused_by_name(pack, host_folders):
    model = tiny.make_model("small")
    lora = steps.random_lora(pack, model, 3)
    bypass = comfy.sd.load_bypass_lora_for_models(model, None, lora, 1.0, 0.0)[0]
    arguments = (tiny.make_vae(), torch.rand(1, 64, 64, 3), tiny.make_prompt(1))
    with pytest.raises(ValueError, match=r"model: bypass_lora exchanges its layers .* Use Load LoRA"):
        steps.train(pack, bypass, *arguments)
    assert files_below(host_folders / "loras") == []


def test_a_model_without_some_of_its_weights_is_refused(pack):
    model = tiny.make_model("small")
    layer = model.model.diffusion_model.output_blocks[2][0].in_layers[2]
    layer.bias = None
    with pytest.raises(ValueError, match=r"model: it has no weights for output_blocks\.2\.0\.in_layers\.2\.bias"):
        private(pack, model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_copy_is_plain_resident_and_frozen(pack, dtype):
    unet, _ = private(pack, with_patches(pack, tiny.make_model("small")), dtype)
    assert not unet.training
    assert unet.dtype == dtype
    for name, parameter in unet.named_parameters():
        assert parameter.dtype == dtype, name
        assert parameter.device == management.get_torch_device(), name
        assert not parameter.is_inference(), name
        assert not parameter.requires_grad, name
    for module in unet.modules():
        assert not getattr(module, "comfy_cast_weights", False)


class Live(TorchDispatchMode):
    """Counts the bytes that live in storages made while it is on; ``peak`` is the most at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
        older = [tensor for tensor in tensors if not tensor.is_meta and tensor.layout == torch.strided]
        self._seen = {tensor.untyped_storage()._cdata for tensor in older}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@pytest.mark.parametrize(("stored", "dtype"), [(torch.float16, torch.bfloat16), (torch.float32, torch.float32)])
def test_the_copy_takes_its_own_size_and_one_weight_more(pack, monkeypatch, measured, stored, dtype):
    model = tiny.make_model("sd21")
    model.model.diffusion_model.to(stored)
    model = with_patches(pack, model)
    weights = model.model.diffusion_model.state_dict().values()
    size, biggest = sum(w.numel() for w in weights) * dtype.itemsize, 4 * max(w.numel() for w in weights)
    freed, free_memory = [], management.free_memory

    def watched(memory, device, *args, **kwargs):
        freed.append((memory, live.now))
        return free_memory(memory, device, *args, **kwargs)

    monkeypatch.setattr(management, "free_memory", watched)
    with torch.inference_mode(False), Live() as live:
        unet = pack.host.training.private_copy.private_unet(model, dtype)
    assert size <= live.now <= 1.01 * size, "what lives on is the copy"
    ((memory, held),) = freed
    assert memory >= 2 * size
    assert held == 0, "room is made before anything is copied"
    measured("peak of making the copy, above the copy, in biggest weights", (live.peak - size) / biggest, at_most=1.0)
    measured("peak of making the copy over its size", live.peak / size)
    del unet


def tiling(monkeypatch, vae, after: int = 0):
    """The VAE runs out of memory in its regular encoding; the host then encodes in tiles."""
    encode, calls = vae.first_stage_model.encode, []

    def short(pixels, *args, **kwargs):
        calls.append(tuple(pixels.shape))
        if len(calls) == after + 1:
            raise management.OOM_EXCEPTION("out of memory")
        return encode(pixels, *args, **kwargs)

    monkeypatch.setattr(vae.first_stage_model, "encode", short)
    return calls


@pytest.mark.parametrize("size", [64, 640])
def test_tiles_have_no_posterior_of_the_picture(pack, monkeypatch, size):
    vae, model, picture = tiny.make_posterior_vae(), tiny.make_model("small"), torch.rand(2, size, size, 3)
    calls = tiling(monkeypatch, vae)
    with torch.inference_mode(False):
        draw, shape, words = pack.host.training.latents.latent_source(vae, model, picture)
        assert len(calls) > 3, "the host has not tiled"
        drawn = draw(32, torch.Generator().manual_seed(0))
    assert shape == (4, size // 8, size // 8)
    assert "encoded in tiles" in words
    assert len(torch.unique(drawn, dim=0)) == 2
    tiling(monkeypatch, vae)
    encoded = model.model.process_latent_in(vae.encode(picture))
    assert all(any(torch.allclose(z, row, atol=1e-5) for row in encoded) for z in drawn)


def test_tiled_encoding_is_said_on_the_node(pack, monkeypatch):
    vae = tiny.make_posterior_vae()
    tiling(monkeypatch, vae)
    shown, output = [], pack.host.text.output
    monkeypatch.setattr(pack.host.text, "output", lambda *out, text: shown.append(text) or output(*out, text=text))
    lora = steps.train(pack, tiny.make_model("small"), vae, torch.rand(1, 64, 64, 3), tiny.make_prompt(1))[0]
    assert "encoded in tiles" in shown[-1]
    assert all(torch.isfinite(weight).all() for weight in lora.values())


def test_a_whole_encoding_says_nothing_of_tiles(pack):
    with torch.inference_mode(False):
        source = pack.host.training.latents.latent_source(
            tiny.make_posterior_vae(), tiny.make_model("small"), torch.rand(3, 64, 64, 3)
        )
    assert source.words == ""


def test_a_quantised_weight_is_copied_as_what_it_stands_for(pack):
    """It ended in a raw error of torch: a quantised tensor stays one through ``to``."""
    model = tiny.make_model("small")
    layer = model.model.diffusion_model.output_blocks[2][1].transformer_blocks[0].attn1.to_q
    quantised = QuantizedTensor.from_float(layer.weight.detach(), "TensorCoreFP8Layout")
    layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
    unet, prediction = private(pack, model)
    copied = unet.output_blocks[2][1].transformer_blocks[0].attn1.to_q.weight
    assert type(copied) is torch.nn.Parameter
    assert torch.equal(copied, quantised.dequantize())
    assert torch.isfinite(prediction).all()
