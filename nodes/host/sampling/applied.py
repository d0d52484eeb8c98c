"""Branches as a removable patch of a MODEL: what the pack's own sampler does at a step, under any sampler of the host.

The patch is a clone's wrappers. Everything that belongs to one run hangs on that run's own model options, so that two
samplers may share the MODEL, and nothing is left of a run that ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....diffstyler_core.diffusion.trajectory import Trajectory
from ....diffstyler_core.styles.style import Styles
from ..model import APPLIED, require_compatible, require_family
from .branch_run import Between, BranchRun, OwnPrompts, Setting, next_level, require_finite_prediction
from .branches import Composition, require_same_weights
from .controls import Conds, Processed
from .forward import Options
from .fusion import NAMES, Prompts, fused
from .kept import finished
from .start import on_the_path


def applied(
    model: ModelPatcher, trajectory: Trajectory, composition: Composition, between: Between, name: str
) -> ModelPatcher:
    """A clone of the MODEL under which any sampler predicts what the composition's branches do. name: the node's."""
    patch, patched = AppliedBranches(model, trajectory, composition, between, name), model.clone()
    for kind, wrapper in patch.wrappers().items():
        patched.add_wrapper_with_key(kind, APPLIED, wrapper)
    return patched


def require_no_hooks(styles: Styles, name: str) -> None:
    """Raises ValueError for styles whose prompts carry hooks: the host registers those before a patch is asked."""
    for number, style in enumerate(styles, 1):
        if any("hooks" in options for _, options in style.positive):  # type: ignore[attr-defined]  # opaque in the core
            raise ValueError(
                f"positive of {style.label(number)} carries hooks, which {name} cannot hand to the sampler. Use the "
                "Injected LoRA Sampler or Guider, or put the LoRA into Regional Style instead of a hook."
            )


class AppliedBranches:
    """The host's wrappers of one patch. It knows no run: each puts its ``BranchRun`` on its own options."""

    def __init__(
        self, model: ModelPatcher, trajectory: Trajectory, composition: Composition, between: Between, name: str
    ) -> None:
        self.name = name
        self._trajectory, self._composition, self._between = trajectory, composition, between
        self._own = OwnPrompts(model, composition.branches, between)

    def wrappers(self) -> dict[str, Callable[..., Any]]:
        """By the host's kind."""
        return {
            WrappersMP.OUTER_SAMPLE: self._sample,
            WrappersMP.PREPARE_SAMPLING: self._prepare,
            WrappersMP.SAMPLER_SAMPLE: self._run,
            WrappersMP.PREDICT_NOISE: self._predict,
            WrappersMP.CALC_COND_BATCH: self._calculate,
        }

    def _sample(
        self, executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kw: Any
    ) -> Tensor:
        """A whole run: refused before its first evaluation where it does not fit, cleaned up after its last."""
        model = executor.class_obj.model_patcher
        self._require_run(model, latent_image)
        last = float(sigmas[-1])  # before the run: uni_pc writes into its levels
        latent_image = on_the_path(model, self._trajectory, noise, latent_image, sigmas)
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kw)
        finally:
            self._composition.release()
            comfy.sampler_helpers.cleanup_models(self._raw(), [])  # their ControlNets
        return finished(model, self._trajectory, self._composition, samples, last)

    def _require_run(self, model: ModelPatcher, latent: Tensor) -> None:
        """The MODEL may have been patched further since, and the latent is known only now."""
        require_compatible(model, "model of the sampler", applied=True)
        require_family(model, self._trajectory.family, f"features of {self.name}")
        for branch in self._composition.branches:
            for content in branch.contents():
                if content.capture.store is None:
                    require_same_weights(model, content.capture.source.model, f"features of {self.name}")
        own, given = self._trajectory.content.shape, latent.shape
        if own[1:] != given[1:] or own[0] not in (1, given[0]):
            raise ValueError(
                f"latent_image: {list(given)} does not fit {self.name}, whose features are of a latent "
                f"{list(own)}. Wire the x_T of DDIM Invert, or an Empty Latent Image of the content's size and number."
            )

    def _raw(self) -> dict[str, Processed]:
        """The patch's own prompts in the form of a guider's."""
        named = self._own.conditionings()
        return {name: comfy.sampler_helpers.convert_cond(conditioning) for name, conditioning in named.items()}

    def _prepare(
        self, executor: Any, model: ModelPatcher, noise_shape: Any, conds: Prompts, *args: Any, **kw: Any
    ) -> Any:
        """The host also loads what the patch's own prompts need, and counts it and the contents' features."""
        ready, _, models = executor(model, noise_shape, {**conds, **self._raw()}, *args, **kw)
        return ready, conds, models

    def _run(
        self,
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kw: Any,
    ) -> Tensor:
        """The sampler's own loop, with all that belongs to it on its options."""
        model, raw = guider.inner_model, self._raw()
        setting = Setting(model, noise, latent_image, noise.device, sigmas, denoise_mask, extra_args.get("seed"))
        asked = {name: [dict(entry) for entry in guider.original_conds.get(name, ())] for name in NAMES}
        comfy.samplers.preprocess_conds_hooks(asked)
        branches = self._composition.branches
        prompts, contents = self._own.of_branches(raw, asked, setting), self._own.of_contents(raw, setting)
        run = BranchRun(setting, self._trajectory, branches, prompts, contents, self._between)
        options = comfy.model_patcher.create_model_options_clone(extra_args["model_options"])
        options["transformer_options"][APPLIED] = run, guider.conds
        extra_args = {**extra_args, "model_options": options}
        try:
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args, **kw)
        finally:
            run.close()

    def _predict(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: Options, seed: int | None = None
    ) -> Tensor:
        """The guided x0 [B, C, h, w]: inside the branches', outside the content where it is kept."""
        kept, sigma = self._composition.kept, float(timestep[0])
        if not self._composition.branches:
            return self._trajectory.content.to(x).expand_as(x)
        shown = x if kept is None else kept.shown(x, sigma)
        x0 = executor(shown, timestep, model_options, seed)
        require_finite_prediction(x0, self._trajectory, sigma)
        if kept is None:
            return x0
        after = next_level(model_options["transformer_options"]["sample_sigmas"], sigma)
        return kept.answer(x, shown, x0, sigma, after)

    def _calculate(
        self, executor: Any, model: Any, conds: Conds, x: Tensor, timestep: Tensor, options: Options
    ) -> list[Tensor]:
        """One evaluation: every branch's rows, fused."""
        known = options.get("transformer_options", {}).get(APPLIED)
        if known is None:
            raise ValueError(
                f"{self.name} is on this MODEL, and it was evaluated outside of a run of the host's samplers, where "
                "nothing can be injected. Use KSampler, SamplerCustom or SamplerCustomAdvanced, or wire the MODEL "
                f"from before {self.name}."
            )
        run, asked = known
        branches = run.at(float(timestep[0]), asked, x)
        return fused(executor, model, conds, x, timestep, options, asked, branches, run.forwards)
