"""All sides over the same images, in one process and one thread, in turn; run by the Python of the peers' environment.

python _worker.py SIZE ROUNDS CASE CASE …

Each case prints a line of JSON: by side its images a second, round by round. Only CPU seconds of the thread count.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import albumentations as peer_a
import cv2
import kornia.augmentation as peer_k
import numpy as np
import torch
from _former import Crop as FormerCrop
from _former import Flip as FormerFlip
from kornia.augmentation.auto import RandAugment, TrivialAugment

from mapsto import augment
from mapsto.data.augment._apply import changed

Call = Callable[[], int]
"""Changes images, and says how many."""

MAGNITUDE = 9
SHARE = MAGNITUDE / 30
BATCH = {32: 128, 224: 32}
POLICY = {
    "auto_contrast": (0.0, 1.0),
    "equalize": (0.0, 1.0),
    "rotate": (-30.0, 30.0),
    "posterize": (4.0, 8.0),
    "solarize": (0.0, 1.0),
    "color": (0.1, 1.9),
    "contrast": (0.1, 1.9),
    "brightness": (0.1, 1.9),
    "sharpness": (0.1, 1.9),
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "translate_x": (-0.45, 0.45),
    "translate_y": (-0.45, 0.45),
}
"""kornia's own, without what AutoAugment does not have."""


class Sides:
    """The images, and how each side is called with them."""

    def __init__(self, size: int) -> None:
        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(BATCH[size], 3, 8, 8, generator=random)
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
        grain = 0.05 * torch.randn(smooth.shape, generator=random)
        self.bytes = ((smooth + grain) * 255).clamp(0, 255).to(torch.uint8)
        self.floats = self.bytes.float() / 255
        self.arrays = [np.ascontiguousarray(each.permute(1, 2, 0).numpy()) for each in self.bytes]
        self.generators = [torch.Generator().manual_seed(each) for each in range(4)]

    def mapsto(self, *operations: Any, batches: int) -> Call:
        def call() -> int:
            for _ in range(batches):
                changed(operations, self.bytes, self.generators.__getitem__)
            return batches * len(self.bytes)

        return call

    def kornia(self, *operations: Any, batches: int) -> Call:
        """Drawn by kornia's own rule for a batch: an operation's numbers for each image, a policy's operations once."""

        def call() -> int:
            for _ in range(batches):
                x = self.floats
                for operation in operations:
                    x = operation(x)
            return batches * len(self.floats)

        return call

    def kornia_one_by_one(self, *operations: Any, images: int) -> Call:
        singles = self.floats.split(1)

        def call() -> int:
            for at in range(images):
                x = singles[at % len(singles)]
                for operation in operations:
                    x = operation(x)
            return images

        return call

    def albumentations(self, operations: Sequence[Any], images: int) -> Call:
        transform = peer_a.Compose(operations, seed=0)

        def call() -> int:
            for at in range(images):
                transform(image=self.arrays[at % len(self.arrays)])
            return images

        return call


def policies(size: int, sides: Sides) -> dict[str, dict[str, Call]]:
    large = size > 100
    kornia_policy = [[(name, *ends)] for name, ends in POLICY.items()]
    crop = partial(peer_k.RandomCrop, (size, size), padding=4, padding_mode="reflect")
    return {
        "RandAugment": {
            "mapsto": sides.mapsto(augment.randaugment(), batches=4 if large else 20),
            "kornia, drawn per batch": sides.kornia(
                RandAugment(2, MAGNITUDE, policy=kornia_policy), batches=13 if large else 39
            ),
            "kornia, per image": sides.kornia_one_by_one(
                RandAugment(2, MAGNITUDE, policy=kornia_policy), images=64 if large else 256
            ),
            "albumentations": sides.albumentations(
                [peer_a.SomeOf(list(of_autoaugment(SHARE).values()), n=2, replace=True, p=1)], 128 if large else 512
            ),
        },
        "TrivialAugment": {
            "mapsto": sides.mapsto(augment.trivialaugment(), batches=4 if large else 20),
            "kornia, drawn per batch": sides.kornia(TrivialAugment(), batches=13 if large else 39),
            "kornia, per image": sides.kornia_one_by_one(TrivialAugment(), images=64 if large else 256),
        },
        "AugMix": {"mapsto": sides.mapsto(augment.augmix(), batches=2 if large else 10)},
        "flip and crop": {
            "mapsto": sides.mapsto(augment.flip(), augment.crop(), batches=6 if large else 40),
            "mapsto before": sides.mapsto(FormerFlip(), FormerCrop(), batches=2 if large else 10),
            "kornia, drawn per batch": sides.kornia(peer_k.RandomHorizontalFlip(), crop(), batches=2 if large else 5),
            "albumentations": sides.albumentations(
                [
                    peer_a.HorizontalFlip(),
                    peer_a.Pad(padding=4, border_mode=cv2.BORDER_REFLECT_101),
                    peer_a.RandomCrop(size, size),
                ],
                128 if large else 512,
            ),
        },
    }


def of_autoaugment(share: float) -> dict[str, Any]:
    """albumentations' operations of AutoAugment's space, up to a share of its largest strengths."""
    factors, still = (1 - 0.9 * share, 1 + 0.9 * share), (1, 1)
    jitter = {"brightness": still, "contrast": still, "saturation": still, "hue": (0, 0), "p": 1}
    moved = {"fill": 128, "border_mode": cv2.BORDER_CONSTANT, "p": 1}
    return {
        "autocontrast": peer_a.AutoContrast(p=1),
        "equalize": peer_a.Equalize(p=1),
        "rotate": peer_a.Rotate(limit=30 * share, **moved),
        "posterize": peer_a.Posterize(num_bits=(round(8 - 4 * share), 8), p=1),
        "solarize": peer_a.Solarize(threshold_range=(1 - share, 1), p=1),
        "color": peer_a.ColorJitter(**{**jitter, "saturation": factors}),
        "contrast": peer_a.ColorJitter(**{**jitter, "contrast": factors}),
        "brightness": peer_a.ColorJitter(**{**jitter, "brightness": factors}),
        "sharpness": peer_a.Sharpen(alpha=(0, 0.9 * share), p=1),
        "shear_x": peer_a.Affine(shear={"x": (-17 * share, 17 * share), "y": 0}, **moved),
        "shear_y": peer_a.Affine(shear={"x": 0, "y": (-17 * share, 17 * share)}, **moved),
        "translate_x": peer_a.Affine(translate_percent={"x": (-0.45 * share, 0.45 * share), "y": 0}, **moved),
        "translate_y": peer_a.Affine(translate_percent={"x": 0, "y": (-0.45 * share, 0.45 * share)}, **moved),
    }


def operations(size: int, sides: Sides) -> dict[str, dict[str, Call]]:
    """One operation to every image, each image by numbers of its own, as far as AutoAugment goes."""
    large = size > 100
    theirs = of_autoaugment(1) | {
        "invert": peer_a.InvertImg(p=1),
        "affine": peer_a.Affine(rotate=(-20, 20), scale=(0.8, 1.2), translate_percent=(-0.1, 0.1), p=1),
        "blur": peer_a.GaussianBlur(sigma_limit=(0.1, 1), p=1),
        "color_jitter": peer_a.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1),
        "elastic": peer_a.ElasticTransform(p=1),
        "cutout": peer_a.CoarseDropout((1, 1), (0.5, 0.5), (0.5, 0.5), fill=128, p=1),
    }
    kornia = {
        "autocontrast": peer_k.RandomAutoContrast(p=1),
        "equalize": peer_k.RandomEqualize(p=1),
        "rotate": peer_k.RandomRotation(30, p=1),
        "posterize": peer_k.RandomPosterize((4, 8), p=1),
        "solarize": peer_k.RandomSolarize(0.5, 0.0, p=1),
        "color": peer_k.RandomSaturation((0.1, 1.9), p=1),
        "contrast": peer_k.RandomContrast((0.1, 1.9), p=1),
        "brightness": peer_k.RandomBrightness((0.1, 1.9), p=1),
        "sharpness": peer_k.RandomSharpness(0.9, p=1),
        "shear_x": peer_k.RandomShear((-17.0, 17.0), p=1),
        "shear_y": peer_k.RandomShear((0.0, 0.0, -17.0, 17.0), p=1),
        "translate_x": peer_k.RandomTranslate((-0.45, 0.45), None, p=1),
        "translate_y": peer_k.RandomTranslate(None, (-0.45, 0.45), p=1),
        "invert": peer_k.RandomInvert(p=1),
        "affine": peer_k.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), p=1),
        "blur": peer_k.RandomGaussianBlur((7, 7), (0.1, 1.0), p=1),
        "color_jitter": peer_k.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=1),
        "elastic": peer_k.RandomElasticTransform(p=1),
        "cutout": peer_k.RandomErasing((0.25, 0.25), (1.0, 1.0), value=0.5, p=1),
    }
    ours = {
        "autocontrast": augment.autocontrast(probability=1),
        "equalize": augment.equalize(probability=1),
        "rotate": augment.rotate(degrees=30),
        "posterize": augment.posterize(probability=1),
        "solarize": augment.solarize(probability=1),
        "color": augment.color(strength=0.9),
        "contrast": augment.contrast(strength=0.9),
        "brightness": augment.brightness(strength=0.9),
        "sharpness": augment.sharpness(strength=0.9),
        "shear_x": augment.shear_x(shear=0.3),
        "shear_y": augment.shear_y(shear=0.3),
        "translate_x": augment.translate_x(translate=0.45),
        "translate_y": augment.translate_y(translate=0.45),
        "invert": augment.invert(probability=1),
        "affine": augment.affine(degrees=20, scale=0.2, translate=0.1),
        "blur": augment.blur(probability=1, sigma=(0.1, 1)),
        "color_jitter": augment.color_jitter(probability=1),
        "elastic": augment.elastic(),
        "cutout": augment.cutout(),
    }
    return {
        name: {
            "mapsto": sides.mapsto(ours[name], batches=2 if large else 10),
            "kornia, drawn per batch": sides.kornia(kornia[name], batches=1 if large else 2),
            "albumentations": sides.albumentations([theirs[name]], 16 if large else 128),
        }
        for name in ours
    }


def rates(call: Call) -> float:
    began = time.thread_time()
    images = call()
    return images / (time.thread_time() - began)


def main() -> None:
    size, rounds, *asked = (int(each) if each.isdigit() else each for each in sys.argv[1:])
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    sides = Sides(int(size))
    for name, calls in {**policies(int(size), sides), **operations(int(size), sides)}.items():
        if asked and name not in asked:
            continue
        for call in calls.values():
            call()
        found: dict[str, list[float]] = {side: [] for side in calls}
        for _ in range(int(rounds)):
            for side, call in calls.items():
                found[side].append(rates(call))
        print("FOUND " + json.dumps({"operation": name, "rates": found}), flush=True)


if __name__ == "__main__":
    main()
