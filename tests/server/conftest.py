"""One real server for all tests in here, with the pack and a few nodes made to be watched."""

import pytest

from tools.pack_server import pack_server

PROBES = """
import time
import comfy.utils

class Slow:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ("INT", {"default": 4}), "seconds": ("FLOAT", {"default": 0.05})}}

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("INT",), "run", "probe", True

    def run(self, steps, seconds):
        bar = comfy.utils.ProgressBar(steps)
        for _ in range(steps):
            time.sleep(seconds)
            bar.update(1)
        return {"ui": {"text": [f"slept {steps} times"]}, "result": (steps,)}

class Fails:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"words": ("STRING", {"default": "no"})}}

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("INT",), "run", "probe", True

    def run(self, words):
        raise ValueError(words)

NODE_CLASS_MAPPINGS = {"ProbeSlow": Slow, "ProbeFails": Fails}
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    (base / "custom_nodes" / "probes").mkdir(parents=True)
    (base / "custom_nodes" / "probes" / "__init__.py").write_text(PROBES)
    with pack_server(base, lora_folder=True) as running:
        yield running


@pytest.fixture
def client(server):
    return server.client
