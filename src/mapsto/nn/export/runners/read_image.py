"""Image files as `mapsto_runtime.preprocessing.image_files` reads them, but for pictures of 32 bits a channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read"]

# ---- below this line: part of the runner


def read(path: Path, signature: dict[str, Any]) -> Any:
    """An image file as the network's input, (1, C, H, W)."""
    from PIL import Image, ImageOps

    before = signature["preprocessing"]
    with Image.open(path) as opened:
        form = opened.format
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or (image.mode == "I" and form in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image).astype(np.float64) * (255 / 65535)).round().astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("a picture of 32 bits a channel: save it with 8 or 16, or ask mapsto-runtime")
    elif image.has_transparency_data:
        clear = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear)
    image = image if image.mode in ("1", "L", "RGB") else image.convert("RGB")
    image = image.convert("RGB" if before["channels"] == 3 else "L")
    height, width = before["size"]
    if before.get("fit") == "crop":  # the smallest picture that covers 8/7 of the size, and of that the middle
        covered = round(height * 8 / 7), round(width * 8 / 7)
        factor = max(covered[0] / image.height, covered[1] / image.width)
        scaled = max(covered[0], round(image.height * factor)), max(covered[1], round(image.width * factor))
        image = image.resize(scaled[::-1], Image.Resampling.BILINEAR)
        for inner in (covered, (height, width)):
            top, left = (image.height - inner[0]) // 2, (image.width - inner[1]) // 2
            image = image.crop((left, top, left + inner[1], top + inner[0]))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
    edge = int(pixels[[0, -1]].sum()) + int(pixels[1:-1, [0, -1]].sum())
    count = pixels.shape[2] * (2 * width + 2 * max(height - 2, 0))
    if before["ink"] == "light" and edge > 127.5 * count:  # dark ink on a bright ground
        pixels = 255 - pixels
    mean, std = (np.array(before[name], np.float32) for name in ("mean", "std"))
    x = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.broadcast_to(x, (height, width, before["channels"])).transpose(2, 0, 1)[None].astype(np.float32)
