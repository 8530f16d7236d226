"""A made-up folder of ImageNet's layout: coloured patterns as JPEGs of several sizes, upright and turned, grey and CMYK ones among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475", "n01496331")
SIZES = ((64, 48), (48, 64), (50, 50), (90, 40), (40, 70))


def pattern(kind: int, number: int, size: tuple[int, int]) -> Image.Image:
    """A picture of that height and width: the class is its colour and the direction of its stripes."""
    generator = np.random.default_rng([kind, number])
    y, x = np.mgrid[: size[0], : size[1]]
    angle = np.pi * kind / len(CLASSES)
    wave = np.sin(2 * np.pi * ((x * np.cos(angle) + y * np.sin(angle)) / 9 + generator.random()))
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (kind / len(CLASSES) + np.arange(3) / 3))
    values = 120 + 90 * wave[..., None] * colour + generator.normal(0, 12, (*size, 3))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def imagenet(root: Path, *, train: int = 12, val: int = 3, odd: bool = True, classes: int = len(CLASSES)) -> Path:
    """``root/{train,val}/CLASS/*.JPEG``, so many of each class; with `odd` one truncated, grey, CMYK and turned ones in the first."""
    for split, count in (("train", train), ("val", val)):
        for kind, name in enumerate(CLASSES[:classes]):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                place = 100 * number + (split == "val")
                pattern(kind, place, SIZES[number % len(SIZES)]).save(folder / f"{name}_{number}.JPEG", quality=90)
    if odd:
        folder = root / "train" / CLASSES[0]
        pattern(0, 7001, (60, 60)).convert("L").save(folder / "grey.JPEG")
        pattern(0, 7002, (60, 60)).convert("CMYK").save(folder / "ink.JPEG")
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        pattern(0, 7003, (40, 70)).save(folder / "turned.JPEG", exif=exif)
        whole = folder / f"{CLASSES[0]}_0.JPEG"
        (folder / "cut.JPEG").write_bytes(whole.read_bytes()[:400])
    return root
