"""A glyph as a signed distance field: rasterised once for a character and a face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mapsto.data.glyphs.rasters import CANVAS, rastered

if TYPE_CHECKING:
    from mapsto.data.glyphs.alphabet import Character

__all__ = ["REACH", "drawn_fields", "glyph_field", "signed_distance"]


REACH: Final = 6


def _near(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Squared distance to the nearest True pixel, cut off at REACH along each axis; shape as given."""
    distance = np.where(inside, np.uint8(0), np.uint8(2 * REACH * REACH))
    for axis in (1, 2):
        source = np.moveaxis(distance, axis, 0)
        nearest_so_far = source.copy()
        for step in range(1, REACH + 1):
            cost = np.uint8(step * step)
            np.minimum(nearest_so_far[step:], source[:-step] + cost, out=nearest_so_far[step:])
            np.minimum(nearest_so_far[:-step], source[step:] + cost, out=nearest_so_far[:-step])
        distance = np.moveaxis(np.minimum(nearest_so_far, np.uint8(2 * REACH * REACH)), 0, axis)
    return distance


_ROOT: Final[NDArray[np.float32]] = np.sqrt(np.arange(256)).astype(np.float32)


def signed_distance(glyphs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Distance to the outline in canvas pixels, positive inside; shape (N, CANVAS, CANVAS)."""
    ink = glyphs >= 128
    return np.where(ink, _ROOT[_near(~ink)] - 0.5, 0.5 - _ROOT[_near(ink)]).astype(np.float32)


def glyph_field(character: Character, face: str) -> NDArray[np.uint8]:
    """The glyph in that face, or in the reference where the face holds a blank."""
    glyph = rastered(character.code_point, face)
    if glyph is None:
        glyph = rastered(character.code_point, character.faces[0])
    return np.zeros((CANVAS, CANVAS), np.uint8) if glyph is None else glyph


def drawn_fields(
    characters: tuple[Character, ...], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The fields of the faces that were chosen, and which of them each image uses."""
    glyphs: list[NDArray[np.uint8]] = []
    where = np.empty_like(chosen)
    for row, character in enumerate(characters):
        for face in np.unique(chosen[row]):
            where[row, chosen[row] == face] = len(glyphs)
            glyphs.append(glyph_field(character, character.faces[face]))
    return signed_distance(np.stack(glyphs)), where.ravel()
