"""Generators: streams whose rows are drawn in chunks, each from a generator of its own, so that any row is found without those before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mapsto.data.streams._indexed import Indexed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CHUNK", "Drawn", "Generated", "reflected"]

CHUNK = 1024
"""Rows that are drawn together."""
_MOST_CHUNKS = 8
"""Chunks that are kept."""
Drawn = tuple["dict[str, NDArray[Any]]", "NDArray[Any]"]
"""Columns and labels of a chunk."""


class Generated(Indexed):
    """Rows that are drawn by `draw`, a chunk at a time."""

    events: int = Field(default=10_000, ge=1, description="How many rows.")
    seed: int = Field(default=0, ge=0, description="Of the draws.")

    @abstractmethod
    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        """The columns and labels of the rows of these numbers, all of one chunk, from the chunk's generator."""

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def fingerprint(self) -> str:
        return self.identity()

    def size(self) -> int:
        return self.events

    def rows(self, start: int, stop: int) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
        import numpy as np

        first, last = start // CHUNK, (stop - 1) // CHUNK
        chunks = [self._chunk(chunk) for chunk in range(first, last + 1)]
        part = slice(start - first * CHUNK, stop - first * CHUNK)
        if len(chunks) == 1:
            x, y = chunks[0]
            return {name: values[part] for name, values in x.items()}, y[part]
        x = {name: np.concatenate([each[name] for each, _ in chunks])[part] for name in chunks[0][0]}
        return x, np.concatenate([labels for _, labels in chunks])[part]

    def _chunk(self, chunk: int) -> Drawn:
        import numpy as np

        if chunk not in self._chunks:
            if len(self._chunks) >= _MOST_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
            rows = np.arange(chunk * CHUNK, (chunk + 1) * CHUNK)
            self._chunks[chunk] = self.draw(rows, np.random.default_rng((self.seed, chunk)))
        return self._chunks[chunk]

    @cached_property
    def _chunks(self) -> dict[int, Drawn]:
        """The latest chunks that were drawn."""
        return {}


def reflected(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions that go on beyond 0 and 1, thrown back at both ends.

    >>> import numpy as np
    >>> reflected(np.array([0.25, 1.25, 2.25, -0.25])).tolist()
    [0.25, 0.75, 0.25, 0.25]
    """
    import numpy as np

    return 1.0 - np.abs(1.0 - values % 2.0)
