"""Draws labelled images of characters from the fonts in the matplotlib wheel.

A glyph is rasterised once per character and face, and kept as a signed distance field (Felzenszwalb and Huttenlocher,
2012, "Distance transforms of sampled functions"), so that the width of its strokes is a number added to it. Each image
then draws its own stroke width, affine map, elastic field (Simard et al., 2003, "Best practices for convolutional
neural networks applied to visual document analysis"), blur, contrast and noise, and a few hundred are warped at once.
What an image draws depends on (seed, code point, index) alone: neither on the other images nor on their order.

Digits of every script, and whatever looks like an ASCII digit, are outside the train split, so that a network trained
on it has seen no digit, printed or written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mapsto.data.glyphs.alphabet import FONTS
from mapsto.data.glyphs.distance_field import REACH, drawn_fields, glyph_field, signed_distance
from mapsto.data.glyphs.rasters import BOX, CANVAS, font_file
from mapsto.errors import DomainError

if TYPE_CHECKING:
    from mapsto.data.glyphs.alphabet import Character

__all__ = ["RENDER_VERSION", "prototypes", "render", "source_digest"]


RENDER_VERSION: Final = 1
"""Raised whenever `alphabet` or `render` gives other characters or other pixels than before."""
_GRID: Final = 4
_CHUNK: Final = 256
_TAPS: Final = 4
_EXTENT: Final = 0.72  # of the image's side, for the longer side of an undistorted glyph


def source_digest() -> str:
    """The SHA-256 of everything that decides the pixels: the font files by content, and `RENDER_VERSION`.

    Returns
    -------
    str
        64 hexadecimal digits; found without drawing.

    Raises
    ------
    DataError
        A font file of the matplotlib wheel is missing.
    """
    whole = hashlib.sha256(f"mapsto.data.render {RENDER_VERSION}".encode())
    for font in FONTS:
        whole.update(f"\n{font} ".encode() + hashlib.sha256(font_file(font).read_bytes()).digest())
    return whole.hexdigest()


def prototypes(characters: tuple[Character, ...], *, size: int = 28) -> NDArray[np.uint8]:
    """The undistorted image of each character in its reference face.

    Parameters
    ----------
    characters : tuple of Character
        Any of `alphabet`.
    size : int
        Height and width in pixels, from 8 to 128.

    Returns
    -------
    ndarray of uint8, shape (N, 1, size, size)
        Ink is 255 on 0.

    Raises
    ------
    DomainError
        `size` is outside its range.
    """
    _check("size", size, 8, 128)
    out = np.empty((len(characters), 1, size, size), np.uint8)
    for start in range(0, len(characters), _CHUNK):
        fields = signed_distance(np.stack([glyph_field(c, c.faces[0]) for c in characters[start : start + _CHUNK]]))
        out[start : start + _CHUNK, 0] = _paint(fields, np.arange(len(fields)), _Draw.plain(len(fields)), size)
    return out


def render(
    characters: tuple[Character, ...],
    per_class: int,
    *,
    size: int = 28,
    seed: int,
    distortion: float = 1.0,
    first: int = 0,
) -> NDArray[np.uint8]:
    """Distorted images of each character.

    Parameters
    ----------
    characters : tuple of Character
        Any of `alphabet`.
    per_class : int
        Images of each character, at least 1.
    size : int
        Height and width in pixels, from 8 to 128; a glyph spans about 0.7 of it.
    seed : int
        From 0 to 2**63 - 1.
    distortion : float
        From 0 (random face, nothing else) to 2. At 1: rotation up to ±17°, shear ±0.3, each axis scaled by 0.72 to
        1.2, shift ±0.07 of the size, elastic field of about 0.03 of the size on a 4 x 4 grid, half a stroke 0.45 to 1.8
        px of 28, blur 0 to 1.1 px of 28, contrast 0.65 to 1, noise up to 0.08.
    first : int
        Index of the first image of each character: ``first=per_class`` goes on where an earlier call ended.

    Returns
    -------
    ndarray of uint8, shape (len(characters) * per_class, 1, size, size)
        Ink is 255 on 0; the images of one character stand together, in the order of `characters`.

    Raises
    ------
    DomainError
        A number is outside its range.

    Examples
    --------
    >>> from mapsto.data.glyphs.alphabet import split
    >>> images = render(split("test")[:3], 4, seed=0)
    >>> images.shape, images.dtype
    ((12, 1, 28, 28), dtype('uint8'))
    >>> bool((render(split("test")[2:3], 1, seed=0, first=3) == images[11:]).all())
    True
    """
    _check("per_class", per_class, 1, 2**31)
    _check("size", size, 8, 128)
    _check("seed", seed, 0, 2**63 - 1)
    _check("first", first, 0, 2**31)
    _check("distortion", distortion, 0.0, 2.0)
    out = np.empty((len(characters), per_class, size, size), np.uint8)
    together = max(1, _CHUNK // per_class)
    for start in range(0, len(characters), together):
        part = characters[start : start + together]
        code_points = np.repeat(np.array([c.code_point for c in part], np.uint64), per_class)
        indices = np.tile(np.arange(first, first + per_class, dtype=np.uint64), len(part))
        keys = _mix(_mix(_mix(np.uint64(seed)) ^ code_points) ^ indices)
        faces = np.repeat(np.array([len(c.faces) for c in part]), per_class)
        chosen = (_uniform(keys, 0, 1)[:, 0] * faces).astype(np.int64)
        images = out[start : start + len(part)].reshape(-1, size, size)
        fields, where = drawn_fields(part, chosen.reshape(len(part), per_class))
        for low in range(0, len(keys), _CHUNK):
            here = slice(low, low + _CHUNK)
            images[here] = _paint(fields, where[here], _Draw.random(keys[here], distortion, size), size)
    return out.reshape(-1, 1, size, size)


# -- random numbers


def _mix(x: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators")."""
    with np.errstate(over="ignore"):
        z = np.atleast_1d(np.asarray(x, np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _stream(keys: NDArray[np.uint64], start: int, count: int) -> NDArray[np.uint64]:
    steps = np.arange(start, start + count, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
    return _mix(keys[:, None] ^ steps[None])


def _uniform(keys: NDArray[np.uint64], start: int, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), shape (N, count): those at places start to start + count - 1 of each key's stream."""
    return (_stream(keys, start, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(keys: NDArray[np.uint64], start: int, count: int) -> NDArray[np.float32]:
    """Sums of four 16-bit uniforms with mean 0 and variance 1, shape (N, count): exact on every machine."""
    parts = np.ascontiguousarray(_stream(keys, start, count)).view(np.uint16).reshape(len(keys), count, 4)
    return (parts.sum(-1, dtype=np.int32) - 131070).astype(np.float32) * np.float32(np.sqrt(3.0) / 65536)


# -- drawing


@dataclass(frozen=True, slots=True)
class _Draw:
    """What one image of each row draws: lengths as fractions of the size."""

    affine: NDArray[np.float32]  # (N, 2, 2), from the image to the canvas, both in units of the glyph's box
    shift: NDArray[np.float32]  # (N, 2)
    elastic: NDArray[np.float32]  # (N, 2, _GRID, _GRID)
    stroke: NDArray[np.float32] | None  # (N,), half a stroke, or None for the glyph's own
    blur: NDArray[np.float32]  # (N,)
    contrast: NDArray[np.float32]  # (N,)
    noise: NDArray[np.float32] | None  # (N, size * size)

    @staticmethod
    def plain(count: int) -> _Draw:
        """No distortion."""
        zeros = np.zeros(count, np.float32)
        return _Draw(
            np.broadcast_to(np.eye(2, dtype=np.float32), (count, 2, 2)),
            np.zeros((count, 2), np.float32),
            np.zeros((count, 2, _GRID, _GRID), np.float32),
            None,
            zeros,
            zeros + 1,
            None,
        )

    @staticmethod
    def random(keys: NDArray[np.uint64], distortion: float, size: int) -> _Draw:
        """Drawn from each key's stream; the ranges are those of `render`."""
        if distortion == 0:
            return _Draw.plain(len(keys))
        u = _uniform(keys, 1, 12)
        signed = (2 * u - 1) * distortion
        angle = 0.30 * signed[:, 0]
        shear = 0.30 * signed[:, 1]
        across = np.clip(1 + distortion * (0.48 * u[:, 2] - 0.28), 0.2, None)
        down = np.clip(1 + distortion * (0.48 * u[:, 3] - 0.28), 0.2, None)
        cos, sin = np.cos(angle), np.sin(angle)
        affine = np.stack([cos / across, (sin + shear * cos) / across, -sin / down, (cos - shear * sin) / down], -1)
        steps = size * size // 4 + 1
        roughness = (0.08 * distortion * u[:, 9] ** 2).astype(np.float32)
        noise = _normal(keys, 64, 4 * steps)[:, : size * size] * roughness[:, None]
        elastic = _normal(keys, 16, 2 * _GRID * _GRID).reshape(-1, 2, _GRID, _GRID)
        strength = 0.045 * distortion * u[:, 8]
        return _Draw(
            affine.reshape(-1, 2, 2).astype(np.float32),
            (0.07 * signed[:, 4:6]).astype(np.float32),
            elastic * strength.astype(np.float32)[:, None, None, None],
            (np.exp(np.log(0.45) + u[:, 6] * np.log(4.0)) / 28).astype(np.float32),
            (1.1 * distortion * u[:, 7] / 28).astype(np.float32),
            (1 - np.minimum(0.9, 0.35 * distortion) * u[:, 10]).astype(np.float32),
            noise,
        )


@cache
def _hats(size: int) -> NDArray[np.float32]:
    """Smooth weights of the elastic grid's nodes at each pixel, shape (_GRID, size)."""
    nodes = (np.arange(_GRID) + 0.5) / _GRID
    places = (np.arange(size) + 0.5) / size
    return np.exp(-0.5 * ((places[None] - nodes[:, None]) * _GRID / 0.8) ** 2).astype(np.float32)


def _bend(elastic: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The elastic field at each pixel, shape (N, 2, size, size)."""
    # Sums written out: a matrix product may round differently with the number of rows.
    hats = _hats(size)
    rows = np.zeros((len(elastic), 2, _GRID, size), np.float32)
    for node in range(_GRID):
        rows += elastic[..., node, None] * hats[node]
    bend = np.zeros((len(elastic), 2, size, size), np.float32)
    for node in range(_GRID):
        bend += rows[:, :, node, None, :] * hats[node][:, None]
    return bend


def _widths(fields: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Half a stroke and half a gap between strokes of each field, in canvas pixels: area over length of the outline."""
    margin = (CANVAS - BOX) // 2
    inner = fields[:, margin:-margin, margin:-margin]
    stroke = (inner > 0).sum((1, 2)) / np.maximum(1, ((inner > 0) & (inner < 0.6)).sum((1, 2)))
    gap = (inner < 0).sum((1, 2)) / np.maximum(1, ((inner < 0) & (inner > -0.6)).sum((1, 2)))
    return stroke.astype(np.float32), gap.astype(np.float32)


def _sample(
    fields: NDArray[np.float32], where: NDArray[np.int64], u: NDArray[np.float32], v: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Bilinear values of field `where[n]` at (u[n], v[n]), columns and rows of the canvas."""
    flat = fields.ravel()
    left, top = u.astype(np.int32), v.astype(np.int32)
    du, dv = u - left, v - top
    corner = top * np.int32(CANVAS) + left + (where * (CANVAS * CANVAS)).astype(np.int32)[:, None, None]
    above = flat[corner]
    above += du * (flat[corner + 1] - above)
    corner += np.int32(CANVAS)
    below = flat[corner]
    below += du * (flat[corner + 1] - below)
    return np.asarray(above + dv * (below - above), np.float32)


def _blurred(images: NDArray[np.float32], sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian blur with a deviation of its own for each image, in pixels, cut off at _TAPS."""
    steps = np.arange(_TAPS + 1, dtype=np.float32)
    taps = np.exp(-0.5 * (steps / np.maximum(sigma, np.float32(1e-3))[:, None]) ** 2)
    taps = (taps / (2 * taps.sum(-1) - 1)[:, None]).astype(np.float32)
    for axis in (1, 2):
        padded = np.pad(images, [(0, 0), *((_TAPS, _TAPS) if a == axis else (0, 0) for a in (1, 2))])
        size = images.shape[axis]
        view = np.moveaxis(padded, axis, 0)
        images = np.moveaxis(view[_TAPS : _TAPS + size] * taps[:, 0, None], 0, axis)
        for step in range(1, _TAPS + 1):
            pair = view[_TAPS + step : _TAPS + step + size] + view[_TAPS - step : _TAPS - step + size]
            images = images + np.moveaxis(pair * taps[:, step, None], 0, axis)
    return images


def _paint(fields: NDArray[np.float32], where: NDArray[np.int64], draw: _Draw, size: int) -> NDArray[np.uint8]:
    """Warps the fields and inks them; shape (N, size, size)."""
    unit = np.float32(BOX / _EXTENT)
    place = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(0.5)
    bend = _bend(draw.elastic, size)
    x = place[None, None, :] + bend[:, 0] - draw.shift[:, 0, None, None]
    y = place[None, :, None] + bend[:, 1] - draw.shift[:, 1, None, None]
    a: NDArray[np.float32] = (draw.affine * unit)[..., None, None]
    middle = np.float32((CANVAS - 1) / 2)
    u = np.asarray(a[:, 0, 0] * x + a[:, 0, 1] * y + middle, np.float32)
    v = np.asarray(a[:, 1, 0] * x + a[:, 1, 1] * y + middle, np.float32)
    np.clip(u, 0, np.float32(CANVAS - 1.001), out=u)
    np.clip(v, 0, np.float32(CANVAS - 1.001), out=v)
    distance = _sample(fields, where, u, v)
    if draw.stroke is not None:
        stroke, gap = (width[where] for width in _widths(fields))
        wider = np.clip(draw.stroke * unit - stroke, -np.minimum(3, 0.55 * stroke), np.minimum(REACH - 2, 0.5 * gap))
        distance += wider.astype(np.float32)[:, None, None]
    ink = np.clip(distance * (np.float32(size) / unit) + np.float32(0.5), np.float32(0), np.float32(1))
    ink = _blurred(ink, draw.blur * np.float32(size)) * draw.contrast[:, None, None]
    if draw.noise is not None:
        ink += draw.noise.reshape(-1, size, size)
    return np.clip(ink * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DomainError(f"{name} must be from {low} to {high}, got {value}", where=f"glyphs.{name}")
