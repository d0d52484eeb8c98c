"""`dev.py demo`: what its options do to a prompt, and the sheet of pictures. No server."""

import io

import pytest
from PIL import Image

from tools import demo
from tools.comfy_client import PromptResult
from tools.demo_panels import panels_of
from tools.demo_sheet import Panel, save_sheet
from tools.devkit.console import Failure
from tools.devkit.demo_options import demo_parser
from tools.workflow_widgets import WorkflowError


class Uploads:
    """Stands for the server's upload."""

    def upload_image(self, path):
        return f"input/{path.name}"


def node(kind, title, **inputs):
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


@pytest.fixture
def api():
    return {
        "1": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="demo.safetensors"),
        "2": node("DiffStyler_ExamplePicture", "Content picture", picture="cat.jpg"),
        "3": node("LoadImage", "Style picture", image="oil.png"),
        "4": node("CLIPTextEncode", "Prompt", text="painting", clip=["1", 1]),
        "5": node("DiffStyler_TrainStyleLoRA", "Train Style LoRA", model=["1", 0], steps=200),
        "6": node("DiffStyler_DDIMInvert", "DDIM Invert", model=["1", 0], steps=50),
        "7": node("DiffStyler_InjectedSampler", "Sampler", cfg=3.0),
    }


def apply(api, *arguments, checkpoint=None):
    demo.apply_options(api, demo_parser("demo").parse_args(arguments), checkpoint, Uploads())
    return api


@pytest.mark.parametrize(("option", "place"), [("--content", "2"), ("--style", "3")])
def test_a_picture_of_ones_own_is_uploaded_and_loaded(api, tmp_path, option, place):
    (tmp_path / "mine.png").touch()
    changed = apply(api, option, str(tmp_path / "mine.png"))[place]
    assert (changed["class_type"], changed["inputs"]) == ("LoadImage", {"image": "input/mine.png"})


def test_each_option_reaches_its_node(api):
    apply(api, "--prompt", "a dog", "--train-steps", "10", "--set", "Sampler.cfg=7.5", checkpoint="my.safetensors")
    values = (api["4"]["inputs"]["text"], api["5"]["inputs"]["steps"], api["7"]["inputs"]["cfg"])
    assert values == ("a dog", 10, 7.5)
    assert api["1"]["inputs"]["ckpt_name"] == "my.safetensors"


def test_the_steps_are_the_inversions(api):
    apply(api, "--steps", "20")
    assert api["6"]["inputs"]["steps"] == 20
    assert api["5"]["inputs"]["steps"] == 200  # training is another matter


@pytest.mark.parametrize("arguments", [["--prompt", "x"], ["--steps", "9"], ["--train-steps", "9"], ["--set", "A.b=1"]])
def test_an_option_without_a_place_is_an_error(arguments):
    with pytest.raises(WorkflowError, match="Load Checkpoint"):
        apply({"1": node("X", "Load Checkpoint")}, *arguments)


def test_a_picture_without_a_place_is_an_error(tmp_path):
    (tmp_path / "mine.png").touch()
    with pytest.raises(WorkflowError, match="'Style picture'"):
        apply({"1": node("X", "Y")}, "--style", str(tmp_path / "mine.png"))


@pytest.mark.parametrize("place", ["my.safetensors", "comfyui/models/checkpoints/my.safetensors"])
def test_a_checkpoint_is_found_by_path_or_name_and_linked(tmp_path, place):
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("weights")
    wanted = str(file) if file.parent == tmp_path else file.name
    assert demo.stage_checkpoint(wanted, tmp_path / "comfyui", tmp_path / "base") == "my.safetensors"
    assert (tmp_path / "base/models/checkpoints/my.safetensors").read_text() == "weights"


def test_a_checkpoint_that_only_the_server_may_know_keeps_its_name(tmp_path):
    assert demo.stage_checkpoint("sub/other.safetensors", tmp_path, tmp_path / "base") == "sub/other.safetensors"
    assert demo.stage_checkpoint(None, tmp_path, tmp_path / "base") is None


def test_a_checkpoint_that_the_server_does_not_have_is_named(api):
    for spec in ([["a.safetensors"], {}], ["COMBO", {"options": ["a.safetensors"]}]):
        info = {"CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": spec}}}}
        with pytest.raises(Failure, match=r"(?s)no checkpoint 'demo\.safetensors'.*it has: a\.safetensors"):
            demo.require_checkpoints(api, info)


def test_an_unknown_workflow_is_answered_with_those_there_are():
    with pytest.raises(Failure, match="'DiffStyler - one style'"):
        demo.read_workflow("nothing of the kind")


def encoded(size, colour):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_the_sheet_shows_all_pictures_at_one_height(tmp_path):
    panels = [Panel("Content picture", encoded((600, 300), "red")), Panel("Result: 1/2", encoded((400, 400), "blue"))]
    save_sheet(panels, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        colours = {colour: count for count, colour in sheet.convert("RGB").getcolors(1 << 16)}
    assert colours[(255, 0, 0)] == 600 * 300
    assert colours[(0, 0, 255)] == 300 * 300
    assert panels[1].save(tmp_path).name == "Result_ 1_2.png"


def test_what_a_node_shows_in_passing_is_no_panel():
    kinds = {"1": "ImageCropV2", "2": "SaveImage", "3": "PreviewImage"}
    api = {key: {"class_type": kind, "inputs": {}, "_meta": {"title": kind}} for key, kind in kinds.items()}
    shown = {key: {"images": [{"filename": f"{key}.png", "subfolder": "", "type": "temp"}]} for key in kinds}
    panels = panels_of(Pictures(), api, PromptResult("id", shown, {}, frozenset(), 1.0))
    assert [(panel.label, panel.data) for panel in panels] == [("PreviewImage", b"3.png"), ("SaveImage", b"2.png")]


class Pictures:
    """A client whose pictures are their own names."""

    def image_bytes(self, image):
        return image.filename.encode()


def test_a_sheet_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="panels is empty"):
        save_sheet([], tmp_path / "sheet.png")


@pytest.fixture
def regions(api):
    """A workflow with two style pictures and the content's mask."""
    api["3"]["_meta"]["title"] = "Style picture 1"
    api["8"] = node("LoadImage", "Style picture 2", image="ink.png")
    api["9"] = node("DiffStyler_RegionalStyle", "Style", mask=["2", 1], strength=1.0)
    return api


@pytest.fixture
def files(tmp_path):
    made = {name: tmp_path / f"{name}.png" for name in ("content", "mask", "first", "second")}
    for path in made.values():
        path.touch()
    return {name: str(path) for name, path in made.items()}


def test_two_styles_take_their_places(regions, files):
    apply(regions, "--style", files["first"], "--style", files["second"])
    assert [regions[i]["inputs"]["image"] for i in ("3", "8")] == ["input/first.png", "input/second.png"]
    with pytest.raises(WorkflowError, match="'Style picture 3'"):
        apply(regions, *["--style", files["first"]] * 3)


def test_another_content_brings_its_mask(regions, files):
    with pytest.raises(WorkflowError, match="give --mask"):
        apply(dict(regions), "--content", files["content"])
    apply(regions, "--content", files["content"], "--mask", files["mask"])
    assert regions["mask"]["inputs"] == {"image": "input/mask.png", "channel": "red"}
    assert regions["9"]["inputs"]["mask"] == ["mask", 0]


def test_a_mask_without_a_place_is_an_error(api, files):
    with pytest.raises(WorkflowError, match="uses no mask"):
        apply(api, "--mask", files["mask"])
