"""The host's nodes that change a MODEL, and stand-ins for other packs, as functions of a MODEL."""

from __future__ import annotations

from typing import Any

import torch
from comfy_extras import (
    nodes_apg,
    nodes_attention_multiply,
    nodes_cfg,
    nodes_eps,
    nodes_freelunch,
    nodes_fresca,
    nodes_mahiro,
    nodes_model_advanced,
    nodes_nag,
    nodes_pag,
    nodes_sag,
    nodes_tcfg,
)


def output(node: Any, *args: Any) -> Any:
    """The first output of a node of either kind."""
    return node.execute(*args).args[0]


def ip_adapter(model: Any, strength: float = 0.7) -> Any:
    """As IP-Adapter packs do: attn2 replaced in some blocks, a second attention over a picture's tokens added."""
    from comfy.ldm.modules.attention import optimized_attention

    generator = torch.Generator().manual_seed(5)

    def attention(q, k, v, extra_options):
        heads = extra_options["n_heads"]
        out = optimized_attention(q, k, v, heads)
        tokens = torch.randn(1, 4, q.shape[-1], generator=generator.manual_seed(5)).to(q)
        rows = []
        for index, chunk in zip(
            extra_options["cond_or_uncond"], out.chunk(len(extra_options["cond_or_uncond"])), strict=True
        ):
            part = q[: len(chunk)]
            own = tokens.expand(len(chunk), -1, -1) * (1.0 if index == 0 else 0.0)
            rows.append(chunk + strength * optimized_attention(part, own, own, heads))
        return torch.cat(rows)

    clone = model.clone()
    for layer in (4, 7):
        clone.set_model_attn2_replace(attention, "output", layer)
    return clone


def output_blocks(model: Any) -> Any:
    """A pack that scales the hidden state of a decoder block, and one that wraps the model function."""
    clone = model.clone()
    clone.set_model_output_block_patch(lambda h, skip, options: (h * 1.3 if options["block"][1] == 8 else h, skip))
    return clone


def wrapped(model: Any) -> Any:
    """A pack in the single slot around the model function, which looks for the positive chunk."""

    def call(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        chunks = args["cond_or_uncond"]
        assert sorted(chunks) in ([0], [1], [0, 1]), chunks
        size = len(out) // len(chunks)
        return torch.cat(
            [part * (1.1 if chunk == 0 else 1.0) for chunk, part in zip(chunks, out.split(size), strict=True)]
        )

    clone = model.clone()
    clone.set_model_unet_function_wrapper(call)
    return clone


def own_batch(model: Any) -> Any:
    """A pack that puts a calculation of its own in place of the host's guidance."""
    clone = model.clone()
    clone.set_model_sampler_cfg_function(lambda args: args["uncond"] + 2.0 * (args["cond"] - args["uncond"]))
    return clone


MODELS = {
    "PerturbedAttentionGuidance": lambda m: output(nodes_pag.PerturbedAttentionGuidance, m, 3.0),
    "SelfAttentionGuidance": lambda m: output(nodes_sag.SelfAttentionGuidance, m, 0.8, 2.0),
    "NAGuidance": lambda m: output(nodes_nag.NAGuidance, m, 5.0, 0.5, 1.5),
    "FreeU": lambda m: output(nodes_freelunch.FreeU, m, 1.3, 1.4, 0.9, 0.2),
    "FreeU_V2": lambda m: output(nodes_freelunch.FreeU_V2, m, 1.3, 1.4, 0.9, 0.2),
    "RescaleCFG": lambda m: nodes_model_advanced.RescaleCFG().patch(m, 0.7)[0],
    "CFGZeroStar": lambda m: output(nodes_cfg.CFGZeroStar, m),
    "CFGNorm": lambda m: output(nodes_cfg.CFGNorm, m, 0.8),
    "TCFG": lambda m: output(nodes_tcfg.TCFG, m),
    "Mahiro": lambda m: output(nodes_mahiro.Mahiro, m),
    "APG": lambda m: output(nodes_apg.APG, m, 0.5, 5.0, 0.0),
    "FreSca": lambda m: output(nodes_fresca.FreSca, m, 0.8, 1.3, 2),
    "Epsilon Scaling": lambda m: output(nodes_eps.EpsilonScaling, m, 1.05),
    "TemporalScoreRescaling": lambda m: output(nodes_eps.TemporalScoreRescaling, m, 0.9, 0.5),
    "UNetSelfAttentionMultiply": lambda m: output(
        nodes_attention_multiply.UNetSelfAttentionMultiply, m, 1.2, 1.0, 1.1, 1.0
    ),
    "UNetCrossAttentionMultiply": lambda m: output(
        nodes_attention_multiply.UNetCrossAttentionMultiply, m, 1.2, 1.0, 1.1, 1.0
    ),
    "IP-Adapter (stand-in)": ip_adapter,
    "an output block patch": output_blocks,
    "a model function wrapper": wrapped,
    "a guidance function": own_batch,
}

INSIDE = (
    "PerturbedAttentionGuidance", "SelfAttentionGuidance", "NAGuidance", "FreeU", "IP-Adapter (stand-in)",
    "an output block patch", "a model function wrapper", "a guidance function",
)  # fmt: skip
"""Those that act in the network, or ask it once more."""
