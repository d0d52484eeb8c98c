"""`dev.py verify` without a server: what it refuses, how bounds are held, and that the report names no folder."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tools import results_prompt as rp
from tools.devkit.console import Failure
from tools.results_tables import COLUMNS, Row
from tools.verify import ablation, checkpoint, checks, stages
from tools.verify.about import about, settings_for
from tools.verify.checks import Check
from tools.verify.discreet import discreet
from tools.verify.main import LOG_LINES, Verification, finished, version
from tools.verify.options import verify_parser
from tools.verify.outcome import Outcome, Verdict, at_least, at_most, equal
from tools.verify.report import Report, html_of, text_of

ROOT = Path(__file__).parents[2]
UNET_KEY = "model.diffusion_model.out.2.weight"
FACTS = {
    "family": "SD15 (4 latent channels)", "prediction": "eps", "side": 512, "demo": False, "decoder_layers": 12,
    "weights": "float16", "computes": "float16", "auto": "layers auto: feature 4", "capture_bytes": 8e8,
    "free_ram": 16e9, "parameters": 860e6, "device": "cuda:0 NVIDIA", "attention": "attention_pytorch", "vram": 8e9,
    "ram": 32e9, "threads": 8, "memory_mode": "NORMAL_VRAM", "dynamic_vram": True, "system": "Linux 6, x86_64",
    "comfyui": "0.30.0", "torch": "2.8", "python": "3.12.1", "cuda": "12.8",
}  # fmt: skip


def write_safetensors(path, keys, cut=0):
    """A file of that format with empty tensors of these names."""
    header = json.dumps({key: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for key in keys}).encode()
    path.write_bytes((struct.pack("<Q", len(header)) + header)[: None if not cut else -cut])
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such file: '/home/ann/models/sd 15.safetensors'", "No such file: '<folder>/sd 15.safetensors'"),
        ('File "/opt/ComfyUI/comfy/sd.py", line 7, in load', 'File "<folder>/sd.py", line 7, in load'),
        (r"C:\Users\Ann Other\ComfyUI\models\x.ckpt is gone", r"<folder>/x.ckpt is gone"),
        ("file:///home/bob/x.png, file:///home/ann/y.png", "<folder>/x.png, file://<folder>/y.png"),
        ("/home/annabel/x.png in /home/ann", "<folder>/x.png in <folder>/"),
        (r"cannot open 'D:\\AI\\x.ckpt'", "cannot open '<folder>/x.ckpt'"),
        ("~/pictures/me.png and /tmp/a/b/c.png", "<folder>/me.png and <folder>/c.png"),
        ("\\\\nas\\share\\x.ckpt", "<folder>/x.ckpt"),
        ("ann made this; annual is a word", "<user> made this; annual is a word"),
        ("see https://docs.comfy.org/a/b and 3/4 of 1/2, q/k, and/or", None),
        ("ratio 1.05, [1, 4, 64, 64] on cuda:0", None),
    ],
)
def test_texts_lose_their_folders_and_the_user(text, expected):
    folders = (Path("/home/ann"), Path("C:\\Users\\Ann Other"), Path("/"))
    assert discreet(text, folders, "ann") == (text if expected is None else expected)


def test_a_user_of_two_letters_is_no_word_of_a_text():
    assert discreet("at most 3 as is", user="as") == "at most 3 as is"


@pytest.mark.parametrize(
    ("verdict", "passed"),
    [
        (at_most(1.0, 1.0), True), (at_most(1.001, 1.0), False), (at_most(float("nan"), 1.0), False),
        (at_least(20.0, 20.0, "dB"), True), (at_least(19.9, 20.0, "dB"), False), (at_least(float("nan"), 0.0), False),
        (equal("bits", "ab", "ab"), True), (equal("bits", "ab", "ac"), False),
    ],
)  # fmt: skip
def test_a_bound_holds_up_to_itself_and_never_for_nan(verdict, passed):
    assert verdict.passed is passed


def test_a_verdict_says_figure_bound_and_reason():
    assert at_most(0.01234, 0.5, "dB", "as it is")[:2] == ("0.0123 dB", "at most 0.5 dB (as it is)")
    assert equal("bit for bit", 1, 2).figure == "1, expected 2"


def test_a_checkpoint_is_known_by_its_unet(tmp_path):
    good = write_safetensors(tmp_path / "sd.safetensors", [UNET_KEY, "cond_stage_model.x"])
    assert checkpoint.readable_checkpoint(good, "sd") == good
    assert verify_parser("verify").parse_args(["--checkpoint", str(good)]).checkpoint == good


@pytest.mark.parametrize(
    ("name", "keys", "cut", "words"),
    [
        ("lora.safetensors", ["lora_unet_x.lora_up.weight"], 0, "holds no whole checkpoint: none of its 1 tensors"),
        ("unet.safetensors", ["conv_in.weight"], 0, "a diffusers UNet"),
        ("half.safetensors", [UNET_KEY] * 3, 40, "damaged"),
        ("none.safetensors", None, 0, "there is no file"),
        ("readme.md", [UNET_KEY], 0, "is no checkpoint: its name ends in none of .safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path, capsys, name, keys, cut, words):
    path = tmp_path / name
    if keys is not None:
        write_safetensors(path, keys, cut)
    with pytest.raises(SystemExit) as ended:
        verify_parser("verify").parse_args(["--checkpoint", str(path)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\xff" * 8, struct.pack("<Q", 4) + b"null", struct.pack("<Q", 9) + b"{"]
)
def test_bytes_that_are_no_safetensors_are_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is no safetensors file, or a damaged one"):
        checkpoint.readable_checkpoint(path, "x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", __file__], "is a file; give a folder"),
        (["--steps", "3"], "take 4 steps or more"),
        (["--steps", "many"], "is no whole number"),
        (["--train-steps", "0"], "is no whole number from 1 on"),
    ],
)
def test_other_slips_are_refused_before_the_set_up(capsys, options, words):
    with pytest.raises(SystemExit):
        verify_parser("verify").parse_args(options)
    assert words in capsys.readouterr().err


def test_a_checkpoint_is_linked_never_copied(tmp_path, monkeypatch):
    """Where no link can be made the server is told the folder, whatever letters it is written with."""
    path = write_safetensors(tmp_path / "sd.safetensors", [UNET_KEY])
    base = tmp_path / "base"
    assert checkpoint.staged(path, base) == ()
    assert (base / "models" / "checkpoints" / "sd.safetensors").samefile(path)
    folder = tmp_path / "models: 'mine' \u00e9 \\"
    folder.mkdir()
    monkeypatch.setattr(checkpoint, "linked", lambda source, link: False)
    option, config = checkpoint.staged(folder / "sd.safetensors", base)
    assert option == "--extra-model-paths-config"
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(Path(config).read_text(encoding="utf-8")) == {"verify": {"checkpoints": str(folder)}}


def test_settings_suit_the_checkpoint():
    demo = settings_for("d", {**FACTS, "demo": True, "side": 256}, 50, 160)
    assert demo._replace(saved=True) == rp.Settings("d"), "as demo/results.md was made"
    sd15 = settings_for("s", FACTS, 30, 200)
    assert (sd15.feature, sd15.attention, sd15.side, sd15.storage, sd15.learning_rate) == (
        "4",
        "4-11",
        512,
        "memory",
        0,
    )
    sdxl = settings_for("x", {**FACTS, "decoder_layers": 9, "side": 1024, "capture_bytes": 9e9}, 30, 200)
    assert (sdxl.feature, sdxl.attention, sdxl.storage, sdxl.checkpointing) == ("auto", "auto", "recompute", True)


def test_stages_are_medians_and_ratios_of_the_same_round():
    runs = {
        stages.HOST_ONE: [stages.Measured(s, None, 5) for s in (1.0, 2.0, 4.0)],
        "DDIM Invert": [stages.Measured(s, g, r) for s, g, r in ((2.0, 7, 1), (2.0, 9, 3), (2.0, None, 2))],
    }
    host, invert = stages.rows_of(runs)
    assert (host.seconds, host.ratio, host.gpu, host.ram) == (2.0, None, None, 5)
    assert (invert.seconds, invert.ratio, invert.gpu, invert.ram) == (2.0, 1.0, 9, 3)


def filled():
    """A report with something in every part, hostile letters included."""
    sheet = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(sheet, "JPEG")
    row = Row("bay", "mosaic", "<variant>", dict.fromkeys(COLUMNS, 0.5), 1.0)
    return Report(
        about("my <model>.ckpt", "0.6.0", FACTS, settings_for("m", FACTS, 30, 200)),
        [Outcome("a & b", "1", "2", True), Outcome("worse", "3", "2", False)],
        [stages.Row("DDIM Invert", "KSampler", 0.25, 1.5, 3_500_000_000, 2_000_000_000)],
        [row], [("full keeps more", "1 of 2 pairs")], sheet.getvalue(), [("Capture", "out of <memory>\ntrace")],
    )  # fmt: skip


def test_the_report_is_one_page_with_all_of_it():
    page = html_of(filled())
    for words in (
        "my &lt;model&gt;.ckpt", "a &amp; b", "1 of 2 self-checks passed; 1 part(s) did not", "out of &lt;memory&gt;",
        "1.50 x KSampler", "3.50 GB", "2.00 GB", "&lt;variant&gt;", "full keeps more", "dynamic VRAM",
    ):  # fmt: skip
        assert words in page
    assert page.count('<td class="FAILED">') == 1
    assert page.count('<td class="passed">') == 1
    assert not re.search(r'(?:src|href)="(?!data:)', page), "nothing is loaded from elsewhere"
    with Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page).group(1)))) as picture:
        assert picture.size == (8, 4)


def test_a_report_with_nothing_in_it_is_no_pass():
    assert not Report({}).passed
    assert Report({}, [Outcome("a", "1", "2", True)]).passed
    assert not filled().passed
    assert text_of(filled()).splitlines()[:2] == ["  FAILED  worse: 3", "  FAILED  Capture: out of <memory>"]


def test_a_check_that_fails_does_not_stop_the_next(capsys):
    def broken(bench):
        raise Failure("open", "/home/ann/x.ckpt is gone.", "look.")

    verification = Verification(None, None, Report({}), lambda text: discreet(text, user=""))
    verification.check([Check("one", broken), Check("two", lambda bench: Verdict("1", "2", True))])
    one, two = verification.report.checks
    assert (one.passed, one.error) == (False, "Stage 'open' failed: <folder>/x.ckpt is gone.")
    assert two.passed
    assert verification.report.problems == [("one", "Stage 'open' failed: <folder>/x.ckpt is gone.\nWhat to do: look.")]
    assert "FAILED  one" in capsys.readouterr().out


def test_the_same_failure_is_told_once():
    def gone(bench):
        raise Failure("run", "the server ended.", "see its log.")

    verification = Verification(None, None, Report({}), str)
    verification.check([Check("one", gone), Check("two", gone), Check("three", gone)])
    assert [check.passed for check in verification.report.checks] == [False] * 3
    assert [text.endswith("(as above)") for _, text in verification.report.problems] == [False, True, True]


def test_an_interrupted_run_keeps_what_it_has(monkeypatch):
    """And of the server's log its start and end, without what every prompt writes."""

    def interrupted(bench):
        raise KeyboardInterrupt

    lines = [
        "start",
        "[INFO] got prompt",
        " 50%|#####     | 2/4",
        "Prompt executed in 0.1 seconds",
        "",
        "/home/ann/x y",
    ]
    lines += [f"line {i}" for i in range(500)]
    monkeypatch.setattr(
        checks, "BEFORE", (Check("one", lambda bench: Verdict("1", "2", True)), Check("two", interrupted))
    )
    server = SimpleNamespace(log_text=lambda: "\n".join(lines))
    verification = Verification(server, None, Report({}), lambda text: discreet(text, user=""))
    assert not finished(verification, 1)
    report = verification.report
    assert [check.claim for check in report.checks] == ["one"]
    assert report.problems == [("verify", "interrupted; what came before is here")]
    assert not report.passed
    kept = report.log.splitlines()
    assert (kept[:3], kept[-1]) == (["start", "<folder>/x y", "line 0"], "line 499")
    assert kept[LOG_LINES // 2] == "..."
    assert len(kept) == LOG_LINES + 1


@pytest.mark.parametrize(("option", "words"), [("--checkpoint", "there is no file 'nowhere'"), ("--stepz", "--stepz")])
def test_dev_py_refuses_a_slip_before_anything_is_set_up(option, words):
    command = [sys.executable, str(ROOT / "tools" / "dev.py"), "verify", option, "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_claims_are_counted_by_pairs():
    settings = rp.Settings(steps=30)
    names = [ablation.words_of(variant, settings) for variant in ablation.VARIANTS]
    assert len(set(names)) == len(names)
    assert names[1:3] == ["features, 18 of 30 steps", "features, attention fixed 15 of 30"]
    rising, falling = (
        ablation.Pair(tuple(Row("c", "s", name, {"edges": sign * i}, 0.0) for i, name in enumerate(names)), ())
        for sign in (1, -1)
    )
    assert [holds for _, holds in ablation.claims([rising, falling], settings)] == ["1 of 2 pairs"] * 3


def test_the_version_is_the_packs():
    assert re.fullmatch(r"\d+\.\d+\.\d+", version())
