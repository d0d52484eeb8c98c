"""A tiny LLaVA of transformers with random weights and a tokenizer made here, saved as its folders are."""

from __future__ import annotations

from pathlib import Path

import torch

TEXT = (
    "warm cold light dark soft bold broad thin blue red ochre green violet strokes lines washes ink oil paper canvas "
    "woman cat boat tree with and in of the a , . : image colors tones texture"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", "ASSISTANT"]
SIZE, PATCH = 32, 8
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
TEMPLATE = (
    "{% for m in messages %}USER : {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT :"
)


def make_tokenizer():
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *TEXT.split()])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **tokens)
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return fast


@torch.inference_mode(False)
def make_folder(folder: Path, seed: int, template: bool = True, old: bool = False):
    """Saves model and processor; returns both. old: as files of 2024, without patch size and strategy."""
    import transformers

    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    vision = transformers.CLIPVisionConfig(image_size=SIZE, patch_size=PATCH, projection_dim=32, **LAYERS)
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, **LAYERS
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config).eval()
    for weights in model.parameters():
        weights.data.normal_(0.0, 0.25)
    model.lm_head.weight.data.normal_(0.0, 1.0)  # certain enough that the answer is about the picture
    model.lm_head.weight.data[: len(SPECIAL)] = 0.0  # some word is always likelier than an end without any
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    given = {} if old else {
        "patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1
    }  # fmt: skip
    processor = transformers.LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, chat_template=TEMPLATE if template else None, **given
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor
