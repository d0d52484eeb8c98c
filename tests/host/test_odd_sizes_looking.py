"""Pictures of odd sizes through the nodes that look at them with a network of their own, or read them from files."""

from __future__ import annotations

import evaluation_bench as eb
import fastsam_bench
import folder_paths
import pytest
import regions_bench as rb
import set_bench as sb
import tiny
import tiny_clip
import torch
from deadiff_file import TINY, file_state
from describe_bench import plainly

pytest_plugins = ("describe_fixtures", "evaluation_fixtures", "fastsam_fixtures")

SIZES = [(72, 136), (200, 64), (67, 83)]
"""Heights and widths; the last is no multiple of 8 either."""
QUESTION = "the colors of the image"


@pytest.fixture(params=SIZES, ids=[f"{height}x{width}" for height, width in SIZES])
def size(request):
    return request.param


def test_describe_style_answers_as_plain_transformers_does(describe_bench, seed, size):
    model, processor = describe_bench.make("tiny", seed)
    image = rb.pictures(seed, *size)
    expected = plainly(model, processor, image, QUESTION, do_sample=False)
    assert describe_bench.run(image, question=QUESTION)[1] == [expected]


def test_deadiff_sees_the_whole_picture(pack, tmp_path, monkeypatch, seed, size):
    """Tokens of a picture that is one in its left half and another in its right are of neither alone."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "deadiff", ([str(tmp_path)], set()))
    folder_paths.filename_list_cache.pop("deadiff", None)
    torch.save(file_state(TINY, seed), tmp_path / "made.ckpt")
    deadiff = pack.prompts.load_deadiff.LoadDEADiff.execute("made.ckpt").result[0]
    vision = tiny_clip.host_vision(None, num_hidden_layers=3)
    tiny.fill(vision.model, seed)
    first, second = (rb.pictures(seed + i, *size) for i in range(2))
    half = size[1] // 2
    mixed = [
        torch.cat([one[:, :, :half], other[:, :, half:]], 2) for one in (first, second) for other in (first, second)
    ]
    found = [
        pack.prompts.encode_deadiff.DEADiffEncode.execute(deadiff, vision, image, "style").result[0].layers[0].tokens
        for image in mixed
    ]
    assert all(tokens.shape == (1, 4, 24) and torch.isfinite(tokens).all() for tokens in found)
    assert all((found[i] - found[j]).abs().max() > 1e-4 for i in range(4) for j in range(i))


def test_fastsam_finds_what_is_bright(fastsam, size):
    height, width = size
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    image = torch.full((1, height, width, 3), 0.02)
    image[0, box[1] : box[3], box[0] : box[2]] = torch.tensor(fastsam_bench.PINK)
    mask, masks, preview = fastsam.run(image)
    assert mask.shape == (1, height, width)
    assert torch.equal(torch.cat(masks), mask)
    assert preview.shape == image.shape
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[box[1] : box[3], box[0] : box[2]] = True
    found = mask[0] > 0.5
    assert (found & expected).sum() / (found | expected).sum() > 0.85  # a pixel of its masks is some of the picture's


def test_evaluate_set_says_what_compare_result_does(pack, folders, metric_folders, size):
    for folder in ("input/contents", "input/styles", "output/results"):
        for file in (folders / folder).iterdir():
            file.unlink()
    content = sb.save(folders / "input" / "contents" / "cat.png", 1, *size)
    style = sb.save(folders / "input" / "styles" / "oil.png", 2, 51, 37)
    result = sb.save(folders / "output" / "results" / "cat_stylized_oil.png", 3, *size)
    (row,) = sb.evaluate(pack).pairs
    (_, _, table), *_ = eb.compare(pack, result, content, style=style)
    for metric in ("psnr", "ssim", "edges", "colour", "gram_filters"):
        assert float(row[metric]) == pytest.approx(eb.value(table, metric)), metric


def test_frame_consistency_follows_the_content(pack, size):
    """A window that moves by (3, 2) pixels a frame, and one that moves while its frames stand still."""
    (height, width), (picture, *_) = size, pack.examples.example.ExamplePicture.execute("content_houses.jpg").args[0]
    content = torch.stack([picture[20 + 2 * i :, 30 + 3 * i :][:height, :width] for i in range(3)])
    assert content.shape[1:3] == size
    node = pack.evaluate.frame_consistency.FrameConsistency
    (_, _, _, ours, own), _, _ = rb.run(node, frames=content, content=content)
    (_, _, _, still, _), _, _ = rb.run(node, frames=content[:1].expand(3, -1, -1, -1), content=content)
    assert ours == own < 0.03
    assert still > 2 * own
