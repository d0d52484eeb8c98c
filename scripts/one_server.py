"""One ComfyUI over HTTP, and the API prompt that it is given. many_servers.py uses both."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
import time
import uuid
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

Prompt = dict[str, dict[str, Any]]

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
CLIPS = {".mp4", ".webm", ".mov", ".mkv", ".avi"}
LOADERS = {"LoadImage": ("image", PICTURES), "LoadVideo": ("file", CLIPS)}  # node: its input, the files it takes
FOLDER = "many_servers"  # below each server's input folder; its extra_model_paths.yaml names it for LoRAs
LOOK_AGAIN = 0.5  # seconds between two questions whether a prompt is done
SILENCE = 10.0  # seconds without an answer after which a server is taken for dead


class Problem(Exception):
    """What keeps the whole run from going on, in words for the user."""


class JobFailed(Exception):
    """A server did not do a job, and no other would."""


class ServerLost(Exception):
    """A server went away, or forgot its prompt."""


class Server:
    """One ComfyUI, given one prompt at a time. ``stop`` ends the waiting and takes the prompt back."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self.url = url
        self._stop = stop
        self._sent: dict[Path, str] = {}
        self._open: str | None = None  # the prompt that it was given and did not finish

    def run(self, prompt: Prompt) -> dict[str, Any]:
        """Queue an API prompt and wait for its end. -> what each node showed or saved, by the node's id"""
        self._open = prompt_id = str(uuid.uuid4())
        answer = self._ask("/prompt", {"prompt": prompt, "prompt_id": prompt_id})
        if answer["node_errors"]:  # the server would run the valid part of it
            self.cancel()
            raise JobFailed(_refusal(answer))
        entry = self._end_of(prompt_id)
        self._open = None
        _raise_failure(entry)
        return dict(entry["outputs"])

    def send(self, file: Path) -> str:
        """Put a file into FOLDER of the server's input folder. -> its name there, which goes by its content"""
        if file not in self._sent:
            self._sent[file] = self._upload(file.name, file.read_bytes())
        return self._sent[file]

    def send_lora(self, file: Path) -> str:
        """``send``, for a LoRA that the loaders will be asked for."""
        self._require_listed(name := self.send(file))
        return name

    def require_loras(self) -> None:
        """Raises Problem where LoRAs that are sent to this server would not be found: tries it with an empty one."""
        self._require_listed(self._upload("empty.safetensors", (2).to_bytes(8, "little") + b"{}"))

    def download(self, filename: str, subfolder: str, kind: str = "output") -> bytes:
        return self._call("/view?" + urlencode({"filename": filename, "subfolder": subfolder, "type": kind}))

    def cancel(self) -> None:
        """Take back the prompt that it was last given and did not finish."""
        if self._open is not None:
            self._call("/queue", {"delete": [self._open]})
            self._call("/interrupt", {"prompt_id": self._open})
            self._open = None

    def comes_back(self, patience: float) -> bool:
        """Wait for a server that was lost. False when it stays away, or nobody needs it any more."""
        began = time.monotonic()
        while time.monotonic() - began < patience and not self._stop.is_set():
            if not self.silence():
                self._sent.clear()
                return True
            self._stop.wait(2.0)
        return False

    def silence(self) -> str:
        """Why the server takes no prompts, or ''. One that was given up when the server was lost is taken back."""
        try:
            self._ask("/queue")
            self.cancel()
        except (ServerLost, JobFailed) as error:
            return str(error)
        return ""

    def _end_of(self, prompt_id: str) -> dict[str, Any]:
        """The server's record of a prompt, when it is done."""
        heard = time.monotonic()
        while not self._stop.wait(LOOK_AGAIN):
            try:
                queue = self._ask("/queue")  # before the history: what leaves the one is in the other
                entry = self._ask(f"/history/{prompt_id}").get(prompt_id)
            except ServerLost:
                if time.monotonic() - heard > SILENCE:
                    raise
                continue
            heard = time.monotonic()
            if entry:
                return dict(entry)
            if prompt_id not in {item[1] for item in (*queue["queue_running"], *queue["queue_pending"])}:
                raise ServerLost(f"{self.url} was restarted, or its queue was cleared")
        self.cancel()
        raise ServerLost(f"{self.url}: stopped")

    def _require_listed(self, name: str) -> None:
        if name not in self._ask("/models/loras"):
            raise Problem(
                f"{self.url} does not find LoRAs in input/{FOLDER}. Put these lines into its extra_model_paths.yaml, "
                f"and restart it:\n{FOLDER}:\n  base_path: /path/to/ComfyUI\n  loras: input/{FOLDER}"
            )

    def _upload(self, name: str, data: bytes) -> str:
        stem, suffix = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(name).stem), Path(name).suffix.lower()
        name, mark = f"{stem}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}", uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\n{FOLDER}\r\n--{mark}\r\n'
        head += f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
        return str(self._ask("/upload/image", body, f"multipart/form-data; boundary={mark}")["name"])

    def _ask(self, path: str, content: Any = None, kind: str = "application/json") -> Any:
        answer = self._call(path, content, kind)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise JobFailed(f"{self.url}{path} is no ComfyUI: it answered {answer[:200]!r}") from error

    def _call(self, path: str, content: Any = None, kind: str = "application/json") -> bytes:
        body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
        try:
            with urlopen(Request(self.url + path, body, {"Content-Type": kind}), timeout=60.0) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            if error.code > 500:  # a proxy's, whose server is gone
                raise ServerLost(f"{self.url} does not answer: {error}") from error
            raise JobFailed(_refusal_of(said) if path == "/prompt" else f"{path}: {error}: {said[:500]}") from error
        except (OSError, HTTPException) as error:
            raise ServerLost(f"{self.url} does not answer: {error}") from error


def _refusal_of(said: str) -> str:
    try:
        return _refusal(json.loads(said))
    except (ValueError, KeyError):
        return f"the prompt was refused: {said[:500]}"


def _refusal(answer: dict[str, Any]) -> str:
    """What a server found wrong with a prompt before running it."""
    for node_id, node in answer["node_errors"].items():
        reasons = "; ".join(f"{found['message']}: {found['details']}" for found in node["errors"])
        return f"node {node_id} ({node['class_type']}) is not valid: {reasons}"
    return f"the prompt was refused: {answer['error']['message']} {answer['error']['details']}"


def _raise_failure(entry: dict[str, Any]) -> None:
    for kind, data in entry["status"]["messages"]:
        if kind in ("execution_error", "execution_interrupted"):
            said = f"{data.get('exception_type', 'interrupted')}: {data.get('exception_message', 'by someone').strip()}"
            raise JobFailed(f"node {data['node_id']} ({data['node_type']}): {said}")


class Workflow:
    """An API prompt, and the nodes in it that change from job to job."""

    def __init__(self, file: Path) -> None:
        self.file, self.text = file, file.read_text(encoding="utf-8")
        self._prompt: Prompt = json.loads(self.text)
        if "nodes" in self._prompt:
            raise Problem(
                f"{file} is not in API form: choose 'Export (API)' in ComfyUI, in place of 'Save' or 'Export'"
            )
        self._content = self._find("Content picture", "Content clip")
        self._style = self._find("Style picture")
        self._train = self._find("DiffStyler_TrainStyleLoRA")
        self.result = self._find("Result")
        self.content_files, self.style_files = self._takes(self._content), self._takes(self._style)

    def training(self, style: str, prefix: str) -> Prompt:
        """The prompt that trains a style and saves its LoRA in the server's output folder."""
        prompt = self._with(self._style, style)
        prompt["many_servers"] = {"class_type": "SaveLoRA", "inputs": {"lora": [self._train, 0], "prefix": prefix}}
        return _needed_by("many_servers", prompt)

    def picture(self, content: str, lora: str) -> Prompt:
        """The prompt that makes the result of a content with a LoRA's file."""
        prompt = self._with(self._content, content)
        for node_id, node in prompt.items():
            for name in [name for name, value in node["inputs"].items() if value == [self._train, 0]]:
                prompt[node_id] = _from_file(node_id, node, name, lora)
        prompt = _needed_by(self.result, prompt)
        if self._train in prompt:
            raise Problem(f"{self.file}: the result uses more of node {self._train} than its LoRA; unplug the rest")
        return prompt

    def _with(self, node_id: str, file: str) -> Prompt:
        prompt = copy.deepcopy(self._prompt)
        prompt[node_id]["inputs"][LOADERS[prompt[node_id]["class_type"]][0]] = f"{FOLDER}/{file}"
        return prompt

    def _find(self, *names: str) -> str:
        found = [key for key, node in self._prompt.items() if {node["class_type"], _title(node)} & set(names)]
        if len(found) != 1:
            wanted = " or ".join(map(repr, names))
            raise Problem(f"{self.file} has {len(found)} nodes titled, or of class, {wanted}; one is needed")
        return found[0]

    def _takes(self, node_id: str) -> set[str]:
        node = self._prompt[node_id]
        if node["class_type"] not in LOADERS:
            raise Problem(
                f"{self.file}: {_title(node)!r} is a {node['class_type']}: put Load Image (or Load Video) in its place"
            )
        return LOADERS[node["class_type"]][1]


def _title(node: dict[str, Any]) -> str:
    return str(node.get("_meta", {}).get("title", ""))


def _from_file(node_id: str, node: dict[str, Any], name: str, lora: str) -> dict[str, Any]:
    """A node that took the LoRA over a wire, taking it from a file."""
    inputs = {key: value for key, value in node["inputs"].items() if key != name}
    if "lora_name" in inputs:
        return {**node, "inputs": {**inputs, "lora_name": lora}}
    if node["class_type"] == "LoraModelLoader" and not inputs.pop("bypass", False):
        return {**node, "class_type": "LoraLoaderModelOnly", "inputs": {**inputs, "lora_name": lora}}
    raise Problem(
        f"node {node_id} ({node['class_type']}) takes the LoRA over a wire only; Injected LoRA Sampler, Injected LoRA "
        "Guider or Load LoRA Model, which can read a file, is needed in its place"
    )


def _needed_by(end: str, prompt: Prompt) -> Prompt:
    """The part of a prompt that a node needs, itself included."""
    kept, todo = set(), [end]
    while todo:
        node_id = todo.pop()
        if node_id not in kept:
            kept.add(node_id)
            todo += [value[0] for value in prompt[node_id]["inputs"].values() if isinstance(value, list)]
    return {node_id: node for node_id, node in prompt.items() if node_id in kept}
