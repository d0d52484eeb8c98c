"""Compare Result: every figure against a reference of its own, regions, batches, sizes, and what is not available."""

from __future__ import annotations

import math
import socket

import evaluation_bench as eb
import pytest
import regions_bench as rb
import tiny_clip
import torch
from evaluation_bench import ALEX, value, why

pytest_plugins = ("evaluation_fixtures",)
ROWS, COLUMNS = slice(10, 42), slice(20, 68)


def block(height=64, width=80):
    """A MASK [1, H, W] that is 1 in ROWS and COLUMNS."""
    mask = torch.zeros(1, height, width)
    mask[:, ROWS, COLUMNS] = 1.0
    return mask


@pytest.fixture
def pair(seed):
    """(result, content), each [1, 64, 80, 3]."""
    return rb.pictures(seed, 64, 80), rb.pictures(seed + 1, 64, 80)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(transformers' model, CLIP_VISION, CLIP) with the same small random weights."""
    with torch.inference_mode():
        model = tiny_clip.make_folder(tmp_path_factory.mktemp("clip") / "tiny")
        return model, tiny_clip.host_vision(model), tiny_clip.host_text(model)


def test_the_same_picture_is_perfect(pack, pair, metric_folders):
    eb.save_backbone(metric_folders / "lpips" / ALEX)
    (_, _, table), *_ = eb.compare(pack, pair[0], pair[0], style=pair[0], lpips_weights=ALEX)
    perfect = {"psnr": math.inf, "ssim": 1, "l2": 0, "lpips": 0, "edges": 1, "colour": 0, "gram_filters": 0}
    for metric, expected in {**perfect, "gram_lpips": 0}.items():
        assert value(table, metric) == pytest.approx(expected, abs=1e-6), metric
    assert value(table, "total_variation") == value(table, "content_variation") > 0.1


def test_ssim_is_scikit_images(pack, pair):
    metrics = pytest.importorskip("skimage.metrics")
    (_, _, table), *_ = eb.compare(pack, *pair)
    a, b = (x[0].double().numpy() for x in pair)
    expected = metrics.structural_similarity(
        a, b, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert value(table, "ssim") == pytest.approx(expected, abs=1e-5)


LOCAL = ("psnr", "ssim", "l2", "edges", "total_variation", "content_variation", "colour")


def test_a_rectangular_mask_is_the_same_as_cropping(pack, pair):
    style = rb.pictures(1, 64, 64)
    (_, _, table), *_ = eb.compare(pack, *pair, mask=block(), style=style)
    (_, _, crop), *_ = eb.compare(pack, *(x[:, ROWS, COLUMNS] for x in pair), style=style)
    for metric in LOCAL:
        assert value(table, metric, "inside") == pytest.approx(value(crop, metric), abs=1e-6), metric
        assert value(table, metric, "inside") != value(table, metric, "outside")


def test_halves_are_crops(pack, seed):
    result, content = rb.pictures(seed, 64, 81), rb.pictures(seed + 1, 64, 81)
    (_, _, table), *_ = eb.compare(pack, result, content, halves=True, style=content)
    for name, columns in (("left half", slice(0, 40)), ("right half", slice(40, 81))):
        (_, _, crop), *_ = eb.compare(pack, result[:, :, columns], content[:, :, columns], style=content)
        for metric in LOCAL:
            assert value(table, metric, name) == pytest.approx(value(crop, metric), abs=1e-6), metric


@pytest.mark.parametrize("kind", ["alexnet", "squeezenet1_1"])
def test_lpips_is_its_papers_over_the_given_file(pack, seed, metric_folders, monkeypatch, kind):
    def refuse(*_):
        raise AssertionError("no connection is made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    a, b = rb.pictures(seed, 80, 96), rb.pictures(seed + 1, 80, 96)
    eb.save_backbone(metric_folders / "lpips" / "own.pth", kind)
    mask = torch.zeros(1, 80, 96)
    mask[..., :48] = 1.0
    (_, _, table), *_ = eb.compare(pack, a, b, lpips_weights="own.pth", style=b, mask=mask)
    assert value(table, "lpips") == pytest.approx(eb.lpips_by_hand(metric_folders / "lpips" / "own.pth", kind, a, b))
    assert 0 < value(table, "gram_lpips") < 1
    parts = value(table, "lpips", "inside"), value(table, "lpips", "outside")
    assert sum(parts) / 2 == pytest.approx(value(table, "lpips"), rel=0.1), "the maps' halves make the whole"


def test_lpips_in_a_mask_looks_there(pack, pair, metric_folders):
    """A result that differs in the right half alone: more inside of a mask there than outside."""
    eb.save_backbone(metric_folders / "lpips" / ALEX)
    content = pair[1].repeat(1, 2, 2, 1)
    result, mask = content.clone(), torch.zeros(1, 128, 160)
    result[:, :, 80:], mask[..., 80:] = 1.0 - content[:, :, 80:], 1.0
    (_, _, table), *_ = eb.compare(pack, result, content, lpips_weights=ALEX, mask=mask)
    assert value(table, "lpips", "inside") > 3 * value(table, "lpips", "outside") > 0


def test_other_files_are_not_run_and_not_taken(pack, pair, metric_folders):
    class Evil:
        def __reduce__(self):
            return (open, (str(metric_folders / "written"), "w"))

    torch.save({"features.0.weight": Evil()}, metric_folders / "lpips" / "evil.pth")
    torch.save({"weight": torch.zeros(3)}, metric_folders / "lpips" / "other.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, metric_folders / "lpips" / "half.pth")
    for name, words in (("evil.pth", "cannot be read"), ("other.pth", "other weights"), ("half.pth", "lacks weights")):
        (_, text, table), *_ = eb.compare(pack, *pair, lpips_weights=name)
        assert words in why(table, "lpips")
        assert "not available: LPIPS" in text
    assert not (metric_folders / "written").exists()


@pytest.mark.parametrize("name", ["../own.pth", "/tmp/own.pth", "own.txt", "a\\..\\own.pth"])
def test_weights_elsewhere_are_refused(pack, pair, name):
    with rb.refuses("lpips_weights must name", "inside models/lpips", repr(name)):
        eb.compare(pack, *pair, lpips_weights=name)


def test_weights_that_are_links_out_are_refused(pack, pair, metric_folders):
    eb.save_backbone(metric_folders / "own.pth", "squeezenet1_1")
    (metric_folders / "lpips" / "link.pth").symlink_to(metric_folders / "own.pth")
    with rb.refuses("'link.pth' is a link that leads out of models/lpips"):
        eb.compare(pack, *pair, lpips_weights="link.pth")


def test_what_has_no_weights_says_why(pack, pair, metric_folders):
    (_, text, table), words, _ = eb.compare(pack, *pair, style=pair[0], lpips_weights=ALEX)
    assert f"there is no '{ALEX}' in models/lpips. Fetch it from https://download.pytorch.org" in why(table, "lpips")
    assert why(table, "gram_lpips") == why(table, "lpips")
    assert why(table, "clip_style") == "clip_vision is not wired (Load CLIP Vision)"
    assert words == text
    assert f"not available: LPIPS, Gram distance, LPIPS network: {why(table, 'lpips')}" in text
    (_, _, table), *_ = eb.compare(pack, *pair, lpips_weights="none")
    assert why(table, "lpips") == "lpips_weights is 'none'"


def seen(model, picture):
    """transformers' own embedding of a picture [1, 32, 32, 3]."""
    mean, deviation = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    pixels = (((255 * picture).round() / 255 - mean) / deviation).movedim(-1, 1)
    return torch.nn.functional.normalize(
        model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0], dim=0
    )


def test_clip_similarity_and_direction_are_transformers(pack, seed, clip):
    model, vision, text = clip
    result, content, style = (rb.pictures(seed + i, 32, 32) for i in range(3))
    (_, _, table), *_ = eb.compare(
        pack, result, content, style=style, clip_vision=vision, clip=text, source_prompt="a photo", target_prompt="ink"
    )
    a, b, c = (seen(model, picture) for picture in (result, content, style))
    assert value(table, "clip_style") == pytest.approx((a @ c).item(), abs=1e-4)
    ranker = pack.host.networks.clip.make_ranker
    source, target = (torch.nn.functional.normalize(ranker(w, text, vision, "none").text, dim=0)
                      for w in ("a photo", "ink"))  # fmt: skip
    expected = torch.nn.functional.cosine_similarity(a - b, target - source, dim=0).item()
    assert value(table, "clip_direction") == pytest.approx(expected, abs=1e-3)


def test_clip_in_a_mask_sees_only_that(pack, seed, clip):
    a, content = rb.pictures(seed, 64, 80), rb.pictures(seed + 1, 64, 80)
    b = torch.where(block()[..., None] > 0, a, rb.pictures(seed + 2, 64, 80))
    tables = [eb.compare(pack, x, content, style=content, mask=block(), clip_vision=clip[1])[0][2] for x in (a, b)]
    inside, outside = ([value(t, "clip_style", region) for t in tables] for region in ("inside", "outside"))
    assert inside[0] == inside[1]
    assert outside[0] != outside[1]


def test_clip_direction_needs_words(pack, pair, clip):
    _, vision, text = clip
    (_, _, table), *_ = eb.compare(pack, *pair, clip_vision=vision)
    assert why(table, "clip_direction") == "clip is not wired (Load CLIP)"
    for prompts in (("a photo", " "), ("ink", "ink")):
        changes = dict(zip(("source_prompt", "target_prompt"), prompts, strict=True))
        (_, _, table), *_ = eb.compare(pack, *pair, clip_vision=vision, clip=text, **changes)
        assert "two different prompts" in why(table, "clip_direction")
    (_, _, table), *_ = eb.compare(pack, pair[0], pair[0], clip_vision=vision, clip=text, target_prompt="ink")
    assert why(table, "clip_direction") == "CLIP sees no difference between content and result"


def test_a_vision_model_that_is_no_clip_is_refused(pack, pair):
    other = tiny_clip.host_vision(None, model_type="siglip_vision_model")
    with rb.refuses("clip_vision must be a CLIP with an image projection", "siglip_vision_model", "CLIP ViT"):
        eb.compare(pack, *pair, clip_vision=other)


def test_results_are_measured_one_by_one(pack, seed):
    results, contents = rb.pictures(seed, 64, 80, 2), rb.pictures(seed + 1, 64, 80, 2)
    masks = torch.cat([block(), 1 - block()])
    (_, text, table), *_ = eb.compare(pack, results, contents, mask=masks, style=contents[:1])
    assert [text.count(f"result {i} of 2") for i in (1, 2)] == [1, 1]
    for i in range(2):
        (_, _, alone), *_ = eb.compare(pack, results[i : i + 1], contents[i : i + 1], mask=masks[i : i + 1],
                                       style=contents[:1])  # fmt: skip
        mine = [{**row, "result": "1"} for row in eb.rows(table) if row["result"] == str(i + 1)]
        assert mine == eb.rows(alone)
    (_, _, shared), *_ = eb.compare(pack, results, contents[:1], mask=masks[:1])
    assert value(shared, "psnr", result=1) == value(table, "psnr", result=1)
    assert value(shared, "psnr", result=2) != value(table, "psnr", result=2)


def test_several_styles_have_a_best_and_a_mean(pack, pair, seed, clip):
    styles = torch.cat([pair[0].flip(1), 0.2 * pair[1]])
    (_, _, table), *_ = eb.compare(pack, *pair, style=styles, clip_vision=clip[1])
    for metric, best in (("colour", min), ("gram_filters", min), ("clip_style", max)):
        each = [value(table, metric, against=f"style {i}") for i in (1, 2)]
        assert value(table, metric, against="best style") == best(each)
        assert value(table, metric, against="mean of styles") == pytest.approx(sum(each) / 2)
    assert value(table, "colour", against="style 1") == pytest.approx(0.0, abs=1e-6), "the same colours, elsewhere"


def test_without_a_style_only_the_content_is_compared(pack, pair):
    (_, text, table), *_ = eb.compare(pack, *pair)
    assert "no style is wired" in text
    assert not {row["metric"] for row in eb.rows(table)} & {"colour", "gram_filters", "gram_lpips", "clip_style"}


def test_the_hosts_crop_is_compared_in_place(pack, seed):
    content = rb.pictures(seed, 70, 93)
    (_, text, table), *_ = eb.compare(pack, content[:, 3:67, 2:90], content)
    assert value(table, "psnr") == math.inf
    assert "88 x 64, content cropped to 88 x 64, as VAE Encode does" in text


def test_the_larger_picture_is_scaled_down_by_area(pack, seed):
    small = rb.pictures(seed, 64, 80)
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    (_, text, table), *_ = eb.compare(pack, large, small)
    assert value(table, "l2") == pytest.approx(0.0, abs=1e-6)
    assert "result scaled from 160 x 128 to 80 x 64, by area" in text
    (_, text, table), *_ = eb.compare(pack, small, large)
    assert value(table, "l2") == pytest.approx(0.0, abs=1e-6)
    assert "content scaled from 160 x 128 to 80 x 64, by area" in text


@pytest.mark.parametrize(
    ("mask", "region", "words"),
    [(torch.zeros(1, 64, 80), "inside", "the mask is empty"),
     (torch.ones(1, 32, 40), "outside", "the mask covers everything")],
)  # fmt: skip
def test_empty_masks_have_no_figures(pack, pair, mask, region, words):
    (_, text, table), *_ = eb.compare(pack, *pair, mask=mask, style=pair[0])
    other = {"inside": "outside", "outside": "inside"}[region]
    for metric in ("psnr", "ssim", "lpips", "colour", "gram_filters", "clip_style"):
        assert why(table, metric, region) == words
    assert value(table, "psnr", other) == value(table, "psnr")
    assert f"not available {region}: PSNR, dB" in text


def test_thin_masks_have_no_windows(pack, pair):
    line = torch.zeros(1, 64, 80)
    line[:, 20:22] = 1.0
    (_, _, table), *_ = eb.compare(pack, *pair, mask=line, style=pair[0])
    assert value(table, "psnr", "inside") > 0
    assert why(table, "ssim", "inside") == "the region holds no 11 x 11 pixels"
    assert why(table, "edges", "inside") == "the region holds no 3 x 3 pixels"
    assert "too small" in why(table, "gram_filters", "inside")


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (11, 11), (65, 33)])
def test_pictures_of_any_size(pack, seed, size, metric_folders):
    eb.save_backbone(metric_folders / "lpips" / "own.pth", "squeezenet1_1")
    result, content = rb.pictures(seed, *size), rb.pictures(seed + 1, *size)
    settings = {"lpips_weights": "own.pth", "style": content, "halves": True, "mask": torch.ones(1, *size) / 2}
    (sheet, _, table), *_ = eb.compare(pack, result, content, **settings)
    assert sheet.shape[0] == 1
    assert value(table, "psnr") > 0
    assert why(table, "lpips") == "it needs 64 pixels on each side"


def test_the_sheet_shows_the_pictures(pack, seed):
    result, content = rb.pictures(seed, 48, 96), rb.pictures(seed + 1, 48, 96)
    style = torch.tensor([0.0, 1.0, 0.0]).expand(1, 64, 64, 3)
    (sheet, _, _), _, picture = eb.compare(pack, result, content, style=style, mask=block(48, 96))
    page = pack.drawing.sheet
    assert torch.equal((sheet[0] * 255).round().to(torch.uint8), torch.tensor(picture))
    lefts = [page.GAP + (page.TILE + page.GAP) * i for i in range(4)]
    tiles = [sheet[0, 2 * page.ROW : 2 * page.ROW + page.TILE, left : left + page.TILE] for left in lefts]
    assert (tiles[3] - style[0, :1, :1]).abs().max() < 0.01
    half = tiles[1][: page.TILE // 2]  # twice as wide as high
    small = torch.nn.functional.avg_pool2d(half.movedim(-1, 0), 3)[:, ::2, ::2]
    assert small.shape[1:] == (28, 56)
    assert [t.std().item() > 0.05 for t in tiles[:3]] == [True, True, True]
    again = eb.compare(pack, result, content, style=style, mask=block(48, 96))[0][0]
    assert torch.equal(sheet, again)


def test_many_results_are_in_the_table_and_eight_on_the_sheet(pack, seed):
    results, content = rb.pictures(seed, 16, 16, 10), rb.pictures(seed + 1, 16, 16)
    (sheet, _, table), *_ = eb.compare(pack, results, content)
    (eight, _, _), *_ = eb.compare(pack, results[:8], content)
    assert {row["result"] for row in eb.rows(table)} == {str(i) for i in range(1, 11)}
    assert 0 < sheet.shape[1] - eight.shape[1] < 100


def test_nothing_given_is_changed_and_other_packages_are_left_alone(pack, pair):
    import numpy
    import PIL
    import scipy.signal

    before = [x.clone() for x in pair]
    eb.compare(pack, *pair, style=pair[1], mask=block())
    assert all(torch.equal(x, y) for x, y in zip(pair, before, strict=True))
    found = hasattr(numpy, "Inf"), hasattr(PIL, "PILLOW_VERSION"), hasattr(scipy.signal, "hamming")
    assert found == (False, False, False)


def test_a_file_that_appears_makes_the_node_run_again(pack, metric_folders):
    stamp = pack.evaluate.compare.CompareResult.fingerprint_inputs
    before = stamp(lpips_weights="own.pth", halves=False)
    (metric_folders / "lpips" / "own.pth").write_bytes(b"x")
    assert before == "" != stamp(lpips_weights="own.pth", halves=False)
    assert stamp(lpips_weights=None) == ""


PICTURE = torch.zeros(1, 64, 80, 3)
REFUSED = [
    ({"result": torch.full((1, 64, 80, 3), math.nan)}, ("result", "NaN", "check the node that made it")),
    ({"content": torch.full((1, 64, 80, 3), math.inf)}, ("content", "infinity")),
    ({"style": torch.full((1, 64, 80, 3), math.nan)}, ("style", "NaN")),
    ({"result": torch.zeros(1, 64, 80, 4)}, ("result: RGB", "[1, 64, 80, 4]", "Split Image with Alpha")),
    ({"content": torch.zeros(1, 80, 64, 3)}, ("result is 80 x 64", "content 64 x 80", "one shape", "Crop")),
    ({"content": torch.zeros(3, 64, 80, 3)}, ("content: one for all", "3 for 1 results", "Image From Batch")),
    ({"mask": torch.zeros(2, 64, 80)}, ("mask: one for all", "2 for 1 results")),
    ({"mask": torch.full((1, 64, 80), 2.0)}, ("mask: ", "0..1", "2..2")),
    ({"mask": torch.full((1, 64, 80), math.nan)}, ("mask", "NaN")),
    ({"mask": torch.zeros(1, 1, 64, 80)}, ("mask: masks [B, H, W]", "[1, 1, 64, 80]")),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_refusals(pack, changes, words):
    with rb.refuses(*words):
        eb.compare(pack, **{"result": PICTURE, "content": PICTURE, **changes})
