"""Printed characters of more than twenty scripts, drawn from the fonts in the matplotlib wheel; nothing is downloaded.

Each character is a class; its images differ in face, stroke width, affine and elastic distortion, blur, contrast and
noise. The splits hold different scripts, so that an unseen character is of an unseen script.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.data.glyphs.alphabet import Character

__all__ = ["Glyphs"]


class Glyphs(Dataset):
    """Images of printed characters: uint8, shape (N, 1, size, size), ink 255 on 0.

    The images are drawn once, then kept in the cache folder. Classes are named as in Unicode.

    >>> few = Glyphs(split="test", characters=3, per_class=2).open()
    >>> few.inputs.shape, few.labels.tolist(), len(few.classes)
    ((6, 1, 28, 28), [0, 0, 1, 1, 2, 2], 3)
    """

    split: Literal["train", "validation", "test"] = "train"
    """Which scripts: no script is in two splits, and no digit is in train."""
    per_class: int = Field(default=20, ge=1, le=10_000)
    """Images of each character; 20 as in Omniglot."""
    size: int = Field(default=28, ge=8, le=128)
    """Height and width in pixels."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every distortion, and which characters where they are limited."""
    distortion: float = Field(default=1.0, ge=0.0, le=2.0)
    """Strength: 0 draws faces without distortion."""
    characters: int | None = Field(default=None, ge=1)
    """How many characters of the split, drawn from the seed; all by default."""

    def fingerprint(self) -> str:
        from mapsto.data.glyphs.render import source_digest
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self, [source_digest()])

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.glyphs.ink import ink_preprocessing
        from mapsto.data.io.cache import cached_array

        key = self.fingerprint()
        images = cached_array("glyphs", key, lambda: self._draw(self._characters()))
        names = cached_array("glyphs", f"{key}-names", lambda: np.array([c.name for c in self._characters()]))
        return Samples(
            inputs=images,
            labels=np.repeat(np.arange(len(names)), self.per_class),
            classes=tuple(names.tolist()),
            preprocessing=ink_preprocessing(self.size),
        )

    def _characters(self) -> tuple[Character, ...]:
        import numpy as np

        from mapsto.data.glyphs.alphabet import split
        from mapsto.errors import DomainError

        there = split(self.split)
        if self.characters is None:
            return there
        if self.characters > len(there):
            raise DomainError(
                f"the {self.split} split has {len(there)} characters, got {self.characters}", where="glyphs.characters"
            )
        drawn = np.random.default_rng(self.seed).permutation(len(there))[: self.characters]
        return tuple(there[i] for i in sorted(drawn.tolist()))

    def _draw(self, chosen: tuple[Character, ...]) -> NDArray[np.uint8]:
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        from mapsto.data.glyphs.render import render

        logging.getLogger("mapsto").info("drawing %d glyphs", len(chosen) * self.per_class)
        groups = [chosen[start : start + 64] for start in range(0, len(chosen), 64)]

        def draw(group: tuple[Character, ...]) -> NDArray[np.uint8]:
            return render(group, self.per_class, size=self.size, seed=self.seed, distortion=self.distortion)

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            return np.concatenate(list(pool.map(draw, groups)))
