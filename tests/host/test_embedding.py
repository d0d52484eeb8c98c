"""Train Style Embedding: against a plain loop of transformers and diffusers, and what the host makes of its file."""

from __future__ import annotations

import copy
import errno
import os
from pathlib import Path

import comfy.model_management as management
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


@pytest.mark.parametrize(
    ("way", "kind", "velocity"),
    [("embedding", "sd15", False), ("embedding", "small", True), ("attention", "small", False)],
)
def test_it_is_a_plain_loop_over_the_same_draws(pack, seed, measured, written, way, kind, velocity):
    unet, model = reference.pair(kind, seed, velocity)
    vae, clip = tiny.make_vae(), tiny_clip.host_text(written)
    method, steps = getattr(bench, way.upper()), 6
    vision = tiny_clip.host_vision(written)
    more = {"clip_vision": vision} if way == "attention" else {}
    _, losses, _ = bench.train(pack, model, clip, vae, method=method, steps=steps, **more).result
    pixels = pack.host.training.latents.prepare_pictures(bench.PICTURE, 64)
    z0 = model.model.process_latent_in(vae.encode(pixels))
    image = vision.encode_image(pixels)["image_embeds"]
    ids = clip.tokenizer.clip_l.tokenizer
    start, rest = ids("painting in the style of")["input_ids"][:-1], ids(", houses")["input_ids"][1:]
    first = ids("oil painting")["input_ids"][1:-1] if way == "embedding" else None
    words = [*start, None, *rest]
    words += [49407] * (77 - len(words) - (len(first) - 1 if first else 0))
    theirs, vectors = plain_loop(written, unet, vae, (z0, image), method, words, first, steps, velocity)
    gaps = [abs(a - b) for a, b in zip(losses["loss"], theirs, strict=True)]
    measured("the first loss against a plain loop's", gaps[0], at_most=1e-4)
    measured("all of them", max(gaps), at_most=1e-3)  # AdamW takes the sign of a gradient that is nearly zero
    assert max(theirs) - min(theirs) > 1e-3
    if vectors is not None:
        (file,) = (safetensors.torch.load_file(p) for p in folder_paths_files("embeddings"))
        measured("vectors", (file["clip_l"] - vectors).abs().max().item(), at_most=1e-3)


def folder_paths_files(kind):
    return list(Path(folder_paths.get_folder_paths(kind)[0]).rglob("*.safetensors"))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stock(clip, prompt):
    return host_nodes.CLIPTextEncode().encode(clip, prompt)[0]


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl"])
@pytest.mark.parametrize("prompt", [bench.PROMPT, "*", "(a photo of*:1.3), red", "x " * 90 + "(*:0.8), oil", "*.*"])
def test_the_stock_encoder_reads_the_file_back(pack, embeddings, measured, kind, prompt):
    """The conditioning output is what CLIP Text Encode gives for the prompt with embedding:NAME in it."""
    model = bench.sdxl_model() if kind == "sdxl" else tiny.make_model("small")
    clip = bench.random_clip(kind)
    ours, _, name = bench.train(pack, model, clip, tiny.make_vae(), steps=1, prompt=prompt).result
    assert name.startswith("embedding:DiffStyler/test_")
    reader = pack.host.training.placeholder.reading_also(clip, str(embeddings))
    theirs = stock(reader, pack.host.training.placeholder.with_embedding(prompt, name.removeprefix("embedding:")))
    assert ours[0][0].shape == theirs[0][0].shape
    measured("conditioning against the stock encoder's", (ours[0][0] - theirs[0][0]).abs().max().item(), at_most=1e-5)
    assert (ours[0][1]["pooled_output"] - theirs[0][1]["pooled_output"]).abs().max() <= 1e-5
    without = stock(clip, prompt.replace("*", ""))
    assert ours[0][0].shape != without[0][0].shape or (ours[0][0] - without[0][0]).abs().max() > 1e-2


def test_every_vector_of_both_encoders_is_trained(pack, embeddings):
    clip = bench.random_clip("sdxl")
    bench.train(pack, bench.sdxl_model(), clip, tiny.make_vae(), steps=2)
    (path,) = folder_paths_files("embeddings")
    file = safetensors.torch.load_file(path)
    assert {k: tuple(v.shape) for k, v in file.items()} == {"clip_l": (2, 16), "clip_g": (2, 16)}
    for name, vectors in file.items():
        table = getattr(clip.cond_stage_model, name).transformer.get_input_embeddings().weight
        first = table[clip.tokenizer.clip_l.tokenizer("oil painting")["input_ids"][1:-1]]
        assert ((vectors - first).abs().amax(dim=1) > 1e-4).all()


def test_clip_skip_and_clip_loras_count(pack, measured):
    """The private encoder gives what the CLIP gives, its last layer and its patches as they are set there."""
    clip = bench.random_clip("sd21", dtype=torch.float32).clone()  # in fp16 the host rounds what it has patched
    clip.clip_layer(-2)
    key = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    weight = clip.patcher.model.state_dict()[key]
    clip.add_patches({key: (0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)),)}, 0.7)
    prompt = pack.host.training.placeholder.tokenized(clip, bench.PROMPT, 2)
    blank = {"clip_l": torch.ones(2, 32)}
    with torch.inference_mode(False), torch.no_grad():
        ours = pack.host.training.encoder.PrivateEncoder(clip)(prompt.filled(blank))
    theirs = pack.host.training.embedding.encoded(clip, prompt, blank)
    measured("private encoder against the CLIP", (ours[0][0] - theirs[0][0]).abs().max().item(), at_most=1e-5)
    plain = pack.host.training.embedding.encoded(bench.random_clip("sd21"), prompt, blank)
    assert (plain[0][0] - theirs[0][0]).abs().max() > 1e-2


@pytest.fixture
def trainings(pack, monkeypatch):
    """The starts of training proper, counted."""
    started = []
    inner = pack.host.training.embedding.optimize
    monkeypatch.setattr(pack.host.training.embedding, "optimize", lambda *args: started.append(1) or inner(*args))
    return started


OTHERS = {
    "prompt": {"prompt": "*, houses"},
    "picture": {"style_image": 1.0 - bench.PICTURE},
    "clip": {"clip": bench.random_clip("sd15", 9)},
    "vectors": {"method": {**bench.EMBEDDING, "vectors": 3}},
    "word": {"method": {**bench.EMBEDDING, "initial_word": "ink"}},
    "rate": {"method": {**bench.EMBEDDING, "learning_rate": 2e-2}},
    "seed": {"seed": 2},
    "method": {"method": bench.ATTENTION, "clip_vision": bench.vision()},
}


def test_a_request_is_trained_once_and_another_one_anew(pack, trainings):
    def run(clip=None, **changes):
        model, clip = tiny.make_model("small"), clip or bench.random_clip("sd15")
        return bench.train(pack, model, clip, tiny.make_vae(), steps=1, **changes)

    first = run()
    again = run()
    assert len(trainings) == 1
    assert "nothing trained" in again.ui["text"][0]
    assert torch.equal(first.result[0][0][0], again.result[0][0][0])
    assert first.result[2] == again.result[2]
    assert again.result[1]["loss"] == pytest.approx(first.result[1]["loss"], abs=1e-6)
    for number, changes in enumerate(OTHERS.values(), 2):
        other = run(**changes)
        assert len(trainings) == number
        assert other.result[2] != first.result[2]
    unsaved = run(save=False)
    assert unsaved.result[2] == ""
    assert torch.equal(unsaved.result[0][0][0], first.result[0][0][0]), "the same seed gives the same bits"


@pytest.mark.parametrize("damage", ["cut", "another"])
def test_a_damaged_file_is_trained_anew_and_said(pack, trainings, damage):
    model, clip, vae = tiny.make_model("small"), bench.random_clip("sd15"), tiny.make_vae()
    first = bench.train(pack, model, clip, vae, steps=1)
    (path,) = folder_paths_files("embeddings")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if damage == "cut" else safetensors.torch.save({"clip_l": torch.ones(2, 32)}))
    again = bench.train(pack, model, clip, vae, steps=1)
    assert len(trainings) == 2
    assert "cannot be used" in again.ui["text"][0]
    assert torch.equal(first.result[0][0][0], again.result[0][0][0])
    assert same(safetensors.torch.load_file(path), safetensors.torch.load(whole))


def traces(clip):
    """Weights, options and hooks of a CLIP."""
    options = [(p.layer, p.layer_idx, p.return_projected_pooled) for p in clip.cond_stage_model.children()]
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in clip.cond_stage_model.modules()]
    grads = [p.requires_grad for p in clip.cond_stage_model.parameters()]
    return picture_of([options, hooks, grads, clip.layer_idx, dict(clip.cond_stage_model.state_dict())])


@pytest.mark.parametrize("ending", ["ends", "cancel", "cancel in a preview", "error"])
@pytest.mark.parametrize("method", ["EMBEDDING", "ATTENTION"])
def test_model_and_clip_are_as_before_however_it_ends(pack, embeddings, monkeypatch, ending, method):
    model, clip, vae = tiny.make_model("small"), bench.random_clip("sd15"), tiny.make_vae()
    vision = bench.vision() if method == "ATTENTION" else None
    clip.encode_from_tokens(clip.tokenize("x"))
    before, random_state = (state_of(model), traces(clip)), torch.random.get_rng_state()
    inner, calls = pack.host.training.embedding.predict_by, []

    def predict_by(*args):
        predict = inner(*args)

        def run(z, t):
            calls.append(1)
            if ending.startswith("cancel") and len(calls) == (2 if ending == "cancel" else 5):
                management.interrupt_current_processing(True)
            if ending == "error" and len(calls) == 2:
                raise RuntimeError("the UNet broke")
            return predict(z, t)

        return run

    monkeypatch.setattr(pack.host.training.embedding, "predict_by", predict_by)
    settings = {
        "method": getattr(bench, method),
        "clip_vision": vision,
        "preview_every": 2 if "preview" in ending else 0,
    }
    if ending == "ends":
        bench.train(pack, model, clip, vae, **settings)
    else:
        error = RuntimeError if ending == "error" else management.InterruptProcessingException
        with pytest.raises(error):
            bench.train(pack, model, clip, vae, **settings)
        assert folder_paths_files("embeddings") == []
        assert len(calls) == (5 if "preview" in ending else 2)
    assert (state_of(model), traces(clip)) == before
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert not management.processing_interrupted()


@pytest.mark.parametrize("method", ["EMBEDDING", "ATTENTION"])
def test_checkpointing_and_previews_change_nothing(pack, method, measured):
    model, clip, vae = tiny.make_model("small"), bench.random_clip("sd15"), tiny.make_vae()
    settings = {"method": getattr(bench, method), "save": False, "batch_size": 2}
    settings |= {"clip_vision": bench.vision()} if method == "ATTENTION" else {}
    runs = [
        bench.train(pack, model, clip, vae, **settings, **more).result
        for more in ({}, {"gradient_checkpointing": True}, {"preview_every": 1})
    ]
    assert torch.equal(runs[0][0][0][0], runs[2][0][0][0])
    measured("with checkpointing", (runs[0][0][0][0] - runs[1][0][0][0]).abs().max().item(), at_most=1e-4)


def test_training_teaches_the_picture(pack, measured):
    """The mean loss of the last steps is below that of the first: few vectors, one picture, the same noises twice."""
    clip, model, vae = bench.random_clip("sd15"), tiny.make_model("small"), tiny.make_vae()
    method = {**bench.EMBEDDING, "learning_rate": 0.05, "vectors": 8}
    losses = [
        bench.train(pack, model, clip, vae, method=m, steps=20, batch_size=4, save=False).result[1]["loss"]
        for m in (method, {**method, "learning_rate": 1e-8})
    ]
    trained, still = (sum(row[10:]) / 10 for row in losses)
    measured("loss of trained vectors over that of the initial ones", trained / still, at_most=0.999)


def test_nan_keeps_the_last_good_vectors(pack, monkeypatch):
    inner, calls = pack.host.training.embedding.predict_by, []

    def predict_by(*args):
        predict = inner(*args)
        return lambda z, t: calls.append(1) or predict(z, t) * (float("nan") if len(calls) > 2 else 1.0)

    monkeypatch.setattr(pack.host.training.embedding, "predict_by", predict_by)
    with pytest.raises(ValueError, match=r"learning_rate: .*step 2 of 5.*embedding|learning_rate: .*step 2 of 5"):
        bench.train(pack, tiny.make_model("small"), bench.random_clip("sd15"), tiny.make_vae(), steps=5)
    (path,) = folder_paths_files("embeddings")
    assert path.stem.endswith("_stopped_at_2")
    assert torch.isfinite(safetensors.torch.load_file(path)["clip_l"]).all()


REFUSED = [
    ({"prompt": "no placeholder"}, r"prompt: it must say where.*Write a \*"),
    ({"prompt": ""}, "prompt: it must say"),
    ({"method": {**bench.EMBEDDING, "initial_word": "  "}}, "initial_word: .*Type one in"),
    ({"method": {**bench.EMBEDDING, "vectors": 0}}, r"vectors must lie in 1\.\.32, got 0"),
    ({"method": {**bench.EMBEDDING, "learning_rate": float("nan")}}, "learning_rate must lie in .*nan"),
    ({"method": None}, "method must be one of embedding, attention"),
    ({"method": bench.ATTENTION}, "clip_vision: .*none is wired"),
    ({"clip_vision": bench.vision()}, "clip_vision: the method embedding does not use it"),
    ({"steps": 0}, "steps must lie in"),
    ({"resolution": 32}, "resolution must lie in"),
    ({"filename_prefix": "a b"}, "filename_prefix: .*ends at ' '"),
    ({"filename_prefix": "a(b)"}, "filename_prefix: .*ends at"),
    ({"filename_prefix": "../x"}, "filename_prefix: .*no plain name.*models/embeddings"),
    ({"style_image": torch.full((1, 64, 64, 3), float("nan"))}, "style_image.*not finite"),
    ({"clip": bench.random_clip("sdxl"), "model": tiny.make_model("sdxl")}, "clip: .*pooled embedding"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_refused_before_any_step(pack, trainings, embeddings, changes, words):
    wires = {"model": tiny.make_model("small"), "clip": bench.random_clip("sd15"), "vae": tiny.make_vae(), **changes}
    with pytest.raises(ValueError, match=words):
        bench.train(pack, **wires)
    assert not trainings
    assert list(embeddings.iterdir()) == []


def test_other_text_encoders_and_picture_encoders_are_refused(pack):
    clip = bench.random_clip("sd15")
    clip.cond_stage_model.clip_l.transformer.__class__ = type(
        "T5", (type(clip.cond_stage_model.clip_l.transformer),), {}
    )
    with pytest.raises(ValueError, match=r"clip: a style embedding needs the CLIP text encoders.*T5"):
        bench.train(pack, tiny.make_model("small"), clip, tiny.make_vae())
    vision = bench.vision()
    vision.model_type = "siglip_vision_model"
    with pytest.raises(ValueError, match=r"clip_vision must be a CLIP.*siglip"):
        bench.train(pack, tiny.make_model("small"), bench.random_clip("sd15"), tiny.make_vae(),
                    method=bench.ATTENTION, clip_vision=vision)  # fmt: skip


def test_what_cannot_be_saved_waits_and_is_saved_at_the_next_run(pack, trainings, embeddings, monkeypatch):
    model, clip, vae = tiny.make_model("small"), bench.random_clip("sd15"), tiny.make_vae()
    replace = os.replace

    def full(source, target):
        if str(target).startswith(str(embeddings)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        first = bench.train(pack, model, clip, vae, steps=1)
    assert "NOT SAVED" in first.ui["text"][0]
    assert "embedding waits" in first.ui["text"][0]
    assert first.result[2] == ""
    node = pack.pipeline.train_embedding.TrainStyleEmbedding
    assert node.fingerprint_inputs(save=True, filename_prefix="DiffStyler/test")
    again = bench.train(pack, model, clip, vae, steps=1)
    assert len(trainings) == 1
    assert again.result[2]
    assert not node.fingerprint_inputs(save=True, filename_prefix="DiffStyler/test")
