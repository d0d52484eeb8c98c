"""The real server: it starts, has the pack, runs prompts, and says which node failed."""

import asyncio
import io
import json
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from tools.comfy_client import ImageRef, PromptError, PromptInterrupted, RequestFailed
from tools.comfy_server import ComfyServer, ServerFailed, pack_problems
from tools.devkit.base import PACK
from tools.workflow_api import to_api

ROOT = Path(__file__).parents[2]


def picture(width=48, height=32):
    """EmptyImage -> ImageScale to half -> SaveImage."""
    empty = {"width": width, "height": height, "batch_size": 1, "color": 0xFF8000}
    half = {"upscale_method": "area", "width": width // 2, "height": height // 2, "crop": "disabled"}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], **half}, "_meta": {"title": "Half"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "test"}},
    }


def slow(steps, seconds=0.05):
    return {"1": {"class_type": "ProbeSlow", "inputs": {"steps": steps, "seconds": seconds}}}


def test_the_pack_is_loaded_without_a_word_of_complaint(server, client):
    assert pack_problems(server.log_text(), PACK) == []
    nodes = {name: info for name, info in client.object_info().items() if name.startswith("DiffStyler_")}
    assert {"DiffStyler_TrainStyleLoRA", "DiffStyler_DDIMInvert", "DiffStyler_InjectedSampler"} <= set(nodes)
    assert {info["python_module"] for info in nodes.values()} == {f"custom_nodes.{PACK}"}


def test_no_node_is_called_as_one_of_the_hosts(client):
    names = {node: info["display_name"] for node, info in client.object_info().items()}
    ours = {name for node, name in names.items() if node.startswith("DiffStyler_")}
    assert ours & {name for node, name in names.items() if not node.startswith("DiffStyler_")} == set()
    assert not [name for name in ours if len(name.split()) < 2], "one word is lost in a list of hundreds"


@pytest.mark.parametrize("file", sorted((ROOT / "workflows").glob("*.json")), ids=lambda file: file.stem)
def test_a_workflow_of_the_pack_gives_each_node_what_it_takes(client, file):
    info = client.object_info()
    for node in to_api(json.loads(file.read_text(encoding="utf-8")), info).values():
        groups = info[node["class_type"]]["input"]
        given = {name.partition(".")[0] for name in node["inputs"]}
        assert set(groups.get("required", ())) <= given, node
        assert given <= {*groups.get("required", ()), *groups.get("optional", ())}, node


def test_a_prompt_runs_and_tells_how_it_goes(client):
    client.free_cache()
    told = []
    result = client.queue(picture(), told.append)
    assert [(step.event, step.node_id) for step in told] == [(e, n) for n in "123" for e in ("start", "done")]
    assert told[2].title == "Half"
    assert set(result.node_seconds) == {"1", "2", "3"}
    (image,) = result.images("3")
    with Image.open(io.BytesIO(client.image_bytes(image))) as saved:
        assert (saved.size, saved.getpixel((5, 5))) == ((24, 16), (255, 128, 0))


def test_steps_text_and_time_of_a_node_arrive(client):
    told = []
    result = client.queue(slow(5, 0.1), told.append)
    steps = [(step.value, step.maximum) for step in told if step.event == "step"]
    assert steps == [(n, 5.0) for n in range(1, 6)]
    assert result.text("1") == "slept 5 times"
    assert 0.45 < result.node_seconds["1"] < 5.0


def test_a_client_works_where_an_event_loop_is_at_work(client):
    async def queued():
        return client.queue(slow(2, 0.0), timeout=60)

    assert asyncio.run(queued()).text("1") == "slept 2 times"


def test_a_second_run_is_cached_and_a_freed_cache_is_not(client):
    client.queue(picture(64))
    assert client.queue(picture(64)).cached == {"1", "2", "3"}
    client.free_cache()
    assert client.queue(picture(64)).cached == frozenset()


def test_an_uploaded_picture_can_be_loaded(client, tmp_path):
    Image.new("RGB", (40, 20), (1, 2, 3)).save(tmp_path / "up.png")
    name = client.upload_image(tmp_path / "up.png", "renamed up.png")
    prompt = picture()
    prompt["1"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    assert len(client.queue(prompt).images("3")) == 1


def test_a_refused_value_names_the_node(client):
    prompt = picture()
    prompt["2"]["inputs"]["upscale_method"] = "magic"
    with pytest.raises(PromptError, match="upscale_method") as caught:
        client.queue(prompt)
    assert (caught.value.node_id, caught.value.class_type) == ("2", "ImageScale")


def test_a_prompt_of_which_only_a_part_is_valid_is_refused_whole(client):
    with pytest.raises(PromptError, match="images") as caught:
        client.queue({**picture(), "4": {"class_type": "PreviewImage", "inputs": {}}})
    assert caught.value.node_id == "4"


def test_an_exception_carries_the_node_and_what_it_said(client):
    with pytest.raises(PromptError, match=r"node 7.*the words") as caught:
        client.queue({**picture(), "7": {"class_type": "ProbeFails", "inputs": {"words": "the words"}}})
    error = caught.value
    assert (error.node_id, error.class_type, error.exception_type) == ("7", "ProbeFails", "ValueError")
    assert error.message == "the words"
    assert "raise ValueError" in error.trace
    assert client.queue(picture()).images("3")  # and the next prompt runs


def test_an_interrupt_ends_the_prompt(client):
    threading.Timer(0.5, client.interrupt).start()
    with pytest.raises(PromptInterrupted) as caught:
        client.queue(slow(1000), timeout=60)
    assert caught.value.node_id == "1"


def test_a_timeout_interrupts_the_prompt(client):
    with pytest.raises(TimeoutError):
        client.queue(slow(1001), timeout=1.0)
    assert client.queue(slow(1, 0.0), timeout=30).node_seconds.keys() == {"1"}


def test_what_the_server_does_not_have_is_said(client):
    with pytest.raises(RequestFailed, match="404"):
        client.image_bytes(ImageRef("none.png"))


def test_a_server_that_cannot_start_says_why(server, tmp_path):
    refused = ComfyServer(server.comfyui_path, base_directory=tmp_path, extra_args=("--no-such-option",), cpu=True)
    with pytest.raises(ServerFailed, match=r"(?s)ended with code 2.*unrecognized arguments: --no-such-option"), refused:
        pass


def test_a_pack_that_does_not_load_is_noticed():
    log = (
        "[WARNING] Error while calling comfy_entrypoint in /base/custom_nodes/comfyui-diffstyler: bad default\n"
        "   0.1 seconds (IMPORT FAILED): /base/custom_nodes/comfyui-diffstyler\n"
        "   0.1 seconds (IMPORT FAILED): /base/custom_nodes/another\n"
    )
    assert len(pack_problems(log, PACK)) == 2
    assert pack_problems(log, "comfyui-elsewhere") == []


def test_the_servers_python_is_ours_unless_told(server):
    assert server.python == Path(sys.executable)
