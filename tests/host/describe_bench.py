"""Describe Style with short defaults, and pictures as PIL has them."""

from __future__ import annotations

import torch
from PIL import Image

LENGTH = 8
LIKELIEST = {"sampling": "likeliest"}
RANDOM = {"sampling": "random", "temperature": 1.5, "top_p": 0.8, "seed": 7}
DEFAULTS = {
    "question": "style of the image", "leave_out": "", "max_length": LENGTH, "sampling": LIKELIEST,
    "model_folder": "tiny", "precision": "fp32",
}  # fmt: skip


def pil(image):
    return Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy())


def plainly(model, processor, image, question, **settings):
    """transformers alone, as its documentation does it."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    if processor.chat_template:
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        prompt = f"USER: <image>\n{question} ASSISTANT:"
    given = processor(images=pil(image), text=prompt, return_tensors="pt")
    ids = model.generate(**given, max_new_tokens=LENGTH, **settings)[0, given["input_ids"].shape[1] :]
    return processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
