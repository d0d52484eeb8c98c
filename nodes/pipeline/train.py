"""Train Style LoRA: one picture, one prompt, a LoRA on the attention projections (method.md section 1)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.lora.file import kohya_metadata, kohya_state
from ...diffstyler_core.training.config import TrainConfig
from ...diffstyler_core.training.train import TrainResult
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.pictures import style_pictures
from ..host.checks.refusal import refusal
from ..host.identity import fingerprint, identity
from ..host.model import abar_of, family_of, prediction_of
from ..host.precision import training_dtype
from ..host.training.latents import prepare_pictures
from ..host.training.picture_name import TOKEN, resolved
from ..host.training.private_copy import module_names, require_plain_unet
from ..host.training.run import Progress, train_lora
from ..host.training.store import Found, LoraStore, rescued_names, safe_prefix
from ..host.training.writing import Saved
from ..host.types import VAE, ModelPatcher

TARGETS = {"q, k, v": ("to_q", "to_k", "to_v"), "q, k, v, out": ("to_q", "to_k", "to_v", "to_out.0")}


def request_of(
    model: ModelPatcher, vae: VAE, pictures: Tensor, conditioning: Conditioning, settings: dict[str, Any]
) -> str:
    """Hash of everything that determines the result."""
    return identity(
        {
            "model": fingerprint(model),
            "schedule": [prediction_of(model), abar_of(model)],  # ModelSampling patches change no weight
            "vae": fingerprint(vae.patcher),
            "pictures": pictures,
            "conditioning": conditioning,
            "settings": settings,
            "method": 1,
        }
    )


class TrainStyleLoRA(io.ComfyNode):
    """Training of a style LoRA on one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_TrainStyleLoRA",
            display_name="Train Style LoRA",
            category=sockets.CATEGORY,
            description="Learns the style of one picture as a LoRA on the attention's q, k, v. Nothing is trained "
            "twice: the same request loads its file from models/loras.",
            search_aliases=[
                "train lora",
                "lora training",
                "style training",
                "learn style",
                "finetune",
                "fine tuning",
                "dreambooth lora",
                "b-lora",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The base model. It is not changed: training works on a private copy."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input("style_image", tooltip="The style picture; a batch of several is allowed."),
                io.Conditioning.Input("prompt", tooltip="Training prompt, e.g. 'painting of <sss>, deer'."),
                io.Int.Input("rank", default=16, min=1, max=1024, tooltip="Rank of the LoRA."),
                io.Float.Input(
                    "alpha",
                    default=16.0,
                    min=0.01,
                    max=4096.0,
                    step=1.0,
                    round=0.01,
                    tooltip="The LoRA acts with alpha / rank.",
                    advanced=True,
                ),
                io.Int.Input(
                    "steps", default=200, min=1, max=100_000, tooltip="Training steps, each one forward and backward."
                ),
                io.Float.Input(
                    "learning_rate",
                    default=2e-4,
                    min=1e-8,
                    max=1.0,
                    step=1e-5,
                    round=1e-8,
                    tooltip="AdamW, constant. Lower it when the loss explodes.",
                ),
                io.Float.Input(
                    "weight_decay",
                    default=1e-2,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=1e-6,
                    tooltip="AdamW's weight decay.",
                    advanced=True,
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Decides first weights, noise and timesteps.",
                ),
                io.Int.Input(
                    "resolution",
                    default=512,
                    min=64,
                    max=4096,
                    step=8,
                    tooltip="Side in pixels: the picture is resized and cropped to a square of it. 512 for SD1, SD2.",
                ),
                io.Combo.Input(
                    "targets",
                    options=list(TARGETS),
                    default="q, k, v",
                    tooltip="Projections of self- and cross-attention that get a LoRA.",
                    advanced=True,
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="Pictures (or noise draws) per step.", advanced=True
                ),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    tooltip="Recomputes activations: less memory, about a third slower.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "fp32", "bf16"],
                    default="auto",
                    tooltip="Format of the frozen weights; the LoRA itself always trains in fp32.",
                    advanced=True,
                ),
                io.Int.Input(
                    "preview_every",
                    default=0,
                    min=0,
                    max=100_000,
                    tooltip="Shows what the LoRA makes of its prompt every N steps; 0 for never. Costs 10 UNet "
                    "evaluations and a decoding each time.",
                ),
                io.Boolean.Input(
                    "save", default=True, tooltip="Keep the LoRA in models/loras. Off: only this graph has it."
                ),
                io.String.Input(
                    "filename_prefix",
                    default=f"DiffStyler/{TOKEN}",
                    tooltip=f"Name below models/loras; a hash of the request is added. {TOKEN} is the file name of the "
                    "style picture, or 'style' where it comes from no file.",
                ),
            ],
            outputs=[
                sockets.LoraModel.Output(
                    "lora", tooltip="For the Injected LoRA Sampler, Save LoRA or Load LoRA Model."
                ),
                sockets.LossMap.Output("loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output("lora_name", tooltip="The file's name in models/loras; empty when it is not there."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None) -> bool | str:
        """A name that is none is refused before anything runs; None comes over a wire."""
        return refusal(*([] if filename_prefix is None else [lambda: safe_prefix(filename_prefix)]))

    @classmethod
    def fingerprint_inputs(cls, save: bool = True, filename_prefix: str = "", **_inputs: Any) -> list[str]:
        """While a LoRA of its name waits to be saved (models/loras was full), queueing again runs the node again."""
        return rescued_names(filename_prefix) if save else []

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        vae: VAE,
        style_image: Tensor,
        prompt: Conditioning,
        rank: int,
        alpha: float,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        seed: int,
        resolution: int,
        targets: str,
        batch_size: int,
        gradient_checkpointing: bool,
        precision: str,
        preview_every: int,
        save: bool,
        filename_prefix: str,
    ) -> io.NodeOutput:
        config = TrainConfig(
            rank,
            alpha,
            steps,
            learning_rate,
            weight_decay,
            seed,
            resolution,
            batch_size,
            TARGETS[targets],
            gradient_checkpointing,
        )
        family, dtype = family_of(model), training_dtype(precision)
        require_plain_unet(model)
        require_conditioning(prompt, model, "prompt", one=True)
        pictures = prepare_pictures(style_pictures(style_image), config.resolution)
        settings = {**asdict(config), "precision": str(dtype)}
        request = request_of(model, vae, pictures, prompt, settings)
        store = LoraStore.of(cls._named(filename_prefix), request)
        again = ""
        if save:
            found, again = store.find()
            if found is not None:
                return cls._found(store, found, again)
            store.check_writable(estimated_size(model, config))
        progress = Progress(config.steps, preview_every)
        started = time.monotonic()
        result, words = train_lora(model, vae, pictures, prompt, config, dtype, progress)
        state = kohya_state(result.lora, module_names(model), config.alpha)
        metadata = kohya_metadata(
            {
                **settings,
                "base_model": family,
                "request": request,
                "stopped_at": result.stopped_at,
                "image": identity(pictures),
                "prompt": identity(prompt),
            },
            result.losses,
        )
        if result.stopped_at is not None:
            raise ValueError(broke_off(store, state, metadata, result, config, save))
        saved = store.save(state, metadata) if save else Saved("", "not saved (save is off)")
        trained = (
            f"trained {config.steps} steps in {host_text.duration(time.monotonic() - started)}, "
            f"loss {mean_of_last(result.losses):.4f} (mean of the last steps)"
        )
        text = "\n".join(filter(None, [trained, words, again, saved.words]))
        return host_text.output(state, {"loss": result.losses}, saved.name, text=text)

    @classmethod
    def _named(cls, prefix: str) -> str:
        prompt = None if cls.hidden is None else cls.hidden.prompt
        return resolved(prefix, prompt, None if cls.hidden is None else cls.hidden.unique_id, "style_image")

    @classmethod
    def _found(cls, store: LoraStore, found: Found, again: str) -> io.NodeOutput:
        losses = found.record["losses"]
        name, text = found.name, f"unchanged request: loaded {found.name}, nothing trained"
        if found.rescued:
            settings = {key: value for key, value in found.record.items() if key != "losses"}
            name, words = store.save(found.state, kohya_metadata(settings, losses))
            text = "\n".join(filter(None, ["unchanged request: nothing trained", again, words]))
        return host_text.output(found.state, {"loss": losses}, name, text=text)


def broke_off(
    store: LoraStore,
    state: dict[str, Tensor],
    metadata: dict[str, str],
    result: TrainResult,
    config: TrainConfig,
    save: bool,
) -> str:
    """What to tell of a training whose loss was no longer finite; keeps the last good weights where that is asked."""
    at = f"training broke off at step {result.stopped_at} of {config.steps}, the loss or its gradient was"
    if not result.stopped_at:
        return (
            f"model: {at} not finite (NaN or infinity) before the LoRA had changed anything, so the learning rate is "
            "not the cause: the model gives no finite prediction for this picture and prompt. There were no good "
            "weights to keep. Set precision to fp32, or load another checkpoint."
        )
    kept = "Switch save on to keep the last good weights."
    if save:
        kept = f"The last good weights: {store.save(state, metadata, f'_stopped_at_{result.stopped_at}').words}."
    return (
        f"learning_rate: {at} no longer finite at a learning rate of {config.learning_rate:g}. {kept} "
        "Lower the learning rate, or use fp32."
    )


def mean_of_last(losses: list[float], count: int = 20) -> float:
    """Mean loss of the last steps; single steps say little, their timesteps are drawn at random."""
    last = losses[-count:]
    return sum(last) / len(last)


def estimated_size(model: ModelPatcher, config: TrainConfig) -> int:
    """Bytes that the LoRA's file will need at most: fp32 down and up for every target."""
    suffixes = tuple(f".{t}.weight" for t in config.targets)
    shapes = [v.shape for k, v in model.model.state_dict().items() if ".attn" in k and k.endswith(suffixes)]
    return sum(4 * config.rank * (s[0] + s[1]) for s in shapes) + 1_000_000
