"""The patch on a MODEL: an APPLY_MODEL wrapper that acts on the options of each evaluation, and on nothing else.

Other packs' attn2 patches and replacements are called, whichever was wired first: they are looked up at the time of
the call. ControlNets have UNets of their own, which the host calls outside of the wrapper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....diffstyler_core.injection.cross_layers import CrossLayers
from ..model import COMPILED, compiled_words, require_compatible
from .call import PICTURE, Evaluation
from .layers import Options, cross_layers
from .parts import Joiner, Reader

KEY = "diffstyler cross-attention"


@dataclass(frozen=True)
class Machine:
    """All that the pack has added to a MODEL's cross-attention, as the wrapper that the MODEL carries."""

    layers: CrossLayers
    reader: Reader | None = None
    joiners: tuple[Joiner, ...] = ()

    def __call__(
        self,
        executor: Any,
        x: Tensor,
        sigma: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The host's APPLY_MODEL, with the reader and the joiners in its attention."""
        options = transformer_options or {}
        if options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}).get(COMPILED):
            raise ValueError(compiled_words("model of the sampler"))
        evaluation = Evaluation(self.layers, self.reader, self.joiners, x, options)
        return executor(x, sigma, c_concat, c_crossattn, control, evaluation.options(), **kwargs)


def with_reader(model: ModelPatcher, reader: Reader) -> ModelPatcher:
    """A clone of the MODEL whose positive rows read what the reader says.

    Raises ValueError for a MODEL without a UNet, and for one that carries a reader already: which would be read?
    """
    machine = _machine(model)
    if machine.reader is not None:
        raise ValueError(
            f"model: it carries {machine.reader.name} already, and both that and {reader.name} say which prompt each "
            "part of the UNet reads. Wire the MODEL from before one of them."
        )
    return _carrying(model, replace(machine, reader=reader))


def with_joiner(model: ModelPatcher, joiner: Joiner) -> ModelPatcher:
    """A clone of the MODEL with one more joiner, outside of those that it has. Raises ValueError without a UNet."""
    machine = _machine(model)
    return _carrying(model, replace(machine, joiners=(*machine.joiners, joiner)))


def _machine(model: ModelPatcher) -> Machine:
    """What the MODEL carries, or a new one that does nothing."""
    require_compatible(model, applied=True)
    found = model.get_wrappers(WrappersMP.APPLY_MODEL, KEY)
    return found[0] if found else Machine(cross_layers(model))


def _carrying(model: ModelPatcher, machine: Machine) -> ModelPatcher:
    clone = model.clone()
    for kind, wrapper in ((WrappersMP.APPLY_MODEL, machine), (WrappersMP.CALC_COND_BATCH, _tell_size)):
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    return clone


def _tell_size(executor: Any, model: Any, conds: Any, x: Tensor, timestep: Tensor, options: Options) -> Any:
    """Tells the evaluations how large the whole latent is: areas and tiles are parts of it."""
    inner = {**options.get("transformer_options", {}), PICTURE: tuple(x.shape[-2:])}
    return executor(model, conds, x, timestep, {**options, "transformer_options": inner})
