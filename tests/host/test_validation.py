"""What the host asks before anything runs: typed text and names of files are refused there, wires are not looked at."""

from __future__ import annotations

import asyncio
import inspect

import execution
import folder_paths
import pytest
from comfy_api.latest import io

import nodes as host_nodes

pytest_plugins = ("fastsam_fixtures",)


@pytest.fixture
def asked(pack):
    """``asked(node, input=...)``: what the host's own validation says of these inputs, by input."""

    def ask(node, **inputs):
        kind = node.define_schema().node_id
        assert host_nodes.NODE_CLASS_MAPPINGS[kind] is node
        defaults = {i.id: i.default for i in node.define_schema().inputs if getattr(i, "default", None) is not None}
        prompt = {"1": {"class_type": kind, "inputs": {**defaults, **inputs}}}
        _, errors, _ = asyncio.run(execution.validate_inputs("p", prompt, "1", {}))
        return {
            error["extra_info"]["input_name"]: f"{error['message']} {error['details']}"
            for error in errors
            if error["type"] != "required_input_missing"
        }

    return ask


@pytest.mark.parametrize("prefix", ["../x", "/x", "a//b", "x" * 201, "C:x", ""])
def test_a_prefix_that_is_no_name(pack, asked, prefix):
    found = asked(pack.pipeline.train.TrainStyleLoRA, filename_prefix=prefix)
    assert "filename_prefix: " in found.pop("filename_prefix")
    assert found == {}


def test_prefixes_that_are_names(pack, asked):
    for prefix in ("DiffStyler/%style_image%", "a/b", "ink"):
        assert asked(pack.pipeline.train.TrainStyleLoRA, filename_prefix=prefix) == {}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"mode": "points", "points": "a, b"}, ("points must be written as 'x, y'", "'a, b'")),
        ({"mode": "boxes", "boxes": "1, 2, 3"}, ("boxes must be written as", "'1, 2, 3'")),
        ({"mode": "magic"}, ("mode must be one of text, points", "'magic'")),
        ({"fastsam_name": "FastSAM-s.pt"}, ("no 'FastSAM-s.pt'", "Fetch it from https://github.com/ultralytics")),
        ({"fastsam_name": "FastSAM-s.pt (not installed)"}, ("no 'FastSAM-s.pt'", "Fetch it from")),
        ({"fastsam_name": "../x.pt"}, ("fastsam_name must name a .pt file inside models/fastsam",)),
    ],
)
def test_fastsams_typed_text(fastsam, asked, inputs, words):
    found = asked(fastsam.node, **{"fastsam_name": "bright.pt", **inputs})
    assert [word for word in words if word not in found[next(iter(inputs))]] == []


def test_fastsams_other_modes_are_not_read(fastsam, asked):
    given = {"fastsam_name": "bright.pt", "points": "not used", "boxes": "nor this"}
    assert asked(fastsam.node, mode="everything", **given) == {}
    assert asked(fastsam.node, mode="points", **{**given, "points": ""}) == {}, "points may come over the wire"


def test_both_forms_of_a_name_are_valid_once_the_file_is_there(fastsam, asked):
    (fastsam.folder / "FastSAM-s.pt").write_bytes((fastsam.folder / "bright.pt").read_bytes())
    folder_paths.filename_list_cache.pop("fastsam", None)
    for name in ("FastSAM-s.pt", "FastSAM-s.pt (not installed)"):
        assert asked(fastsam.node, fastsam_name=name) == {}
        assert fastsam.run(fastsam_name=name)[0].any()
    inputs = {entry.id: entry for entry in fastsam.node.define_schema().inputs}
    assert inputs["fastsam_name"].options[:2] == ["FastSAM-s.pt", "FastSAM-x.pt (not installed)"]
    assert inputs["fastsam_name"].default == "FastSAM-s.pt"


ALEX = "alexnet-owt-7be5be79.pth"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Empty models/lpips and models/fid."""
    for name in ("lpips", "fid"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], set()))
        folder_paths.filename_list_cache.pop(name, None)
    return tmp_path


def test_metric_weights_are_valid_in_both_forms(pack, asked, weights):
    node = pack.evaluate.compare.CompareResult
    for name in (ALEX, f"{ALEX} (not installed)", "none"):
        assert asked(node, lpips_weights=name) == {}
    assert "no 'other.pth' in models/lpips" in asked(node, lpips_weights="other.pth")["lpips_weights"]
    assert "no 7 in models/lpips" in asked(node, lpips_weights=7)["lpips_weights"]


def test_metric_weights_that_are_missing_are_marked(pack, weights):
    files = pack.host.networks.files
    assert files.weight_names("lpips")[0] == f"{ALEX} (not installed)"
    assert files.default_weights("lpips") == f"{ALEX} (not installed)"
    with pytest.raises(pack.core.metrics.pixels.NotAvailable, match=f"there is no '{ALEX}'.*Fetch it from https"):
        files.weight_file("lpips", f"{ALEX} (not installed)")
    (weights / "lpips" / "vgg16-397923af.pth").write_bytes(b"x")
    folder_paths.filename_list_cache.pop("lpips", None)
    assert files.weight_names("lpips")[:2] == [f"{ALEX} (not installed)", "vgg16-397923af.pth"]
    assert files.default_weights("lpips") == "vgg16-397923af.pth"
    assert files.weight_file("lpips", "vgg16-397923af.pth (not installed)").name == "vgg16-397923af.pth"


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"results_folder": "../x"}, "results_folder: '../x' is no plain name"),
        ({"content_folder": "models/x"}, "content_folder: a folder starts with input, output or temp"),
        ({"style_folder": ""}, "style_folder: '' is no plain name"),
        ({"filename_prefix": "/etc/x"}, "filename_prefix: '/etc/x' is no plain name"),
        ({"fid_weights": "x.pth"}, "fid_weights: there is no 'x.pth' in models/fid"),
    ],
)
def test_an_evaluations_paths(pack, asked, weights, inputs, words):
    node = pack.evaluate.evaluate_set.EvaluateSet
    assert asked(node) == {}, "folders that the run itself may make are not looked for"
    assert words in asked(node, **inputs)[next(iter(inputs))]


def test_what_comes_over_a_wire_is_not_looked_at(pack, asked):
    for node in (
        pack.pipeline.train.TrainStyleLoRA,
        pack.masks.fastsam.FastSAMMask,
        pack.evaluate.compare.CompareResult,
        pack.evaluate.evaluate_set.EvaluateSet,
    ):
        assert node.validate_inputs() is True


CUSTOM = {"preset.feature_end_percent": 0.6, "preset.attention_end_percent": 0.5, "preset.attention_mode": "fixed"}
STYLE_ID = {"method.query_blend": 0.75, "method.temperature": 1.5, "method.adain_start": True}


@pytest.mark.parametrize("values", [{"preset": "paper 2024"}, {"preset": "custom", "preset.blend": "qk", **CUSTOM}])
def test_injection_settings_can_be_queued(pack, asked, values):
    node = pack.pipeline.injection_settings.InjectionSettingsNode
    assert asked(node, **values) == {}
    found = asked(node, **values, feature_layers="4;5")
    assert "feature_layers must be written like" in " ".join(found.values())


@pytest.mark.parametrize(
    "values", [{"method": "StyleID", **STYLE_ID}, {"method": "shared attention", "method.mode": "swap"}]
)
def test_a_training_free_style_can_be_queued(pack, asked, values):
    node = pack.pipeline.style_from_features.StyleFromFeatures
    assert asked(node, **values) == {}
    assert "layers must be written like" in " ".join(asked(node, **values, layers="x").values())
    assert "method.temperature" in asked(node, **{**values, "method.temperature": 99.0}) or "shared" in values["method"]


def test_checks_before_the_run_take_the_dynamic_combos(pack):
    """The host hands those over whatever a check asks for: one that does not take them refuses every prompt."""
    for node in asyncio.run(pack.extension.DiffStylerExtension().get_node_list()):
        combos = {given.id for given in node.define_schema().inputs if isinstance(given, io.DynamicCombo.Input)}
        taken = inspect.signature(node.validate_inputs).parameters
        asked = [name for name, one in taken.items() if one.kind is not one.VAR_KEYWORD]
        assert not asked or combos <= taken.keys(), node.__name__
