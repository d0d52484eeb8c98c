"""Make the demo checkpoint: data, autoencoder, latents, unet, export, report, in this order.

`restart` keeps the U-Net's weights and begins its optimisers, average and clock anew: for another loss.
Needs COMFYUI_PATH. Every stage resumes where it was interrupted; SIGTERM stores and stops it.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from tools.demo_training import (
    autoencoder,
    crops,
    curves,
    demo_pictures,
    export,
    latents,
    photographs,
    pictures,
    report,
    unet,
    widen,
)
from tools.demo_training.workplace import DEMO, PACK, device

log = logging.getLogger("train_demo_checkpoint")
MINUTES = {"autoencoder": 16.0, "unet": 45.0}


def make_pictures(args: argparse.Namespace) -> None:
    photographs.download_wheels(args.work / "wheels")
    pictures.make(args.work, args.count, args.threads)


def held_out_check(wheels: Path) -> Callable[[nn.Module], str]:
    """Says the PSNR on each held-out photograph."""
    images = [photographs.centre(photographs.load(p, wheels), 256) for p in photographs.HELD_OUT]

    def check(model: nn.Module) -> str:
        return "held out " + " ".join(f"{autoencoder.psnr(i, autoencoder.reconstruct(model, i)):.2f}" for i in images)

    return check


def train_autoencoder(args: argparse.Namespace) -> None:
    wheels, minutes = args.work / "wheels", args.minutes or MINUTES["autoencoder"]
    training = autoencoder.Training(args.work / "autoencoder.pt")
    source, check = crops.crop_source(wheels, args.work / "pictures.npy"), held_out_check(wheels)
    if not training.path.exists():
        training.begin(source)
    if training.phase == "pair":
        if not training.run(source, minutes * 0.6, 2.5e-3, check):
            return
        log.info("pair done: %s", check(training.model))
        training.freeze_encoder(source)
    done = training.run(source, minutes * 0.4, 1.5e-3, check)
    log.info("decoder %s: %s", "done" if done else "interrupted", check(training.model))


def widen_autoencoder(args: argparse.Namespace) -> None:
    if args.before is None:
        raise ValueError("the widen stage needs --before, the working files of the narrower checkpoint")
    training = autoencoder.Training(args.work / "autoencoder.pt")
    source = crops.crop_source(args.work / "wheels", args.work / "pictures.npy")
    training.hold(widen.start(training.model, args.before / "autoencoder.pt", source))
    training.restart_phase()
    log.info("widened: %s", held_out_check(args.work / "wheels")(training.model))
    if not (args.work / "unet.pt").exists():
        networks = unet.Training(args.work / "unet.pt")
        networks.step = widen.start_unet(networks.networks, args.before / "unet.pt")
        networks.restart()


def train_unet(args: argparse.Namespace) -> None:
    training = unet.Training(args.work / "unet.pt")
    latents.make(args.work, args.count)
    held_out, captions = latents.held_out(args.work)
    empty = training.networks.tokens([""])[0]
    batch = unet.Batch(partial(latents.load, args.work), training.networks.tokens(latents.captions(args.work)), empty)

    def check(networks: unet.DemoNetworks) -> float:
        context = networks.context(networks.tokens(captions)).detach()
        return unet.held_out_loss(partial(networks, context=context), held_out.to(device()))

    done = training.run(batch, args.minutes or MINUTES["unet"], args.rate, check)
    log.info("unet %s: held out %.4f", "done" if done else "interrupted", training.with_average(check))


def make_report(args: argparse.Namespace) -> None:
    """Of the file that the host finds, which is the pack's own."""
    sheet = DEMO / "report.jpg"
    figures = report.measure(args.work, sheet)
    report.record(DEMO, figures)
    log.info("%s\nsamples: %s", json.dumps(figures, indent=1), sheet)


STAGES: dict[str, Callable[[argparse.Namespace], object]] = {
    "data": make_pictures,
    "autoencoder": train_autoencoder,
    "widen": widen_autoencoder,
    "latents": lambda args: latents.make(args.work),
    "unet": train_unet,
    "restart": lambda args: unet.Training(args.work / "unet.pt").restart(),
    "export": lambda args: export.write(args.work, args.demo),
    "pictures": lambda args: demo_pictures.write(args.work / "wheels", args.demo / "pictures"),
    "report": make_report,
    "curves": lambda args: curves.write(args.demo, args.logs),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--work", type=Path, default=PACK / ".host" / "demo_training", help="working files")
    parser.add_argument("--demo", type=Path, default=DEMO, help="where checkpoint and pictures go")
    parser.add_argument("--minutes", type=float, help=f"for a training, earlier runs counted in; default {MINUTES}")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate of the U-Net")
    parser.add_argument("--count", type=int, default=1600, help="pictures to make")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="for curves: files with the stages' output")
    parser.add_argument("--before", type=Path, help="for widen: working files of a checkpoint of fewer latent channels")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(args.threads)
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
