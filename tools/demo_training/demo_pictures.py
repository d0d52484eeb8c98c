"""The demo's content and style pictures, all outside the training set."""

from pathlib import Path

import numpy as np
from PIL import Image

from . import artworks, photographs, scenes
from .fields import Field

SIDE = 512


def oil_painting() -> Field:
    """Vivid swirling strokes in blue and orange."""
    scene = scenes.scene("trees in a meadow", SIDE, 13)
    blues, golds = ((14, 20, 66), (26, 62, 140), (40, 130, 170)), ((236, 160, 40), (255, 226, 120))
    palette = [np.array(c) / 255 for c in (*blues, *golds)]
    coloured = artworks.mix(scene, artworks.ramp(artworks.luma(scene), palette), np.full((SIDE, SIDE), 0.85))
    vivid = np.clip((coloured - 0.45) * 1.35 + 0.5, 0, 1)
    return artworks.strokes(vivid, np.random.default_rng(11), 46, 13, 3, 0.0, 0.9)


def ink_drawing() -> Field:
    """Brown hatching on toned paper."""
    scene = scenes.scene("houses", SIDE, 25)
    ink, tint = np.array([0.22, 0.1, 0.05]), np.array([0.87, 0.76, 0.58])
    return artworks.hatching(scene, np.random.default_rng(22), ink, tint)


def mosaic() -> Field:
    """Bright tiles with dark joints."""
    scene = scenes.scene("flowers", SIDE, 32)
    grey = artworks.luma(scene)[..., None]
    vivid = np.clip(grey + 1.6 * (scene - grey) + 0.12, 0, 1)
    return artworks.mosaic(vivid, np.random.default_rng(33), 1500, np.full(3, 0.08))


def watercolour() -> Field:
    """Pink and violet washes on rough paper."""
    return artworks.watercolour(scenes.scene("mountains", SIDE, 44), np.random.default_rng(3))


STYLES = {
    "style_oil_painting": oil_painting,
    "style_ink_drawing": ink_drawing,
    "style_mosaic": mosaic,
    "style_watercolour": watercolour,
}
SCENES = {"content_bay": ("the sea", 41), "content_houses": ("houses", 57)}


def write(wheels: Path, folder: Path) -> None:
    """Contents as centre squares of the held-out photographs and as generated, styles as generated."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in photographs.HELD_OUT:
        image = photographs.load(photo, wheels)
        square = photographs.centre(image, min(SIDE, *image.shape[:2]))
        Image.fromarray(square).save(folder / f"content_{Path(photo.member).stem}.jpg", quality=92)
    pictures = {name: scenes.scene(subject, SIDE, seed) for name, (subject, seed) in SCENES.items()}
    pictures |= {name: np.clip(style(), 0, 1) for name, style in STYLES.items()}
    for name, picture in pictures.items():
        Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(folder / f"{name}.jpg", quality=92)
