"""Content left out of a description: by tables of sentences."""

from __future__ import annotations

import pytest

from diffstyler_core.image_prompt.description import QUESTION, content_words, leave_out

PLAIN = "Warm ochre and deep blue dominate the palette. Thick, visible brush strokes give it texture."


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("", ()),
        (" , ;\n", ()),
        ("cat", ("cat",)),
        ("cat, the old  man\nhat;cat", ("cat", "the old man", "hat")),
    ],
)
def test_the_list_of_words(listed, words):
    assert content_words(listed) == words


@pytest.mark.parametrize(
    ("text", "words", "left"),
    [
        (PLAIN, ["cat"], PLAIN),
        (PLAIN, [], PLAIN),
        ("A cat sits here. Soft light.", ["cat"], "Soft light."),
        (
            "The image shows a woman, painted in thick strokes of ochre.",
            ["woman"],
            "Painted in thick strokes of ochre.",
        ),
        ("The woman is painted in broad strokes and vivid colors.", ["woman"], "Broad strokes and vivid colors."),
        ("A portrait of a cat with swirling blue lines.", ["cat"], "Swirling blue lines."),
        ("Soft light and a cat in warm colors.", ["cat"], "Soft light, warm colors."),
        ("Bold outlines; two Dogs (running); flat colours", ["dog"], "Bold outlines, running, flat colours."),
        ("It is a cat, drawn with ink.", ["cat"], "Drawn with ink."),
        ("The cat's fur is rendered by short strokes!", ["cat"], "Short strokes."),
        ("Cities at night, in neon tones.", ["city"], "Neon tones."),
        ("A city, in neon tones.", ["cities"], "Neon tones."),
        ("A category of concatenated shapes.", ["cat"], "A category of concatenated shapes."),
        ("An old man and a man. Blue tones.", ["old man"], "A man. Blue tones."),
        ("A cat.\nA dog.", ["cat", "dog"], ""),
        ("grass", ["gras s"], "grass"),
        ("Colours 2.5 times as strong, like a cat.", ["cat"], "Colours 2.5 times as strong."),
    ],
)
def test_clauses_that_name_a_word_go(text, words, left):
    cleaned = leave_out(text, words)
    assert cleaned.text == left


def test_no_word_is_named_any_more_and_none_is_made_up():
    text = f"A cat on a red sofa, seen from above, in warm tones. {PLAIN} The sofa glows with light."
    cleaned = leave_out(text, ["cat", "sofa"])
    assert "cat" not in cleaned.text.lower()
    assert "sofa" not in cleaned.text.lower()
    assert PLAIN in cleaned.text
    known = set(text.lower().replace(".", "").replace(",", "").split())
    assert set(cleaned.text.lower().replace(".", "").replace(",", "").split()) <= known


def test_it_says_what_went_and_what_was_never_named():
    cleaned = leave_out("A cat with stripes. Soft light.", ["cat", "dog"])
    assert cleaned.removed == ("A cat",)
    assert cleaned.unmet == ("dog",)
    assert cleaned.text == "Stripes. Soft light."


def test_leaving_out_twice_changes_nothing():
    once = leave_out("The woman is painted in broad strokes, with a hat and vivid colors.", ["woman", "hat"])
    again = leave_out(once.text, ["woman", "hat"])
    assert again.text == once.text
    assert again.removed == ()


def test_the_question_is_the_documents():
    assert QUESTION.startswith("Task: Give high level description English of the style aspects of the image")
