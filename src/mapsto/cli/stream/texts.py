"""``mapsto stream`` over a text: learnt byte by byte, read with a model that has learnt, or gone on with."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.cli.app import print_json, print_note
from mapsto.errors import DataError, SpecError, command
from mapsto_runtime.shown import shown

if TYPE_CHECKING:
    from mapsto.kinds import Model
    from mapsto.nn.online.language import LanguageLearner

__all__ = ["FORM", "LEARNER", "is_text", "looks_like_text", "read_on", "require_no_columns", "write_on"]

LEARNER = "online.language"
FORM = "bytes"


def is_text(form: str | None, learner: str | None) -> bool:
    """Whether the stream is read as bytes."""
    return form == FORM or (form is None and learner in (LEARNER, LEARNER.removeprefix("online.")))


def looks_like_text(file: str) -> bool:
    """Whether a file of which nothing else is said is taken for a text, and not for a table."""
    return Path(file).suffix.lower() == ".txt"


def require_no_columns(given: Mapping[str, Any], *, hint: str = f"name another --learner than {LEARNER}") -> None:
    """Raises `SpecError` where an option names a column, by the options' names; the hint says what else would do."""
    if named := [name for name, value in given.items() if value]:
        raise SpecError(
            f"{named[0]} is for tables, and a text is learnt byte by byte",
            where="mapsto stream",
            hint=f"leave it out, or {hint}",
        )


def write_on(
    name: str, beginning: str, *, length: int, temperature: float, seed: int, store: str | None, as_json: bool
) -> None:
    """How a text may go on, after all that the model has learnt."""
    model, digest, learner = _opened(name, store)
    if not learner.taken:
        raise DataError(
            "the model has learnt no byte yet, and knows nothing to go on with", where=name, hint="let it learn a text"
        )
    drawn = learner.continuation(beginning, length=length, temperature=temperature, seed=seed)
    text = _whole_characters(drawn)
    if as_json:
        print_json({"model": digest, "beginning": beginning, "continuation": text})
        return
    sys.stdout.write(_as_text(beginning + text) + "\n")
    print_note(f"by {model.learner} after {model.events:,} bytes ({digest[:12]})")


def _whole_characters(drawn: bytes) -> str:
    """Its text, without the beginning of a character in the end.

    >>> _whole_characters("für Köln ü".encode()[:-1])
    'für Köln '
    """
    return codecs.getincrementaldecoder("utf-8")("replace").decode(drawn)


def _as_text(text: str) -> str:
    r"""With control characters as escapes, but for what ends lines, and tabs: a text that was learnt with these goes on with them.

    >>> _as_text("a\tb\r\nc\x1b[2J")
    'a\tb\r\nc\\u001b[2J'
    """
    return "\r".join(shown(part) for part in text.split("\r"))


def read_on(file: str, name: str, store: str | None, predictions: Path | None, as_json: bool) -> None:
    """Foretell each byte of a text with a model that learns nothing from it, and say how many bits it takes."""
    import numpy as np

    from mapsto.cli.stream.predictions import PredictionFile
    from mapsto.cli.stream.sources import node_of_file, stream_of
    from mapsto.data.text.byte_names import byte_of

    model, digest, learner = _opened(name, store)
    reader, classes = learner.reading(), model.signature.classes
    source = stream_of(node_of_file(file, FORM, {}))
    sink = None if predictions is None and not as_json else PredictionFile(predictions, values=False, as_json=as_json)
    if sink is not None:
        sink.check()
    count, bits, right = 0, 0.0, 0
    for block in source.open():
        scores = reader.learn(block)
        if sink is not None:
            sink.add(count, block, scores, classes)
        codes = np.array([byte_of(str(label)) for label in block.y.tolist()], np.int64)
        bits -= float(np.log2(scores[np.arange(len(codes)), codes]).sum())
        right += int((scores.argmax(1) == codes).sum())
        count += len(block)
    if sink is not None:
        with closing(sink):
            pass
    where = f" to {predictions}" if predictions is not None else ""
    judged = f"; {bits / count:.4g} bits a byte, right on {100 * right / count:.1f} %" if count else ""
    print_note(
        f"{count:,} bytes answered{where} by {model.learner} after {model.events:,} bytes ({digest[:12]}){judged}"
    )


def _opened(name: str, store: str | None) -> tuple[Model, str, LanguageLearner]:
    from mapsto.cli.stream.models import model_of
    from mapsto.nn.online.language import LanguageLearner
    from mapsto.store import Store

    model, digest = model_of(name, Store(store))
    learner = model.open()
    if not isinstance(learner, LanguageLearner):
        raise SpecError(
            f"{model.learner} has learnt no text",
            where=name,
            hint="learn one: " + command("mapsto stream {book} --learner {learner}", book="FILE.txt", learner=LEARNER),
        )
    return model, digest, learner
