"""The pack's nodes with short defaults, for the 'small' model: 4 steps, features of layer 1, attention of 2-3."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch

STEPS = 4
WINDOWS = {"feature_steps": 2, "attention_steps": 2, "attention_mode": "adaptive", "blend": "qk"}


def custom(steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of sampler or guider with windows counted in steps, as its preset 'custom' takes them."""
    if "preset" in settings:
        named = settings["preset"]
        return {**{k: v for k, v in settings.items() if k not in WINDOWS}, "preset": {"preset": named}}
    windows = {name: settings.get(name, default) for name, default in WINDOWS.items()}
    preset = {
        "preset": "custom",
        "feature_end_percent": windows["feature_steps"] / steps,
        "attention_end_percent": windows["attention_steps"] / steps,
        "attention_mode": windows["attention_mode"],
        "blend": windows["blend"],
    }
    return {**{k: v for k, v in settings.items() if k not in WINDOWS}, "preset": preset}


def shares(steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of Capture with windows counted in steps, as it takes them."""
    kept = {k: v for k, v in settings.items() if k not in ("feature_steps", "attention_steps")}
    for name in ("feature", "attention"):
        kept[f"{name}_end_percent"] = settings[f"{name}_steps"] / steps
    return kept


def invert(pack, model, latent, source, **changes: Any) -> tuple:
    """(trajectory, x_T, reconstruction) of DDIM Invert."""
    settings = {"steps": STEPS, "spacing": "leading", "refinement": 0, "reconstruct": False, **changes}
    return pack.pipeline.invert.DDIMInvert.execute(model=model, latent=latent, source=source, **settings).args


def capture(pack, model, trajectory, source, **changes: Any):
    """Features of Capture Features/Attention, in fp32."""
    settings = {
        "feature_layers": "1",
        "self_attention_layers": "2-3",
        "cross_attention_layers": "",
        "feature_steps": 3,
        "attention_steps": STEPS,
        "storage": "memory",
        "precision": "fp32",
        **changes,
    }
    return pack.pipeline.capture.CaptureFeatures.execute(
        model=model, trajectory=trajectory, source=source, **shares(trajectory.schedule.steps, settings)
    ).args[0]


def sample(pack, model, features, positive, negative, **changes: Any):
    """The samples of the Injected LoRA Sampler. Two of four steps in full: then kappa is 0, 0, 0.498, 0.998."""
    settings = {
        "cfg": 3.0,
        "lora_name": "none",
        "lora_strength": 1.0,
        **changes,
    }
    node = pack.pipeline.sampler.InjectedLoRASampler
    trajectory = getattr(features, "trajectory", features)  # a TRAJECTORY alone has nothing to inject
    settings = custom(trajectory.schedule.steps, settings)
    out = node.execute(model=model, features=features, positive=positive, negative=negative, **settings)
    return out.args[0]["samples"]


def train(pack, model, vae, picture, prompt, **changes: Any) -> tuple:
    """(lora, loss map, name) of Train Style LoRA: 2 steps at 64 pixels."""
    settings = {
        "rank": 2,
        "alpha": 2.0,
        "steps": 2,
        "learning_rate": 1e-2,
        "weight_decay": 1e-2,
        "seed": 0,
        "resolution": 64,
        "targets": "q, k, v",
        "batch_size": 1,
        "gradient_checkpointing": False,
        "precision": "fp32",
        "preview_every": 0,
        "save": True,
        "filename_prefix": "DiffStyler/test",
        **changes,
    }
    node = pack.pipeline.train.TrainStyleLoRA
    return node.execute(model=model, vae=vae, style_image=picture, prompt=prompt, **settings).args


def random_lora(pack, model, seed: int, rank: int = 3, size: float = 1.0) -> dict[str, torch.Tensor]:
    """A LORA_MODEL with an effect that shows: q, k and v of every attention."""
    generator = torch.Generator().manual_seed(seed)
    weights = model.model.diffusion_model.state_dict()
    lora = {}
    for path in sorted(pack.host.training.private_copy.module_names(model)):  # the host's order is that of a set
        if ".attn" in path and path.endswith((".to_q", ".to_k", ".to_v")):
            rows, columns = weights[f"{path}.weight"].shape
            down = torch.randn(rank, columns, generator=generator) * columns**-0.5
            up = torch.randn(rows, rank, generator=generator) * size
            lora[path] = pack.core.lora.file.LowRank(down, up)
    return pack.core.lora.file.kohya_state(lora, pack.host.training.private_copy.module_names(model), alpha=float(rank))


INJECTION = {"lora_name": "none", "lora_strength": 1.0}


def guider(pack, model, features, positive, negative, cfg: float = 3.0, **changes: Any) -> tuple:
    """(GUIDER, SIGMAS) of the Injected LoRA Guider, at the settings of ``sample``."""
    node = pack.pipeline.guider.InjectedLoRAGuider
    settings = custom(features.trajectory.schedule.steps, {**INJECTION, **changes})
    return node.execute(model=model, features=features, positive=positive, negative=negative, cfg=cfg, **settings).args


def chain(pack, *styles: dict[str, Any]) -> tuple:
    """STYLES of Style nodes wired one into the next."""
    wired: tuple = ()
    for style in styles:
        wired = pack.pipeline.style.StyleNode.execute(**{"strength": 1.0, "previous": wired, **style}).args[0]
    return wired


def injection(pack, feature_end: float = 0.5, attention_end: float = 0.5, **changes: Any):
    """INJECTION of Injection Settings, at the windows of ``sample``."""
    layers = {f"{kind}_layers": "all" for kind in ("feature", "self_attention", "cross_attention")}
    own = {k: changes.pop(k) for k in ("attention_mode", "blend") if k in changes}
    preset = {
        "preset": "custom", "feature_end_percent": feature_end, "attention_end_percent": attention_end,
        "attention_mode": "adaptive", "blend": "qk", **own,
    }  # fmt: skip
    settings = {**layers, "preset": preset, **changes}
    return pack.pipeline.injection_settings.InjectionSettingsNode.execute(**settings).args[0]


def predicted(pack, guider, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The guider's x0 for x at sigma (both in the model's own scale), evaluated inside the host's run."""
    model = guider.model_patcher.model
    run = lambda denoise, latent, on_step: denoise(x, torch.full((1,), sigma))  # noqa: E731
    sampler = pack.host.sampling.runs.RunSampler(run)
    sigmas = torch.tensor([sigma, sigma / 2])
    out = comfy.samplers.CFGGuider.sample(guider, torch.zeros_like(x), x, sampler, sigmas, disable_pbar=True, seed=0)
    return model.process_latent_in(out)
