"""The encoder's first layers as an exact change of basis: each 8x8 patch becomes its principal components.

TAESD's encoder is four convolutions that halve the picture three times, with residual blocks between them. Blocks
whose last convolution is zero only apply ReLU, which leaves what is positive as it is. So the layers before the last
blocks can hold each patch of 8x8 pixels as the 60 largest of its 192 principal components (shifted, to be positive):
nothing there needs training, and what is learnt, the blocks at an eighth of the size and the last convolution, costs
next to nothing.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

COMPONENTS = 60
CONSTANT = 63  # the channel that is one everywhere: the host's halving convolutions have no bias
TRUNK = 11  # layers of the host's nn.Sequential that the components replace: up to the third halving
MARGIN = 1.25


class Basis(NamedTuple):
    """components [60, 192] of a patch; offset [60] takes the mean patch away and makes them positive."""

    components: Tensor
    offset: Tensor


def patches(images: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 192, H/8, W/8], ordered row in the patch, column, colour."""
    b, c, h, w = images.shape
    cut = images.reshape(b, c, h // 8, 8, w // 8, 8)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(b, 64 * c, h // 8, w // 8)


def principal(images: Tensor) -> Basis:
    """Principal components of the patches of `images` [B, 3, H, W] in 0..1."""
    flat = patches(images).movedim(1, -1).reshape(-1, 192).double()
    mean = flat.mean(0)
    components = torch.linalg.svd(flat - mean, full_matrices=False).Vh[:COMPONENTS]
    most = ((flat - mean) @ components.T).abs().amax(0)
    return Basis(components.float(), (MARGIN * most - components @ mean).float())


def head(encoder: Any) -> nn.Sequential:
    """What is learnt: the layers after the trunk."""
    return nn.Sequential(*list(encoder)[TRUNK:])


def features(encoder: Any, images: Tensor) -> Tensor:
    """What the layers before TRUNK give, after ReLU, at a hundredth of their cost: [B, 64, H/8, W/8]."""
    components, offset = read_basis(encoder)
    found = functional.conv2d(patches(images), components[:, :, None, None], offset)
    rest = torch.zeros_like(found[:, :4])
    rest[:, 3] = 1
    return torch.cat([functional.relu(found), rest], 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def read_basis(encoder: Any) -> Basis:
    """The basis that `write_trunk` put into the encoder."""
    weight = encoder[10].weight
    columns = [weight[:COMPONENTS, _cell(row, column, colour), 1 + row // 4, 1 + column // 4]
               for row, column, colour in _positions(8)]  # fmt: skip
    return Basis(torch.stack(columns, 1), weight[:COMPONENTS, CONSTANT, 1, 1])


@torch.no_grad()
def write_trunk(encoder: Any, basis: Basis) -> None:
    """Put the change of basis into the host's layers, in place. Blocks become ReLU alone."""
    for layer in encoder:
        if type(layer).__name__ == "Block":
            layer.conv[-1].weight.zero_()
            layer.conv[-1].bias.zero_()
    first, halvings = encoder[0], [encoder[2], encoder[6], encoder[10]]
    for conv in (first, *halvings):
        conv.weight.zero_()
    first.bias.zero_()
    first.bias[CONSTANT] = 1
    for colour in range(3):
        first.weight[colour, colour, 1, 1] = 1
    # Position (row, column) in the cell so far, each halving adds one binary digit below the ones before.
    for level, conv in enumerate(halvings[:2]):
        side = 2**level
        for row, column, colour in _positions(2 * side):
            coarse = ((row % side) * side + column % side) * 3 + colour
            target = (row * 2 * side + column) * 3 + colour
            conv.weight[target, coarse, 1 + row // side, 1 + column // side] = 1
        conv.weight[CONSTANT, CONSTANT, 1, 1] = 1
    last = halvings[2]
    for row, column, colour in _positions(8):
        weight = basis.components[:, (row * 8 + column) * 3 + colour]
        last.weight[:COMPONENTS, _cell(row, column, colour), 1 + row // 4, 1 + column // 4] = weight
    last.weight[:COMPONENTS, CONSTANT, 1, 1] = basis.offset
    last.weight[CONSTANT, CONSTANT, 1, 1] = 1


def _cell(row: int, column: int, colour: int) -> int:
    """The channel, a quarter of the size, of a position in the patch of 8x8."""
    return ((row % 4) * 4 + column % 4) * 3 + colour


def _positions(side: int) -> list[tuple[int, int, int]]:
    return [(row, column, colour) for row in range(side) for column in range(side) for colour in range(3)]
