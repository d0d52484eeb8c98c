"""Models that take more than a prompt, and what their nodes put on prompts; the host's own classes in miniature."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import comfy.gligen
import comfy.model_base
import comfy.model_patcher
import comfy_extras.nodes_ip2p as ip2p
import comfy_extras.nodes_model_advanced as advanced
import tiny
import tiny_checkpoints
import torch
from test_regions import SIZE

import nodes as host_nodes

HEIGHT, WIDTH = (8 * cells for cells in SIZE)


class TinyIP2P(tiny.TinySD15):
    """InstructPix2Pix: the picture beside the latent."""

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> Any:
        return comfy.model_base.SD15_instructpix2pix(self, device=device)


class TinyUnclip(tiny.TinySD21):
    """SD2.1 unCLIP: a picture's CLIP embedding beside the prompt."""

    noise_aug_config = {
        "noise_schedule_config": {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"},
        "timestep_dim": 32,
    }


def loaded(kind: Any, seed: int, **config: Any) -> Any:
    """A MODEL of two levels with random weights."""
    made = kind({**tiny.CONFIGS["small"], **config})
    made.set_inference_dtype(torch.float32, None)
    model = made.get_model({}, "", device="cpu")
    tiny.fill(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=cpu, offload_device=cpu)


class Kind:
    """A model, and ``told``: a prompt (0 content, 1 positive, 2 negative, from 3 on styles) as the node makes it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.model = self.load()

    def load(self) -> Any:
        return tiny.make_model("small", seed=self.seed)

    def plain(self, i: int) -> Any:
        return tiny.make_prompt(self.seed + i)

    def told(self, i: int) -> Any:
        return self.plain(i)


class GLIGEN(Kind):
    """A box with words in every prompt but the content's and the negative."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        fusers = [comfy.gligen.GatedSelfAttentionDense(32, 32, 4, 8) for _ in range(4)]
        net = comfy.gligen.Gligen(fusers, comfy.gligen.PositionNet(32, 32), 32)
        tiny.fill(net, seed + 40)
        for fuser in fusers:
            fuser.alpha_attn.data.fill_(0.7)
            fuser.alpha_dense.data.fill_(0.7)
        cpu = torch.device("cpu")
        self.boxes = comfy.model_patcher.CoreModelPatcher(net, load_device=cpu, offload_device=cpu)
        self.clip = tiny_checkpoints.make_clip("SD1.5", seed)

    def told(self, i: int) -> Any:
        if i in (0, 2):
            return self.plain(i)
        where = 32, 48, 8 * (i % 3), 16
        return host_nodes.GLIGENTextBoxApply().append(self.plain(i), self.clip, self.boxes, f"a cup {i}", *where)[0]


class UnCLIP(Kind):
    """Another picture's embedding in every prompt but the negative.

    It joins the timestep's, a number a channel, which a norm of as many groups as channels takes out again: so the
    second level is wider.
    """

    def load(self) -> Any:
        own = {"num_classes": "sequential", "adm_in_channels": 64, "channel_mult": [1, 2]}
        return loaded(TinyUnclip, self.seed, **own)

    def told(self, i: int) -> Any:
        if i == 2:
            return self.plain(i)
        embeds = torch.randn(1, 32, generator=torch.Generator().manual_seed(self.seed + 50 + i))
        return host_nodes.unCLIPConditioning().apply_adm(self.plain(i), SimpleNamespace(image_embeds=embeds), 1.0, 0.1)[
            0
        ]


class InstructPix2Pix(Kind):
    """The content picture beside every prompt."""

    def load(self) -> Any:
        return loaded(TinyIP2P, self.seed, in_channels=8, use_linear_in_transformer=False)

    def told(self, i: int) -> Any:
        picture = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(self.seed + 60))
        node = ip2p.InstructPixToPixConditioning
        return node.execute(self.plain(i), self.plain(i), picture, tiny.make_vae()).args[0]


class ComputeDtype(Kind):
    """ModelComputeDtype: weights in fp32, the UNet's work in fp16."""

    def load(self) -> Any:
        return advanced.ModelComputeDtype().patch(super().load(), "fp16")[0]


class ClipSkip(Kind):
    """CLIPSetLastLayer: prompts of the last but one layer."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.clip = tiny_checkpoints.make_clip("SD1.5", seed)
        self.skipped = host_nodes.CLIPSetLastLayer().set_last_layer(self.clip, -2)[0]

    def plain(self, i: int) -> Any:
        return host_nodes.CLIPTextEncode().encode(self.clip, f"words {i}")[0]

    def told(self, i: int) -> Any:
        return host_nodes.CLIPTextEncode().encode(self.skipped, f"words {i}")[0]


KINDS = {
    "GLIGEN": GLIGEN,
    "unCLIP": UnCLIP,
    "InstructPix2Pix": InstructPix2Pix,
    "ModelComputeDtype": ComputeDtype,
    "CLIPSetLastLayer": ClipSkip,
}
