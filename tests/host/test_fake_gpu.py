"""Capture and injection in full-size UNets on a CUDA device that is not there: devices, number formats, copied bytes.

PyTorch's FakeTensorMode computes nothing and takes no memory, but refuses what a GPU would refuse: an operation over
tensors of two devices. Speed, NaN and rounding are not seen here.
"""

from __future__ import annotations

from collections import Counter

import comfy.ldm.modules.attention as host_attention
import comfy.ops
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_checkpoint": False,
    "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
SD = {
    **COMMON, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "adm_in_channels": None,
    "transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3,
}  # fmt: skip
UNETS = {
    "sd15": {**SD, "context_dim": 768, "num_heads": 8, "use_linear_in_transformer": False},
    "sd21": {**SD, "context_dim": 1024, "num_head_channels": 64, "use_linear_in_transformer": True},
    "sdxl": {
        **COMMON, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816, "context_dim": 2048,
        "num_head_channels": 64,
    },
}  # fmt: skip
SIZE = {"sd15": 64, "sd21": 96, "sdxl": 128}
HEAVY = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product", "scaled_dot_product")
STEPS = 4


class Watch(TorchDispatchMode):
    """Bytes that cross between devices as (from, to), and the number formats of matrix products and attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: Counter[tuple[str, str]] = Counter()
        self.heavy: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").split(".")[0]
        if name == "_to_copy" and args[0].device != out.device:
            self.moved[args[0].device.type, out.device.type] += out.nbytes
        if name.startswith(HEAVY):
            self.heavy.update(x.dtype for x in args[:3] if isinstance(x, torch.Tensor))
        return out


class Model:
    """A UNet behind the host's APPLY_MODEL wrappers, as the host's BaseModel has it."""

    def __init__(self, kind: str, dtype: torch.dtype) -> None:
        self.half = {"device": "cuda", "dtype": dtype}
        self.kind = kind
        self.diffusion_model = UNetModel(**UNETS[kind], **self.half, operations=comfy.ops.disable_weight_init)

    def step(self, rows: int, options: dict) -> tuple[torch.Tensor, Watch, int]:
        """(prediction, what was watched, FLOP) of one evaluation of as many rows."""
        size, width = SIZE[self.kind], UNETS[self.kind]["context_dim"]
        x, context = torch.empty(rows, 4, size, size, **self.half), torch.empty(rows, 77, width, **self.half)
        y = torch.empty(rows, 2816, **self.half) if self.kind == "sdxl" else None
        wrappers = get_all_wrappers(WrappersMP.APPLY_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._evaluate, self, wrappers)
        with FlopCounterMode(display=False) as flops, Watch() as watch:
            out = executor.execute(x, torch.zeros(rows, device="cuda"), None, context, None, options, y=y)
        return out, watch, flops.get_total_flops()

    def _evaluate(self, x, sigma, concat, context, control, options, y):
        return self.diffusion_model(x, sigma, context=context, y=y, control=control, transformer_options=options)


@pytest.fixture
def fake(pack, monkeypatch):
    """Fake tensors, the attention that the host takes on a GPU, and no question that needs a tensor's values."""
    layers = pack.host.cross_attention.layers
    for module in (host_attention, layers):
        for name in ("optimized_attention", "optimized_attention_masked"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, host_attention.attention_pytorch)
    monkeypatch.setattr(pack.core.injection.keeper, "_finite", lambda tensor: True)
    with torch.inference_mode(False), torch.no_grad(), FakeTensorMode():
        yield


def nbytes(taken) -> int:
    return sum(tensor.nbytes for tensors in taken.values() for tensor in tensors)


def captured(pack, model: Model, dtype: torch.dtype):
    """(sites' tensors on the CPU, what was watched) of a step that captures one feature layer and every attention."""
    site = pack.core.injection.sites.Site
    depths = UNETS[model.kind]["transformer_depth_output"]
    blocks = list(enumerate(reversed(depths)))
    kinds = ("self-attention", "cross-attention")
    attentions = [site(kind, layer, depth) for kind in kinds for layer, count in blocks for depth in range(count)]
    sites = frozenset([site("feature", 4), *attentions])
    recorder = pack.core.injection.taps.Recorder(sites, pack.core.injection.keeper.Keeper(dtype))
    forward = pack.host.sampling.forward
    _, watch, _ = model.step(1, forward.acting_in({}, [forward.Acting(tap=recorder)]))
    assert recorder.taken.keys() == sites
    return recorder.taken, watch


def injector(pack, taken, blend: str, t: float):
    """What acts at step 2 of 4: features, and attention whose kappa is 0 at t = 500, 0.5 at t = 250."""
    features = tuple(site for site in taken if site.kind == "feature")
    attentions = tuple(site for site in taken if site.kind != "feature")
    plan = pack.core.injection.plan.InjectionPlan(STEPS, STEPS, 2, features, attentions, blend=blend)
    return pack.core.injection.taps.Injector(plan, 2, t, taken)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("sd15", torch.float16), ("sd21", torch.bfloat16), ("sdxl", torch.float16)],
    ids=["sd15-fp16", "sd21-bf16", "sdxl-fp16"],
)
def test_a_step_on_a_gpu_is_half_precision_and_moves_what_was_captured(pack, fake, measured, kind, dtype):
    """Down: what is kept. Up: the same, once for the rows of prompt and negative together. Products: half alone."""
    model = Model(kind, dtype)
    forward = pack.host.sampling.forward
    taken, watch = captured(pack, model, dtype)
    assert {tensor.device.type for tensors in taken.values() for tensor in tensors} == {"cpu"}
    assert watch.moved == {("cuda", "cpu"): nbytes(taken)}
    assert set(watch.heavy) == {dtype}
    _, plain, plain_flops = model.step(2, {})
    assert not plain.moved
    for blend, t, most in (("qk", 500.0, 1.0), ("qk", 250.0, 1.0), ("map", 250.0, 2.0)):
        acting = forward.Acting(tap=injector(pack, taken, blend, t))
        out, watch, flops = model.step(2, forward.acting_in({}, [acting, acting]))
        assert (out.device.type, out.dtype, len(out)) == ("cuda", dtype, 2)
        assert watch.moved == {("cpu", "cuda"): nbytes(taken)}
        assert set(watch.heavy) == {dtype}
        measured(f"FLOP against plain, {blend} at t = {t:g}", flops / plain_flops, at_least=1.0, at_most=most)
    measured("captured and moved per step, MB", nbytes(taken) / 1e6, at_least=1.0)


def test_what_does_not_belong_on_a_gpu_is_noticed(pack, fake):
    """The watch itself: CPU tensors of a tap that does not move them are refused, fp32 products are seen."""
    with pytest.raises(Exception, match=r"cuda.*cpu|cpu.*cuda"):
        torch.empty(2, device="cuda") + torch.empty(2)
    with Watch() as watch:
        torch.empty(2, 2, device="cuda") @ torch.empty(2, 2, device="cuda")
    assert set(watch.heavy) == {torch.float32}
