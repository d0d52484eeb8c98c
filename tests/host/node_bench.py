"""The pack's nodes at small settings, and what must hold before and after each call."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import apply_bench
import comfy.model_patcher
import comfy.supported_models
import pytest
import steps
import tiny
import torch
from comfy.patcher_extension import WrappersMP

import nodes as host_nodes

STEPS = 4
EMPTY, STYLE, UGLY = (tiny.make_prompt(seed) for seed in (10, 11, 12))
PICTURE = torch.rand(1, 96, 80, 3, generator=torch.Generator().manual_seed(4))

DEFAULTS = {
    "invert": {"steps": STEPS, "spacing": "leading", "refinement": 0, "reconstruct": False},
    "capture": {
        "feature_layers": "1", "self_attention_layers": "2-3", "cross_attention_layers": "",
        "feature_steps": STEPS, "attention_steps": STEPS, "storage": "memory", "precision": "fp16",
    },
    "sampler": {
        "cfg": 2.0, "feature_steps": 3, "attention_steps": 2, "attention_mode": "adaptive", "blend": "qk",
        "lora_name": "none", "lora_strength": 1.0,
    },
    "train": {
        "rank": 2, "alpha": 2.0, "steps": 2, "learning_rate": 1e-3, "weight_decay": 0.01, "seed": 0, "resolution": 64,
        "targets": "q, k, v", "batch_size": 1, "gradient_checkpointing": False, "precision": "auto",
        "preview_every": 0, "save": True, "filename_prefix": "DiffStyler/style",
    },
}  # fmt: skip
CLASSES = {
    "invert": "DDIMInvert",
    "capture": "CaptureFeatures",
    "sampler": "InjectedLoRASampler",
    "train": "TrainStyleLoRA",
}


class NodeBench:
    """``bench.invert(latent=...)``: one node's outputs, everything not named being small and valid.

    evaluations: how often the MODEL's UNet ran, for the pack's and the host's nodes alike.
    at_evaluation: called before each with its number.
    """

    def __init__(self, pack, model, vae) -> None:
        self._pack = pack
        self.vae = vae
        self.evaluations = 0
        self.at_evaluation = lambda count: None
        self.model = model.clone()
        self.model.add_wrapper(WrappersMP.DIFFUSION_MODEL, self._count)
        self._wrappers = {key: list(functions) for key, functions in self._attached().items()}
        self._picture = self.plain_picture()

    def _attached(self):
        return self.model.wrappers[WrappersMP.DIFFUSION_MODEL]

    def _count(self, executor, *args, **kwargs):
        self.evaluations += 1
        self.at_evaluation(self.evaluations)
        return executor(*args, **kwargs)

    def _output(self, step, changes, **wires):
        node = getattr(getattr(self._pack.pipeline, step), CLASSES[step])
        settings = {**DEFAULTS[step], **changes}
        as_wired = {"capture": steps.shares, "sampler": steps.custom}.get(step, lambda _, plain: plain)
        with torch.inference_mode():  # as the host runs nodes; fixtures of a module have no test's mode around them
            return node.execute(**{"model": self.model, **wires, **as_wired(STEPS, settings)})

    def _run(self, step, changes, **wires):
        return self._output(step, changes, **wires).result

    def invert(self, **changes):
        return self._run("invert", changes, latent=tiny.make_latent(), source=EMPTY)

    def capture(self, trajectory=None, **changes):
        return self._run("capture", changes, trajectory=trajectory or self.invert()[0], source=EMPTY)

    def sampler(self, features=None, **changes):
        return self._run("sampler", changes, features=features or self.capture()[0], positive=STYLE, negative=UGLY)

    def train(self, **changes):
        return self.train_output(**changes).result

    def train_output(self, **changes):
        """With ``ui``, what the node shows."""
        return self._output("train", changes, vae=self.vae, style_image=PICTURE, prompt=STYLE)

    def plain_picture(self):
        """What the stock KSampler makes of the MODEL, in one step."""
        latent = tiny.make_latent(seed=5, size=8)
        return host_nodes.common_ksampler(self.model, 7, 1, 1.0, "euler", "normal", STYLE, UGLY, latent)[0]["samples"]

    def traces(self):
        """Hooks, replaced forwards and LoRA layers left on the UNet; empty when it is clean."""
        return [
            name
            for name, m in self.model.model.diffusion_model.named_modules()
            if m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ or "lora" in type(m).__name__.lower()
        ]

    def check_clean(self):
        """The MODEL gives bit-identical results to before, and nothing hangs on it."""
        self.at_evaluation = lambda count: None
        gc.collect()
        assert self.traces() == []
        assert torch.equal(self.plain_picture(), self._picture)
        assert self._attached() == self._wrappers


@contextmanager
def refused(bench, *words, error=ValueError):
    """The error carries every word, and no UNet evaluation was made before it."""
    before = bench.evaluations
    with pytest.raises(error) as caught:
        yield caught
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"
    assert bench.evaluations == before, "the UNet ran before the error"


def refused_by_every_node(pack, bench, model, trajectory, features, *words):
    """By Invert, Capture, the sampler and Apply Injection, each before an evaluation."""
    for run in (
        lambda: bench.invert(model=model),
        lambda: bench.capture(trajectory, model=model),
        lambda: bench.sampler(features, model=model),
        lambda: apply_bench.injected(pack, model, features),
    ):
        with refused(bench, *words):
            run()


def make_flux():
    """A MODEL without a UNet: the host's own Flux, two blocks of it."""
    shape = {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 32,
        "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
        "axes_dim": [4, 6, 6], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": False,
        "txt_ids_dims": [],
    }  # fmt: skip
    config = comfy.supported_models.Flux(shape)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device="cpu")
    tiny.fill(model.diffusion_model, 0)
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=cpu, offload_device=cpu)


def files_below(folder):
    """Every file and folder below a folder, as text."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) if folder.exists() else []


def table(rows):
    """Arguments of parametrize for rows of (changes, *words of the error)."""
    names = [f"{next(iter(changes))}-{i}" for i, (changes, *_) in enumerate(rows)]
    return {"argnames": "changes, words", "argvalues": [(c, w) for c, *w in rows], "ids": names}
