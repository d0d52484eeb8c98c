"""diffusers' UNet and ComfyUI's with the same weights, either way: what tests and benchmarks hold the pack against.

The names of both sides are ComfyUI's own table (``comfy.utils.unet_to_diffusers``), which leaves no weight out.
"""

from __future__ import annotations

from typing import Any


def load_into_host(unet: Any, model: Any) -> None:
    """Gives a ComfyUI MODEL the weights of diffusers' UNet. Raises where a weight of either side has no partner."""
    names = _names(model)
    weights = {names[key]: value.clone() for key, value in unet.state_dict().items()}
    model.model.diffusion_model.load_state_dict(weights)  # strict


def load_into_diffusers(model: Any, unet: Any) -> None:
    """Gives diffusers' UNet the weights of a ComfyUI MODEL. Raises where a weight of either side has no partner."""
    weights = model.model.diffusion_model.state_dict()
    named = {name: ldm for name, ldm in _names(model).items() if ldm in weights}  # the table has names of both kinds
    unet.load_state_dict({name: weights[ldm].clone() for name, ldm in named.items()})  # of shortcut, none, ...: strict
    if len(named) != len(weights):
        raise ValueError(f"{len(weights) - len(named)} of the MODEL's weights have no name in diffusers.")


def diffusers_twin(model: Any) -> Any:
    """A diffusers UNet of the MODEL's shape and weights, in fp32.

    Raises ValueError for models that take a vector beside the prompt (SDXL): their shape is not made here.
    """
    import diffusers

    config = model.model.model_config.unet_config
    if config.get("adm_in_channels") is not None:
        raise ValueError("model: a twin of SDXL or unCLIP is not made here; take SD1.x, SD2.x or the demo checkpoint.")
    widths = [config["model_channels"] * factor for factor in config["channel_mult"]]
    blocks, depths = config["num_res_blocks"][0], config["transformer_depth"]
    attends = [bool(depths[level * blocks]) for level in range(len(widths))]
    heads, head = config["num_heads"], config["num_head_channels"]
    unet = diffusers.UNet2DConditionModel(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        block_out_channels=widths,
        layers_per_block=blocks,
        cross_attention_dim=config["context_dim"],
        use_linear_projection=config["use_linear_in_transformer"],
        attention_head_dim=heads if heads > 0 else [width // head for width in widths],  # diffusers counts heads here
        down_block_types=["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        up_block_types=["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends)],
    )
    load_into_diffusers(model, unet)
    return unet.eval().requires_grad_(False)


def _names(model: Any) -> dict[str, str]:
    """diffusers' name -> ComfyUI's, of every weight."""
    import comfy.utils

    names: dict[str, str] = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return names
