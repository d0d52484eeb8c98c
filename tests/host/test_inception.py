"""Both Inception networks against the libraries' own, over files with random weights, and files that are refused."""

from __future__ import annotations

import evaluation_bench as eb
import pytest
import regions_bench as rb
import set_bench as sb
import torch

pytest_plugins = ("evaluation_fixtures",)


def art_network():
    """torchvision's Inception v3, on which ArtFID's is built, with random weights."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    return torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)


def art_state(network):
    """Its tensors under the names of ArtFID's file, which has two lists of classes and two auxiliary ones."""
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("fc")}
    extra = ("fc1.weight", "fc2.weight", "AuxLogits1.fc.weight", "AuxLogits2.fc.weight")
    return {**state, **{name: torch.zeros(1, 2048) for name in extra}}


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    """(the network, a file of it)."""
    path = tmp_path_factory.mktemp("art") / "art_inception.pth"
    with torch.inference_mode(False):
        network = art_network().eval().requires_grad_(False)
        torch.save(art_state(network), path)
    return network, path


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    """(torch-fidelity's extractor of 2048 features, a file of it)."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("standard") / "inception.pth"
    with torch.inference_mode(False), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        made = module.FeatureExtractorInceptionV3
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(made, "load_state_dict", lambda *_: None)
        network = made("inception-v3-compat", ["2048"])
        torch.save(network.state_dict(), path)
    return network, path


def test_art_inception_is_torchvisions_last_layer_before_the_classes(pack, seed, art):
    network, path = art
    picture = rb.pictures(seed, 90, 110)
    seen = []
    hook = network.dropout.register_forward_hook(lambda *call: seen.append(call[-1].flatten(1)[0]))
    network(picture.movedim(-1, 1))
    hook.remove()
    ours = pack.host.networks.inception.Inception(path)
    assert ours.name == "ArtFID's Inception"
    found = ours.features(picture[0])
    assert found.shape == (2048,)
    assert found.std() > 0
    torch.testing.assert_close(found, seen[0])


def test_standard_inception_is_torch_fidelitys(pack, seed, standard):
    network, path = standard
    picture = (rb.pictures(seed, 60, 110) * 255).round().to(torch.uint8)
    ours = pack.host.networks.inception.Inception(path)
    assert ours.name == "FID's Inception (2015-12-05)"
    found = ours.features(picture[0].float() / 255.0)
    assert found.std() > 0
    torch.testing.assert_close(found, network(picture.movedim(-1, 1))[0][0])


def test_small_pictures_have_no_art_features(pack, seed, art):
    with rb.refuses("ArtFID's Inception needs 75 pixels on each side, got 74"):
        pack.host.networks.inception.Inception(art[1]).features(rb.pictures(seed, 200, 74)[0])


def test_the_network_that_a_set_uses_is_named(pack, folders, metric_folders, art):
    (metric_folders / "fid" / "art.pth").write_bytes(art[1].read_bytes())
    small = sb.evaluate(pack, fid_weights="art.pth")
    assert small.scores["fid"]["not_available"] == (
        "cat_stylized_ink.png: ArtFID's Inception needs 75 pixels on each side, got 40"
    )
    out = sb.evaluate(pack, fid_weights="art.pth", size=80)
    assert out.score("fid") > 0
    assert "FID, ArtFID's Inception: " in out.summary
    assert len(list((folders / "output" / "tables" / "set_features").iterdir())) == 9


def test_other_files_are_not_run_and_not_taken(pack, folders, metric_folders, art):
    class Evil:
        def __reduce__(self):
            return (open, (str(metric_folders / "written"), "w"))

    files = metric_folders / "fid"
    state = torch.load(art[1], weights_only=True)
    torch.save({"fc1.weight": Evil()}, files / "evil.pth")
    eb.save_backbone(files / "other.pth", "squeezenet1_1")
    torch.save({key: value for key, value in state.items() if "Mixed_5b" not in key}, files / "half.pth")
    for name, words in (("evil.pth", "cannot be read"), ("other.pth", "other weights"), ("half.pth", "lacks weights")):
        assert words in sb.evaluate(pack, fid_weights=name).scores["fid"]["not_available"]
    assert not (metric_folders / "written").exists()


@pytest.mark.parametrize("name", ["../own.pth", "/tmp/own.pth", "own.txt"])
def test_weights_elsewhere_are_refused(pack, folders, name):
    with rb.refuses("fid_weights must name", "inside models/fid", repr(name)):
        sb.evaluate(pack, fid_weights=name)
