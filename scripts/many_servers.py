#!/usr/bin/env python3
"""Every content in every style, spread over several ComfyUI servers.

    python scripts/many_servers.py --servers http://a:8188 http://b:8188 \\
        --contents folder --styles folder --output folder

Each style is trained once, on whichever server is free; its LoRA comes back to output/loras and goes from there to
every server that uses it. When a server dies, its job goes to another. A job is done when its file is there: run the
same command again after a break, and it goes on. docs/servers.md says what each server needs.

The workflow is any that ComfyUI exports with 'Export (API)', with nodes titled 'Content picture' (or 'Content clip'),
'Style picture' and 'Result', and one Train Style LoRA. Needs Python 3.10, one_server.py beside it, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from one_server import FOLDER, JobFailed, Problem, Server, ServerLost, Workflow

TRIES = 3  # servers that may be lost over a job before the job is to blame


@dataclass(frozen=True)
class Training:
    style: Path
    lora: Path

    def __str__(self) -> str:
        return f"training of {self.style.name}"

    def run(self, server: Server, workflow: Workflow) -> None:
        prefix = f"{FOLDER}/{uuid.uuid4().hex}"  # no file of that name is there, so the server's counter begins at 1
        server.run(workflow.training(server.send(self.style), prefix))
        folder, _, name = prefix.partition("/")
        write_whole(self.lora, server.download(f"{name}_00001_.safetensors", folder))


@dataclass(frozen=True)
class Picture:
    content: Path
    training: Training
    folder: Path

    def __str__(self) -> str:
        return f"{self.content.name} in {self.training.style.name}"

    def done(self) -> bool:
        return self.folder.is_dir() and self.content.stem in {file.stem for file in self.folder.iterdir()}

    def run(self, server: Server, workflow: Workflow) -> None:
        content, lora = server.send(self.content), server.send_lora(self.training.lora)
        shown = server.run(workflow.picture(content, lora)).get(workflow.result, {})
        files = [file for kind in ("images", "gifs") for file in shown.get(kind, ())]
        if len(files) != 1:
            raise JobFailed(f"node {workflow.result}, 'Result', saved {len(files)} files; one is needed")
        data = server.download(files[0]["filename"], files[0]["subfolder"], files[0]["type"])
        write_whole(self.folder / (self.content.stem + Path(files[0]["filename"]).suffix), data)


Job = Training | Picture


def write_whole(file: Path, data: bytes) -> None:
    """Under another name first, so that a file that is there is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(data)
    os.replace(part, file)


class Board:
    """Which jobs can be done now, who is at what, and what became of them. All servers' threads share it."""

    def __init__(self, pictures: list[Picture], over: threading.Event) -> None:
        needs = {picture: [t] if not (t := picture.training).lora.exists() else [] for picture in pictures}
        self._graph: TopologicalSorter[Job] = TopologicalSorter(needs)
        self._graph.prepare()
        self._ready: list[Job] = []
        self._running: dict[str, Job] = {}
        self._losses: Counter[Job] = Counter()
        self._change = threading.Condition()
        self.total = len({job for one, others in needs.items() for job in (one, *others)})
        self.finished = 0
        self.failures: list[str] = []
        self.over = over

    def take(self, server: Server, last: Job | None) -> Job | None:
        """The next job, or None when all is over. Waits while a job elsewhere may still bring work."""
        with self._change:
            while not self.over.is_set():
                self._ready += self._graph.get_ready()
                if self._ready:
                    job = min(self._ready, key=lambda job: self._rank(job, last))
                    self._ready.remove(job)
                    self._running[server.url] = job
                    return job
                if not self._running:
                    self.end()
                    break
                self._change.wait()
            return None

    def _rank(self, job: Job, last: Job | None) -> tuple[bool, bool, bool]:
        """Trainings first. Then the content that this server had last: ComfyUI still has its inversion and capture."""
        if isinstance(job, Training):
            return False, False, False
        mine = isinstance(last, Picture) and last.content == job.content
        elsewhere = any(isinstance(other, Picture) and other.content == job.content for other in self._running.values())
        return True, not mine, elsewhere

    def finish(self, server: Server, seconds: float) -> None:
        with self._change:
            job = self._running.pop(server.url)
            self._graph.done(job)
            self.finished += 1
            print(f"[{self.finished}/{self.total}] {job}: {server.url}, {seconds:.0f} s", flush=True)
            self._change.notify_all()

    def fail(self, server: Server, why: str) -> None:
        with self._change:
            job = self._running.pop(server.url)
            self.failures.append(f"{job}: {server.url}: {why}")
            print(f"FAILED {self.failures[-1]}", flush=True)
            self._change.notify_all()

    def give_back(self, server: Server, why: str) -> None:
        """Let another server have the job of one that is lost."""
        job = self._running[server.url]
        self._losses[job] += 1
        if self._losses[job] == TRIES:
            self.fail(server, f"{why}; servers were lost over this job {TRIES} times")
            return
        with self._change:
            self._ready.insert(0, self._running.pop(server.url))
            print(f"{why}; {job} goes to another server", flush=True)
            self._change.notify_all()

    def end(self) -> None:
        with self._change:
            self.over.set()
            self._change.notify_all()


def work(server: Server, board: Board, workflow: Workflow, patience: float) -> None:
    """Give one server job after job, until all is done or it is gone for good."""
    last = None
    while job := board.take(server, last):
        began, last = time.monotonic(), job
        try:
            job.run(server, workflow)
        except JobFailed as error:
            board.fail(server, str(error))
        except ServerLost as error:
            if board.over.is_set():
                return
            board.give_back(server, str(error))
            last = None
            if not server.comes_back(patience):
                return
        else:
            board.finish(server, time.monotonic() - began)


def run(servers: list[Server], board: Board, workflow: Workflow, patience: float) -> None:
    """A thread for each server; whatever ends one of them unforeseen, Ctrl-C included, ends all."""
    with ThreadPoolExecutor(len(servers)) as pool:
        threads = [pool.submit(work, server, board, workflow, patience) for server in servers]
        try:
            wait(threads, return_when=FIRST_EXCEPTION)
            for thread in threads:
                if thread.done():
                    thread.result()
        finally:
            board.end()


def pictures_of(options: argparse.Namespace, workflow: Workflow) -> list[Picture]:
    """Every content in every style, a content's styles one after another."""
    contents, styles = (
        files_of(folder, kinds)
        for folder, kinds in ((options.contents, workflow.content_files), (options.styles, workflow.style_files))
    )
    if "loras" in {style.stem for style in styles}:
        raise Problem("a style cannot be called 'loras', as the LoRAs' own folder is: rename its picture")
    trainings = [Training(style, options.output / "loras" / f"{style.stem}.safetensors") for style in styles]
    return [Picture(one, t, options.output / t.style.stem) for one in contents for t in trainings]


def files_of(folder: Path, kinds: set[str]) -> list[Path]:
    if not folder.is_dir():
        raise Problem(f"there is no folder {folder}")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in kinds)
    if not files:
        raise Problem(f"{folder} holds none of {', '.join(sorted(kinds))}")
    twice = [name for name, count in Counter(file.stem for file in files).items() if count > 1]
    if twice:
        raise Problem(f"{folder} holds several files called {twice[0]}: results are named by them, so rename one")
    return files


def check_settings(output: Path, workflow: Workflow) -> None:
    """Results of two workflows in one folder could not be told apart."""
    kept = output / "workflow.json"
    if kept.exists() and kept.read_text(encoding="utf-8") != workflow.text:
        raise Problem(f"{output} holds results of another workflow (see {kept}): choose another folder")
    write_whole(kept, workflow.text.encode())


def reachable(servers: list[Server]) -> list[Server]:
    """Those that answer. Raises Problem where there are none, or one would not find the LoRAs that it is sent."""
    reasons = {server: server.silence() for server in servers}
    for why in filter(None, reasons.values()):
        print(f"left out: {why}", flush=True)
    found = [server for server, why in reasons.items() if not why]
    if not found:
        raise Problem("no server answers")
    for server in found:
        server.require_loras()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", required=True, metavar="URL")
    parser.add_argument("--contents", type=Path, required=True, metavar="FOLDER", help="pictures, or clips")
    parser.add_argument("--styles", type=Path, required=True, metavar="FOLDER", help="one picture for each style")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="output/STYLE/CONTENT.png")
    parser.add_argument("--workflow", type=Path, default=Path(__file__).with_name("one_style.json"), metavar="FILE")
    parser.add_argument("--patience", type=float, default=600.0, metavar="SECONDS", help="to wait for a lost server")
    options = parser.parse_args()
    workflow = Workflow(options.workflow)
    pictures = pictures_of(options, workflow)
    workflow.picture("", "")  # says what does not fit
    missing = [picture for picture in pictures if not picture.done()]
    print(f"{len(pictures)} results, {len(pictures) - len(missing)} are there already", flush=True)
    if not missing:
        return 0
    check_settings(options.output, workflow)
    over = threading.Event()
    servers = reachable([Server(url, over) for url in dict.fromkeys(url.rstrip("/") for url in options.servers)])
    board = Board(missing, over)
    run(servers, board, workflow, options.patience)
    left = board.total - board.finished
    if left:
        said = "".join(f"\n  {failure}" for failure in board.failures)
        print(f"{left} of {board.total} jobs are not done. The same command goes on with them.{said}", file=sys.stderr)
    return int(bool(left))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
