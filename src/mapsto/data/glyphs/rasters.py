"""Glyphs as the fonts of the matplotlib wheel draw them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mapsto.errors import DataError

__all__ = ["BOX", "CANVAS", "font_file", "rastered"]

CANVAS: Final = 64
BOX: Final = 48


# -- characters


def font_file(font: str) -> Path:
    """The font's file in the matplotlib wheel."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font
    if not path.is_file():
        raise DataError(f"the font {font} is missing", where=str(path), hint="reinstall matplotlib from its wheel")
    return path


# -- glyphs


@cache
def _font(font: str, points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file(font)), points, layout_engine=ImageFont.Layout.BASIC)


def rastered(code_point: int, font: str) -> NDArray[np.uint8] | None:
    """The glyph scaled to the box, shape (CANVAS, CANVAS), or None where it is blank."""
    text = chr(code_point)
    left, top, right, bottom = _font(font, 64).getbbox(text)
    span = max(right - left, bottom - top)
    if span < 3:
        return None
    face = _font(font, int(min(512, max(24, round(64 * BOX / span)))))
    left, top, right, bottom = (round(edge) for edge in face.getbbox(text))
    glyph = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(glyph).text((1 - left, 1 - top), text, fill=255, font=face)
    inked = glyph.getbbox()
    if inked is None:
        return None
    glyph = glyph.crop(inked)
    scale = BOX / max(glyph.size)
    width, height = (max(1, round(edge * scale)) for edge in glyph.size)
    glyph = glyph.resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(glyph, ((CANVAS - width) // 2, (CANVAS - height) // 2))
    return np.asarray(canvas, np.uint8)
