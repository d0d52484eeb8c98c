"""Injected LoRA Guider: the sampler's prediction for SamplerCustomAdvanced, with any sampler and SIGMAS."""

from __future__ import annotations

import math
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..diffstyler_core.capture import Capture
from ..diffstyler_core.regions import localize
from . import host_text, sockets
from .host_forward import Options
from .host_injection import Injection, Settings, file_fingerprint, prepare
from .host_injection_inputs import added_inputs, injection_inputs
from .host_inputs import Conditioning
from .host_lora import NO_LORA
from .host_sampling import InjectedGuider, sigmas_of


class LocalizedGuider(InjectedGuider):
    """Keeps the content outside the styles at whatever noise levels a sampler visits, as the host inpaints.

    Each evaluation sees the content's own path outside (eq. 7) and answers with the content there; at the end the
    content is put back exactly. A run that ends at the last of the node's SIGMAS, the picture's level abar_0, comes
    back in the latent's scale.
    """

    def __init__(self, model: ModelPatcher, capture: Capture, injection: Injection) -> None:
        super().__init__(model, capture, injection.plan, injection.branches)
        self._inside = injection.inside

    def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None) -> Tensor:
        """The guided x0 inside, the content outside."""
        trajectory = self._capture.trajectory
        if x.shape != trajectory.noise.shape:
            raise ValueError(
                f"latent_image: {list(x.shape)} does not fit the trajectory's {list(trajectory.noise.shape)}. "
                "Wire the x_T of DDIM Invert into the sampler, or a latent of the content's size."
            )
        content = trajectory.content.to(x)
        if not self._branches:
            return content
        if self._inside is None:
            return super().predict_noise(x, timestep, model_options, seed)
        around = trajectory.exploding_at(float(timestep[0])).to(x)
        x0 = super().predict_noise(localize(x, around, self._inside), timestep, model_options, seed)
        return localize(x0, content, self._inside)

    def sample(self, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, **kwargs: Any) -> Tensor:
        """One run of the host's, with the content's own latents outside at its end."""
        samples = super().sample(noise, latent_image, sampler, sigmas, **kwargs)
        if sigmas.shape[-1] == 0:
            return samples
        trajectory, last = self._capture.trajectory, float(sigmas[-1])
        content = trajectory.exploding_at(last)
        if math.isclose(last, float(sigmas_of(trajectory.schedule)[-1]), rel_tol=1e-4):
            samples, content = samples / math.sqrt(1.0 + last**2), trajectory.content
        if self._inside is None and self._branches:
            return samples
        outside = self.model_patcher.model.process_latent_out(content).to(samples)
        return outside if not self._branches else localize(samples, outside, self._inside)  # type: ignore[arg-type]


class InjectedLoRAGuider(io.ComfyNode):
    """The injected prediction as a GUIDER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffStyler_InjectedGuider",
            display_name="Injected LoRA Guider",
            category=sockets.CATEGORY,
            description="What the Injected LoRA Sampler predicts at a step, for SamplerCustomAdvanced with a sampler "
            "of your choice. Wire Disable Noise, these sigmas, and the x_T of DDIM Invert as latent_image; with euler "
            "the result is the Injected LoRA Sampler's.",
            search_aliases=["custom sampler", "regional style", "diffstyler"],
            inputs=[*injection_inputs(), *added_inputs()],
            outputs=[
                io.Guider.Output("guider", tooltip="For SamplerCustomAdvanced."),
                io.Sigmas.Output("sigmas", tooltip="The noise levels of the content's trajectory."),
            ],
            hidden=[io.Hidden.unique_id],
            has_intermediate_output=True,  # its words come back when its result is taken from the cache
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str = NO_LORA, **_: Any) -> str:
        """A changed file is another LoRA, though its name is the same."""
        return file_fingerprint(lora_name)

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        features: Capture,
        positive: Conditioning,
        negative: Conditioning,
        cfg: float,
        **settings: Any,
    ) -> io.NodeOutput:
        injection = prepare(model, features, Settings(**settings))
        guider = LocalizedGuider(model, features, injection)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return host_text.output(guider, sigmas_of(features.trajectory.schedule), text=injection.words, node=cls)
