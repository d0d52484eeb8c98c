"""Load DEADiff on files that the tests make, DEADiff Encode through a real CLIP of the host, and the published run."""

from __future__ import annotations

import pickle

import cross_bench as cb
import folder_paths
import pytest
import safetensors.torch
import tiny
import tiny_clip
import torch
import torchvision.transforms.functional as tv
from deadiff_file import TINY, file_state
from PIL import Image

FINE = (0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """models/deadiff, empty."""
    home = tmp_path / "deadiff"
    home.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "deadiff", ([str(home)], set()))
    folder_paths.filename_list_cache.pop("deadiff", None)
    return home


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(transformers' CLIP, CLIP_VISION with its weights): 3 layers, so that the last but one is no end."""
    import transformers

    with torch.inference_mode(False):
        torch.manual_seed(5)
        config = transformers.CLIPVisionConfig(**{**tiny_clip.VISION, "num_hidden_layers": 3})
        model = transformers.CLIPVisionModelWithProjection(config).eval()
        for weights in model.parameters():
            weights.data.add_(torch.randn_like(weights), alpha=0.05)
            weights.data = weights.half().float()  # the host keeps CLIP in fp16
    vision = tiny_clip.host_vision(None, num_hidden_layers=3)
    vision.model.load_state_dict(model.state_dict(), strict=False, assign=False)
    return model, vision


def with_clip(state, layers=2, tokens=17):
    """With what tells the CLIP: a vision encoder of that many layers, beside what the pack does not use."""
    extra = {"style_blip.visual_encoder.positional_embedding": torch.zeros(tokens, TINY.vision)}
    extra |= {f"style_blip.visual_encoder.transformer.resblocks.{i}.ln_1.weight": torch.ones(32) for i in range(layers)}
    extra |= {f"first_stage_model.part{i}.weight": torch.zeros(1) for i in range(3)}
    return {**state, **extra, "ctx_embeddings_cache": torch.zeros(1)}


def loaded(pack, name):
    output = pack.prompts.load_deadiff.LoadDEADiff.execute(name)
    shown = output.ui if isinstance(output.ui, dict) else output.ui.as_dict()
    return output.result[0], shown["text"][0]


def picture(seed, height=40, width=56, batch=1):
    small = torch.rand(batch, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1).movedim(1, -1)


def encode(pack, deadiff, vision, image, mode="style", **more):
    output = pack.prompts.encode_deadiff.DEADiffEncode.execute(deadiff, vision, image, mode, **more)
    shown = output.ui if isinstance(output.ui, dict) else output.ui.as_dict()
    return output.result[0], shown["text"][0]


@pytest.mark.parametrize("ending", ["ckpt", "pth", "pt", "safetensors"])
def test_every_kind_of_file_gives_the_same_tensors(pack, folder, seed, ending):
    state, path = with_clip(file_state(TINY, seed)), folder / f"made.{ending}"
    if ending == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, "global_step": 7} if ending == "ckpt" else state, path)
    deadiff, words = loaded(pack, path.name)
    kept = deadiff.extractors["style"].state_dict()
    assert torch.equal(kept["query_tokens"], state["style_blip.query_tokens"])
    assert torch.equal(kept["proj_layer.dense1.bias"], state["style_proj_layer.dense1.bias"])
    home = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.i_to_"
    assert torch.equal(deadiff.projections[6][0], state[f"{home}k.weight"])
    assert torch.equal(deadiff.projections[6][1], state[f"{home}v.weight"])
    assert deadiff.vision == (32, 2, 17)
    assert "first_stage_model (3 tensors)" in words
    assert "ctx_embeddings_cache" in words


def test_a_file_that_holds_code_is_refused_and_its_code_not_run(pack, folder, seed):
    class Harm:
        def __reduce__(self):
            return (open, (str(folder / "harmed"), "w"))

    torch.save({"state_dict": file_state(TINY, seed), "more": Harm()}, folder / "bad.ckpt")
    (folder / "plain.ckpt").write_bytes(pickle.dumps({"state_dict": Harm()}))
    for name in ("bad.ckpt", "plain.ckpt"):
        with pytest.raises(ValueError, match=rf"deadiff_name: '{name}' cannot be read as a DEADiff checkpoint"):
            loaded(pack, name)
    assert not (folder / "harmed").exists()


def test_what_is_no_checkpoint_is_refused_by_what_is_wrong(pack, folder, seed):
    state, key = file_state(TINY, seed), "content_proj_layer.dense2.weight"
    torch.save({k: v for k, v in state.items() if k != key}, folder / "lacks.ckpt")
    torch.save({**state, key: state[key][:, :-1]}, folder / "narrow.ckpt")
    torch.save([1, 2], folder / "list.ckpt")
    (folder / "words.safetensors").write_text("not weights")
    for name, words in (
        ("lacks.ckpt", rf"it lacks {key}"),
        ("narrow.ckpt", rf"{key} must have the shape \[24, 40\], got \[24, 39\]"),
        ("list.ckpt", r"it holds a list"),
        ("words.safetensors", r"cannot be read"),
    ):
        with pytest.raises(ValueError, match=words):
            loaded(pack, name)


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(pack, folder, tmp_path):
    node = pack.prompts.load_deadiff.LoadDEADiff
    listed = node.define_schema().inputs[0]
    assert listed.options == ["deadiff_v1.ckpt (not installed)"]
    words = node.validate_inputs(deadiff_name=listed.default)
    assert "there is no 'deadiff_v1.ckpt' in" in words
    assert str(folder) in words
    assert "huggingface.co/qth/DEADiff" in words
    (tmp_path / "outside.ckpt").write_bytes(b"x")
    for name in ("../outside.ckpt", str(tmp_path / "outside.ckpt"), "a.txt"):
        assert "must name a" in node.validate_inputs(deadiff_name=name)
    (folder / "link.ckpt").symlink_to(tmp_path / "outside.ckpt")
    assert "leads out" in node.validate_inputs(deadiff_name="link.ckpt")


def test_a_changed_file_is_another_checkpoint(pack, folder, seed):
    node = pack.prompts.load_deadiff.LoadDEADiff
    stamps = [node.fingerprint_inputs("made.ckpt")]
    for offset in (0, 1):
        torch.save({**file_state(TINY, seed + offset), "n": torch.zeros(1 + offset)}, folder / "made.ckpt")
        stamps.append(node.fingerprint_inputs("made.ckpt (not installed)"))
    assert len(set(stamps)) == 3


def test_clips_hidden_states_are_the_last_but_one_of_transformers(pack, clip, seed, measured):
    """LAVIS drops CLIP's last layer and its last norm; the picture is squeezed into a square by PIL, as published."""
    model, vision = clip
    image = (picture(seed) * 255).round() / 255
    whole = Image.fromarray((image[0] * 255).byte().numpy()).resize((tiny_clip.PICTURE,) * 2)
    pixels = tv.normalize(tv.to_tensor(whole), vision.image_mean, vision.image_std)[None]
    wanted = model.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
    found = pack.host.image_prompt.encode.hidden_states(vision, image)
    assert found.shape == (1, 17, 32)
    same = model.vision_model(pixel_values=exact(vision, image), output_hidden_states=True).hidden_states
    measured("from the same pixels", (found - same[-2]).abs().max().item(), at_most=1e-5)
    measured("from PIL's", ((found - wanted[-2]).norm() / wanted[-2].norm()).item(), at_most=0.02)
    assert (found - wanted[-1]).norm() / wanted[-1].norm() > 0.1


def exact(vision, image):
    """The host's pixels: what CLIP is given."""
    import comfy.clip_model

    return comfy.clip_model.clip_preprocess(image, vision.image_size, vision.image_mean, vision.image_std, crop=False)


@pytest.fixture
def deadiff(pack, folder, seed):
    torch.save({"state_dict": with_clip(file_state(TINY, seed))}, folder / "made.ckpt")
    return loaded(pack, "made.ckpt")[0]


def test_modes_and_several_pictures(pack, clip, deadiff, seed):
    """The mean of tokens over a batch; zeros where the mode has none; another picture's content."""
    vision = clip[1]
    first, second = picture(seed), picture(seed + 1)
    style, words = encode(pack, deadiff, vision, first)
    content, _ = encode(pack, deadiff, vision, first, "content")
    both, _ = encode(pack, deadiff, vision, first, "style and content")
    other, _ = encode(pack, deadiff, vision, second, "content")
    mixed, _ = encode(pack, deadiff, vision, first, "style and content", content_image=second)
    for number in range(16):
        own, none, foreign = (style, content, style) if number in FINE else (content, style, other)
        assert own.layers[number].tokens.any()
        assert not none.layers[number].tokens.any()
        assert torch.equal(both.layers[number].tokens, own.layers[number].tokens)
        assert torch.equal(mixed.layers[number].tokens, foreign.layers[number].tokens)
    assert words == "style: 4 tokens in layers 0-3,9-15\ncontent: tokens of zeros in layers 4-8"
    mean, said = encode(pack, deadiff, vision, torch.cat([first, second]))
    alone = [encode(pack, deadiff, vision, image)[0].layers[0].tokens for image in (first, second)]
    assert (mean.layers[0].tokens - sum(alone) / 2).abs().max() < 1e-5
    assert not torch.equal(*alone)
    assert "the mean of 2 pictures" in said
    again, _ = encode(pack, deadiff, vision, first)
    assert torch.equal(again.layers[0].tokens, style.layers[0].tokens)


def test_half_precision_files_are_computed_in_fp32(pack, folder, clip, seed):
    state = with_clip(file_state(TINY, seed))
    torch.save({key: tensor.half() for key, tensor in state.items()}, folder / "half.ckpt")
    torch.save({key: tensor.half().float() for key, tensor in state.items()}, folder / "full.ckpt")
    image = picture(seed)
    half, full = (encode(pack, loaded(pack, f"{n}.ckpt")[0], clip[1], image)[0].layers[0] for n in ("half", "full"))
    assert all(torch.equal(*pair) for pair in zip(half[1:], full[1:], strict=True))
    assert (half.tokens - full.tokens).abs().max() < 1e-5


def test_other_clips_and_pictures_are_refused_by_name(pack, clip, deadiff, seed):
    image, vision = picture(seed), clip[1]
    wide = tiny_clip.host_vision(None, hidden_size=64, num_hidden_layers=3)
    short = tiny_clip.host_vision(None)
    large = tiny_clip.host_vision(None, image_size=48, num_hidden_layers=3)
    dino = tiny_clip.host_vision(None, num_hidden_layers=3)
    dino.model_type = "dinov2"
    for clip_vision, words in (
        (wide, "got 64 wide, 17 tokens, 2 layers"),
        (short, "got 32 wide, 17 tokens, 1 layers"),
        (large, "got 32 wide, 37 tokens, 2 layers"),
        (dino, "got a dinov2"),
    ):
        with pytest.raises(ValueError, match=rf"clip_vision must be the CLIP .* {words}"):
            encode(pack, deadiff, clip_vision, image)
    for given, words in (
        ((image / 0 * 0, "style"), r"image holds values that are not finite"),
        ((image[..., :1], "style"), r"image: RGB pictures"),
        ((image, "colour"), r"mode must be one of style, content, style and content, got 'colour'"),
    ):
        with pytest.raises(ValueError, match=words):
            encode(pack, deadiff, vision, *given)
    with pytest.raises(ValueError, match=r"content_image: mode 'style' reads image alone"):
        encode(pack, deadiff, vision, image, content_image=image)


def test_a_checkpoint_with_nan_is_refused_when_it_speaks(pack, folder, clip, seed):
    state = with_clip(file_state(TINY, seed))
    state["style_proj_layer.dense2.bias"] = state["style_proj_layer.dense2.bias"] / 0
    torch.save(state, folder / "nan.ckpt")
    with pytest.raises(ValueError, match=r"image tokens of 'nan.ckpt' \(style\) holds values that are not finite"):
        encode(pack, loaded(pack, "nan.ckpt")[0], clip[1], picture(seed))


def test_the_whole_way_from_a_file_to_a_ksampler(pack, deadiff, clip, seed, monkeypatch):
    """The stock KSampler listens to the picture; without the node it does what it did before."""
    import nodes as host_nodes

    apply = pack.prompts.joint_attention.JointTextImageAttention.execute
    prompts = [encode(pack, deadiff, clip[1], picture(seed + i))[0] for i in range(2)]
    with pytest.raises(ValueError, match=r"tokens of width 24 .* prompts have 32"):
        apply(tiny.make_model("sd15"), prompts[0], 1.0, "all")
    monkeypatch.setitem(tiny.CONFIGS, "sd15", {**tiny.CONFIGS["sd15"], "context_dim": TINY.width})
    model = tiny.make_model("sd15")
    positive, negative = ([[tiny.make_prompt(n)[0][0][..., : TINY.width], {}]] for n in (1, 2))

    def sample(model):
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        arguments = (3, 2, 7.5, "euler", "normal", positive, negative, latent, 1.0)
        return host_nodes.common_ksampler(model, *arguments)[0]["samples"]

    plain = sample(model)
    results = [sample(apply(model, prompt, 1.0, "all").result[0]) for prompt in prompts]
    assert cb.relative(results[0], plain) > 1e-3
    assert cb.relative(results[0], results[1]) > 1e-4
    assert torch.equal(sample(model), plain)
