"""DEADiff's query transformer against transformers' BLIP-2 Q-Former and a loop written out, its checkpoint's layout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffstyler_core.image_prompt.deadiff import BOTH, CONTENT, CONTENT_LAYERS, MODES, STYLE
from diffstyler_core.image_prompt.extractor import PUBLISHED, Extractor, ProjLayer, Sizes
from diffstyler_core.image_prompt.layout import BLOCKS, build, is_used
from diffstyler_core.image_prompt.prompt import ImagePrompt, LayerTokens
from diffstyler_core.image_prompt.qformer import HEADS, QFormer
from tests.host.deadiff_file import REAL, TINY, file_state, real_shapes

SIZES = Sizes(5, 24, 20, 40, 36, 4, frozenset({0, 2}))


def filled(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            unit = 1.0 if "LayerNorm.weight" in name else 0.0
            tensor.copy_(unit + 0.3 * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def given(seed: int, rows: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (rows, 5, SIZES.width), (rows, 3, SIZES.width), (rows, 11, SIZES.picture_width)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def test_qformer_is_transformers_blip2_qformer(seed):
    """The same weights, words in, cross-attention in every second layer."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Blip2QFormerConfig(
        hidden_size=SIZES.width, num_hidden_layers=4, num_attention_heads=HEADS, intermediate_size=SIZES.inner,
        cross_attention_frequency=2, encoder_hidden_size=SIZES.picture_width, use_qformer_text_input=True,
        layer_norm_eps=1e-12, hidden_act="gelu", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    theirs = transformers.Blip2QFormerModel(config).eval()
    ours = filled(QFormer(*SIZES[1:4], SIZES.depth, SIZES.crossed), seed)
    renamed = {"LayerNorm.": "layernorm.", "layer.": "encoder.layer."}
    state = {}
    for key, tensor in ours.state_dict().items():
        home = next(own for own in renamed if key.startswith(own))
        state[renamed[home] + key.removeprefix(home).replace("attention.self.", "attention.attention.")] = tensor
    theirs.load_state_dict(state)  # strict: every weight of both sides has its partner
    queries, words, picture = given(seed + 1)
    with torch.no_grad():
        wanted = theirs(torch.cat([queries, words], 1), query_length=5, encoder_hidden_states=picture)
        found = ours(queries, words, picture)
        blind = ours(queries, words, torch.zeros_like(picture))
        mute = ours(queries, torch.zeros_like(words), picture)
    assert (found - wanted.last_hidden_state[:, :5]).abs().max() < 1e-5
    assert min((found - blind).abs().max(), (found - mute).abs().max()) > 1e-3


def attended(attention: nn.Module, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """BERT's attention head by head in double precision, with its residual and norm."""
    q, k, v = (attention.self[n](y) for n, y in (("query", x), ("key", seen), ("value", seen)))
    size = q.shape[-1] // HEADS
    heads = []
    for i in range(HEADS):
        part = slice(i * size, (i + 1) * size)
        scores = torch.einsum("bqd,bkd->bqk", q[..., part], k[..., part]) / math.sqrt(size)
        heads.append(torch.softmax(scores, -1) @ v[..., part])
    return attention.output(torch.cat(heads, -1), x)


def test_an_extractor_is_the_published_forward_written_out(seed):
    ours = filled(Extractor(SIZES), seed).double()
    ours.words.copy_(torch.randn(ours.words.shape, generator=torch.Generator().manual_seed(seed + 1)))
    hidden = given(seed)[2].double()
    with torch.no_grad():
        picture = functional.layer_norm(hidden, (20,), ours.ln_vision.weight, ours.ln_vision.bias, 1e-5)
        both = torch.cat([ours.query_tokens.expand(3, -1, -1), ours.words.expand(3, -1, -1)], 1)
        x = ours.qformer.LayerNorm(both)
        for number, layer in enumerate(ours.qformer.layer):
            x = attended(layer.attention, x, x)
            queries, words = x[:, :5], x[:, 5:]
            if number in SIZES.crossed:
                queries = attended(layer.crossattention, queries, picture)
            queries = layer.output_query(functional.gelu(layer.intermediate_query["dense"](queries)), queries)
            words = layer.output(functional.gelu(layer.intermediate["dense"](words)), words)
            x = torch.cat([queries, words], 1)
        normed = functional.layer_norm(x[:, :5], (24,), *ours.proj_layer.LayerNorm.parameters(), 1e-12)
        inner = ours.proj_layer.dense1(normed)
        wanted = x[:, :5] + ours.proj_layer.dense2(inner / (1 + torch.exp(-1.702 * inner)))
        found = ours.float()(hidden.float())
    assert (found - wanted).abs().max() < 1e-5


def test_the_projection_leaves_its_input_where_its_second_layer_is_zero():
    layer = ProjLayer(24, 36)
    nn.init.zeros_(layer.dense2.weight)
    nn.init.zeros_(layer.dense2.bias)
    x = torch.randn(1, 5, 24)
    assert torch.equal(layer(x), x)


def test_the_real_layout_is_built_on_no_memory():
    """Every shape of the published configuration, written down in the tests; no tensor is allocated."""
    state = {key: torch.empty(shape, device="meta") for key, shape in real_shapes().items() if is_used(key)}
    words = {k: torch.zeros(v) for k, v in real_shapes().items() if "_embeddings.weight" in k}
    deadiff = build({**state, **words}, "real")
    tokens = deadiff.extractors[STYLE].query_tokens
    assert list(tokens.shape) == [1, 16, 768]
    assert [k.shape[0] for k, _ in deadiff.projections] == [320] * 2 + [640] * 2 + [1280] * 6 + [640] * 3 + [320] * 3
    assert deadiff.vision == (1024, 23, 257)
    assert Sizes(16, 768, 1024, 3072, 3072, 12, frozenset(range(12))) == PUBLISHED
    assert len(BLOCKS) == 16


def test_words_are_the_files_embeddings_of_style_and_content(seed):
    state = file_state(TINY, seed)
    deadiff = build(state, "made")
    for name, ids in ((STYLE, [101, 2806, 102]), (CONTENT, [101, 4180, 102])):
        home = f"{name}_blip.Qformer.bert.embeddings."
        words = state[home + "word_embeddings.weight"][ids] + state[home + "position_embeddings.weight"][:3]
        assert torch.equal(deadiff.extractors[name].words[0], words)


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_gives_its_layers_their_tokens_and_zeros_to_the_others(seed, mode):
    deadiff = build(file_state(TINY, seed), "made")
    tokens = {name: torch.randn(1, 4, TINY.width) for name in MODES[mode]}
    prompt = deadiff.prompt(tokens)
    for number, layer in enumerate(prompt.layers):
        reads = CONTENT if 4 <= number <= 8 else STYLE
        wanted = tokens.get(reads)
        assert torch.equal(layer.tokens, torch.zeros(1, 4, TINY.width) if wanted is None else wanted)
    assert CONTENT_LAYERS == (4, 5, 6, 7, 8)
    assert all(name in prompt.source for name in MODES[mode])
    assert (len(MODES[mode]) == 2) == (mode == BOTH)


@pytest.mark.parametrize(
    "key",
    [
        "style_blip.query_tokens",
        "content_blip.ln_vision.weight",
        "content_blip.Qformer.bert.embeddings.word_embeddings.weight",
        "style_blip.Qformer.bert.encoder.layer.1.attention.self.query.weight",
        "content_blip.Qformer.bert.encoder.layer.0.output_query.LayerNorm.bias",
        "style_proj_layer.dense2.weight",
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.i_to_v.weight",
    ],
)
def test_what_lacks_or_has_another_shape_is_named(seed, key):
    state = file_state(TINY, seed)
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        build({k: v for k, v in state.items() if k != key}, "made")
    with pytest.raises(ValueError, match=r"must have"):
        build({**state, key: state[key][..., :-1] if key != "style_blip.query_tokens" else state[key][0]}, "made")
    with pytest.raises(ValueError, match="floating point"):
        build({**state, key: state[key].long()}, "made")


def test_image_prompts_whose_shapes_do_not_belong_together_are_refused():
    tokens, weight = torch.zeros(1, 4, 6), torch.zeros(8, 6)
    assert ImagePrompt((LayerTokens(tokens, weight, weight),), "x").widths == (8,)
    for layers in ((), ((tokens, weight, weight[:7]),), ((tokens, weight[:, :5], weight[:, :5]),), ((tokens[0],) * 3,)):
        with pytest.raises(ValueError, match="image prompt of x"):
            ImagePrompt(tuple(LayerTokens(*layer) for layer in layers), "x")


def test_the_published_widths_are_those_of_the_written_down_file():
    assert REAL.width == PUBLISHED.width
