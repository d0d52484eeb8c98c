"""SDXL's two text encoders by the host's own nodes, against transformers and diffusers on the same weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import steps
import tiny_checkpoints
import torch
import transformers
import written_out
from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL
from families import HEIGHT, NAMED, SIZES, WIDTH, Scene, relative

import nodes as host_nodes

OTHER = {"width": 512, "height": 896, "crop_w": 24, "crop_h": 32, "target_width": 1152, "target_height": 768}
OTHER_SIZES = (896, 512, 32, 24, 768, 1152)
TEXTS = ("a castle by the sea, oil on canvas", "thick strokes of a palette knife")
"""For the second encoder and the first."""


class Encoders:
    """transformers' CLIP-L and CLIP-G in float64 with the tiny checkpoint's weights; prompts of them as diffusers does.

    The first one's padding is the end token, the second one's token 0. Of both the last but one hidden states are
    taken, of the second also the projection of the state at the end token.
    """

    def __init__(self, clip: Any) -> None:
        folder = Path(os.environ["COMFYUI_PATH"]) / "comfy" / "sd1_tokenizer"
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
        both = clip.cond_stage_model
        self.first = self._copy(transformers.CLIPTextModel, both.clip_l.transformer, 16)
        self.second = self._copy(transformers.CLIPTextModelWithProjection, both.clip_g.transformer, 32)

    @staticmethod
    def _copy(kind: Any, theirs: Any, projection: int) -> Any:
        model = kind(transformers.CLIPTextConfig(**{**tiny_checkpoints.HALF, "projection_dim": projection})).eval()
        weights = {key.removeprefix("text_model."): value for key, value in theirs.state_dict().items()}
        model.load_state_dict({key: weights[key.removeprefix("text_model.")].clone() for key in model.state_dict()})
        return model.double()

    def _encoded(self, model: Any, text: str, pad: int) -> Any:
        tokens = self.tokenizer(text).input_ids
        tokens = torch.tensor([tokens + [pad] * (77 - len(tokens))])
        return model(tokens, output_hidden_states=True)

    def prompt(self, second: str, first: str, sizes: tuple[int, ...]) -> written_out.Prompt:
        coarse, fine = self._encoded(self.first, first, 49407), self._encoded(self.second, second, 0)
        context = torch.cat([coarse.hidden_states[-2], fine.hidden_states[-2]], -1)
        return written_out.Prompt(context, fine.text_embeds, sizes)


@pytest.fixture
def checkpoint(pack, seed):
    """(CLIP, transformers' encoders)."""
    clip = tiny_checkpoints.make_clip("SDXL eps", seed)
    return clip, Encoders(clip)


def plain(clip, text):
    return host_nodes.CLIPTextEncode().encode(clip, text)[0]


def sized(clip, second, first, **sizes):
    return CLIPTextEncodeSDXL.execute(clip, text_g=second, text_l=first, **sizes).args[0]


def test_the_nodes_give_transformers_embeddings(checkpoint, measured):
    clip, encoders = checkpoint
    told = encoders.prompt(*TEXTS, ())
    for name, prompt, theirs in [
        ("CLIP Text Encode", plain(clip, TEXTS[0]), encoders.prompt(TEXTS[0], TEXTS[0], ())),
        ("of nothing", plain(clip, ""), encoders.prompt("", "", ())),
        ("CLIP Text Encode (SDXL)", sized(clip, *TEXTS, **NAMED), told),
    ]:
        (context, options) = prompt[0]
        measured(f"{name}: embedding, relative", relative(context, theirs.context), at_most=1e-5)
        measured(f"{name}: pooled, relative", relative(options["pooled_output"], theirs.pooled), at_most=1e-5)
    swapped = sized(clip, *reversed(TEXTS), **NAMED)[0]
    measured("texts exchanged, relative", relative(swapped[0], told.context), at_least=1e-2)
    measured("texts exchanged, pooled, relative", relative(swapped[1]["pooled_output"], told.pooled), at_least=1e-2)


@pytest.mark.parametrize("name", ["SDXL eps", "SDXL v, zero SNR"])
def test_a_run_of_such_prompts(pack, seed, checkpoint, measured, name):
    """Content and negative by CLIP Text Encode, sized as the picture; styles by (SDXL), each with sizes of its own."""
    clip, encoders = checkpoint
    scene = Scene(pack, name, seed)
    own, texts = SIZES[False], ["", "a photograph", "ugly, blurry"]
    scene.told[:3] = [encoders.prompt(text, text, own) for text in texts]
    scene.told[3:] = [encoders.prompt(*TEXTS, SIZES[True]), encoders.prompt(*reversed(TEXTS), OTHER_SIZES)]
    made = [plain(clip, text) for text in texts]
    made += [sized(clip, *TEXTS, **NAMED), sized(clip, *reversed(TEXTS), **OTHER)]
    scene.prompt = made.__getitem__
    features = scene.captured()
    left = (torch.arange(WIDTH) < WIDTH // 2).float().expand(HEIGHT, WIDTH)
    whole = [
        written_out.Row(lambda step: scene.double, scene.told[3 + i], taking, mask.double())
        for i, mask in enumerate((left, 1 - left))
    ]
    theirs = scene.written(features.trajectory.latents).run(
        whole, scene.told[0], scene.told[2], "regenerate", scene.told[1]
    )
    chain = [
        {"positive": made[3 + i], "mask": mask.repeat_interleave(8, 0).repeat_interleave(8, 1)[None]}
        for i, mask in enumerate((left, 1 - left))
    ]
    run = lambda styles: scene.sample(features, styles=steps.chain(pack, *styles), attention_mode="fixed")  # noqa: E731
    measured("against the loop, relative", relative(run(chain), theirs), at_most=1e-5)
    bare = [{**chain[0], "positive": [[made[3][0][0], {**made[3][0][1], "width": 1000}]]}, chain[1]]
    measured("with one width 24 pixels less, relative", relative(run(bare), theirs), at_least=1e-4)


def taking(step, t):
    """The content's features and attention in the first two of four steps."""
    return written_out.Taking(step < 2, float(step < 2))
