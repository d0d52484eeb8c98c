"""tools/dev.py's own parts: stages, downloads, reading pyproject.toml, reports. No host, no network."""

import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tools.devkit import checks, fetch, host, links, process, project, reports, stages
from tools.devkit.chromium import find_chromium
from tools.devkit.console import Failure
from tools.devkit.demo_options import demo_parser
from tools.devkit.lanes import lanes

ROOT = Path(__file__).parents[2]


class Plan:
    """Three stages that note when they act."""

    def __init__(self, folder):
        self.folder = folder
        self.done = []
        self.inputs = {"a": "1", "b": "1", "c": "1"}
        self.trouble = {}
        self.broken = set()

    def run(self):
        self.done.clear()
        stages.run([self._stage(name) for name in "abc"], stages.Ledger(self.folder / "stamps"), self.folder)
        return "".join(self.done)

    def _stage(self, name):
        def act():
            if name in self.trouble:
                raise self.trouble[name]
            self.done.append(name)

        return stages.Stage(
            name, name, "at once", 0.0, lambda: (self.inputs[name],), act, "do this", lambda: name not in self.broken
        )


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path)


def test_finished_stages_are_not_repeated(plan):
    assert plan.run() == "abc"
    assert plan.run() == ""


@pytest.mark.parametrize(("changed", "redone"), [("a", "abc"), ("b", "bc"), ("c", "c")])
def test_a_changed_input_redoes_the_stage_and_those_after_it(plan, changed, redone):
    plan.run()
    plan.inputs[changed] = "2"
    assert plan.run() == redone
    assert plan.run() == ""


def test_a_stage_whose_product_is_gone_is_redone(plan):
    plan.run()
    plan.broken.add("b")
    assert plan.run() == "bc"


@pytest.mark.parametrize("trouble", [OSError("no route"), KeyboardInterrupt()])
def test_a_half_done_stage_is_redone_and_earlier_ones_are_kept(plan, trouble):
    plan.trouble["b"] = trouble
    with pytest.raises((Failure, KeyboardInterrupt), match="'b'"):
        plan.run()
    plan.trouble.clear()
    assert plan.run() == "bc"


def test_a_stage_that_fails_on_its_second_time_does_not_count_as_done(plan):
    plan.run()
    plan.inputs["b"], plan.trouble["b"] = "2", OSError("no route")
    with pytest.raises(Failure):
        plan.run()
    plan.inputs["b"] = "1"
    plan.trouble.clear()
    assert plan.run() == "bc"


def test_a_failure_names_the_stage_and_the_remedy(plan):
    plan.trouble["c"] = OSError("no route to host")
    with pytest.raises(Failure, match=r"(?s)Stage 'c' failed: no route to host.*do this"):
        plan.run()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "x"}'])
def test_a_damaged_stamp_counts_as_none(plan, text):
    plan.run()
    (plan.folder / "stamps" / "c.json").write_text(text)
    assert plan.run() == "c"


def test_free_disk_is_asked_for_before_anything_is_done(tmp_path):
    stages.require_free_disk(tmp_path / "not" / "yet", 9.0, lambda path: 9_000_000_000)
    with pytest.raises(Failure, match=r"(?s)'free disk'.*about 9\.0 GB.*3\.2 GB are free.*COMFYUI_PATH"):
        stages.require_free_disk(tmp_path / "not" / "yet", 9.0, lambda path: 3_200_000_000)


def test_a_wrong_sum_is_refused(tmp_path):
    file = tmp_path / "archive.tar.gz"
    file.write_bytes(b"abc")
    fetch.require_sha256(file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(Failure, match=r"(?s)archive\.tar\.gz has sha256 ba78.*expected 0000.*delete"):
        fetch.require_sha256(file, "0" * 64)


def archive_of(path, entries):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_only_the_folder_is_extracted_and_an_older_one_replaced(tmp_path):
    archive = archive_of(tmp_path / "a.tgz", {"p-1/in/x/y.py": b"y", "p-1/in/z": b"z", "p-1/out.py": b"o"})
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "old.py").write_text("old")
    fetch.extract_folder(archive, "p-1/in", tmp_path / "to")
    found = sorted(path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*"))
    assert found == ["x", "x/y.py", "z"]


@pytest.mark.parametrize(
    "entries",
    [
        {"p/in/../../evil": b"e"},
        {"p/in/..\\evil": b"e"},
        {"p/in/C:evil": b"e"},
        {"p/in/link": "/etc"},
        {"p/elsewhere": b"e"},
    ],
)
def test_a_path_that_leads_out_a_link_and_a_missing_folder_are_refused(tmp_path, entries):
    archive = archive_of(tmp_path / "a.tgz", entries)
    with pytest.raises(Failure):
        fetch.extract_folder(archive, "p/in", tmp_path / "deep" / "down" / "to")
    assert not list(tmp_path.rglob("evil"))
    assert not (tmp_path / "deep" / "down" / "to").exists()


def test_pyproject_is_read_as_tomllib_reads_it():
    tomllib = pytest.importorskip("tomllib")
    read = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    expected = (*read["dependencies"], *read["optional-dependencies"]["dev"])
    assert project.requirements(ROOT / "pyproject.toml", "dev") == expected


def test_arrays_may_hold_comments_brackets_and_markers():
    text = (
        '[a]\nk = ["no"]\n[project] # here\nname = "x"\nk = [ # first\n "p[q]>=1,<2", # ]\n'
        " \"r; python_version < '3.11'\",\n]\nl = []\n"
    )
    assert project.string_array(text, "project", "k") == ("p[q]>=1,<2", "r; python_version < '3.11'")
    assert project.string_array(text, "project", "l") == ()


@pytest.mark.parametrize("text", ["[project]\n", "[project]\nk = 3\n", '[project]\nk = ["a"', "[project]\nk = [1]\n"])
def test_an_array_that_is_not_there_or_not_of_strings_is_refused(text):
    with pytest.raises(Failure, match=r"\[project\] k"):
        project.string_array(text, "project", "k")


def comfyui_in(folder):
    (folder / "comfy").mkdir(parents=True)
    for name in ("main.py", "folder_paths.py"):
        (folder / name).touch()
    return folder


def test_the_host_is_the_one_told_else_the_one_around_the_pack(tmp_path):
    around = comfyui_in(tmp_path / "around")
    told = comfyui_in(tmp_path / "told")
    pack = around / "custom_nodes" / "pack"
    assert host.told_comfyui(pack, {"COMFYUI_PATH": str(told)}) == told
    assert host.told_comfyui(pack, {}) == around
    assert host.told_comfyui(tmp_path / "clone", {}) is None
    with pytest.raises(Failure, match="COMFYUI_PATH"):
        host.told_comfyui(pack, {"COMFYUI_PATH": str(tmp_path)})


def test_a_told_environment_that_lacks_a_package_is_named_with_the_remedy(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["no-such-package-at-all>=3"]\n')
    environ = {"COMFYUI_PATH": str(comfyui_in(tmp_path / "told")), "COMFYUI_PYTHON": sys.executable}
    with pytest.raises(Failure, match=r'(?s)lacks.*pip install .*"no-such-package-at-all>=3"'):
        host.prepare(tmp_path, environ)


def test_a_python_without_its_comfyui_is_refused(tmp_path):
    with pytest.raises(Failure, match="COMFYUI_PATH is not"):
        host.prepare(tmp_path, {"COMFYUI_PYTHON": sys.executable})


def test_a_folder_link_is_made_kept_and_renewed(tmp_path):
    one, two, link = tmp_path / "one", tmp_path / "two", tmp_path / "deep" / "link"
    one.mkdir()
    two.mkdir()
    for source in (one, one, two):
        links.link_folder(source, link)
        assert link.samefile(source)


def test_a_folder_of_somebody_is_not_replaced_by_a_link(tmp_path):
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "theirs").touch()
    with pytest.raises(Failure, match="move"):
        links.link_folder(tmp_path, tmp_path / "link")


JUNIT = (
    '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/><testsuite tests="1" failures="0" '
    'errors="0" skipped="0"/></testsuites>'
)


def test_junit_counts(tmp_path):
    (tmp_path / "r.xml").write_text(JUNIT)
    assert reports.read_junit(tmp_path / "r.xml") == reports.Counts(passed=4, failed=3, skipped=3)
    assert reports.read_junit(tmp_path / "none.xml") is None


@pytest.mark.parametrize(
    ("code", "counts", "state", "failed"),
    [
        (0, reports.Counts(3, 0, 1), "ok", 0),
        (1, reports.Counts(3, 2, 1), "FAILED", 2),
        (5, reports.Counts(), "skipped", 0),
        (-11, None, "FAILED", 1),  # it crashed
        (None, None, "FAILED", 1),  # it hung
        (3, reports.Counts(3, 0, 0), "FAILED", 1),  # it broke after its tests
    ],
)
def test_a_suite_passes_only_when_pytest_says_so(code, counts, state, failed):
    outcome = checks.judge("core", code, counts)
    assert (outcome.state, outcome.counts.failed) == (state, failed)


@pytest.mark.parametrize(
    ("arguments", "cores", "ram", "count"),
    [
        ((), 2, 23.0, 2),
        (("-k", "snapshot"), 16, 128.0, 8),
        ((), 16, 14.0, 3),
        ((), 2, 7.0, 0),
        ((), 1, 64.0, 0),
        (("-n", "4"), 2, 23.0, 0),
        (("-x", "--pdb"), 2, 23.0, 0),
    ],
)
def test_a_suite_takes_a_process_a_core_as_far_as_the_memory_goes(arguments, cores, ram, count):
    assert lanes(arguments, cores, ram) == (["-n", str(count), "--dist", "worksteal"] if count else [])


def test_the_last_line_is_the_sum():
    outcomes = [
        reports.Outcome("lint", "ok", 0.3),
        reports.Outcome("core", "FAILED", 75.0, reports.Counts(10, 1, 2)),
        reports.Outcome("browser", "skipped", 0.0, reports.Counts(skipped=4), "no Chromium"),
    ]
    lines = reports.table(outcomes).splitlines()
    assert lines[-1] == "10 passed, 1 failed, 6 skipped"
    assert "1 min 15 s" in lines[2]
    assert lines[3].endswith("no Chromium")


def test_chromium_named_but_missing_is_not_replaced_by_another(tmp_path):
    assert find_chromium({"DIFFSTYLER_CHROMIUM": str(tmp_path / "none")}) is None
    assert find_chromium({"DIFFSTYLER_CHROMIUM": sys.executable}) == Path(sys.executable)


def test_output_is_logged_and_a_failing_command_shows_its_end(tmp_path):
    script = "print('Progress 1 of 9'); print('the reason'); raise SystemExit(3)"
    with pytest.raises(process.CommandFailed, match=r"(?s)code 3.*the reason.*out\.log"):
        process.run_logged([sys.executable, "-c", script], log=tmp_path / "out.log", label="x")
    assert (tmp_path / "out.log").read_text().splitlines()[1:] == ["the reason"]


@pytest.mark.skipif(process.WINDOWS, reason="looks at process ids the POSIX way")
def test_a_stopped_command_takes_its_children_along(tmp_path):
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    parent = process.spawn([sys.executable, "-c", script], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    process.stop_tree(parent)
    parent.stdout.close()
    assert ends(child)


def test_a_guarded_script_ends_with_its_starter(tmp_path):
    script = tmp_path / "main.py"
    script.write_text("import sys, time\nprint(__name__, sys.argv[1:], flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, str(process.GUARD), str(script), "--a"]
    guarded = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert guarded.stdout.readline().split() == [b"__main__", b"['--a']"]
    guarded.stdin.close()  # what the system does when the starter is gone
    assert guarded.wait(10) == 1
    guarded.stdout.close()


@pytest.mark.skipif(process.WINDOWS, reason="sends a POSIX signal")
@pytest.mark.parametrize(("ending", "expected"), [("raise SystemExit(0)", "0"), ("raise SystemExit(7)", "interrupted")])
def test_an_interrupt_reaches_the_command_and_its_clean_up_is_waited_for(tmp_path, ending, expected):
    (tmp_path / "child.py").write_text(
        "import pathlib, time\n"
        "try:\n    pathlib.Path('up').touch()\n    time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    time.sleep(0.3)\n    pathlib.Path('cleaned').touch()\n    {ending}\n"
    )
    starter = (
        "import os, pathlib, sys\nfrom tools.devkit.process import interrupts_on_terminate, run_foreground\n"
        "interrupts_on_terminate()\n"
        "try:\n    print(run_foreground([sys.executable, 'child.py'], env=os.environ, cwd=pathlib.Path('.')))\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, "-c", starter], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    running.terminate()
    assert running.communicate(timeout=20)[0].decode().strip() == expected
    assert (tmp_path / "cleaned").exists()


def ends(pid):
    """Whether a process is gone, or a zombie that nobody has fetched yet, within five seconds."""
    import psutil

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--content", "nowhere.png"], ["--set", "no dot=1"], ["--oops"]])
def test_demo_refuses_a_slip_before_anything_is_set_up(wrong, capsys):
    with pytest.raises(SystemExit):
        demo_parser("demo").parse_args(wrong)
    assert wrong[-1] in capsys.readouterr().err


def test_demo_reads_settings_of_any_node():
    options = demo_parser("demo").parse_args(["--set", "Injected LoRA Sampler.cfg=7.5"])
    assert options.set == [("Injected LoRA Sampler", "cfg", "7.5")]
