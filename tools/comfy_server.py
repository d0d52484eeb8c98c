"""A real ComfyUI server for the demo, the tests and the benchmark: started, watched, and surely stopped.

    with ComfyServer(comfyui_path, python, base_directory) as server:
        result = server.client.queue(api_prompt)

Runs under the Python of ComfyUI's environment.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tools.comfy_client import ComfyClient
from tools.devkit.process import GUARD, spawn, stop_tree

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_HAS_GPU = (
    "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available())"
)
_GPU_FILES = ("/dev/nvidia*", "/dev/kfd", "/dev/dri", "/dev/dxg")


class ServerFailed(RuntimeError):
    """The server did not start, or died. The message ends with the tail of its log."""


class ComfyServer:
    """A context manager that runs ComfyUI's main.py on a free local port.

    `cpu`: True passes --cpu, False does not, None finds out whether there is a GPU.
    `log_path`: where its output goes; base_directory/server.log unless told.
    """

    def __init__(
        self,
        comfyui_path: Path,
        python: Path | None = None,
        base_directory: Path | None = None,
        extra_args: Sequence[str] = (),
        *,
        cpu: bool | None = None,
        log_path: Path | None = None,
        ready_timeout: float = 300.0,
    ) -> None:
        if base_directory is None:
            raise ValueError("base_directory is None: name a folder, so that no real ComfyUI tree is written to")
        self.comfyui_path = Path(comfyui_path)
        self.python = Path(python or sys.executable)
        self.base_directory = Path(base_directory).absolute()
        self.extra_args = tuple(extra_args)
        self.cpu = cpu
        self.log_path = log_path or self.base_directory / "server.log"
        self.ready_timeout = ready_timeout
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process. Raises ServerFailed when there is none."""
        if self._process is None:
            raise ServerFailed("the server was stopped")
        return self._process.pid

    @property
    def client(self) -> ComfyClient:
        return ComfyClient(self.url, check_alive=self.check_alive)

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers. Raises ServerFailed."""
        if self._process is not None:
            raise ServerFailed(f"this server runs already, at {self.url}")
        if self.cpu is None:
            self.cpu = not has_gpu(self.python)
        for attempt in range(3):
            self.port = free_port()
            self._launch()
            try:
                self._wait_until_ready()
                return
            except ServerFailed:
                self.stop()
                if attempt == 2 or "address already in use" not in self.log_text().lower():
                    raise
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        stop_tree(process)
        if process.stdin is not None:
            process.stdin.close()

    def check_alive(self) -> None:
        """Raises ServerFailed when the server's process is gone."""
        if self._process is None:
            raise ServerFailed("the server was stopped")
        code = self._process.poll()
        if code is not None:
            raise ServerFailed(f"the server ended with code {code}.\n{self.log_tail()}")

    def log_text(self) -> str:
        if not self.log_path.exists():
            return ""
        return _COLOURS.sub("", self.log_path.read_text(encoding="utf-8", errors="replace"))

    def log_tail(self, lines: int = 25) -> str:
        tail = "\n".join(f"    {line}" for line in self.log_text().splitlines()[-lines:])
        return f"The last lines of {self.log_path}:\n{tail}"

    def _command(self) -> list[str]:
        database = (self.base_directory / "user" / "comfyui.db").as_posix()
        arguments = ["--base-directory", str(self.base_directory), "--port", str(self.port), "--disable-auto-launch"]
        arguments += ["--database-url", f"sqlite:///{database}"]  # the default one is shared by all servers
        arguments += ["--cpu"] if self.cpu else []
        return [str(self.python), "-u", str(GUARD), str(self.comfyui_path / "main.py"), *arguments, *self.extra_args]

    def _launch(self) -> None:
        (self.base_directory / "user").mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = spawn(
                self._command(),
                stdin=subprocess.PIPE,  # held open by us: its end tells the guard that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=str(self.comfyui_path),
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.ready_timeout
        while time.monotonic() < deadline:
            self.check_alive()
            if self.client.answers():
                return
            time.sleep(0.2)
        raise ServerFailed(f"the server did not answer within {self.ready_timeout:.0f} s.\n{self.log_tail()}")


def pack_problems(log: str, pack: str) -> list[str]:
    """The lines of a server's log that say that the custom node pack in folder `pack` did not load.

    A V3 pack with one bad schema is dropped whole, with a single warning: 'Error while calling comfy_entrypoint'.
    """
    signs = ("IMPORT FAILED", "Error while calling comfy_entrypoint", "Cannot import", "Skip ", "skipping.")
    return [line for line in log.splitlines() if pack in line and any(sign in line for sign in signs)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def has_gpu(python: Path) -> bool:
    """Whether that Python's torch can use a GPU. Asked only where there may be one: importing torch takes seconds."""
    if sys.platform == "linux" and not any(glob.glob(pattern) for pattern in _GPU_FILES):
        return False
    asked = subprocess.run([str(python), "-c", _HAS_GPU], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ServerFailed(f"{python} cannot import torch:\n{asked.stderr}")
    return asked.stdout.strip() == "True"
