"""Run a package: this file needs NumPy, Pillow and the package's runtime, and neither torch nor the training half of mapsto.

    predictor = Predictor("runs/demo/package")
    predictor.predict(["seven.png"])[0].label

Preprocessing follows the signature, as in training: channels, ink, size, mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mapsto_runtime import runtimes
from mapsto_runtime.errors import DataError, DomainError, MapstoError, MissingExtra, StoreError, command
from mapsto_runtime.manifest import FORMAT
from mapsto_runtime.preprocessing import Input, name_of, read, read_input
from mapsto_runtime.preprocessing.arrays import require_ids
from mapsto_runtime.preprocessing.texts import Text, by_length, encodings, joined
from mapsto_runtime.preprocessing.words import Span, first_tokens, spans_of, words_of
from mapsto_runtime.runtimes import Run
from mapsto_runtime.runtimes.onnxruntime import session
from mapsto_runtime.signed_package import Trust, verified

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FORMAT", "Adapted", "Answers", "Prediction", "Predictor", "Span"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of one sample."""

    source: str
    """The file's name, ``standard input`` or ``<array>``; with ``[i]`` where it holds several samples."""
    label: str
    """The class of the highest score; of labels that stand by themselves those from 0.5 up; the values of a regression."""
    probability: float | None
    """Of the class by softmax, or of the likeliest label by the logistic function, 0 to 1; None for values."""
    scores: dict[str, float]
    """Class → probability, the highest first; for values name → value."""
    index: int = 0
    """Its place in the input, counted from 0."""
    map: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    """The raw output where it is dense, of the shape in the manifest: (classes, H, W) say. Then `scores` are the share of places where
    a class has the highest score, `label` says them in words, and `probability` is None."""
    spans: tuple[Span, ...] | None = None
    """Of a network that tags words: what it found, in the order of the text; `label` says it in words, `probability` is None."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a network says of the samples that could be read, and what is wrong with the others."""

    predictions: list[Prediction]
    errors: list[MapstoError]
    """Of inputs, and of rows of tables, that cannot be used; each names its own."""
    notes: list[str]
    """What was done that the user should know: missing values filled, columns passed over, decimal commas."""


_Score = Callable[["NDArray[Any]"], "NDArray[np.float32]"]


class Predictor:
    """A package, verified and opened.

    Parameters
    ----------
    package_folder
        Holds ``manifest.json`` and the files it names.
    threads
        Threads of the runtime's pool.
    trust
        Whose packages are loaded; as the environment says, where None is given.

    Raises
    ------
    StoreError
        The manifest or a file is missing or unreadable, or the package is of a later format.
    TrustError
        A file's content is not what the manifest says, or the package is not signed as `trust` asks.
    MissingExtra
        The package's runtime, or what verifies signatures, is not installed.
    """

    def __init__(self, package_folder: Path | str, *, threads: int = 1, trust: Trust | None = None) -> None:
        self.folder = Path(package_folder)
        self.verified = verified(self.folder, Trust.of() if trust is None else trust)
        self.checked = self.verified.manifest()
        self.manifest = self.checked.tree
        self.signature = self.checked.signature
        self._run = self._opened(threads)

    def _opened(self, threads: int) -> Run:
        engine = runtimes.find(self.checked.runtime)
        try:
            return engine.load(self.checked.files, threads=threads, signature=self.signature)
        except (MissingExtra, StoreError):
            raise
        except Exception as error:  # runtimes' errors have no common base class
            raise StoreError(
                f"{engine.TITLE} cannot open it ({error})",
                where=str(self.folder / self.checked.model),
                hint=f"upgrade {self.checked.runtime}",
            ) from error

    def predict(self, inputs: Sequence[Input], *, batch_size: int = 64) -> list[Prediction]:
        """The class of each sample. Raises `DataError` naming the input that cannot be read.

        An input is the path of an image, ``.npy``, ``.npz``, CSV or Parquet file, the bytes of one (standard input), or an array. Where the
        network takes texts a string is a text, and a `Path` a file of them.
        """
        return _all_or_error(self.answers(inputs, batch_size=batch_size))

    def answers(self, inputs: Sequence[Input], *, batch_size: int = 64) -> Answers:
        """As `predict`, but an input or a row that cannot be used does not cost the others their answers."""
        if self.signature.answers == "tags":
            return self._tagged(inputs, batch_size)
        if self.signature.is_dense:
            classes = self.signature.classes or ()
            return self._answers(inputs, classes, lambda prepared: self.outputs(prepared, batch_size=batch_size))
        classes = self._held(
            self.signature.classes,
            "gives embeddings, not classes",
            hint=f"give it examples first: `{_adapting(self.folder)}`, or Predictor.adapt(); or call outputs()",
        )
        return self._answers(inputs, classes, lambda prepared: self.outputs(prepared, batch_size=batch_size))

    def adapt(self, inputs: Sequence[Input], labels: Sequence[str]) -> Adapted:
        """A classifier from a few labelled examples, by the package's own map from examples to a head; no torch is needed.

        Parameters
        ----------
        inputs
            As for `predict`; one that holds several samples gives each its label.
        labels
            The class of each input.

        Raises
        ------
        DataError
            Fewer than two classes, or not one label an input.
        DomainError
            The package holds no such map.
        """
        import numpy as np

        model = self._held(
            self.checked.adapting_model,
            "holds no map from examples to a head",
            hint="export a learner whose result is a linear layer, or, where mapsto is installed, use "
            f"`{_adapting(self.folder)}`",
        )
        if len(_several(inputs)) != len(labels):
            raise DataError(f"{len(inputs)} inputs but {len(labels)} labels", hint="give one label an input")
        classes = tuple(dict.fromkeys(map(str, labels)))
        if len(classes) < 2:
            raise DataError("the examples are of fewer than two classes", hint="give examples of two classes or more")
        parts = [read_input(given, self.signature) for given in inputs]
        numbers = np.repeat([classes.index(str(label)) for label in labels], [len(part) for part in parts])
        features = self.outputs(self._together(parts))
        members = np.eye(len(classes), dtype=np.float32)[numbers]
        try:
            made = session(self.folder / model).run(["weight", "bias"], {"features": features, "members": members})
        except Exception as error:  # runtimes' errors have no common base class
            raise _not_run("its map from examples to a head cannot be run", self.folder / model, error) from error
        weight, bias = made
        return Adapted(package=self, classes=classes, weight=weight, bias=bias)

    def _held(self, part: T | None, lacking: str, *, hint: str) -> T:
        """A part that not every package has. Raises `DomainError` where it is missing."""
        if part is None:
            raise DomainError(f"this package {lacking}", where=str(self.folder), hint=hint)
        return part

    def _answers(self, inputs: Sequence[Input], classes: tuple[str, ...], score: _Score) -> Answers:
        import numpy as np

        names: list[str] = []
        numbers: list[int] = []
        parts: list[NDArray[Any]] = []
        answers = Answers(predictions=[], errors=[], notes=[])
        for given in _several(inputs):
            try:
                found = read(given, self.signature)
            except DataError as error:
                answers.errors.append(error)
                continue
            name = name_of(given)
            alone = len(found.numbers) + len(found.errors) == 1
            names += [name if alone else f"{name}[{number}]" for number in found.numbers]
            numbers += found.numbers
            parts.append(found.samples)
            answers.errors.extend(found.errors)
            answers.notes.extend(found.notes)
        if not names:
            return answers
        scores = score(self._together(parts))
        says = _map if self.signature.is_dense and scores.ndim > 2 else _SAYS[self.signature.answers]
        if says is not _map and (scores.ndim != 2 or scores.shape[1] != len(classes)):
            raise StoreError(
                f"its model gives scores of shape {scores.shape[1:]} for {len(classes)} classes",
                where=str(self.folder),
                hint="export the package again",
            )
        for name, number, row in zip(names, numbers, scores, strict=True):
            if np.isfinite(row).all():
                answers.predictions.append(replace(says(name, row, classes), index=number))
                continue
            answers.errors.append(
                DomainError(
                    "its model gives NaN or infinity for this input",
                    where=name,
                    hint="look for extreme values in the input, or export the package again",
                )
            )
        return answers

    def outputs(self, inputs: NDArray[Any], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Raw outputs (N, ...) for prepared inputs (N, ...)."""
        import numpy as np

        require_ids(inputs, self.signature.preprocessing.ids, "<array>")
        starts = range(0, len(inputs), batch_size)
        before = self.signature.preprocessing
        try:
            if before.kind == "text":
                return by_length(self._run, inputs, before.padding, batch_size)
            return np.concatenate([self._run(inputs[i : i + batch_size]) for i in starts])
        except Exception as error:  # runtimes' errors have no common base class
            if inputs.dtype.kind == "i":  # token ids, whose number a signature of before does not hold
                raise DataError(
                    f"its model refuses these whole numbers, {inputs.min()} to {inputs.max()}",
                    where=str(self.folder),
                    hint="give token ids of the vocabulary that it was trained with",
                ) from error
            raise _not_run("its model does not take what its signature says", self.folder, error) from error

    def _together(self, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        import numpy as np

        before = self.signature.preprocessing
        return joined(parts, before.padding) if before.kind == "text" else np.concatenate(parts)

    def _tagged(self, inputs: Sequence[Input], batch_size: int) -> Answers:
        """Spans of the words of texts."""
        answers = Answers(predictions=[], errors=[], notes=[])
        for given in _several(inputs):
            try:
                found = read(given, self.signature)
                if len(found.texts) != len(found.numbers):
                    raise DataError(
                        "holds token ids, and words are found in texts alone", where=name_of(given), hint="give texts"
                    )
            except DataError as error:
                answers.errors.append(error)
                continue
            answers.errors.extend(found.errors)
            answers.notes.extend(found.notes)
            if not found.texts:
                continue
            name = name_of(given)
            alone = len(found.numbers) + len(found.errors) == 1
            scores = self.outputs(found.samples, batch_size=batch_size)
            for number, text, row in zip(found.numbers, found.texts, scores, strict=True):
                title = name if alone else f"{name}[{number}]"
                answers.predictions.append(replace(self._spans(title, text, row), index=number))
        return answers

    def _spans(self, name: str, text: Text, row: NDArray[np.float32]) -> Prediction:
        """Of one text and its scores (tags, tokens)."""
        import numpy as np

        whole = text if isinstance(text, str) else text[0]
        words = words_of(whole)
        (encoding,) = encodings([whole], self.signature.preprocessing, offsets=True)
        tokens = first_tokens(encoding.offsets, words)
        read_words = [(word, token) for word, token in zip(words, tokens, strict=True) if token >= 0]
        powers = np.exp(row.astype(np.float64) - row.max(0))
        shares = powers / powers.sum(0)
        classes = self.signature.classes or ()
        best = [int(shares[:, token].argmax()) for _, token in read_words]
        sure = [float(shares[tag, token]) for tag, (_, token) in zip(best, read_words, strict=True)]
        spans: list[Span] = []
        for first, end, label in spans_of([classes[tag] for tag in best], known=classes):
            start, stop = read_words[first][0][0], read_words[end - 1][0][1]
            spans.append(
                Span(text=whole[start:stop], start=start, end=stop, label=label, probability=min(sure[first:end]))
            )
        said = "; ".join(f"{span.text} ({span.label})" for span in spans) or "none"
        return Prediction(source=name, label=said, probability=None, scores={}, spans=tuple(spans))


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapted:
    """A package's embedding with a head made of examples."""

    package: Predictor
    classes: tuple[str, ...]
    weight: NDArray[np.float32]
    """Shape (classes, D)."""
    bias: NDArray[np.float32]
    """Shape (classes,)."""

    def predict(self, inputs: Sequence[Input], *, batch_size: int = 64) -> list[Prediction]:
        """The class of each sample, as `Predictor.predict` gives it."""

        def score(prepared: NDArray[Any]) -> NDArray[np.float32]:
            return self.package.outputs(prepared, batch_size=batch_size) @ self.weight.T + self.bias

        return _all_or_error(self.package._answers(inputs, self.classes, score))


def _not_run(what: str, where: Path, error: Exception) -> StoreError:
    """The error for a model that its runtime does not run, with the first line of what the runtime says."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return StoreError(f"{what} ({reason})", where=str(where), hint="export the package again")


def _adapting(folder: Path) -> str:
    return command("mapsto adapt {folder} FOLDER_OF_EXAMPLES", folder=folder)


def _several(inputs: Sequence[Input]) -> Sequence[Input]:
    """The inputs. Raises `DataError` for one that stands alone: the letters of a string would each be one."""
    if isinstance(inputs, (str, bytes, Path)):
        raise DataError("one input is given, and a list of them is wanted", where="inputs", hint="write it as [input]")
    return inputs


def _all_or_error(answers: Answers) -> list[Prediction]:
    if answers.errors:
        raise answers.errors[0]
    return answers.predictions


def _prediction(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    import numpy as np

    powers = np.exp(row.astype(np.float64) - row.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-probabilities, kind="stable")
    scores = {classes[i]: float(probabilities[i]) for i in order}
    best = classes[order[0]]
    return Prediction(source=name, label=best, probability=scores[best], scores=scores)


def _labels(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    import numpy as np

    probabilities = 1 / (1 + np.exp(-row.astype(np.float64).clip(-700, 700)))
    scores = {classes[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
    there = [label for label, score in scores.items() if score >= 0.5]
    return Prediction(source=name, label=", ".join(there) or "none", probability=max(scores.values()), scores=scores)


def _values(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    values = dict(zip(classes, map(float, row), strict=True))
    shown = "  ".join(f"{label} {value:.4g}" for label, value in values.items())
    return Prediction(source=name, label=shown, probability=None, scores=values)


def _map(name: str, row: NDArray[np.float32], classes: tuple[str, ...]) -> Prediction:
    """Of a dense output: of classes, their shares of the places; else the range of the values."""
    import numpy as np

    shares: dict[str, float] = {}
    if classes and len(classes) == len(row):
        counts = np.bincount(row.argmax(0).ravel(), minlength=len(classes)) / row[0].size
        shares = {classes[i]: float(counts[i]) for i in np.argsort(-counts, kind="stable")}
    said = ", ".join(f"{100 * share:.3g} % {label}" for label, share in shares.items() if share)
    sizes = " × ".join(map(str, row.shape))
    label = f"a map of {sizes}: {said or f'values from {row.min():.4g} to {row.max():.4g}'}"
    return Prediction(source=name, label=label, probability=None, scores=shares, map=row)


_SAYS = {"classes": _prediction, "labels": _labels, "values": _values}
