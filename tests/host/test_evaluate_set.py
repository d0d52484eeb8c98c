"""Evaluate Set: its figures, taking up what was done, and files that are not as they should be."""

from __future__ import annotations

import json

import comfy.model_management
import comfy.utils
import evaluation_bench as eb
import numpy as np
import pytest
import set_bench as sb
import tiny_clip
import torch

pytest_plugins = ("evaluation_fixtures",)


def test_pairs_are_what_compare_images_says(pack, folders):
    out = sb.evaluate(pack)
    assert len(out.pairs) == 6
    row = next(row for row in out.pairs if row["result"] == "output/results/cat_stylized_oil_2.png")
    assert (row["content"], row["style"]) == ("cat.png", "oil_2.jpg")
    result, content, style = (read(pack, folders, name, row) for name in ("result", "content", "style"))
    (_, _, alone), *_ = eb.compare(pack, result, content, style=style)
    for metric in ("psnr", "ssim", "l2", "edges", "total_variation", "content_variation", "colour", "gram_filters"):
        assert float(row[metric]) == pytest.approx(eb.value(alone, metric)), metric
        mean = np.mean([float(r[metric]) for r in out.pairs])
        assert out.score(metric) == pytest.approx(mean)
    assert "6 pairs of 2 contents x 3 styles = 6 combinations; 6 computed now, 0 taken from the table" in out.summary


def test_tables_are_on_the_disk(pack, folders):
    out = sb.evaluate(pack)
    assert sorted(row["result"] for row in out.pairs) == [
        row["result"] for row in eb.rows(sb.table(folders).read_text())
    ]
    scores = (folders / "output" / "tables" / "set_scores.csv").read_text()
    assert {row["figure"]: row for row in eb.rows(scores)} == out.scores
    assert sorted(path.name for path in sb.table(folders).parent.iterdir()) == ["set.csv", "set_scores.csv"]


def read(pack, folders, name, row):
    """A picture of a pair, [1, H, W, 3]."""
    home = {"result": "", "content": "input/contents", "style": "input/styles"}[name]
    return pack.host.evaluation.picture_files.read_picture(folders / home / row[name], 0)[None]


def test_fid_is_torchmetrics(pack, folders, quick_inception):
    """The library's class over the same network, with each style as often as it has results."""
    library = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance

    class Colours(torch.nn.Module):
        num_features = 6

        def forward(self, pictures):
            return torch.stack([sb.colours(picture) for picture in pictures]).double()

    for i in range(20):  # more results than features, and unequal numbers of the styles
        sb.save(
            folders / f"output/results/cat_stylized_{('ink', 'oil_2', 'mosaic', 'ink')[i % 4]}_{i:05}_.png", 500 + i
        )
    out = sb.evaluate(pack, fid_weights="quick.pth")
    distance = library(feature=Colours())
    for row in out.pairs:
        distance.update(read(pack, folders, "style", row), real=True)
        distance.update(read(pack, folders, "result", row), real=False)
    assert (distance.real_features_num_samples, distance.fake_features_num_samples) == (26, 26)
    assert out.score("fid") == pytest.approx(distance.compute().item(), rel=1e-6)
    assert out.score("fid") > 0.01
    assert "FID, a quick network: " in out.summary
    assert "FID of 26 pictures: compare it only with FIDs of as many" in out.summary


def test_lpips_is_its_papers_and_artfid_its_formula(pack, folders, quick_inception):
    weights = folders / "lpips" / "own.pth"
    eb.save_backbone(weights, "squeezenet1_1")
    for i, path in enumerate([*(folders / "input/contents").iterdir(), *(folders / "output/results").iterdir()]):
        sb.save(path, 50 + i, 64, 72)
    out = sb.evaluate(pack, fid_weights="quick.pth", lpips_weights="own.pth")
    by_hand = [
        eb.lpips_by_hand(weights, "squeezenet1_1", *(read(pack, folders, name, row) for name in ("result", "content")))
        for row in out.pairs
    ]
    assert [float(row["lpips"]) for row in out.pairs] == pytest.approx(by_hand)
    assert out.score("lpips") == pytest.approx(np.mean(by_hand))
    assert out.score("artfid") == pytest.approx((1 + np.mean(by_hand)) * (1 + out.score("fid")))


def test_artfid_is_of_the_same_pairs_on_both_sides(pack, folders, quick_inception):
    """LPIPS needs 64 pixels: where only one pair has it, it is no factor for the FID of all."""
    eb.save_backbone(folders / "lpips" / "own.pth", "squeezenet1_1")
    for path in ("input/contents/cat.png", "output/results/cat_stylized_ink.png"):
        sb.save(folders / path, 8, 80, 96)
    out = sb.evaluate(pack, fid_weights="quick.pth", lpips_weights="own.pth")
    assert out.scores["lpips"]["pairs"] == "1"
    assert ", of 1 pairs only, lower is better" in out.summary
    assert out.scores["artfid"]["not_available"] == "LPIPS is of 1 pairs and FID of 6"


def test_a_picture_without_features_leaves_no_fid(pack, folders, quick_inception, monkeypatch):
    def too_small(self, picture):
        raise pack.core.metrics.available.NotAvailable("it needs 75 pixels")

    monkeypatch.setattr(quick_inception, "features", too_small)
    out = sb.evaluate(pack, fid_weights="quick.pth")
    assert out.scores["fid"]["not_available"] == "cat_stylized_ink.png: it needs 75 pixels"
    assert len(out.pairs) == 6


def test_clip_is_measured_where_it_is_wired(pack, folders):
    model = tiny_clip.make_folder(folders / "clip")
    out = sb.evaluate(pack, clip_vision=tiny_clip.host_vision(model))
    assert all(-1 <= float(row["clip_style"]) <= 1 for row in out.pairs)
    assert sb.fresh(out) == 6
    assert sb.fresh(sb.evaluate(pack, clip_vision=tiny_clip.host_vision(model))) == 0
    inner = next(w for name, w in model.named_parameters() if "vision_model" in name and "encoder" in name)
    inner.data += 0.1
    assert sb.fresh(sb.evaluate(pack, clip_vision=tiny_clip.host_vision(model))) == 6, "another CLIP"


def test_what_has_no_weights_says_why_also_when_nothing_is_computed(pack, folders, metric_folders):
    for _ in range(2):
        out = sb.evaluate(pack, lpips_weights=eb.ALEX, fid_weights="art_inception.pth")
        assert "there is no 'alexnet-owt-7be5be79.pth' in models/lpips" in out.scores["lpips"]["not_available"]
        assert "there is no 'art_inception.pth' in models/fid" in out.scores["fid"]["not_available"]
        assert out.scores["artfid"]["mean"] == out.scores["fid"]["mean"] == out.scores["lpips"]["mean"] == ""
        assert "LPIPS: there is no" in out.scores["artfid"]["not_available"]
        assert out.scores["clip_style"]["not_available"] == "clip_vision is not wired (Load CLIP Vision)"
        assert "not available: FID: there is no 'art_inception.pth'" in out.summary


def test_what_a_picture_lacks_is_in_the_table_and_said_again(pack, folders):
    for path in folders.rglob("*.*"):
        if path.suffix in (".png", ".jpg"):
            sb.save(path, 9, 10, 10)
    first, second = sb.evaluate(pack), sb.evaluate(pack)
    assert (sb.fresh(first), sb.fresh(second)) == (6, 0)
    why = "the region holds no 11 x 11 pixels"
    for out in (first, second):
        assert out.scores["ssim"]["not_available"] == why
        assert {json.loads(row["not_available"])["ssim"] for row in out.pairs} == {why}
    assert second.scores == first.scores


def test_a_row_whose_reasons_were_edited_is_done_again(pack, folders):
    before = sb.evaluate(pack)
    lines = sb.table(folders).read_text().splitlines()
    sb.table(folders).write_text("\n".join([lines[0], lines[1] + "see above", lines[2] + "[1]", *lines[3:]]) + "\n")
    out = sb.evaluate(pack)
    assert sb.fresh(out) == 2
    assert out.pairs == before.pairs


def test_a_second_run_computes_nothing(pack, folders, quick_inception):
    first = sb.evaluate(pack, fid_weights="quick.pth")
    calls, text = quick_inception.calls, sb.table(folders).read_text()
    second = sb.evaluate(pack, fid_weights="quick.pth")
    assert (sb.fresh(first), sb.fresh(second)) == (6, 0)
    assert quick_inception.calls == calls == 6 + 3
    assert (second.pairs, second.scores) == (first.pairs, first.scores)
    assert sb.table(folders).read_text() == text


@pytest.mark.parametrize(
    ("path", "count"),
    [("output/results/cat_stylized_ink.png", 1), ("input/contents/cat.png", 3), ("input/styles/ink.jpg", 2)],
)
def test_changed_files_are_done_again(pack, folders, path, count):
    before = sb.evaluate(pack)
    sb.save(folders / path, 77, 40, 48)
    after = sb.evaluate(pack)
    assert sb.fresh(after) == count
    assert len(eb.rows(sb.table(folders).read_text())) == 6
    assert sum(a != b for a, b in zip(before.pairs, after.pairs, strict=True)) == count


def test_other_settings_are_other_figures(pack, folders, metric_folders):
    sb.evaluate(pack)
    assert sb.fresh(sb.evaluate(pack, size=32)) == 6
    eb.save_backbone(metric_folders / "lpips" / "own.pth", "squeezenet1_1")
    assert sb.fresh(sb.evaluate(pack, size=32, lpips_weights="own.pth")) == 6
    assert sb.fresh(sb.evaluate(pack, size=32, lpips_weights="own.pth")) == 0


def test_interrupted_it_goes_on_where_it_was(pack, folders, quick_inception, monkeypatch):
    checks = []

    def interrupt():
        checks.append(1)
        if len(checks) == 3:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupt)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sb.evaluate(pack, fid_weights="quick.pth")
    assert len(eb.rows(sb.table(folders).read_text())) == 2
    calls = quick_inception.calls
    out = sb.evaluate(pack, fid_weights="quick.pth")
    assert sb.fresh(out) == 4
    assert quick_inception.calls - calls == 9 - 3, "two results and one style were kept"
    assert out.scores["fid"]["pairs"] == "6"


def test_a_row_that_was_cut_off_is_done_again(pack, folders):
    before = sb.evaluate(pack)
    text = sb.table(folders).read_text()
    sb.table(folders).write_text(text[:-25])
    out = sb.evaluate(pack)
    assert sb.fresh(out) == 1
    assert out.pairs == before.pairs
    assert sb.table(folders).read_text() == text


def test_progress_counts_pairs(pack, folders, monkeypatch):
    seen = []
    monkeypatch.setattr(
        comfy.utils.ProgressBar, "update_absolute", lambda _, value, total=None: seen.append((value, total))
    )
    sb.evaluate(pack)
    assert seen == [(i, 6) for i in range(7)]


def test_files_that_are_no_pictures_cost_their_own_pairs(pack, folders):
    sb.evaluate(pack)
    (folders / "output/results/cat_stylized_ink.png").write_bytes(b"\x89PNG but no more")
    (folders / "input/styles/mosaic.jpg").write_bytes(b"")
    out = sb.evaluate(pack)
    assert len(out.pairs) == 3
    assert "skipped 3:" in out.summary
    assert "- cat_stylized_ink.png: cat_stylized_ink.png: it cannot be read as a picture" in out.summary
    assert "- cat_stylized_mosaic.png: mosaic.jpg: it cannot be read as a picture" in out.summary
    assert len(eb.rows(sb.table(folders).read_text())) == 6, "rows that were made are kept"


def test_results_of_another_shape_are_skipped_and_named(pack, folders):
    sb.save(folders / "output/results/cat_stylized_ink.png", 5, 48, 40)
    out = sb.evaluate(pack)
    assert len(out.pairs) == 5
    assert "- cat_stylized_ink.png: result is 40 x 48 pixels and content 48 x 40" in out.summary


def test_larger_results_are_scaled_as_in_compare_images(pack, folders):
    sb.save(folders / "output/results/cat_stylized_ink.png", 5, 80, 96)
    assert len(sb.evaluate(pack).pairs) == 6


def test_rows_of_other_folders_stay_and_of_removed_results_go(pack, folders):
    sb.evaluate(pack)
    other = folders / "output" / "more"
    sb.save(other / "cat_stylized_ink_00001_.png", 9)
    out = sb.evaluate(pack, results_folder="output/more/")
    assert [row["result"] for row in out.pairs] == ["output/more/cat_stylized_ink_00001_.png"]
    (folders / "output/results/cat_stylized_ink.png").unlink()
    out = sb.evaluate(pack)
    assert (len(out.pairs), sb.fresh(out)) == (5, 0)
    assert len(eb.rows(sb.table(folders).read_text())) == 6
