"""Train Style LoRA: one picture, one prompt, a LoRA on the attention projections (method.md section 1)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.lora.file import kohya_metadata, kohya_state
from ...diffstyler_core.training.config import TrainConfig
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import Conditioning, require_conditioning
from ..host.checks.pictures import style_pictures
from ..host.checks.refusal import refusal
from ..host.identity import identity
from ..host.model import family_of
from ..host.precision import training_dtype
from ..host.training.auto import LORA, suited
from ..host.training.latents import prepare_pictures
from ..host.training.outcome import broke_off, loaded, trained_words
from ..host.training.picture_name import resolved
from ..host.training.private_copy import module_names, require_plain_unet
from ..host.training.request import estimated_size, request_of
from ..host.training.run import Progress, train_lora
from ..host.training.store import Found, LoraStore
from ..host.training.writing import Saved
from ..host.types import VAE, ModelPatcher
from ..inputs.training import (
    batch_input,
    checkpointing_input,
    precision_input,
    preview_input,
    rate_input,
    resolution_input,
    save_inputs,
    seed_input,
    steps_input,
)

TARGETS = {"q, k, v": ("to_q", "to_k", "to_v"), "q, k, v, out": ("to_q", "to_k", "to_v", "to_out.0")}


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
                steps_input(200),
                rate_input(2e-4),
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
                seed_input("first weights, noise and timesteps"),
                resolution_input(),
                io.Combo.Input(
                    "targets",
                    options=list(TARGETS),
                    default="q, k, v",
                    tooltip="Projections of self- and cross-attention that get a LoRA.",
                    advanced=True,
                ),
                batch_input(),
                checkpointing_input(),
                precision_input("LoRA"),
                preview_input("LoRA"),
                *save_inputs("LoRA", "loras"),
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
        return refusal(*([] if filename_prefix is None else [lambda: LoraStore.safe_prefix(filename_prefix)]))

    @classmethod
    def fingerprint_inputs(cls, save: bool = True, filename_prefix: str = "", **_inputs: Any) -> list[str]:
        """While a LoRA of its name waits to be saved (models/loras was full), queueing again runs the node again."""
        return LoraStore.rescued_names(filename_prefix) if save else []

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
        side, rate, chosen = suited(model, resolution, learning_rate, LORA)
        config = TrainConfig(
            rank,
            alpha,
            steps,
            rate,
            weight_decay,
            seed,
            side,
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
                return cls._found(store, found, again, chosen)
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
            raise ValueError(broke_off(store, state, metadata, result.stopped_at, config, save))
        saved = store.save(state, metadata) if save else Saved("", "not saved (save is off)")
        trained = trained_words(config.steps, time.monotonic() - started, result.losses)
        text = "\n".join(filter(None, [trained, chosen, words, again, saved.words]))
        return host_text.output(state, {"loss": result.losses}, saved.name, text=text)

    @classmethod
    def _named(cls, prefix: str) -> str:
        prompt = None if cls.hidden is None else cls.hidden.prompt
        return resolved(prefix, prompt, None if cls.hidden is None else cls.hidden.unique_id, "style_image")

    @classmethod
    def _found(cls, store: LoraStore, found: Found, again: str, chosen: str) -> io.NodeOutput:
        name, text = loaded(store, found, again, kohya_metadata)
        text = "\n".join(filter(None, [text, chosen]))
        return host_text.output(found.state, {"loss": found.record["losses"]}, name, text=text)
