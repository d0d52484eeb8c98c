"""Patches of a MODEL that act in the UNet or on its weights, wired as their nodes do; stand-ins for other packs.

The stand-ins do with the host's interface what those packs do, on a network of a few numbers.
"""

from __future__ import annotations

import tempfile

import comfy.controlnet
import comfy.model_patcher
import comfy.samplers
import comfy_extras.nodes_attention_multiply as multiply
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hypernetwork as hypernetwork
import comfy_extras.nodes_model_downscale as downscale
import comfy_extras.nodes_model_merging as merging
import comfy_extras.nodes_nag as nag
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_perpneg as perpneg
import tiny
import torch
from comfy.ldm.modules.attention import optimized_attention


def ip_adapter(model):
    """IP-Adapter: behind the text's attention, that of a picture's tokens, unconditional ones in the negative rows."""
    width, made = 32, torch.Generator().manual_seed(6)
    tokens = {0: torch.randn(1, 4, width, generator=made), 1: torch.zeros(1, 4, width)}

    def replace(q, k, v, options):
        out = optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])
        if options["sigmas"][0] < 0.1:
            return out
        rows = q.shape[0] // len(options["cond_or_uncond"])
        picture = torch.cat([tokens[i].expand(rows, -1, -1) for i in options["cond_or_uncond"]])
        picture = picture.repeat(1, 1, q.shape[-1] // width)
        return out + optimized_attention(q, picture, picture, options["n_heads"])

    patched = model.clone()
    for block in (("output", 1), ("output", 0), ("middle", 0), ("input", 1)):
        patched.set_model_attn2_replace(replace, *block)
    return patched


def prompt_by_position(model):
    """A pack that takes the first positive and the first negative chunk for the only ones, as NAG does."""

    def scaled(out, options):
        names, out = options["cond_or_uncond"], out.clone()
        rows = out.shape[0] // len(names)
        first = names.index(0)
        out[first * rows : (first + 1) * rows] *= 1.3
        return out

    patched = model.clone()
    patched.set_model_attn2_output_patch(scaled)
    return patched


def blocks(model):
    """A pack between the UNet's blocks: AnimateDiff's and ControlNet-LLLite's way in, FreeU's way out."""
    patched = model.clone()
    patched.set_model_input_block_patch(lambda h, options: h * 1.1)
    patched.set_model_output_block_patch(lambda h, skip, options: (h * 1.1, skip * 0.9))
    return patched


def wrapped(model):
    """A pack that owns ``model_function_wrapper``, and treats negative rows in its own way."""

    def wrapper(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        kinds = args["cond_or_uncond"]
        rows = out.shape[0] // len(kinds)
        gains = torch.tensor([1.1 if kind == 0 else 0.9 for kind in kinds]).repeat_interleave(rows)
        return out * gains[:, None, None, None]

    patched = model.clone()
    patched.set_model_unet_function_wrapper(wrapper)
    return patched


def conds_apart(model):
    """A pack that asks for the conditionings itself, one by one, the negative under options of its own."""

    def keys_swapped(q, k, v, options):
        return v

    def ask(args):
        conds, options = args["conds"], args["model_options"]
        own = comfy.model_patcher.set_model_options_patch_replace(options, keys_swapped, "attn1", "middle", 0)
        rest = (args["input"], args["sigma"])
        positive = comfy.samplers.calc_cond_batch(args["model"], [conds[0]], *rest, options)
        return positive + comfy.samplers.calc_cond_batch(args["model"], [conds[1]], *rest, own)

    patched = model.clone()
    patched.set_model_sampler_calc_cond_batch_function(ask)
    return patched


def hypernetworked(model):
    """What the host's HypernetworkLoader sets, from a file as it reads it."""
    made = torch.Generator().manual_seed(8)
    names = [{"linear.weight": torch.randn(32, 32, generator=made) * 0.1, "linear.bias": torch.zeros(32)} for _ in "kv"]
    with tempfile.TemporaryDirectory() as folder:
        torch.save({32: names}, f"{folder}/net.pt")
        patch = hypernetwork.load_hypernetwork_patch(f"{folder}/net.pt", 1.0)
    patched = model.clone()
    patched.set_model_attn1_patch(patch)
    patched.set_model_attn2_patch(patch)
    return patched


def freed(model, node, *numbers):
    """FreeU goes by the width of a block, a multiple of the model's; the tiny model has one width in all of them."""
    config = model.model.model_config.unet_config
    config["model_channels"], own = config["model_channels"] // 4, config["model_channels"]
    try:
        return node.execute(model, *numbers).args[0]
    finally:
        config["model_channels"] = own


def deep_shrink(model):
    """Kohya's Deep Shrink in the first half of the run."""
    node = downscale.PatchModelAddDownscale
    return node.execute(model, 1, 2.0, 0.0, 0.5, True, "bicubic", "bicubic").args[0]


def merged(model):
    """Half of another checkpoint."""
    other = tiny.make_model("small", seed=91)
    return merging.ModelMergeSimple().merge(model, other, 0.5)[0]


def merged_by_block(model):
    """Another checkpoint's decoder."""
    return merging.ModelMergeBlocks().merge(model, tiny.make_model("small", seed=92), input=1.0, middle=1.0, out=0.3)[0]


def perp_neg(model):
    """A third conditioning, which the host's node asks for itself."""
    return perpneg.PerpNeg.execute(model, tiny.make_prompt(93), 0.7).args[0]


INSIDE = {
    "FreeU": lambda m: freed(m, freelunch.FreeU, 1.3, 1.2, 0.6, 0.2),
    "FreeU_V2": lambda m: freed(m, freelunch.FreeU_V2, 1.3, 1.4, 0.6, 0.2),
    "NAGuidance": lambda m: nag.NAGuidance.execute(m, 5.0, 0.5, 1.5).args[0],
    "UNetSelfAttentionMultiply": lambda m: multiply.UNetSelfAttentionMultiply.execute(m, 1.2, 0.8, 1.1, 1.3).args[0],
    "UNetCrossAttentionMultiply": lambda m: multiply.UNetCrossAttentionMultiply.execute(m, 1.2, 0.8, 1.1, 1.3).args[0],
    "PatchModelAddDownscale": deep_shrink,
    "HypernetworkLoader": hypernetworked,
    "IP-Adapter": ip_adapter,
    "a pack by chunk": prompt_by_position,
    "a pack between blocks": blocks,
    "a pack's function wrapper": wrapped,
}
"""Patches that act in the UNet, row by row: what a region's branch predicts with them can be had alone."""

AROUND = {
    "PerturbedAttentionGuidance": lambda m: pag.PerturbedAttentionGuidance.execute(m, 3.0).args[0],
    "a pack that asks for conditionings": conds_apart,
    "ModelMergeSimple": merged,
    "ModelMergeBlocks": merged_by_block,
}
"""Guidance that is linear in the predictions, and other weights: it goes through eq. 8's sum."""

ALL = {**INSIDE, **AROUND, "PerpNeg": perp_neg}


class Teller(comfy.controlnet.ControlBase):
    """Advanced-ControlNet's way: weights by chunk and by frame, from what the host says of the batch."""

    def __init__(self, told=None) -> None:
        super().__init__()
        self.told = [] if told is None else told

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        names = transformer_options["cond_or_uncond"]
        assert cond["transformer_options"]["cond_or_uncond"] == names
        assert batched_number == len(names)
        assert all(name in (0, 1) for name in names), names
        self.told.append(list(names))
        self.frames = x_noisy.shape[0] // batched_number  # as Advanced-ControlNet's sub_idxs: kept on the control
        push = torch.tensor([3.0 if name == 0 else 0.5 for name in names]).repeat_interleave(self.frames)
        middle = push[:, None, None, None].expand(-1, 32, x_noisy.shape[2] // 2, x_noisy.shape[3] // 2)
        prev = None
        if self.previous_controlnet is not None:
            prev = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        return self.control_merge({"middle": [middle.clone()]}, prev, x_noisy.dtype)

    def copy(self):
        copied = Teller(self.told)
        self.copy_to(copied)
        return copied
