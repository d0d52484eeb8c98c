"""Evaluate Set's files: what their names say, places that are refused, tables and disks that are in the way."""

from __future__ import annotations

import numpy as np
import pytest
import regions_bench as rb
import set_bench as sb
import torch
from PIL import Image

pytest_plugins = ("evaluation_fixtures",)


CONTENTS, STYLES = (
    dict.fromkeys(("a", "b_stylized_c", "a_stylized_b")),
    dict.fromkeys(("x", "x_00001_", "c_stylized_x", "y")),
)


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("a_stylized_x", [("a", "x")]),
        ("a_stylized_y_00012_", [("a", "y")]),
        ("a_stylized_y_00012", [("a", "y")]),
        ("a_stylized_x_00001_", [("a", "x_00001_")]),
        ("b_stylized_c_stylized_x", [("b_stylized_c", "x")]),
        ("a_stylized_b_stylized_c_stylized_x", [("a_stylized_b", "c_stylized_x")]),
        ("a_stylized_c_stylized_x", [("a", "c_stylized_x")]),
        ("a_stylized_z", []),
        ("x_stylized_a", []),
        ("a_x", []),
        ("_stylized_", []),
        ("a_stylized_y_12", []),
    ],
)
def test_names_say_what_results_were_made_of(pack, stem, found):
    assert pack.core.evaluation.set_plan.readings(stem, CONTENTS, STYLES) == found


def test_names_that_can_be_read_in_two_ways_are_skipped(pack, folders):
    for name in ("contents/cat_stylized_ink.png", "styles/ink_stylized_ink.png"):
        sb.save(folders / "input" / name, 3)
    sb.save(folders / "output/results/cat_stylized_ink_stylized_ink.png", 4)
    sb.save(folders / "output/results/nobody.png", 4)
    out = sb.evaluate(pack)
    assert "- cat_stylized_ink_stylized_ink.png: its name can be read in several ways" in out.summary
    assert "- nobody.png: its name fits no content and style" in out.summary


@pytest.mark.parametrize("deep", [np.full((8, 8), 30000, np.uint16), np.full((8, 8), 0.5, np.float32)])
def test_pictures_that_are_not_8_bit_are_named(pack, folders, deep):
    """PIL would clip them, to white or black."""
    Image.fromarray(deep).save(folders / "output/results/cat_stylized_ink.tif")
    out = sb.evaluate(pack)
    assert "- cat_stylized_ink.tif: cat_stylized_ink.tif: it cannot be read as a picture (its values" in out.summary
    assert len(out.pairs) == 6


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (512, 512), (64, 777)])
def test_pictures_are_scaled_as_the_field_does(pack, tmp_path, size):
    functional = pytest.importorskip("torchvision.transforms.functional")
    sb.save(tmp_path / "a.png", 1, *size)
    with Image.open(tmp_path / "a.png") as picture:
        expected = functional.to_tensor(functional.resize(picture, 128)).movedim(0, -1)
    assert torch.equal(pack.host.evaluation.picture_files.read_picture(tmp_path / "a.png", 128), expected)


def test_a_file_that_is_added_makes_the_node_run_again(pack, folders):
    stamp = pack.evaluate.evaluate_set.EvaluateSet.fingerprint_inputs
    before = stamp(**sb.FOLDERS)
    assert before == stamp(**sb.FOLDERS)
    sb.save(folders / "output/results/cat_stylized_ink_00002_.png", 3)
    assert before != stamp(**sb.FOLDERS)
    assert stamp(results_folder=None, content_folder="../..") == "    "


OUTSIDE = [
    "",
    "/etc",
    "../input",
    "output/../../x",
    "output/./x",
    "C:/x",
    "output\\x",
    "models/lpips",
    "output/a//b",
    "~",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("widget", list(sb.FOLDERS))
def test_folders_elsewhere_are_refused(pack, folders, widget, name):
    with rb.refuses(f"{widget}: ", repr(name)):
        sb.evaluate(pack, **{widget: name})


@pytest.mark.parametrize("name", ["", "/tmp/x", "../x", "a/../x", "a\\x", "a/", "C:x"])
def test_tables_elsewhere_are_refused(pack, folders, name):
    with rb.refuses("filename_prefix: ", repr(name), "plain name"):
        sb.evaluate(pack, filename_prefix=name)


def test_links_do_not_lead_out(pack, folders, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    sb.save(away / "cat_stylized_ink.png", 1)
    (folders / "output" / "link").symlink_to(away)
    with rb.refuses("results_folder: 'output/link' is a link that leads out of ComfyUI's output directory"):
        sb.evaluate(pack, results_folder="output/link")
    with rb.refuses("filename_prefix: 'link/set' leads out of ComfyUI's output directory"):
        sb.evaluate(pack, filename_prefix="link/set")
    (folders / "output/results/old_dog_stylized_ink_00001_.png").symlink_to(away / "cat_stylized_ink.png")
    out = sb.evaluate(pack)
    assert "- old_dog_stylized_ink_00001_.png: it is no file, or a link that leads out of its folder" in out.summary
    (folders / "input/contents/bird.png").symlink_to(away / "cat_stylized_ink.png")
    assert "- bird.png: it is no file, or a link" in sb.evaluate(pack).summary
    (folders / "output" / "own.csv").symlink_to(away / "written.csv")
    with rb.refuses("leads out"):
        sb.evaluate(pack, filename_prefix="own")
    assert sorted(path.name for path in away.iterdir()) == ["cat_stylized_ink.png"]


@pytest.mark.parametrize("text", ["name,price\nbread,2\n", "name,price", "\0\n", '"' + 200_000 * "a" + "\n"])
def test_another_table_is_left_alone(pack, folders, text):
    sb.table(folders).parent.mkdir()
    sb.table(folders).write_text(text)
    with rb.refuses("filename_prefix", "is no table of this node", repr(text[:60]), "Choose another name"):
        sb.evaluate(pack)
    assert sb.table(folders).read_text() == text


def test_a_folder_in_the_tables_place_is_named(pack, folders):
    sb.table(folders).mkdir(parents=True)
    with rb.refuses("filename_prefix", "set.csv cannot be read", "Choose another name"):
        sb.evaluate(pack)


def test_a_table_that_a_spreadsheet_saved_is_continued(pack, folders):
    sb.evaluate(pack)
    rows = sb.table(folders).read_text()
    sb.table(folders).write_text("\ufeff" + rows.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert sb.fresh(sb.evaluate(pack)) == 0
    assert sb.table(folders).read_text() == rows


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"results_folder": "output/none"}, ("results_folder: there is no folder 'output/none'", "Check its name")),
        ({"results_folder": "input/styles"}, ("none of the 3 pictures", "<content>_stylized_<style>.png", "e.g. cat_")),
        ({"style_folder": "output"}, ("style_folder: there are no pictures in", "Put some there")),
        ({"size": -1}, ("size must be 0", "-1", "512")),
    ],
)
def test_refusals(pack, folders, changes, words):
    with rb.refuses(*words):
        sb.evaluate(pack, **changes)


def test_two_contents_of_one_name_are_refused(pack, folders):
    sb.save(folders / "input/contents/cat.jpg", 1)
    with rb.refuses("content_folder: cat.jpg and cat.png have one name", "Rename one"):
        sb.evaluate(pack)


def test_a_disk_that_takes_nothing_is_named(pack, folders, monkeypatch):
    sb.evaluate(pack)
    sb.save(folders / "output/results/cat_stylized_ink.png", 8)
    path_class = type(sb.table(folders))
    opened = path_class.open

    def full(self, mode="r", *given, **options):
        if "a" in mode:
            raise OSError(28, "No space left on device")
        return opened(self, mode, *given, **options)

    before = sb.table(folders).read_text()
    with monkeypatch.context() as patch:
        patch.setattr(path_class, "open", full)
        with rb.refuses("set.csv cannot be written (No space left on device)", "not computed twice"):
            sb.evaluate(pack)
    assert sb.table(folders).read_text() == before


def test_a_table_that_another_program_holds_is_named(pack, folders, monkeypatch):
    """On Windows a spreadsheet that has the table open keeps it from being replaced."""
    sb.evaluate(pack)
    before = sb.table(folders).read_text()

    def held(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(pack.core.evaluation.set_table.os, "replace", held)
        with rb.refuses("set.csv cannot be written (Permission denied)", "close the program"):
            sb.evaluate(pack)
    assert sb.table(folders).read_text() == before
    assert sb.fresh(sb.evaluate(pack)) == 0


def test_a_file_that_cannot_be_opened_is_named(pack, folders, monkeypatch):
    digest = pack.host.evaluation.picture_files.digest

    def closed(path):
        if path.name == "oil_2.jpg":
            raise pack.core.metrics.available.NotAvailable("it cannot be read (Permission denied)")
        return digest(path)

    monkeypatch.setattr(pack.evaluate.evaluate_set, "digest", closed)
    out = sb.evaluate(pack)
    assert "- cat_stylized_oil_2.png: oil_2.jpg: it cannot be read (Permission denied)" in out.summary
    assert len(out.pairs) == 4
