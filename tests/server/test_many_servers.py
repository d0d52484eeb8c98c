"""scripts/many_servers.py on two real servers, one of which is killed while it works."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import av
import numpy as np
import pytest
from PIL import Image

from tests.server.small_run import RESULT, SAMPLER, TRAIN, small_run
from tools.pack_server import ROOT, pack_server
from tools.workflow_api import set_input
from tools.workflow_fixtures import with_loaders

SCRIPT = ROOT / "scripts" / "many_servers.py"
CONTENTS, STYLES = ("bay", "hill", "mug"), ("ink", "oil")
INVERT = "11"


def picture(file, seed, size=64):
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(file)


def clip(file):
    with av.open(file, "w") as video:
        stream = video.add_stream("mpeg4", rate=4)
        stream.width = stream.height = stream.codec_context.width = stream.codec_context.height = 64
        for shade in (60, 200):
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8))))
        video.mux(stream.encode())


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for name in ("contents", "styles", "clips"):
        (folder / name).mkdir()
    for seed, name in enumerate(CONTENTS + STYLES):
        picture(folder / ("contents" if name in CONTENTS else "styles") / f"{name}.png", seed)
    (folder / "one_style.json").write_text(json.dumps(with_loaders(small_run())))
    return folder


def start(servers, work, *more, contents="contents", output="made", workflow="one_style.json"):
    """The script as a user starts it, its words going into a file."""
    urls = [server.url for server in servers]
    folders = ["--contents", work / contents, "--styles", work / "styles", "--output", work / output]
    command = [sys.executable, SCRIPT, "--servers", *urls, *folders, "--workflow", work / workflow, *more]
    with (work / "words.txt").open("w") as words:
        return subprocess.Popen(list(map(str, command)), stdout=words, stderr=subprocess.STDOUT, cwd=work)


def finish(process, work, seconds=400):
    """-> (exit code, what it said)"""
    try:
        code = process.wait(seconds)
    finally:
        process.kill()
    return code, (work / "words.txt").read_text()


def prompts(history):
    """The prompts that were run to their end, in their order: (prompt, nodes whose result was there already)."""
    done = [entry for entry in history.values() if entry["status"]["status_str"] == "success"]
    cached = [dict(entry["status"]["messages"])["execution_cached"]["nodes"] for entry in done]
    return [(entry["prompt"][2], nodes) for entry, nodes in zip(done, cached, strict=True)]


def name_of(value):
    """'ink' of what the script calls a file on the servers."""
    return re.fullmatch(r"(?:many_servers/)?(\w+)-[0-9a-f]{12}\.\w+", value)[1]


def pair_of(prompt):
    return name_of(prompt["2"]["inputs"]["image"]), name_of(prompt[SAMPLER]["inputs"]["lora_name"])


def running(server):
    """The prompt that a server is at, or {}."""
    with urlopen(f"{server.url}/queue") as answer:
        at_work = json.load(answer)["queue_running"]
    return at_work[0][2] if at_work else {}


@pytest.fixture(scope="module")
def ran(server, work, tmp_path_factory):
    """All pairs on two servers; one is killed when it has a training behind it and is at its first picture."""
    before = set(server.client.history())
    with pack_server(tmp_path_factory.mktemp("victim"), lora_folder=True) as victim:
        process = start([victim, server], work, "--patience", "5")
        try:
            until = time.monotonic() + 400
            while not (RESULT in (now := running(victim)) and len(done := prompts(victim.client.history())) == 1):
                assert time.monotonic() < until, (work / "words.txt").read_text()
                assert process.poll() is None, (work / "words.txt").read_text()
                time.sleep(0.1)
            os.kill(victim.pid, signal.SIGKILL)
            lost = pair_of(now)
        finally:
            code, words = finish(process, work)
        left = {key: entry for key, entry in server.client.history().items() if key not in before}
        return SimpleNamespace(code=code, words=words, lost=lost, victim=done, other=prompts(left), url=victim.url)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
class TestKilled:
    def test_every_result_is_there_and_nothing_else(self, ran, work):
        assert ran.code == 0, ran.words
        files = {file.relative_to(work / "made").as_posix() for file in (work / "made").rglob("*") if file.is_file()}
        pictures = {f"{style}/{content}.png" for content, style in product(CONTENTS, STYLES)}
        assert files == pictures | {f"loras/{style}.safetensors" for style in STYLES} | {"workflow.json"}
        for name in pictures:
            with Image.open(work / "made" / name) as made:
                assert made.size == (64, 64)
                assert np.asarray(made).std() > 5

    def test_nothing_was_done_twice(self, ran):
        """By what both servers remember, the killed one's last look included."""
        done = [prompt for prompt, _ in ran.victim + ran.other]
        pairs = Counter(pair_of(prompt) for prompt in done if RESULT in prompt)
        assert pairs == Counter(product(CONTENTS, STYLES))
        trained = Counter(name_of(prompt["5"]["inputs"]["image"]) for prompt in done if TRAIN in prompt)
        assert trained == Counter(STYLES)

    def test_the_lora_of_the_dead_server_is_used_by_the_other(self, ran):
        ((training, _),) = ran.victim
        used = {pair_of(prompt)[1] for prompt, _ in ran.other if RESULT in prompt}
        assert name_of(training["5"]["inputs"]["image"]) in used

    def test_the_job_of_the_dead_server_went_to_the_other(self, ran):
        assert ran.lost in {pair_of(prompt) for prompt, _ in ran.other if RESULT in prompt}
        assert "{}.png in {}.png goes to another server".format(*ran.lost) in ran.words
        assert f"{ran.url} does not answer" in ran.words

    def test_a_server_stays_with_a_content_and_inverts_it_once(self, ran):
        made = [(pair_of(prompt)[0], cached) for prompt, cached in ran.other if RESULT in prompt]
        again = [
            INVERT in cached for (last, _), (content, cached) in zip(made, made[1:], strict=False) if content == last
        ]
        assert again
        assert all(again)

    def test_the_same_command_again_does_nothing(self, ran, server, work):
        before = server.client.history().keys()
        code, words = finish(start([server], work), work)
        assert (code, words) == (0, "6 results, 6 are there already\n")
        assert server.client.history().keys() == before

    def test_a_lost_result_alone_is_made_again_and_is_what_the_whole_workflow_gives(self, ran, server, work):
        target = work / "made" / "oil" / "mug.png"
        first = np.asarray(Image.open(target))
        target.unlink()
        code, words = finish(start([server], work), work)
        assert code == 0, words
        assert "6 results, 5 are there already" in words
        assert words.splitlines()[-1].startswith("[1/1] mug.png in oil.png")
        prompt = with_loaders(small_run())
        for title, name in (("Content picture", "contents/mug.png"), ("Style picture", "styles/oil.png")):
            set_input(prompt, title, "image", server.client.upload_image(work / name))
        result = server.client.queue(prompt)
        whole = (
            server.base_directory / "output" / result.images(RESULT)[0].subfolder / result.images(RESULT)[0].filename
        )
        assert np.array_equal(np.asarray(Image.open(target)), first)
        assert np.array_equal(np.asarray(Image.open(whole)), first)

    def test_another_workflow_wants_another_folder(self, ran, server, work):
        (work / "other.json").write_text(json.dumps(with_loaders(small_run(InjectedSampler={"cfg": 2.0}))))
        code, words = finish(start([server], work, contents="styles", workflow="other.json"), work)
        assert code == 1
        assert "made holds results of another workflow" in words


def test_clips_and_a_job_that_fails(server, work):
    """The clip is made; the file that is none is named with the node and its error, and is not tried again."""
    prompt = json.loads((ROOT / "scripts" / "short_clip.json").read_text())
    small = {"ScalePicture": {"size": 64}, "DDIMInvert": {"steps": 2}}
    small |= {"TrainStyleLoRA": {"steps": 1, "resolution": 64, "batch_size": 1, "rank": 2}}
    for node, inputs in small.items():
        for name, value in inputs.items():
            set_input(prompt, f"DiffStyler_{node}", name, value)
    (work / "clip.json").write_text(json.dumps(prompt))
    clip(work / "clips" / "fine.mp4")
    (work / "clips" / "torn.mp4").write_bytes(b"no video")
    (work / "styles" / "ink.png").unlink()
    code, words = finish(start([server], work, contents="clips", output="filmed", workflow="clip.json"), work)
    assert code == 1
    with av.open(work / "filmed" / "oil" / "fine.mp4") as made:
        assert [frame.width for frame in made.decode(video=0)] == [64, 64]
    assert not (work / "filmed" / "oil" / "torn.mp4").exists()
    assert re.search(rf"FAILED torn\.mp4 in oil\.png: {server.url}: node \d+ \(\w+\): \w+", words), words
    assert "1 of 3 jobs are not done" in words


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_a_stop_takes_the_prompt_back(server, work):
    process = start([server], work, output="stopped")
    until = time.monotonic() + 200
    while TRAIN not in running(server):
        assert time.monotonic() < until, (work / "words.txt").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, words = finish(process, work, 60)
    assert code == 1
    assert words.endswith("stopped; the same command goes on\n")
    while running(server):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not list((work / "stopped" / "loras").glob("*"))


def test_without_any_server_it_says_so(work):
    code, words = finish(start([SimpleNamespace(url="http://127.0.0.1:9")], work, output="none"), work)
    assert code == 1
    assert "http://127.0.0.1:9 does not answer" in words
    assert words.endswith("no server answers\n")
    assert not [file for file in (work / "none").rglob("*.png") if Path(file).is_file()]
