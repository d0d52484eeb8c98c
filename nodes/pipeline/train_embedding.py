"""Train Style Embedding: one picture, one prompt, vectors that stand in it for the style (InST; textual inversion)."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...diffstyler_core.training.embedding import ATTENTION, EMBEDDING, METHODS, MOST_VECTORS, EmbeddingConfig
from .. import sockets
from ..host import text as host_text
from ..host.checks.conditioning import require_conditioning
from ..host.checks.pictures import style_pictures
from ..host.checks.refusal import refusal
from ..host.model import family_of
from ..host.precision import training_dtype
from ..host.training import auto
from ..host.training.embedding import encoded, picture_embedding, require_projection, train_embedding
from ..host.training.embedding_file import (
    embedding_metadata,
    embedding_request,
    embedding_size,
    prompt_name,
    require_vectors,
)
from ..host.training.latents import prepare_pictures
from ..host.training.outcome import broke_off, loaded, trained_words
from ..host.training.picture_name import resolved
from ..host.training.placeholder import PLACEHOLDER, Prompt, blank_vectors, require_words, tokenized
from ..host.training.private_copy import require_plain_unet
from ..host.training.run import Progress
from ..host.training.store import EmbeddingStore
from ..host.training.writing import Saved
from ..host.types import CLIP, VAE, ModelPatcher
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


class TrainStyleEmbedding(io.ComfyNode):
    """Training of a style embedding on one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_TrainStyleEmbedding",
            display_name="Train Style Embedding",
            category=sockets.CATEGORY,
            description="Learns the style of one picture as vectors that stand in a prompt (textual inversion, InST). "
            "The model is not changed. Nothing is trained twice: the same request loads its file from "
            "models/embeddings.",
            search_aliases=[
                "textual inversion",
                "train embedding",
                "embedding training",
                "inst",
                "inversion based style transfer",
                "learn style",
                "style token",
                "style training",
                "diffstyler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The base model. It is not changed: training works on a private copy."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP. It is not changed."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Image.Input("style_image", tooltip="The style picture; a batch of several is allowed."),
                io.String.Input(
                    "prompt",
                    default=f"a painting in the style of {PLACEHOLDER}",
                    multiline=True,
                    tooltip=f"Training prompt; {PLACEHOLDER} is where the learned vectors stand. InST's is "
                    f"{PLACEHOLDER} alone.",
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option(EMBEDDING, embedding_inputs()),
                        io.DynamicCombo.Option(ATTENTION, [rate_input(1e-4)]),
                    ],
                    tooltip=f"{EMBEDDING}: the vectors themselves are trained. {ATTENTION}: an attention module is "
                    "trained that makes the vector of the picture's CLIP embedding; wire clip_vision.",
                ),
                steps_input(500),
                seed_input("noise, timesteps and the attention's first weights"),
                resolution_input(),
                batch_input(),
                checkpointing_input(),
                precision_input("embedding"),
                preview_input("embedding"),
                *save_inputs("embedding", "embeddings"),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip=f"A CLIP's picture encoder, for {ATTENTION}. InST: ViT-L/14."
                ),
            ],
            outputs=[
                io.Conditioning.Output("conditioning", tooltip="The prompt with the learned vectors in it."),
                sockets.LossMap.Output("loss_map", tooltip="For Plot Loss Graph."),
                io.String.Output(
                    "embedding_name",
                    tooltip="'embedding:NAME', to be written into any prompt; empty when it is not in "
                    "models/embeddings.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, method: object = None) -> bool | str:
        """A name that is none is refused before anything runs; None comes over a wire. ``method`` comes unasked."""
        return refusal(*([] if filename_prefix is None else [lambda: EmbeddingStore.safe_prefix(filename_prefix)]))

    @classmethod
    def fingerprint_inputs(cls, save: bool = True, filename_prefix: str = "", **_inputs: Any) -> list[str]:
        """While an embedding of its name waits to be saved, queueing again runs the node again."""
        return EmbeddingStore.rescued_names(filename_prefix) if save else []

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        style_image: Tensor,
        prompt: str,
        method: dict[str, Any] | None,
        steps: int,
        seed: int,
        resolution: int,
        batch_size: int,
        gradient_checkpointing: bool,
        precision: str,
        preview_every: int,
        save: bool,
        filename_prefix: str,
        clip_vision: Any = None,
    ) -> io.NodeOutput:
        own = config_part(method, clip_vision)
        rates = auto.EMBEDDING if own["method"] == EMBEDDING else auto.ATTENTION
        side, own["learning_rate"], chosen = auto.suited(model, resolution, own["learning_rate"], rates)
        config = EmbeddingConfig(
            steps=steps,
            seed=seed,
            resolution=side,
            batch_size=batch_size,
            gradient_checkpointing=gradient_checkpointing,
            **own,
        )
        family, dtype = family_of(model), training_dtype(precision)
        require_plain_unet(model)
        pictures = prepare_pictures(style_pictures(style_image), config.resolution)
        template = tokenized(clip, prompt, config.vectors)
        require_words(clip, config)
        require_conditioning(encoded(clip, template, blank_vectors(clip, config.vectors)), model, "clip", one=True)
        settings = {**asdict(config), "precision": str(dtype)}
        request = embedding_request(model, clip, vae, pictures, template, settings, clip_vision)
        store = EmbeddingStore.of(cls._named(filename_prefix), request)
        again = ""
        if save:
            found, again = store.find()
            if found is not None:
                require_vectors(found.state, clip, config.vectors)
                name, text = loaded(store, found, again, embedding_metadata)
                text = "\n".join(filter(None, [text, chosen]))
                return cls._output(clip, template, found.state, found.record["losses"], name, text)
            store.check_writable(embedding_size(clip, config.vectors))
        image = None if clip_vision is None else picture_embedding(clip_vision, pictures)
        progress, started = Progress(config.steps, preview_every), time.monotonic()
        learned = train_embedding(model, clip, vae, pictures, template, image, config, dtype, progress)
        losses, stopped_at = learned.course.losses, learned.course.stopped_at
        record = {**settings, "base_model": family, "request": request, "stopped_at": stopped_at, "prompt": prompt}
        metadata = embedding_metadata(record, losses)
        if stopped_at is not None:
            raise ValueError(broke_off(store, learned.vectors, metadata, stopped_at, config, save))
        saved = store.save(learned.vectors, metadata) if save else Saved("", "not saved (save is off)")
        trained = trained_words(config.steps, time.monotonic() - started, losses)
        text = "\n".join(filter(None, [trained, chosen, learned.words, again, saved.words]))
        return cls._output(clip, template, learned.vectors, losses, saved.name, text)

    @classmethod
    def _named(cls, prefix: str) -> str:
        prompt = None if cls.hidden is None else cls.hidden.prompt
        return resolved(prefix, prompt, None if cls.hidden is None else cls.hidden.unique_id, "style_image")

    @classmethod
    def _output(
        cls, clip: CLIP, prompt: Prompt, vectors: dict[str, Tensor], losses: list[float], file: str, text: str
    ) -> io.NodeOutput:
        name = prompt_name(file)
        words = f"{text}\nin a prompt: {name}" if name else text
        return host_text.output(encoded(clip, prompt, vectors), {"loss": losses}, name, text=words)


def embedding_inputs() -> list[io.Input]:
    """The settings of plain textual inversion."""
    return [
        rate_input(5e-3),
        io.Int.Input("vectors", default=1, min=1, max=MOST_VECTORS, tooltip="How many tokens the embedding takes."),
        io.String.Input("initial_word", default="painting", tooltip="The words that the vectors begin as."),
    ]


def config_part(method: dict[str, Any] | None, clip_vision: Any) -> dict[str, Any]:
    """The chosen method's settings by name. Raises ValueError where clip_vision and it do not go together."""
    chosen = None if method is None else method.get("method")
    if method is None or chosen not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {chosen!r:.60}.")
    if chosen == ATTENTION and clip_vision is None:
        raise ValueError(
            f"clip_vision: the method {ATTENTION} learns from the picture's CLIP embedding, and none is wired. Wire "
            f"Load CLIP Vision (ViT-L/14 for SD1), or choose the method {EMBEDDING}."
        )
    if chosen == EMBEDDING and clip_vision is not None:
        raise ValueError(
            f"clip_vision: the method {EMBEDDING} does not use it. Unplug it, or choose the method {ATTENTION}."
        )
    if clip_vision is not None:
        require_projection(clip_vision)
    return dict(method)
