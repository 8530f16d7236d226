"""A picture of an explanation: what speaks for an answer in red, what speaks against it in blue, over the image in grey."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["overlay", "png"]

_SIDE = 224
"""Pixels of the longer side, about."""
_FOR, _AGAINST = (178, 24, 43), (33, 102, 172)


def overlay(picture: NDArray[np.uint8], scores: NDArray[Any], *, side: int = _SIDE) -> NDArray[np.uint8]:
    """An image beside the same with its scores laid over it, (H, W, 3).

    Parameters
    ----------
    picture
        What the network sees, (h, w, 3).
    scores
        Of places of it, (rows, columns), which need not be pixels; the largest of them has the fullest colour.
    side
        Pixels of the picture's longer side as it is drawn.
    """
    import numpy as np
    from PIL import Image

    height, width = picture.shape[:2]
    times = max(1, round(side / max(height, width)))
    size = (width * times, height * times)
    large = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), np.float64)
    most = float(np.abs(scores).max()) or 1.0
    shades = Image.fromarray((scores / most).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    strength = np.asarray(shades, np.float64).clip(-1, 1)[..., None]
    # Light enough to see colour on black, dark enough to see it on white.
    grey = np.broadcast_to(60 + 0.6 * large.mean(-1, keepdims=True), large.shape)
    colour = np.where(strength > 0, np.array(_FOR, np.float64), np.array(_AGAINST, np.float64))
    share = 0.85 * np.abs(strength) ** 0.7
    laid = (1 - share) * grey + share * colour
    gap = np.full((size[1], max(4, size[0] // 28), 3), 255.0)
    return np.concatenate([large, gap, laid], axis=1).round().clip(0, 255).astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Colours (H, W, 3) as a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
