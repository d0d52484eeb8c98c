"""Fixtures (a pytest plugin) that run Describe Style on a models/vision_language of its own: no network, no pickles."""

from __future__ import annotations

import itertools
import pickle
import socket
from types import SimpleNamespace

import comfy.model_management as management
import folder_paths
import pytest
import tiny_llava
import torch
from describe_bench import DEFAULTS, LENGTH


def forbidden(*given, **_):
    raise AssertionError(f"the network or a pickle was asked for: {given!r:.200}")


@pytest.fixture
def describe_bench(pack, tmp_path, monkeypatch):
    """``.make(name, seed)`` -> (model, processor); ``.run(image, ...)`` -> (descriptions, answers); ``.text``."""
    home = tmp_path / "vision_language"
    home.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vision_language", ([str(home)], set()))
    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, forbidden)
    node = pack.prompts.describe_style.DescribeStyle
    folder_model = pack.host.describe.folder_model
    bench = SimpleNamespace(folder=home, node=node, text="", said=[])
    bench.make = lambda name, seed, **kind: tiny_llava.make_folder(home / name, seed, **kind)
    bench.request = lambda **changes: pack.host.describe.request.Request(
        **{"question": "the image", "max_length": LENGTH, **changes}
    )

    def run(image, **changes):
        output = node.execute(image, **{**DEFAULTS, **changes})
        bench.text = output.ui["text"][0]
        return output.result

    def answers(texts):
        """From now on these, over and over, in place of the model's."""
        found = itertools.cycle(texts)
        answer = pack.host.describe.request.Answer
        monkeypatch.setattr(folder_model.FolderModel, "describe", lambda *_: answer(next(found), False, (1,)))

    def cancel_at(count):
        """Presses Cancel after that word."""
        bench.said.clear()

        def say(*words, kept):
            if "token" in words[-1]:
                bench.said.append(words)
                if len(bench.said) == count:
                    management.interrupt_current_processing(True)

        monkeypatch.setattr(pack.host.describe.describe, "say", say)

    bench.run, bench.answers, bench.cancel_at = run, answers, cancel_at
    yield bench
    assert not management.processing_interrupted()
