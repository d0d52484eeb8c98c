"""One training run: the private copy, its progress and its previews."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management as management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from PIL import Image
from torch import Tensor

from ....diffstyler_core.diffusion import ddim
from ....diffstyler_core.diffusion.ddim import Denoiser
from ....diffstyler_core.diffusion.schedule import NoiseSchedule
from ....diffstyler_core.training.config import TrainConfig
from ....diffstyler_core.training.layers import adapt, checkpointed
from ....diffstyler_core.training.train import Predict, TrainResult, train
from .. import text as host_text
from ..checks.conditioning import Conditioning
from ..model import abar_of, prediction_of, schedule_of
from .conditioning import predict_with, prompt_notes, require_trainable
from .latents import latent_source
from .private_copy import blocks_of, private_unet

PREVIEW_STEPS = 10

Preview = Callable[[], Image.Image]


class Progress:
    """Progress bar, words and previews of one training; Cancel comes through here."""

    def __init__(self, steps: int, preview_every: int) -> None:
        self._bar = comfy.utils.ProgressBar(steps)
        self._preview_every = preview_every
        self._say = host_text.Counter()
        self.preview: Preview | None = None

    def start(self) -> None:
        """The set-up is over: the time left is counted from here."""
        self._say = host_text.Counter()

    def __call__(self, step: int, steps: int, loss: float) -> None:
        management.throw_exception_if_processing_interrupted()
        done, image = step + 1, None
        if self.preview is not None and self._preview_every and done % self._preview_every == 0:
            image = ("JPEG", self.preview(), 512)
        self._bar.update_absolute(done, steps, image)
        self._say(done, steps, f"loss {loss:.4f}")


def denoiser_of(predict: Predict, schedule: NoiseSchedule) -> Denoiser:
    """The k-diffusion denoiser of a UNet that predicts eps or v, at the schedule's own levels."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        t = schedule.timesteps[schedule.step_at(float(sigma[0]))]
        z = x * schedule.abar[t] ** 0.5
        output = predict(z, torch.full((x.shape[0],), t, device=x.device))
        return ddim.split(output, z, schedule.abar[t], schedule.prediction)[0]

    return denoise


def preview_of(
    predict: Predict, schedule: NoiseSchedule, model: ModelPatcher, vae: VAE, shape: tuple[int, ...], seed: int
) -> Preview:
    """What is trained makes of its own training prompt now: a short DDIM run from a fixed noise, decoded."""
    noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))

    def render() -> Image.Image:
        with torch.no_grad():
            z = ddim.sample(denoiser_of(predict, schedule), noise.to(management.get_torch_device()), schedule)
        with torch.inference_mode():
            pixels = vae.decode(model.model.process_latent_out(z))[0]
        return Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().cpu().numpy())

    return render


def train_lora(
    model: ModelPatcher,
    vae: VAE,
    pictures: Tensor,
    conditioning: Conditioning,
    config: TrainConfig,
    dtype: torch.dtype,
    progress: Progress,
) -> tuple[TrainResult, str]:
    """(what was trained, what the user should know about it) on a private copy of the UNet.

    Model and VAE are left as they are, whatever happens. Raises ValueError for a prompt that could not act in training.
    """
    require_trainable(conditioning, "prompt")
    with training(progress):
        draw, shape, words = latent_source(vae, model, pictures)
        unet = private_unet(model, dtype)
        predict = predict_with(unet, model, conditioning, (config.batch_size, *shape), dtype)
        layers = adapt(unet, config)
        progress.preview = preview_of(predict, schedule_of(model, PREVIEW_STEPS), model, vae, shape, config.seed)
        progress.start()
        with checkpointed(blocks_of(unet), config.gradient_checkpointing):
            result = train(layers, predict, draw, levels_of(model), prediction_of(model), config, progress)
        return result, "\n".join(filter(None, [words, *prompt_notes(conditioning, model)]))


@contextmanager
def training(progress: Progress) -> Iterator[None]:
    """Gradients are kept while this is open; afterwards nothing of the training stays in memory."""
    with torch.inference_mode(False), torch.enable_grad():
        try:
            yield
        finally:
            progress.preview = None
            gc.collect()
            management.soft_empty_cache()


def levels_of(model: ModelPatcher) -> Tensor:
    """The table of cumulative alphas [1000] on the compute device."""
    return torch.tensor(abar_of(model), device=management.get_torch_device())
