"""Training: guards, the loss in closed form, AdamW as torch has it, and stopping at the last good weights."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from diffstyler_core.lora.file import LowRank
from diffstyler_core.training.config import BOUNDS, TrainConfig
from diffstyler_core.training.layers import adapt, checkpointed, extract
from diffstyler_core.training.train import diffusion_loss, train

ABAR = torch.linspace(0.999, 0.01, 1000)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(4, 4)])

    def forward(self, x):
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        return self.to_out[0]((q @ k.transpose(1, 2)).softmax(-1) @ v)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2, self.ff = Attention(), Attention(), nn.Linear(4, 4)

    def forward(self, x):
        return self.ff(self.attn2(self.attn1(x)))


class Net(nn.Module):
    """Attention as a UNet names it; pixels are the tokens."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        generator = torch.Generator().manual_seed(seed)
        for p in self.parameters():
            p.data.copy_(torch.randn(p.shape, generator=generator) * 0.5)

    def forward(self, z, t):
        x = z.flatten(2).transpose(1, 2) + t.view(-1, 1, 1) / 1000
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2).unflatten(2, z.shape[2:])


def draw(count, generator):
    return torch.randn(count, 4, 3, 3, generator=generator)


def ignore(step, steps, loss):
    pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"rank must lie in 1\.\.1024, got 0"),
        ({"rank": 1025}, r"rank must lie in 1\.\.1024, got 1025"),
        ({"alpha": 0.0}, r"alpha must lie in 0\.01\.\.4096, got 0\.0"),
        ({"steps": 0}, "steps must lie in .*got 0"),
        ({"steps": 100_001}, "steps must lie in .*got 100001"),
        ({"learning_rate": 0.0}, "learning_rate must lie in .*got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must lie in .*got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must lie in .*got inf"),
        ({"weight_decay": -0.1}, "weight_decay must lie in .*got -0.1"),
        ({"rank": float("nan")}, "rank must lie in .*got nan"),
        ({"alpha": float("nan")}, "alpha must lie in .*got nan"),
        ({"steps": float("nan")}, "steps must lie in .*got nan"),
        ({"weight_decay": float("nan")}, "weight_decay must lie in .*got nan"),
        ({"batch_size": float("nan")}, "batch_size must lie in .*got nan"),
        ({"resolution": float("nan")}, "resolution must lie in .*got nan"),
        ({"seed": float("nan")}, "seed must lie in .*got nan"),
        ({"seed": -1}, "seed must lie in .*got -1"),
        ({"seed": 2**64}, "seed must lie in .*got 18446744073709551616"),
        ({"rank": 10**400}, "rank must lie in .*got 1000"),
        ({"resolution": 63}, r"resolution must lie in 64\.\.4096, got 63"),
        ({"batch_size": 0}, "batch_size must lie in .*got 0"),
        ({"targets": ()}, r"targets must be some of .*got \(\)"),
        ({"targets": ("to_q", "ff")}, r"targets must be some of .*got \('to_q', 'ff'\)"),
    ],
)
def test_config_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_every_number_has_bounds():
    numbers = {f.name for f in dataclasses.fields(TrainConfig) if f.type in ("int", "float")}
    assert numbers == set(BOUNDS)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_the_bounds_of_the_seed_are_torchs(seed):
    assert torch.isfinite(trained(0, TrainConfig(rank=2, steps=1, seed=seed))[0].lora["blocks.0.attn1.to_q"].up).all()


def test_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.rank, config.steps, config.learning_rate, config.weight_decay) == (16, 200, 2e-4, 1e-2)
    assert (config.batch_size, config.resolution, config.targets) == (1, 512, ("to_q", "to_k", "to_v"))


@pytest.mark.parametrize(("prediction", "batch"), [("eps", 1), ("eps", 3), ("v", 1), ("v", 2)])
def test_loss_is_the_mean_squared_error_of_the_noise_or_the_velocity(seed, prediction, batch):
    z0 = draw(batch, torch.Generator().manual_seed(seed))
    seen = {}

    def predict(z, t):
        seen.update(z=z.double(), t=t)
        return torch.full_like(z, 0.25)

    rows = diffusion_loss(predict, z0, ABAR, prediction, torch.Generator().manual_seed(seed + 1))
    a = ABAR.double()[seen["t"]].view(-1, 1, 1, 1)
    noise = (seen["z"] - a.sqrt() * z0) / (1 - a).sqrt()
    assert noise.abs().mean() == pytest.approx(0.8, abs=0.35)
    target = noise if prediction == "eps" else a.sqrt() * noise - (1 - a).sqrt() * z0
    assert rows.shape == (batch,)
    assert rows.tolist() == pytest.approx((target - 0.25).square().mean(dim=(1, 2, 3)).tolist(), rel=1e-4)


def test_timesteps_are_uniform_over_the_table():
    seen = []

    def predict(z, t):
        seen.append(t)
        return z

    diffusion_loss(predict, torch.zeros(20_000, 1, 1, 1), ABAR, "eps", torch.Generator().manual_seed(0))
    counts = torch.bincount(seen[0], minlength=1000)
    assert counts.shape == (1000,)
    assert counts.min() >= 1
    assert counts[:100].sum() == pytest.approx(2000, rel=0.15)
    assert counts[-100:].sum() == pytest.approx(2000, rel=0.15)


@pytest.mark.parametrize(
    ("targets", "modules"),
    [(("to_q", "to_k", "to_v"), 12), (("to_q",), 4), (("to_q", "to_k", "to_v", "to_out.0"), 16)],
)
def test_only_the_targets_get_a_lora_and_only_it_is_trained(targets, modules):
    net = Net(0)
    before = net(torch.ones(1, 4, 2, 2), torch.ones(1))
    layers = adapt(net, TrainConfig(rank=2, targets=targets))
    assert len(layers) == modules
    assert all(name.endswith(targets) and (".attn1." in name or ".attn2." in name) for name in layers)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {f"{n}.lora_{part}.default.weight" for n in layers for part in "AB"}
    assert torch.equal(net(torch.ones(1, 4, 2, 2), torch.ones(1)), before), "a fresh LoRA must change nothing"


def test_a_model_without_targets_is_refused():
    with pytest.raises(ValueError, match=r"no attention projections \('to_q',\)"):
        adapt(nn.Sequential(nn.Linear(2, 2)), TrainConfig(targets=("to_q",)))


def trained(seed: int, config: TrainConfig, on_step=ignore, net: Net | None = None):
    net = net or Net(seed)
    layers = adapt(net, config)
    return train(layers, net, draw, ABAR, "eps", config, on_step), net, layers


def test_training_is_adamw_on_the_lora_alone(seed):
    """The same steps written out: one forward and backward each, torch's AdamW, constant rate.

    In its fused form, too: AdamW divides by the gradient's size, and so multiplies a rounding of one that is nearly 0.
    """
    config = TrainConfig(rank=2, alpha=4.0, steps=4, learning_rate=0.05, weight_decay=0.1, seed=seed)
    result, *_ = trained(seed, config)
    net = Net(seed)
    layers = adapt(net, config)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05, betas=(0.9, 0.999), weight_decay=0.1, fused=True)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(4):
        z0 = draw(1, generator)
        noise = torch.randn(z0.shape, generator=generator)
        t = torch.randint(0, 1000, (1,), generator=generator)
        loss = (net(ABAR[t].sqrt() * z0 + (1 - ABAR[t]).sqrt() * noise, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result.losses == pytest.approx(losses, rel=1e-5)
    for name, ours in result.lora.items():
        for a, b in zip(ours, extract(layers)[name], strict=True):
            assert (a - b).abs().max() < 1e-5


def test_extracted_weights_are_the_models_change(seed):
    """base + up down alpha / rank is what the adapted module computes, and later steps do not reach the copy."""
    config = TrainConfig(rank=2, alpha=4.0, steps=3, learning_rate=0.05, seed=seed)
    result, net, layers = trained(seed, config)
    name = "blocks.1.attn2.to_k"
    module, low_rank = net.get_submodule(name), result.lora[name]
    assert isinstance(low_rank, LowRank)
    x = torch.randn(5, 4)
    weight = module.base_layer.weight + 2.0 * low_rank.up @ low_rank.down
    assert torch.allclose(module(x), x @ weight.T, atol=1e-5)
    assert low_rank.up.abs().max() > 0
    with torch.no_grad():
        layers[name].lora_B["default"].weight.zero_()
    assert result.lora[name].up.abs().max() > 0


def test_training_lowers_the_loss():
    config = TrainConfig(rank=4, alpha=4.0, steps=60, learning_rate=2e-2, batch_size=8)
    net = Net(3)

    def loss() -> float:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(99)
            return diffusion_loss(net, draw(256, generator), ABAR, "eps", generator).mean().item()

    before = loss()
    trained(3, config, net=net)
    assert loss() < 0.95 * before


@pytest.mark.parametrize("other", [{"seed": 1}, {"learning_rate": 0.02}, {"rank": 3}, {"steps": 3}])
def test_the_same_request_gives_the_same_bits_and_another_does_not(other):
    config = {"rank": 2, "steps": 2, "learning_rate": 0.01, "seed": 0}
    a, b, c = (trained(0, TrainConfig(**{**config, **more}))[0].lora for more in ({}, {}, other))
    assert all(torch.equal(x, y) for name in a for x, y in zip(a[name], b[name], strict=True))
    assert not any(
        x.shape == y.shape and torch.equal(x, y) for name in a for x, y in zip(a[name], c[name], strict=True)
    )


def test_training_does_not_touch_torchs_own_random_state():
    net = Net(0)
    state = torch.random.get_rng_state()
    trained(0, TrainConfig(rank=2, steps=2), net=net)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("breaks_at", [0, 2])
@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_training_stops_at_the_last_good_weights(breaks_at, how):
    config = TrainConfig(rank=2, steps=5, learning_rate=0.01)
    net = Net(0)
    layers, step = adapt(net, config), iter(range(100))

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("nan")

    def predict(z, t):
        out = net(z, t)
        if next(step) != breaks_at:
            return out
        return out * float("inf") if how == "loss" else Poison.apply(out)

    result = train(layers, predict, draw, ABAR, "eps", config, ignore)
    assert result.stopped_at == breaks_at
    assert len(result.losses) == breaks_at
    good = TrainConfig(rank=2, steps=max(breaks_at, 1), learning_rate=0.01)
    expected = trained(0, good)[0].lora if breaks_at else extract(adapt(Net(0), config))
    for name, low_rank in result.lora.items():
        assert all(torch.equal(a, b) for a, b in zip(low_rank, expected[name], strict=True))


def test_progress_is_told_once_a_step_and_may_stop():
    seen = []

    def on_step(step, steps, loss):
        seen.append((step, steps, loss))
        if step == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(0, TrainConfig(rank=2, steps=5), on_step)
    assert [(s, n) for s, n, _ in seen] == [(0, 5), (1, 5), (2, 5)]


def test_checkpointing_recomputes_and_gives_the_same_gradients(seed):
    nets = [Net(seed), Net(seed)]
    calls = []
    nets[1].blocks[0].attn1.register_forward_hook(lambda *args: calls.append(1))
    z = draw(2, torch.Generator().manual_seed(seed))
    for net, enabled in zip(nets, (False, True), strict=True):
        with checkpointed(iter(net.blocks), enabled):
            net(z, torch.ones(2)).square().mean().backward()
    assert len(calls) == 2, "once forward, once recomputed"
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-7)


@pytest.mark.parametrize("fails", [False, True])
def test_checkpointing_leaves_the_modules_as_they_were(fails):
    net = copy.deepcopy(Net(0))
    before = [dict(m.__dict__) for m in net.modules()]
    try:
        with checkpointed(iter(net.blocks), True):
            assert all("forward" in block.__dict__ for block in net.blocks)
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert [m.__dict__ for m in net.modules()] == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapted_layer_gives_what_pefts_own_forward_gives_and_its_gradients(seed, dtype):
    torch.manual_seed(seed)
    layers = adapt(Net(0).to(dtype), TrainConfig(rank=2, alpha=3.0))
    for layer in layers.values():
        up = layer.lora_B["default"].weight
        torch.nn.init.normal_(up)
        x = torch.randn(2, 5, 4, dtype=dtype, requires_grad=True)
        found = []
        for forward in (layer.forward, lambda x, layer=layer: type(layer).forward(layer, x)):
            out = forward(x)
            assert out.dtype == dtype
            found.append((out, *torch.autograd.grad(out.float().square().sum(), [x, up])))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5 if dtype == torch.float32 else 3e-2, atol=1e-5)


def test_a_prompt_that_is_not_trained_is_projected_once_until_another_comes():
    layers = adapt(Net(0), TrainConfig(rank=2))
    layer, seen = layers["blocks.0.attn2.to_k"], []
    layer.base_layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    prompt, other = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    first, again, changed = layer(prompt), layer(prompt), layer(other)
    assert [id(x) for x in seen] == [id(prompt), id(other)]
    assert torch.equal(first, again)
    assert not torch.equal(first, changed)
    trained = prompt.clone().requires_grad_()
    layer(trained).sum().backward()
    assert trained.grad is not None
    layer(trained)
    assert len(seen) == 4  # one that is trained is projected each time
