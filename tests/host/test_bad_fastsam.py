"""Refusals of Mask by FastSAM: named input, received value, remedy; and weights that would do more than weigh."""

from __future__ import annotations

import copy
import io
import math
import os
import pickle
import sys
import zipfile

import bright_fastsam
import numpy as np
import pytest
import torch
from fastsam_bench import HEIGHT, SCENE, WIDTH

pytest_plugins = ("fastsam_fixtures",)


def spoiled(value):
    image = SCENE.clone()
    image[0, 3, 4, 1] = value
    return image


INPUTS = [
    ({"image": spoiled(math.nan)}, "image ", "NaN", "check the node that made it"),
    ({"image": spoiled(math.inf)}, "image ", "infinity"),
    ({"image": torch.zeros(1, HEIGHT, WIDTH, 4)}, "image: ", "[1, 128, 192, 4]", "Split Image with Alpha"),
    ({"image": torch.zeros(1, HEIGHT, WIDTH, 1)}, "image: ", "[1, 128, 192, 1]"),
    ({"image": torch.zeros(0, HEIGHT, WIDTH, 3)}, "image: ", "[0, 128, 192, 3]"),
    ({"image": torch.zeros(HEIGHT, WIDTH, 3)}, "image: ", "[128, 192, 3]"),
    ({"mode": "words"}, "mode", "'words'", "everything"),
    ({"combine": "mean"}, "combine", "'mean'", "separate"),
    ({"when_none": "shrug"}, "when_none", "'shrug'", "empty mask"),
    ({"best_n": -1}, "best_n", "got -1"),
    ({"confidence": 1.5}, "confidence", "got 1.5", "0..1"),
    ({"iou": -0.1}, "iou", "got -0.1", "0..1"),
    ({"confidence": math.nan}, "confidence", "got nan"),
    ({"image_size": 100}, "image_size", "got 100", "multiple of 32"),
    ({"image_size": 0}, "image_size", "got 0"),
    ({"mode": "points"}, "points: ", "got none", "120, 80"),
    ({"mode": "points", "points": "; \n"}, "points: ", "got none"),
    ({"mode": "points", "points": "a, b"}, "points must be written as", "'a, b'"),
    ({"mode": "points", "points": "192, 5"}, "points: ", "192 x 128", "(192, 5)", "Move it into the picture"),
    ({"mode": "points", "points": "5, 5; 3, 128, -"}, "point 2", "(3, 128, -)"),
    ({"mode": "points", "point_input": {"x": 1}}, "point_input", "{'x': 1}", "[x, y, 0]"),
    ({"mode": "points", "point_input": [[1, 2, 7]]}, "point_input", "[[1, 2, 7]]"),
    ({"mode": "points", "point_input": "1, 2"}, "point_input", "1, 2"),
    ({"mode": "points", "point_input": [[[1, 2]], [[3, 4]]]}, "point_input", "2 lists", "1 pictures"),
    ({"mode": "boxes"}, "boxes: ", "got none"),
    ({"mode": "boxes", "boxes": "1, 2, 3"}, "boxes must be written as", "'1, 2, 3'"),
    ({"mode": "boxes", "boxes": "9, 9, 3, 20"}, "box 1", "(9, 9, 3, 20)", "top left corner first"),
    ({"mode": "boxes", "boxes": "500, 5, 600, 9"}, "box 1", "192 x 128"),
    ({"mode": "boxes", "box_input": [1, 2, 3]}, "box_input", "[1, 2, 3]", "{x, y, width, height}"),
    ({"mode": "boxes", "box_input": {"x": 1, "y": 2, "width": 0, "height": 4}}, "box 1", "x1 < x2"),
    ({"mode": "text"}, "text: ", "got ''", "the face"),
    ({"mode": "text", "text": " \n"}, "text: ", "the face"),
    ({"mode": "text", "text": "the face"}, "needs a CLIP", "clip_folder", "points, boxes or everything"),
    ({"fastsam_name": "FastSAM-s.pt"}, "'FastSAM-s.pt'", "models/fastsam"[7:], "github.com/ultralytics/assets"),
    ({"fastsam_name": "../fastsam/bright.pt"}, "fastsam_name", "'../fastsam/bright.pt'", "inside models/fastsam"),
    ({"fastsam_name": "..\\fastsam\\bright.pt"}, "fastsam_name", "inside models/fastsam"),
    ({"fastsam_name": "/etc/passwd"}, "fastsam_name", "'/etc/passwd'", "inside models/fastsam"),
    ({"fastsam_name": "bright.yaml"}, "fastsam_name", "'bright.yaml'", ".pt"),
    ({"fastsam_name": ""}, "fastsam_name", "''"),
]


@pytest.mark.parametrize(("changes", "words"), [(row[0], row[1:]) for row in INPUTS])
def test_inputs_are_refused_before_anything_runs(fastsam, pack, monkeypatch, changes, words):
    monkeypatch.setattr(
        pack.host.segment.fastsam.SegmentFinder, "find", lambda *_: pytest.fail("FastSAM ran before the error")
    )
    with pytest.raises(ValueError, match=r".") as caught:
        fastsam.run(**changes)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_link_out_of_the_folder_is_refused(fastsam, tmp_path):
    (fastsam.folder / "bright.pt").rename(tmp_path / "elsewhere.pt")
    (fastsam.folder / "link.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(ValueError, match=r"'link.pt' is a link that leads out of models/fastsam.*elsewhere"):
        fastsam.run(fastsam_name="link.pt")


def test_a_link_within_the_folder_is_followed(fastsam):
    (fastsam.folder / "link.pt").symlink_to(fastsam.folder / "bright.pt")
    assert fastsam.run(fastsam_name="link.pt")[0].any()


def test_a_missing_package_is_an_error_with_the_command(fastsam, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "ultralytics" else find(name, *a))
    with pytest.raises(ImportError, match=r"AGPL-3\.0.*-m pip install 'ultralytics>=8\.3,<9'") as caught:
        fastsam.run()
    assert sys.executable in str(caught.value)


# ---- weights -------------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


class Builds:
    """Pickles as an object of ``make()`` whose state is then set."""

    def __init__(self, call, state):
        self._parts = (*call, state)

    def __reduce__(self):
        return self._parts


def evil_network(marker):
    """ultralytics evaluates the activation of a configuration when it builds a network."""
    from ultralytics.nn.tasks import SegmentationModel

    layers = {"backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [], "nc": 1}
    return Calls(SegmentationModel, {"activation": f"__import__('pathlib').Path({marker!r}).touch()", **layers})


EVIL = {
    "os.system": lambda marker: Calls(os.system, f"touch {marker}"),
    "eval": lambda marker: Calls(eval, f"open({marker!r}, 'w')"),
    "exec": lambda marker: Calls(exec, f"open({marker!r}, 'w')"),
    "open": lambda marker: Calls(open, marker, "w"),
    "a network's constructor": evil_network,
    "getattr of a class": lambda marker: Calls(getattr, torch.nn.Conv2d, "__init__"),
    "torch.hub": lambda marker: Calls(torch.hub.load, "evil/evil", "evil"),
    "torch.load": lambda marker: Calls(torch.load, marker),
    "apply": lambda marker: Calls(map, os.system, [f"touch {marker}"]),
    "a changed function": lambda marker: Builds((torch._utils._rebuild_parameter, ()), {"__name__": "x"}),
    "a layer with arguments": lambda marker: Calls(torch.nn.Conv2d, 3, 3, 3),
    "a layer of another kind": lambda marker: Calls(torch.nn.Transformer),
}


@pytest.fixture(scope="module")
def network(pack):
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        return bright_fastsam.make_network()


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("place", ["beside the network", "instead of it", "inside it"])
def test_weights_that_act_are_refused_and_do_not_act(fastsam, pack, network, tmp_path, name, place):
    marker = tmp_path / "it ran"
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        network = copy.deepcopy(network)
        evil = EVIL[name](str(marker))
        if place == "inside it":
            network.model[0].evil = evil
        bright_fastsam.save(network, fastsam.folder / "evil.pt", **({} if place == "inside it" else {"args": evil}))
    if place == "instead of it":
        torch.save(evil, fastsam.folder / "evil.pt")
    with pytest.raises(ValueError, match=r"fastsam_name: 'evil.pt' cannot be read as FastSAM weights \(.+Fetch it"):
        fastsam.run(fastsam_name="evil.pt")
    assert not marker.exists()
    assert torch._utils._rebuild_parameter.__name__ == "_rebuild_parameter"


def test_the_evil_network_would_have_acted(fastsam, pack, tmp_path, monkeypatch):
    """The test above tests something: loaded without care, that file runs its code."""
    marker = tmp_path / "it ran"
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        from ultralytics.nn.modules import Conv

        monkeypatch.setattr(Conv, "default_act", Conv.default_act)  # the constructor changes it
        pickle.loads(pickle.dumps(evil_network(str(marker))))
    assert marker.exists()


def without_zip(folder):
    torch.save({"model": 1}, folder, _use_new_zipfile_serialization=False)


def script(path):
    torch.jit.script(torch.nn.Identity()).save(str(path))


def cut(path):
    data = (path.parent / "bright.pt").read_bytes()
    path.write_bytes(data[: len(data) // 2])


def another_task(path):
    from ultralytics.nn.tasks import DetectionModel

    torch.save({"model": DetectionModel("yolov8n.yaml", verbose=False)}, path)


CORRUPT = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404 Not Found</html>"),
    "half a file": cut,
    "an empty zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps({"model": Calls(os.system, "true")})),
    "the old form": without_zip,
    "TorchScript": script,
    "a list": lambda path: torch.save([1, 2], path),
    "no network": lambda path: torch.save({"epoch": 3}, path),
    "bare weights": lambda path: torch.save({"model": {"a": torch.zeros(2)}}, path),
    "a network of another task": another_task,
}


@pytest.mark.parametrize("name", CORRUPT)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_corrupt_weights_are_refused(fastsam, pack, name):
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        CORRUPT[name](fastsam.folder / "corrupt.pt")
    with pytest.raises(
        ValueError, match=r"'corrupt.pt' cannot be read as FastSAM weights \(.+\)\. Fetch it again from h"
    ):
        fastsam.run(fastsam_name="corrupt.pt")


def test_what_real_files_hold_beside_the_network_is_read(fastsam, pack):
    """Notes of a training: settings, paths, numpy scores, losses; and Detect.forward, which Segment once kept."""
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        from pathlib import Path

        from ultralytics.nn.modules import Detect
        from ultralytics.utils import IterableSimpleNamespace
        from ultralytics.utils.loss import v8SegmentationLoss

        network = bright_fastsam.make_network()
        network.model[22].detect = Detect.forward
        network.args = IterableSimpleNamespace(box=7.5, cls=0.5, dfl=1.5, overlap_mask=True)
        network.criterion = v8SegmentationLoss(network)
        notes = {"best_fitness": np.float64(0.5), "save_dir": Path("runs/segment"), "losses": np.zeros(3)}
        bright_fastsam.save(network, fastsam.folder / "real.pt", **notes)
    assert torch.equal(fastsam.run(fastsam_name="real.pt")[0], fastsam.run()[0])


@pytest.mark.parametrize(
    "name",
    [
        "ultralytics.nn.modules.Conv",  # before 8.0.90 all layers were in one file
        "ultralytics.nn.modules.conv.Conv",
        "ultralytics.nn.modules.block.C2f",
        "ultralytics.nn.modules.head.Segment",
        "ultralytics.nn.tasks.SegmentationModel",
        "ultralytics.yolo.utils.IterableSimpleNamespace",
        "ultralytics.yolo.utils.loss.v8SegmentationLoss",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.container.ModuleList",
        "numpy.core.multiarray.scalar",
        "pathlib.WindowsPath",
        "torch.Size",
        "torch.float16",
        "__builtin__.set",
    ],
)
def test_names_of_files_of_any_age_are_known(pack, name):
    with pack.host.segment.ultralytics_call.ultralytics_at_work():
        assert pack.host.segment.checkpoint.RestrictedUnpickler(io.BytesIO()).find_class(*name.rsplit(".", 1))


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "nt.system", "builtins.eval", "builtins.__import__", "torch.load", "torch.ops", "torch.hub.load",
        "torch._utils._import_dotted_name", "torch.nn.modulesx.Conv2d", "torch.nn.modules.module.Module",
        "ultralyticsx.nn.Conv", "ultralytics.nn.tasks.eval", "ultralytics.nn.tasks.parse_model", "numpyx.load",
        "ultralytics.nn.tasks.torch", "ultralytics.nn.tasks.SegmentationModel.predict", "functools.partial",
    ],
)  # fmt: skip
def test_other_names_are_not(pack, name):
    unpickler = pack.host.segment.checkpoint.RestrictedUnpickler(io.BytesIO())
    for parts in (name.split(".", 1), name.rsplit(".", 1)):
        with pytest.raises(pickle.UnpicklingError, match=r"it names .*refused"):
            unpickler.find_class(*parts)
