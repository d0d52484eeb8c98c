"""Train Style Embedding: against a plain loop of transformers and diffusers, and what the host makes of its file."""

from __future__ import annotations

import copy

import embedding_bench as bench
import folder_paths
import pytest
import reference
import safetensors.torch
import tiny
import tiny_clip
import torch
from probes import picture_of, state_of
from torch import nn
from torch.nn import functional

import nodes as host_nodes


@pytest.fixture(autouse=True)
def embeddings(tmp_path, monkeypatch):
    """models/embeddings of the test's own."""
    folder = tmp_path / "embeddings"
    folder.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "embeddings", ([str(folder)], {".safetensors", ".pt"}))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """transformers' CLIP, on the disk and in memory."""
    return tiny_clip.make_folder(tmp_path_factory.mktemp("clip"))


def plain_attention(width, generator):
    """InST's module in torch's own words: (parameters as nn.Module, its forward in training)."""

    def layers():
        return [nn.Linear(width, 512, bias=False) for _ in range(3)] + [nn.Linear(512, width)]

    first, second, last = layers(), layers(), nn.Linear(width, width)

    def drop(x):
        return x * (torch.rand(x.shape, generator=generator) >= 0.05) / 0.95

    def attend(parts, x, context):
        q, k, v = (part(y).view(1, -1, 8, 64).transpose(1, 2) for part, y in zip(parts, (x, context, context)))  # noqa: B905
        out = ((q @ k.transpose(-1, -2)) / 8).softmax(-1) @ v
        return drop(parts[3](out.transpose(1, 2).reshape(1, -1, 512)))

    def forward(x):
        return last(drop(attend(second, attend(first, x, x), x)))

    return nn.ModuleList([*first, *second, last]), forward


def plain_loop(clip, unet, vae, picture, method, words, first, steps, velocity):
    """Textual inversion as a plain loop: (losses, trained vectors [n, 32])."""
    with torch.inference_mode(False):
        unet = copy.deepcopy(unet)
        text, table = clip.text_model, clip.text_model.embeddings.token_embedding.weight.detach().clone()
        generator = torch.Generator().manual_seed(1)
        vectors = nn.Parameter(table[first].clone()) if first else None
        parameters = [vectors]
        if not first:
            with torch.random.fork_rng():
                torch.manual_seed(1)
                module, forward = plain_attention(32, torch.Generator().manual_seed(1))
            parameters = list(module.parameters())
            image = picture[1].clone()
        optimizer = torch.optim.AdamW(parameters, lr=method["learning_rate"], weight_decay=1e-2)
        abar = torch.tensor(reference.cumulative_alphas())
        z0, losses = picture[0].clone(), []
        for _ in range(steps):
            torch.randint(0, 1, (1,), generator=generator)  # which picture, and the posterior's draw
            torch.randn(z0.shape, generator=generator)
            made = vectors if first else forward(image[None])[0]
            embeds = torch.cat([made if w is None else table[w : w + 1] for w in words])[None]
            mask = torch.full((77, 77), float("-inf")).triu(1)[None, None]
            x = embeds + text.embeddings.position_embedding.weight[:77].detach()
            for layer in text.encoder.layers:
                x = layer(x, mask)[0] if isinstance(layer(x, mask), tuple) else layer(x, mask)
            context = text.final_layer_norm(x)
            noise = torch.randn(z0.shape, generator=generator)
            t = torch.randint(0, 1000, (1,), generator=generator)
            a, b = abar[t].sqrt().float(), (1 - abar[t]).sqrt().float()
            output = unet(a * z0 + b * noise, t, encoder_hidden_states=context).sample
            loss = functional.mse_loss(output, a * noise - b * z0 if velocity else noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, (vectors if first else None)


@pytest.mark.parametrize(("way", "kind", "velocity"), [("embedding", "sd15", False), ("embedding", "small", True), ("attention", "small", False)])  # fmt: skip
def test_it_is_a_plain_loop_over_the_same_draws(pack, seed, measured, written, way, kind, velocity):
    unet, model = reference.pair(kind, seed, velocity)
    vae, clip = tiny.make_vae(), tiny_clip.host_text(written)
    method, steps = getattr(bench, way.upper()), 6
    vision = tiny_clip.host_vision(written)
    more = {"clip_vision": vision} if way == "attention" else {}
    cond, losses, _ = bench.train(pack, model, clip, vae, method=method, steps=steps, **more).result
    pixels = pack.host.training.latents.prepare_pictures(bench.PICTURE, 64)
    z0 = model.model.process_latent_in(vae.encode(pixels))
    image = vision.encode_image(pixels)["image_embeds"]
    ids = clip.tokenizer.clip_l.tokenizer
    start, rest = ids("painting in the style of")["input_ids"][:-1], ids(", houses")["input_ids"][1:]
    first = ids("oil painting")["input_ids"][1:-1] if way == "embedding" else None
    words = [*start, None, *rest]
    words += [49407] * (77 - len(words) - (len(first) - 1 if first else 0))
    theirs, vectors = plain_loop(written, unet, vae, (z0, image), method, words, first, steps, velocity)
    measured("loss curve against a plain loop", max(abs(a - b) for a, b in zip(losses["loss"], theirs, strict=True)), at_most=1e-4)  # fmt: skip
    assert max(theirs) - min(theirs) > 1e-3
    if vectors is not None:
        (file,) = (safetensors.torch.load_file(p) for p in folder_paths_files("embeddings"))
        measured("vectors", (file["clip_l"] - vectors).abs().max().item(), at_most=1e-3)


def folder_paths_files(kind):
    from pathlib import Path

    return list(Path(folder_paths.get_folder_paths(kind)[0]).rglob("*.safetensors"))


