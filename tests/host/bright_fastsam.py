"""A FastSAM file made by hand: ultralytics' own YOLOv8-seg, tiny, with weights that take bright things for objects.

Every convolution averages and nothing bends (identity activations), so features are local brightness. The head fires
at stride 8 only, where that is above FIRES; its boxes reach REACH pixels to each side; a mask is where brightness is
above half, inside the box.
"""

from __future__ import annotations

import torch
import yaml
from torch import nn

FIRES, REACH, STRIDE = 0.8, 40, 8


@torch.inference_mode(False)
@torch.no_grad()
def make_network(never: bool = False, always: bool = False):
    """The network; ``never`` finds nothing, ``always`` takes every place for an object."""
    from ultralytics.nn.tasks import SegmentationModel
    from ultralytics.utils import ROOT

    config = yaml.safe_load((ROOT / "cfg/models/v8/yolov8-seg.yaml").read_text(encoding="utf-8"))
    network = SegmentationModel({**config, "scales": {"n": [0.01, 0.03, 1024]}, "scale": "n", "nc": 1}, verbose=False)
    _average(network)
    _fire_on_brightness(network, -30.0 if never else 30.0 if always else None)
    network.names, network.task = {0: "object"}, "segment"
    return network.eval()


def save(network, path, **extra):
    """The file as ultralytics' trainer leaves it: a whole model in half precision among notes."""
    torch.save({"epoch": -1, "model": network.half(), "ema": None, "train_args": {"imgsz": 1024}, **extra}, path)
    return path


def _average(network):
    for name, module in network.named_modules():
        if ".dfl" in name:  # its weights are no weights but the distances 0..15
            continue
        if hasattr(module, "act") and hasattr(module, "conv"):
            module.act = nn.Identity()
        if isinstance(module, nn.Conv2d):
            _centre(module)
        elif isinstance(module, nn.ConvTranspose2d):
            module.weight.fill_(1.0 / module.in_channels)
            module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.weight.fill_((1.0 + module.eps) ** 0.5)
            module.bias.zero_()


def _centre(conv):
    """Averages over channels at the window's centre; strided ones over their 2 x 2 places."""
    conv.weight.zero_()
    size = conv.kernel_size[0]
    places = slice(1, 3) if conv.stride[0] == 2 else slice(size // 2, size // 2 + 1)
    conv.weight[:, :, places, places] = 1.0 / conv.weight.shape[1] / (4 if conv.stride[0] == 2 else 1)
    if conv.bias is not None:
        conv.bias.zero_()


def _fire_on_brightness(network, logit):
    merge, head = network.model[15].cv1.conv, network.model[22]
    skipped = network.model[4].cv2.conv.out_channels
    merge.weight[:, :-skipped] = 0.0  # features of stride 8 come from the picture's own detail alone
    merge.weight[:, -skipped:] = 1.0 / skipped
    gain = _gain(network)
    for level in range(3):
        boxes, classes, coefficients = head.cv2[level][-1], head.cv3[level][-1], head.cv4[level][-1]
        for last in (boxes, classes, coefficients):
            last.weight.zero_()
            last.bias.zero_()
        boxes.bias.view(4, -1)[:, REACH // STRIDE] = 30.0
        classes.bias.fill_(-30.0 if level or logit is None else logit)
        coefficients.bias[:2] = torch.tensor([30.0, -30.0])
    if logit is None:
        head.cv3[0][-1].weight.fill_(40.0 / gain / head.cv3[0][-1].in_channels)
        head.cv3[0][-1].bias.fill_(-40.0 * FIRES)
    head.proto.cv3.bn.weight[1:] = 0.0
    head.proto.cv3.bn.bias[1] = 0.5 * gain


def _gain(network):
    """What a white picture becomes at stride 8."""
    features = []
    handle = network.model[15].register_forward_hook(lambda module, given, out: features.append(out))
    network.eval()(torch.ones(1, 3, 64, 64))
    handle.remove()
    return features[0].mean().item()
