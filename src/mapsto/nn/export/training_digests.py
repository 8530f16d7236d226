"""What a package was made with, as digests of samples: so that an evaluation notices samples that the package has already seen.

``training.json`` holds 16 hexadecimal digits for each sample as the network takes it, whatever file it came from; of many samples the
smallest digests alone, from which the share of known ones is estimated (Broder, "On the Resemblance and Containment of Documents",
1997). A sample cannot be made from its digest, but who guesses a row of a small table can check the guess.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Package, Preprocessing, Signature
from mapsto_runtime.preprocessing.images import normalised, prepare
from mapsto_runtime.preprocessing.texts import trimmed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["FILE", "Known", "digests_of", "digests_of_raw", "known_of", "read_known", "with_training_digests"]

FILE = "training.json"
_MOST = 4096


@dataclass(frozen=True, kw_only=True)
class Known:
    """Samples that a package was made with."""

    samples: int
    digests: frozenset[str]
    """Of all of them, or of those with the smallest digests."""

    def count_in(self, digests: Sequence[str]) -> int:
        """How many of these samples are known; estimated where not all digests were kept.

        >>> Known(samples=2, digests=frozenset({"aa", "bb"})).count_in(["aa", "cc", "aa"])
        2
        """
        if len(self.digests) < _MOST:
            return sum(digest in self.digests for digest in digests)
        largest = max(self.digests)
        judged = [digest in self.digests for digest in digests if digest <= largest]
        return round(len(digests) * sum(judged) / len(judged)) if judged else 0


def digests_of(prepared: NDArray[Any], *, padding: int | None = None) -> list[str]:
    """A digest of each sample (n, ...) as a network takes it: the same picture has the same, whatever its file.

    Of texts `padding` is the id that fills them up, which is left out: the same text has the same digest, whatever others are longer.

    >>> first, second, third = digests_of(np.array([[1.0], [2.0], [1.0]], np.float32))
    >>> first == third, first == second, len(first)
    (True, False, 16)
    """
    samples = prepared if padding is None else [trimmed(each[None], padding) for each in prepared]
    return [hashlib.sha256(np.ascontiguousarray(each).tobytes()).hexdigest()[:16] for each in samples]


def digests_of_raw(inputs: NDArray[Any], preprocessing: Preprocessing) -> list[str]:
    """The digests of samples as a data set holds them (`Samples.inputs`), which are prepared one by one."""
    if preprocessing.kind == "text":
        return digests_of(inputs, padding=preprocessing.padding)
    if preprocessing.kind != "image" or inputs.ndim != 4:
        return digests_of(inputs)
    shape = (preprocessing.channels, *preprocessing.size)
    found: list[str] = []
    for image in inputs:
        pixels = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image
        ready = pixels.shape == shape and preprocessing.fit == "stretch"
        prepared = normalised(pixels, preprocessing) if ready else prepare(pixels, preprocessing)
        found += digests_of(prepared[None])
    return found


def known_of(digests: Iterable[str], samples: int) -> Known:
    """What is kept of the digests of so many samples."""
    return Known(samples=samples, digests=frozenset(sorted(set(digests))[:_MOST]))


def with_training_digests(
    package: Package, inputs: NDArray[Any], ctx: Context, *, columns: Mapping[str, Any] | None = None
) -> Package:
    """The package with ``training.json`` of the samples (N, ...) that it was made with, before preprocessing.

    `columns` are those of the table that it was made of, such as its target, as the manifest's ``trained_on``.
    """
    from mapsto.nn.export.package import put, text_of

    manifest = package.manifest()
    signature = Signature.from_plain(manifest["signature"])
    known = known_of(digests_of_raw(inputs, signature.preprocessing), len(inputs))
    content = f"{json.dumps({'schema': 1, 'samples': known.samples, 'digests': sorted(known.digests)})}\n".encode()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    if columns is not None:
        manifest = {**manifest, "trained_on": dict(columns)}
    told = {**manifest, "files": {**manifest["files"], FILE: entry}}
    files = put({FILE: content, "manifest.json": text_of(told)}, ctx.scratch())
    return Package(files={**package.files, **files}, measured=package.measured)


def read_known(file: Path) -> Known | None:
    """What ``training.json`` tells; None for a file of another form."""
    try:
        tree: Any = json.loads(file.read_text(encoding="utf-8"))
        return Known(samples=int(tree["samples"]), digests=frozenset(map(str, tree["digests"])))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
