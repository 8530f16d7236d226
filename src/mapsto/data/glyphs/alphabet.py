"""Which characters there are: those that the fonts of the matplotlib wheel hold, told apart by shape, in splits by script."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mapsto.data.glyphs.rasters import CANVAS, font_file, rastered
from mapsto.errors import SpecError, nearest

__all__ = ["FONTS", "SPLITS", "Character", "alphabet", "split"]


FONTS: Final[tuple[str, ...]] = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
    "cmr10.ttf",
    "cmb10.ttf",
    "cmss10.ttf",
    "cmti10.ttf",
    "cmtt10.ttf",
    "cmmi10.ttf",
)
"""Every face, in the order of preference; the first that holds a character is its reference."""

SPLITS: Final[dict[str, tuple[str, ...]]] = {
    "train": (
        "Latin",
        "Greek",
        "Cyrillic",
        "Arabic",
        "Canadian Aboriginal",
        "Modifier Letters",
        "Mathematical Script",
        "Mathematical Double-Struck",
        "Punctuation",
        "Currency Symbols",
        "Letterlike Symbols",
        "Roman Numerals",
        "Arrows",
        "Mathematical Operators",
        "Miscellaneous Technical",
        "Geometric Shapes",
        "Miscellaneous Symbols",
        "Dingbats",
        "Emoticons",
    ),
    "validation": ("Georgian", "Coptic", "Lisu", "Ogham", "Mathematical Fraktur", "Yijing Hexagrams"),
    "test": ("Armenian", "Hebrew", "Tifinagh", "NKo", "Lao", "Old Italic", "Digits"),
}
"""The scripts of each split. No script is in two of them; together they are every script of `alphabet`."""

# Letters and marks of living and dead scripts, by the first words of their Unicode names.
_BY_NAME: Final[dict[str, str]] = {
    "LATIN": "Latin",
    "GREEK": "Greek",
    "COPTIC": "Coptic",
    "CYRILLIC": "Cyrillic",
    "ARMENIAN": "Armenian",
    "HEBREW": "Hebrew",
    "ARABIC": "Arabic",
    "NKO": "NKo",
    "LAO": "Lao",
    "GEORGIAN": "Georgian",
    "OGHAM": "Ogham",
    "CANADIAN SYLLABICS": "Canadian Aboriginal",
    "TIFINAGH": "Tifinagh",
    "LISU": "Lisu",
    "OLD ITALIC": "Old Italic",
    "MODIFIER LETTER": "Modifier Letters",
    "MATHEMATICAL SCRIPT": "Mathematical Script",
    "SCRIPT": "Mathematical Script",
    "MATHEMATICAL FRAKTUR": "Mathematical Fraktur",
    "BLACK-LETTER": "Mathematical Fraktur",
    "MATHEMATICAL DOUBLE-STRUCK": "Mathematical Double-Struck",
    "DOUBLE-STRUCK": "Mathematical Double-Struck",
    "ROMAN NUMERAL": "Roman Numerals",
    "SMALL ROMAN NUMERAL": "Roman Numerals",
}

# Symbols, by the last code point of a run of Unicode blocks; None is left out: runs of dots, bars and tiles that differ
# by less than a distortion does.
_BY_BLOCK: Final[tuple[tuple[int, str | None], ...]] = (
    (0x206F, "Punctuation"),
    (0x209F, None),
    (0x20CF, "Currency Symbols"),
    (0x20FF, None),
    (0x214F, "Letterlike Symbols"),
    (0x218F, None),
    (0x21FF, "Arrows"),
    (0x22FF, "Mathematical Operators"),
    (0x23FF, "Miscellaneous Technical"),
    (0x243F, None),
    (0x249B, None),
    (0x24FF, "Letterlike Symbols"),
    (0x259F, None),
    (0x25FF, "Geometric Shapes"),
    (0x26FF, "Miscellaneous Symbols"),
    (0x27BF, "Dingbats"),
    (0x27EF, "Mathematical Operators"),
    (0x27FF, "Arrows"),
    (0x28FF, None),
    (0x297F, "Arrows"),
    (0x2AFF, "Mathematical Operators"),
    (0x2BFF, "Arrows"),
    (0x2E7F, "Punctuation"),
    (0x4DBF, None),
    (0x4DFF, "Yijing Hexagrams"),
    (0x1F5FF, None),
    (0x1F64F, "Emoticons"),
)

# The Computer Modern faces have a code page of their own; only these agree with Unicode.
_LETTERS: Final = frozenset(range(ord("A"), ord("Z") + 1)) | frozenset(range(ord("a"), ord("z") + 1))
_DIGITS: Final = frozenset(range(ord("0"), ord("9") + 1))
_SAME: Final = 0.96  # cosine of two boxed glyphs: one character
_ALIKE: Final = 0.93  # correlation of two stretched glyphs: too near to stand in different splits
_DIGIT: Final = 0.88  # the same against an ASCII digit
_ASPECT: Final = 0.7  # logarithm of the ratio of two aspects within which shapes are compared


@dataclass(frozen=True, slots=True)
class Character:
    """A character that can be drawn.

    Attributes
    ----------
    code_point : int
        Its place in Unicode.
    name : str
        Its Unicode name.
    script : str
        One of the scripts in `SPLITS`.
    faces : tuple of str
        The font files that hold it, the reference first.
    """

    code_point: int
    name: str
    script: str
    faces: tuple[str, ...]

    def __str__(self) -> str:
        return chr(self.code_point)


def alphabet() -> tuple[Character, ...]:
    """Every character, by code point.

    Left out are blanks, controls, combining marks, letters that only differ in style from one that is there (such as
    mathematical bold), characters whose reference glyph, scaled to one box, matches that of an earlier one, characters
    outside train that look like one inside it, and whatever looks like an ASCII digit of any face without being a
    digit: the letters O and l are not in it.

    Returns
    -------
    tuple of Character
        More than 3,000, of more than 20 scripts; the same in every process.

    Raises
    ------
    DataError
        A font file of the matplotlib wheel is missing.

    Examples
    --------
    >>> characters = alphabet()
    >>> len({c.code_point for c in characters}) == len(characters) > 3000
    True
    >>> next(c for c in characters if c.code_point == 0x5D0).name
    'HEBREW LETTER ALEF'
    """
    return _alphabet()


def split(name: str) -> tuple[Character, ...]:
    """The characters of one split.

    Parameters
    ----------
    name : str
        ``train``, ``validation`` or ``test``.

    Raises
    ------
    SpecError
        There is no such split.

    Examples
    --------
    >>> sorted({c.script for c in split("test")})[:3]
    ['Armenian', 'Digits', 'Hebrew']
    """
    if name not in SPLITS:
        raise SpecError(f"the glyphs have no split {name!r}", where="glyphs.split", hint=nearest(name, SPLITS))
    return tuple(c for c in alphabet() if c.script in SPLITS[name])


def _holds(font: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    held = frozenset(FT2Font(str(font_file(font))).get_charmap())
    if font == "cmmi10.ttf":
        return held & _LETTERS
    return held & (_LETTERS | _DIGITS) if font.startswith("cm") else held


def _script(code_point: int) -> str | None:
    text = chr(code_point)
    category = unicodedata.category(text)
    name = unicodedata.name(text, "")
    if not name or category[0] in "CZM" or "DECIMAL EXPONENT" in name or "TYPE-" in name:
        return None
    if category in ("Nd", "No") or any(part.isdecimal() for part in unicodedata.normalize("NFKD", text)):
        return None if _is_restyled(text) else "Digits"
    kind = next((_BY_NAME[key] for key in sorted(_BY_NAME, key=len, reverse=True) if name.startswith(key + " ")), None)
    if kind is not None and kind.startswith("Mathematical "):
        return kind
    if _is_restyled(text):
        return None
    if kind is not None:
        return kind
    return next((script for last, script in _BY_BLOCK if code_point <= last), None)


def _is_restyled(text: str) -> bool:
    return unicodedata.decomposition(text).startswith(("<font>", "<super>", "<sub>", "<wide>", "<narrow>"))


@cache
def _alphabet() -> tuple[Character, ...]:
    held = {font: _holds(font) for font in FONTS}
    found: list[Character] = []
    for code_point in sorted(frozenset().union(*held.values())):
        script = _script(code_point)
        if script is not None:
            faces = tuple(font for font in FONTS if code_point in held[font])
            found.append(Character(code_point, unicodedata.name(chr(code_point)), script, faces))
    return tuple(sorted(_distinct(found), key=lambda c: c.code_point))


def _distinct(characters: list[Character]) -> list[Character]:
    """The characters without blanks, without doubles, and without look-alikes across the border of a split."""
    glyphs = [rastered(c.code_point, c.faces[0]) for c in characters]
    drawn = [(c, glyph) for c, glyph in zip(characters, glyphs, strict=True) if glyph is not None]
    boxed = np.stack([_boxed(glyph) for _, glyph in drawn])
    same = boxed @ boxed.T > _SAME
    shapes = np.stack([_stretched(glyph) for _, glyph in drawn])
    alike = _alike(shapes, shapes, _ALIKE)
    digit: NDArray[np.bool_] = np.asarray(_alike(shapes, _digits(), _DIGIT).any(1))
    rank = {script: rank for rank, scripts in enumerate(SPLITS.values()) for script in scripts}
    side = np.array([rank[c.script] for c, _ in drawn])
    kept = np.zeros(len(drawn), np.bool_)
    # Train first: what looks like one of its characters is not unseen.
    for i in sorted(range(len(drawn)), key=lambda i: (side[i], i)):
        if digit[i] and drawn[i][0].script != "Digits":
            continue
        clash = same[i] | (alike[i] & (side != side[i]))
        kept[i] = not np.any(clash & kept)
    return [character for (character, _), keep in zip(drawn, kept, strict=True) if keep]


def _boxed(glyph: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = glyph.reshape(CANVAS // 2, 2, CANVAS // 2, 2).mean((1, 3), dtype=np.float32).ravel()
    return np.asarray(small / np.linalg.norm(small), np.float32)


def _stretched(glyph: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The glyph blurred and stretched to a square, of mean 0 and length 1; then the logarithm of its aspect."""
    image = Image.fromarray(glyph)
    image = image.crop(image.getbbox())
    aspect = np.log(image.width / image.height)
    square = image.resize((20, 20), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1))
    flat = np.asarray(square, np.float32).ravel()
    flat = flat - flat.mean()
    return np.append(flat / max(1e-6, float(np.linalg.norm(flat))), aspect).astype(np.float32)


def _alike(shapes: NDArray[np.float32], others: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    near_in_aspect = np.abs(shapes[:, None, -1] - others[None, :, -1]) < _ASPECT
    return near_in_aspect & (shapes[:, :-1] @ others[:, :-1].T > threshold)


def _digits() -> NDArray[np.float32]:
    """Every ASCII digit in every face, as `_stretched` gives it."""
    glyphs = [rastered(digit, font) for font in FONTS for digit in sorted(_DIGITS & _holds(font))]
    return np.stack([_stretched(glyph) for glyph in glyphs if glyph is not None])
