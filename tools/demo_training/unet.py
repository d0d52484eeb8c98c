"""The diffusion model and its text encoder, trained together on latents with the plain v loss."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .optim import Average, Clock, Optimisers, learning_rate
from .workplace import Keeper, demo_model, device, save, use_host

log = logging.getLogger(__name__)
STEPS = 1000


def alphas() -> Tensor:
    """abar_t of Stable Diffusion's scaled-linear schedule, [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def _fill(module: nn.Module) -> None:
    """PyTorch's usual weights for the host's layers, which come without; zero where a branch joins its residual."""
    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if weight is None or not isinstance(weight, nn.Parameter):
            continue
        if weight.ndim == 1:
            nn.init.ones_(weight)
        elif isinstance(layer, nn.Embedding) or "embedding" in name:
            nn.init.normal_(weight, std=0.05)
        else:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if name.endswith(("out_layers.3", "proj_out", "out.2", "to_out.0", "ff.net.2")):
            nn.init.zeros_(weight)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias)


class DemoNetworks(nn.Module):
    """The U-Net [B, 16, h, w] and the text encoder, built by the host from the pack's own model class."""

    def __init__(self) -> None:
        super().__init__()
        use_host()
        demo = demo_model()
        config = demo.model_class()({**demo.UNET, "image_size": 32, "use_checkpoint": False, "legacy": False,
                                     "use_spatial_transformer": True, "use_temporal_resblock": False})  # fmt: skip
        config.set_inference_dtype(torch.float32, None)
        tokenizer, encoder = demo.text_classes()
        self.tokenizer = tokenizer()
        torch.manual_seed(0)
        self.unet = config.get_model({}, "", device="cpu").diffusion_model
        self.text = encoder(dtype=torch.float32)
        for part in (self.unet, self.text):
            _fill(part)
            part.requires_grad_(True)
        self.to(device())
        self.unet.to(memory_format=torch.channels_last)

    def tokens(self, captions: list[str]) -> list[list[int]]:
        """77 token ids for each caption."""
        return [[pair[0] for pair in self.tokenizer.tokenize_with_weights(c)["l"][0]] for c in captions]

    def context(self, tokens: list[list[int]]) -> Tensor:  # [B, 77, 64]
        """Each distinct prompt is encoded once."""
        keys = [tuple(t) for t in tokens]
        distinct = list(dict.fromkeys(keys))
        encoded = self._encode([list(k) for k in distinct])
        return encoded[torch.tensor([distinct.index(k) for k in keys], device=encoded.device)]

    def _encode(self, tokens: list[list[int]]) -> Tensor:
        """The host's text layers; the host's own forward adds in place, which autograd refuses."""
        from comfy.ldm.modules.attention import attention_pytorch

        model = self.text.clip_l.transformer.text_model
        ids = torch.tensor(tokens, device=device())
        x = model.embeddings.token_embedding(ids, out_dtype=torch.float32) + model.embeddings.position_embedding.weight
        causal = torch.full((x.shape[1],) * 2, -torch.finfo(x.dtype).max, device=x.device).triu_(1)
        for layer in model.encoder.layers:
            x = x + layer.self_attn(layer.layer_norm1(x), causal, attention_pytorch)
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return self.unet(x, t.to(x.dtype), context=context)


def add_noise(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    abar = alphas().to(x0.device)[t][:, None, None, None]
    return abar.sqrt() * x0 + (1 - abar).sqrt() * noise


def velocity(x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho 2022, appendix D), what Stable Diffusion 2.1 predicts."""
    abar = alphas().to(x0.device)[t][:, None, None, None]
    return abar.sqrt() * noise - (1 - abar).sqrt() * x0


def _split(networks: nn.Module) -> Optimisers:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, p in networks.named_parameters():
        inner = p.ndim in (2, 4) and "embedding" not in name and min(p.shape[:2]) > 8 and "logit" not in name
        (matrices if inner else others).append(p)
    return Optimisers(matrices, others)


class Batch:
    """Draws latents and prompts: crops at first, then whole or a little cut; some prompts empty."""

    def __init__(self, source: Callable[[], Tensor], tokens: list[list[int]], empty: list[int]) -> None:
        self.source, self.tokens, self.empty = source, tokens, empty
        self.refresh()

    def refresh(self) -> None:
        """Take in latents that were made meanwhile."""
        self.latents = self.source()

    def draw(self, share: float, g: torch.Generator) -> tuple[Tensor, list[list[int]]]:
        small = share < 0.2
        count = 32 if small else 16
        index = torch.randint(len(self.latents), (count,), generator=g)
        shapes = ((16, 16),) if small else ((32, 32), (32, 32), (32, 32), (24, 32), (32, 24))
        h, w = shapes[int(torch.randint(len(shapes), (1,), generator=g))]
        top = int(torch.randint(32 - h + 1, (1,), generator=g))
        left = int(torch.randint(32 - w + 1, (1,), generator=g))
        x0 = self.latents[index, :, top : top + h, left : left + w].float()
        dropped = torch.rand(count, generator=g) < 0.12
        pairs = zip(index.tolist(), dropped.tolist(), strict=True)
        names = [self.empty if d else self.tokens[i] for i, d in pairs]
        return x0.to(device()), names


@torch.no_grad()
def held_out_loss(predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, draws: int = 4) -> float:
    """Mean squared v error with fixed noise, `draws` timesteps for each picture spread over the table.

    predict: (noisy latents, timesteps [N]) -> v, for all N pictures with their captions.
    """
    g, count, total = torch.Generator().manual_seed(1234), len(latents), 0.0
    for k in range(draws):
        t = torch.arange(count) * STEPS // count + k * STEPS // (draws * count)
        t = t[torch.randperm(count, generator=g)].to(latents.device)
        noise = torch.randn(latents.shape, generator=g).to(latents.device)
        out = predict(add_noise(latents, noise, t), t)
        total += float((out - velocity(latents, noise, t)).square().mean())
    return total / draws


class Training:
    """Networks, optimisers, average and counters, all in one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.networks = path, DemoNetworks()
        self.optimisers, self.average = _split(self.networks), Average(self.networks)
        self.step, self.spent = 0, 0.0
        if path.exists():
            state = torch.load(path, map_location=device(), weights_only=True)
            self.networks.load_state_dict(state["networks"])
            self.optimisers.load_state_dict(state["optimisers"])
            self.average.load_state_dict(state["average"])
            self.step, self.spent = state["step"], state["spent"]
            log.info("unet resumed at step %d, %.0f s", self.step, self.spent)

    def store(self) -> None:
        save(self.path, {
            "networks": self.networks.state_dict(), "optimisers": self.optimisers.state_dict(),
            "average": self.average.state_dict(), "step": self.step, "spent": self.spent,
        })  # fmt: skip

    def restart(self) -> None:
        """Fresh optimisers, average and clock for the weights as they are; stored."""
        self.optimisers, self.average = _split(self.networks), Average(self.networks)
        self.spent = 0.0
        self.store()

    def run(self, batch: Batch, minutes: float, lr: float, check: Callable[[DemoNetworks], Any]) -> bool:
        """Train for `minutes` in all; False when interrupted."""
        clock, keeper, shown, begun = Clock(minutes, self.spent), Keeper(self.store), 0.0, self.step
        g = torch.Generator().manual_seed(self.step)
        while (share := clock.share()) < 1:
            x0, tokens = batch.draw(share, g)
            t = torch.randint(STEPS, (len(x0),), generator=g).to(x0.device)
            noise = torch.randn(x0.shape, generator=g).to(x0.device)
            out = self.networks(add_noise(x0, noise, t), t, self.networks.context(tokens))
            loss = (out - velocity(x0, noise, t)).square().mean()
            loss.backward()
            self.optimisers.step(learning_rate(lr, share, self.step))
            self.average.update(self.networks)
            self.step, self.spent = self.step + 1, clock.spent
            shown += (float(loss.detach()) - shown) * max(0.02, 1 / (self.step - begun))
            if self.step % 50 == 0:
                log.info("unet %d  %.0f s  %.0f%%  loss %.4f", self.step, self.spent, 100 * share, shown)
                batch.refresh()
            if self.step % 500 == 0:
                log.info("held out: %.4f", self.with_average(check))
            if keeper.tick():
                return False
        self.store()
        return True

    def with_average(self, use: Callable[[DemoNetworks], Any]) -> Any:
        """`use` the networks with averaged weights, then go on with the trained ones."""
        kept = {k: v.clone() for k, v in self.networks.state_dict().items()}
        self.networks.load_state_dict(self.average.values)
        try:
            return use(self.networks)
        finally:
            self.networks.load_state_dict(kept)
