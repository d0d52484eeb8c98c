"""tools/dev.py on other hosts: which parts run there, older environments, builds of the frontend. No network."""

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.devkit import checks, fetch, frontends, older_host, own_host, project, testing
from tools.devkit.console import Failure

ROOT = Path(__file__).parents[2]
STATIC = "comfyui_frontend_package/static/"


@pytest.mark.parametrize(
    ("parts", "comfyui", "frontend", "chosen"),
    [
        ([], None, None, checks.PARTS),
        (["host", "core"], None, None, ("host", "core")),
        ([], None, "newest", ("browser",)),
        ([], "0.24.0", None, checks.SUITES),
        (["frontend"], "0.24.0", None, ("frontend",)),
        ([], "0.18.2", None, ("older",)),
        (["older"], "0.16.3", None, ("older",)),
    ],
)
def test_the_parts_are_those_that_run_there(parts, comfyui, frontend, chosen):
    assert testing.chosen_parts(ROOT, parts, comfyui, frontend) == chosen


@pytest.mark.parametrize(
    ("parts", "comfyui", "words"),
    [
        (["host"], "0.18.2", r"(?s)does not load on ComfyUI 0\.18\.2.*'older'"),
        (["older"], None, r"(?s)too old.*--comfyui 0\.18\.2"),
        (["older", "core"], "0.24.0", r"(?s)too old.*--comfyui 0\.18\.2"),
    ],
)
def test_a_part_that_cannot_run_there_is_refused(parts, comfyui, words):
    with pytest.raises(Failure, match=words):
        testing.chosen_parts(ROOT, parts, comfyui, None)


def test_the_registry_the_sentence_and_the_readme_say_the_same_version():
    spec = importlib.util.spec_from_file_location("requirement", ROOT / "nodes" / "host" / "requirement.py")
    requirement = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(requirement)
    oldest = project.oldest_comfyui(ROOT / "pyproject.toml")
    assert ".".join(map(str, oldest)) == requirement.OLDEST
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"You need ComfyUI ([\d.]+\d) or newer", readme).group(1) == f"{oldest[0]}.{oldest[1]}"
    assert requirement.OLDEST in [sources.comfyui for sources in fetch.OLDER], "the oldest is one that is tested"


def test_a_pyproject_that_says_no_version_is_refused(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.other]\nrequires-comfyui = ">=1.0"\n[tool.comfy]\nx = 1\n')
    with pytest.raises(Failure, match=r"requires-comfyui"):
        project.oldest_comfyui(tmp_path / "pyproject.toml")


def test_an_older_environment_has_its_own_packages_first_and_the_others_behind(tmp_path):
    older_host.make_layer(Path(sys.executable), tmp_path / "venv", tmp_path)
    python = own_host.venv_python(tmp_path / "venv")
    own = Path(older_host.site_packages(python)[0])
    assert tmp_path in own.parents
    (own / "psutil.py").write_text("OWN = True\n")
    script = "import psutil, pytest, sys; print(psutil.OWN, pytest.__file__, sys.prefix, sep='\\n')"
    shown = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == ["True", pytest.__file__, str(tmp_path / "venv")]


def wheel_of(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_only_the_build_is_taken_from_a_wheel_and_an_older_one_replaced(tmp_path):
    wheel = wheel_of(tmp_path / "a.whl", [f"{STATIC}index.html", f"{STATIC}assets/a.js", "a.dist-info/METADATA"])
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "old.js").touch()
    frontends.unpack(wheel, tmp_path / "to")
    found = sorted(path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*"))
    assert found == ["assets", "assets/a.js", "index.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.whl", "to"]


def test_a_wheel_without_a_page_is_refused(tmp_path):
    wheel = wheel_of(tmp_path / "a.whl", [f"{STATIC}assets/a.js"])
    with pytest.raises(Failure, match=r"a\.whl has no .*index\.html"):
        frontends.unpack(wheel, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_wheel_with_another_sum_than_the_tried_ones_is_refused(tmp_path):
    folder = tmp_path / ".host" / "download"
    folder.mkdir(parents=True)
    name = f"comfyui_frontend_package-{frontends.TRIED}-py3-none-any.whl"
    wheel_of(folder / name, [f"{STATIC}index.html"])
    with pytest.raises(
        Failure, match=rf"(?s){re.escape(name)} has sha256.*expected {frontends.SHA256[frontends.TRIED]}"
    ):
        frontends.prepare(tmp_path, Path(sys.executable), frontends.TRIED)
    assert not (tmp_path / ".host" / "frontends").exists()


@pytest.mark.parametrize(("text", "good"), [("newest", True), ("1.58.1", True), ("1.x", False), ("../1.2", False)])
def test_a_frontend_is_a_number_or_the_newest(text, good):
    assert frontends.is_version(text) == good
