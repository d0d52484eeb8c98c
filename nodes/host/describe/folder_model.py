"""transformers' image-text-to-text models from a local folder: no network, no pickles, no code of the folder's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..precision import PRECISIONS
from ..progress import stop_if_cancelled
from .folders import WIDGET
from .request import Answer, Request

LOCAL = {"local_files_only": True, "trust_remote_code": False}
PLAIN_PROMPT = "USER: {image}\n{question} ASSISTANT:"
"""LLaVA-1.5's, for folders without a chat template (its model card)."""
PLAIN_KINDS = ("llava", "vipllava")
OnToken = Callable[[int], None]


class FolderModel:
    """A model and its processor, for one run of a node; the host makes room for it as for its own models.

    Raises ValueError for a folder that transformers cannot read as such a model, and for one that lacks weights.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        self._name = folder.name
        config, make = _kind(folder)
        self._processor = _processor(folder, config)
        self._prompt = _prompter(self._processor, config, folder.name)
        dtype = PRECISIONS.get(precision) or _usual_dtype()
        stop_if_cancelled()
        self._model = _weights(folder, config, make, dtype)
        self._patcher = _patcher(self._model)
        self.notes = _notes(self._patcher)

    def describe(self, picture: Tensor, request: Request, on_token: OnToken) -> Answer:
        """The answer about a picture [H, W, 3] in 0..1. Cancel is heard, and ``on_token`` told, after every token."""
        management.load_models_gpu([self._patcher], force_full_load=True)
        device = self._patcher.load_device
        given = self._inputs(picture, request.question).to(device)
        given = {k: v.to(self._model.dtype) if v.is_floating_point() else v for k, v in given.items()}
        start = 0 if self._model.config.is_encoder_decoder else given["input_ids"].shape[1]

        def after_token(ids: Tensor, _: Any, **__: Any) -> Tensor:
            stop_if_cancelled()
            on_token(ids.shape[1] - start)
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        with _seeded(request, device), management.cuda_device_context(device):
            ids = self._model.generate(**given, **_settings(request), stopping_criteria=[after_token])[0, start:]
        tokens = tuple(ids.tolist())
        text = self._processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Answer(text, len(tokens) >= request.max_length and tokens[-1] not in self._ends(), tokens)

    def _inputs(self, picture: Tensor, question: str) -> Any:
        from PIL import Image

        levels = (picture.cpu().float() * 255.0).round().clamp(0, 255).to(torch.uint8)
        image = Image.fromarray(levels.numpy())
        try:
            return self._processor(images=[image], text=[self._prompt(question)], return_tensors="pt")
        except Exception as error:
            raise ValueError(
                f"{WIDGET}: the processor of {self._name!r} cannot put the picture and the question together ({error})."
            ) from error

    def _ends(self) -> tuple[int, ...]:
        end = self._model.generation_config.eos_token_id
        return tuple(end) if isinstance(end, (list, tuple)) else (end,)


def _settings(request: Request) -> dict[str, Any]:
    """All that decides on words, so that the folder's own generation_config.json decides only where answers end."""
    drawn = request.sampling
    some = {"temperature": drawn.temperature, "top_p": drawn.top_p, "top_k": 0} if drawn else {}
    none = {} if drawn else {"temperature": None, "top_p": None, "top_k": None}
    return {
        "max_new_tokens": request.max_length, "do_sample": drawn is not None, "num_beams": 1,
        "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, **some, **none,
    }  # fmt: skip


@contextmanager
def _seeded(request: Request, device: torch.device) -> Iterator[None]:
    """The seed's random numbers inside, the process' own ones as they were after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if request.sampling is not None:
            torch.manual_seed(request.sampling.seed)
        yield


def _kind(folder: Path) -> tuple[Any, Any]:
    """(the folder's config, transformers' own class for it)."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING as KNOWN

    config = _read(folder, lambda: AutoConfig.from_pretrained(folder, **LOCAL))
    if type(config) not in KNOWN:
        raise ValueError(
            f"{WIDGET}: {folder.name!r} is a {config.model_type!r}, which is no model of transformers that writes text "
            "about pictures. Choose another, e.g. a LLaVA."
        )
    return config, KNOWN[type(config)]


def _processor(folder: Path, config: Any) -> Any:
    """The folder's processor. What LLaVA's old files leave out of it is the model's config's."""
    from transformers import AutoProcessor

    processor = _read(folder, lambda: AutoProcessor.from_pretrained(folder, **LOCAL))
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ValueError(
            f"{WIDGET}: {folder.name!r} lacks the files that prepare pictures (preprocessor_config.json) or words "
            "(tokenizer.json). Fetch all of the model's files."
        )
    if getattr(processor, "patch_size", 0) is None:
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(config.vision_config.model_type == "clip_vision_model")
    return processor


def _prompter(processor: Any, config: Any, name: str) -> Callable[[str], str]:
    """question -> the prompt with the picture's place in it: by the chat template, or LLaVA-1.5's plain form."""
    if getattr(processor, "chat_template", None):

        def by_template(question: str) -> str:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

        return by_template
    if config.model_type not in PLAIN_KINDS:
        raise ValueError(
            f"{WIDGET}: {name!r} ({config.model_type}) has no chat template, so there is no telling how to ask it. "
            "Fetch chat_template.json or chat_template.jinja too, or choose another model."
        )
    return lambda question: PLAIN_PROMPT.format(image=processor.image_token, question=question)


def _weights(folder: Path, config: Any, make: Any, dtype: torch.dtype) -> Any:
    """The model with every one of its weights. The attention is named: a config could name a kernel to download."""
    attention = "sdpa" if getattr(make, "_supports_sdpa", False) else "eager"
    options = {"use_safetensors": True, "dtype": dtype, "attn_implementation": attention, "output_loading_info": True}
    model, info = _read(folder, lambda: make.from_pretrained(folder, config=config, **LOCAL, **options))
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"{WIDGET}: the files of {folder.name!r} lack {len(missing)} weights, e.g. {missing[0]!r}. "
            "Fetch all of them."
        )
    return model.eval().requires_grad_(False)


def _read(folder: Path, how: Callable[[], Any]) -> Any:
    try:
        return how()
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise ValueError(
            f"{WIDGET}: {folder.name!r} cannot be read by transformers ({first}). Fetch all of the model's files; "
            "models that need code of their own, or a package that is not there, cannot be used."
        ) from error


def _usual_dtype() -> torch.dtype:
    device = management.text_encoder_device()
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if management.should_use_bf16(device) else torch.float16


def _patcher(model: nn.Module) -> ModelPatcher:
    """The model as the host counts and moves it: on its device when it fits as a whole, else on the CPU."""
    held = nn.Module()
    held.model = model  # the patcher sets ``device``, which transformers' models compute
    device, home = management.text_encoder_device(), management.text_encoder_offload_device()
    fits = management.module_size(model) < 0.9 * management.get_total_memory(device)
    return ModelPatcher(held, load_device=device if fits else torch.device("cpu"), offload_device=home)


def _notes(patcher: ModelPatcher) -> tuple[str, ...]:
    wanted = management.text_encoder_device()
    if patcher.load_device == wanted:
        return ()
    size = management.module_size(patcher.model) / 1024**3
    return (f"note: the model's {size:.1f} GB do not fit into {wanted}: it ran on the CPU",)
