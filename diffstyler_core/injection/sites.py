"""Sites: where in a UNet's decoder a tap can sit, and how people write lists of layers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["feature", "self-attention", "cross-attention"]
KINDS: tuple[Kind, ...] = ("feature", "self-attention", "cross-attention")


class Site(NamedTuple):
    """Address of a tap.

    kind: "feature" is the hidden state of the decoder ResBlock after its last convolution and before the skip
        connection is added; the attentions give q and k after their projections.
    layer: decoder layer l = ``output_blocks[l]`` in LDM naming (diffusers: ``up_blocks[l // 3]``, entry ``l % 3``).
    depth: transformer block inside the layer (0 on SD1/SD2; SDXL has up to 10).
    """

    kind: Kind
    layer: int
    depth: int = 0

    def __str__(self) -> str:
        return f"{self.kind} of layer {self.layer}" + (f", block {self.depth}" if self.depth else "")


@dataclass(frozen=True)
class UNetLayout:
    """Which sites a UNet has: per kind, layer -> number of transformer blocks (1 for features).

    strides: layer -> how many cells of the latent, along a side, one of its grid's is.
    """

    blocks: dict[Kind, dict[int, int]] = field(default_factory=dict)
    strides: dict[int, int] = field(default_factory=dict)

    def layers(self, kind: Kind) -> tuple[int, ...]:
        """The layers that have this kind of site, ascending."""
        return tuple(sorted(self.blocks.get(kind, {})))

    def sites(self, kind: Kind, layers: tuple[int, ...]) -> tuple[Site, ...]:
        """All sites of these layers. Raises ValueError that lists what exists when one does not."""
        missing = [layer for layer in layers if layer not in self.blocks.get(kind, {})]
        if missing:
            raise ValueError(
                f"{kind} layers {format_layers(tuple(missing))} do not exist in this UNet; "
                f"it has {kind} layers {format_layers(self.layers(kind)) or 'none'}."
            )
        return tuple(Site(kind, layer, d) for layer in layers for d in range(self.blocks[kind][layer]))


def parse_layers(text: str, what: str = "layers") -> tuple[int, ...]:
    """Layer lists as people write them: '4-11', '4,6-8', '' for none. Ascending, without repeats.

    Raises ValueError that repeats the text and shows the form.
    """
    layers: set[int] = set()
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        match = re.fullmatch(r"(\d{1,3})(?:\s*-\s*(\d{1,3}))?", part)
        if match is None:
            raise ValueError(f"{what} must be written like '4-11' or '4,6-8' (empty for none), got {text!r:.200}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{what}: the range {part!r} runs backwards in {text!r:.200}; write '{last}-{first}'.")
        layers.update(range(first, last + 1))
    return tuple(sorted(layers))


def format_layers(layers: tuple[int, ...]) -> str:
    """The shortest text that ``parse_layers`` reads back: (4, 6, 7, 8) -> '4,6-8'."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
