"""``mapsto stream`` over a text: learnt byte by byte, read with a model that has learnt, or gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.cli.app import print_json, print_note, print_text
from mapsto.errors import SpecError, command

if TYPE_CHECKING:
    from mapsto.kinds import Model
    from mapsto.nn.online.language import LanguageLearner

__all__ = ["LEARNER", "is_text", "read_on", "require_no_columns", "write_on"]

LEARNER = "online.language"
FORM = "bytes"


def is_text(form: str | None, learner: str | None) -> bool:
    """Whether the stream is read as bytes."""
    return form == FORM or (form is None and learner in (LEARNER, LEARNER.removeprefix("online.")))


def require_no_columns(given: Mapping[str, Any]) -> None:
    """Raises `SpecError` where an option names a column, by the options' names."""
    if named := [name for name, value in given.items() if value]:
        raise SpecError(
            f"{named[0]} is for tables, and a text is learnt byte by byte",
            where="mapsto stream",
            hint=f"leave it out, or name another --learner than {LEARNER}",
        )


def write_on(
    name: str, beginning: str, *, length: int, temperature: float, seed: int, store: str | None, as_json: bool
) -> None:
    """How a text may go on, after all that the model has learnt."""
    model, digest, learner = _opened(name, store)
    drawn = learner.continuation(beginning, length=length, temperature=temperature, seed=seed)
    text = drawn.decode("utf-8", "replace")
    if as_json:
        print_json({"model": digest, "beginning": beginning, "continuation": text})
        return
    print_text(beginning + text)
    print_note(f"by {model.learner} after {model.events:,} bytes ({digest[:12]})")


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
