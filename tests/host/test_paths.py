"""Names from widgets: what stays in the host's folders, what is refused by name, which links are followed."""

from __future__ import annotations

import folder_paths
import pytest

INSIDE = ["a.bin", "sub/a.bin", "sub/deep/a.bin", "dots..in.name.bin", "caf\u00e9.bin"]
OUTSIDE = [
    "", "a.txt", "../a.bin", "sub/../../a.bin", "..\\a.bin", "sub\\..\\..\\a.bin", "/a.bin", "\\a.bin", "C:a.bin",
    "C:\\a.bin", "\\\\host\\share\\a.bin", "\ud800.bin", "a" * 5000 + ".bin",
]  # fmt: skip


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of a kind of models of its own, and what lies beside it."""
    home = tmp_path / "home"
    (home / "sub" / "deep").mkdir(parents=True)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "kind", ([str(home)], {".bin"}))
    (tmp_path / "a.bin").write_bytes(b"outside")
    return home


def found(pack, name, **options):
    return pack.host.paths.model_file("kind", name, "file_name", (".bin",), **options)


@pytest.mark.parametrize("name", INSIDE)
def test_a_file_inside_is_found_and_stamped(pack, models, name):
    assert found(pack, name) is None
    assert pack.host.identity.model_stamp("kind", name) == ""
    (models / name).write_bytes(b"1")
    assert found(pack, name) == models / name
    first = pack.host.identity.model_stamp("kind", name)
    (models / name).write_bytes(b"22")
    assert pack.host.identity.model_stamp("kind", name) not in ("", first)


@pytest.mark.parametrize("name", OUTSIDE, ids=range(len(OUTSIDE)))
def test_a_name_that_leads_elsewhere_is_refused(pack, models, name):
    with pytest.raises(ValueError, match=r"^file_name ") as caught:
        found(pack, name)
    assert len(str(caught.value)) < 300
    assert pack.host.identity.model_stamp("kind", name) == ""


def test_links_out_are_followed_only_where_the_host_does(pack, models, tmp_path):
    (models / "link.bin").symlink_to(tmp_path / "a.bin")
    (models / "within.bin").symlink_to(models / "real.bin")
    (models / "real.bin").write_bytes(b"1")
    assert found(pack, "within.bin") == models / "within.bin"
    assert found(pack, "link.bin", links=True) == models / "link.bin"
    with pytest.raises(
        ValueError, match=r"file_name: 'link\.bin' is a link that leads out of models/kind, to .*a\.bin"
    ):
        found(pack, "link.bin")


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_folder_may_end_with_a_slash_and_a_new_file_may_not(pack, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    (tmp_path / "out" / "a").mkdir(parents=True)
    assert pack.host.paths.host_folder(f"output/a{ending}", "folder") == tmp_path / "out" / "a"
    if ending:
        with pytest.raises(ValueError, match=r"filename_prefix: 'a/b/' is no plain name"):
            pack.host.paths.output_file(f"a/b{ending}", ".csv")
    else:
        assert pack.host.paths.output_file("a/b", ".csv") == tmp_path / "out" / "a" / "b.csv"
