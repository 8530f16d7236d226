"""A package behind the protocol: its session, what a request becomes before it and after it, and the heads of its versions."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from mapsto.data.privacy.field_rules import FieldRules
from mapsto.errors import DataError, DomainError, SpecError, StoreError
from mapsto.native import json_numbers
from mapsto.service.batching import Batcher, Run
from mapsto.service.heads import VersionHead
from mapsto.service.inference_protocol import Given, Output, cells, datatype_of, tensor
from mapsto.service.refusal import Refusal
from mapsto.service.state import BASE
from mapsto_runtime import own_example
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing import read_input, read_inputs
from mapsto_runtime.preprocessing.arrays import require_ids
from mapsto_runtime.preprocessing.raw_tables import RawTable
from mapsto_runtime.preprocessing.tables import encoded
from mapsto_runtime.preprocessing.texts import Text, by_length
from mapsto_runtime.preprocessing.texts import encoded as encoded_texts
from mapsto_runtime.runtimes.onnxruntime import session
from mapsto_runtime.shown import few, short
from mapsto_runtime.signed_package import Trust, verified

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.data.privacy.pseudonyms import Pseudonyms
    from mapsto.data.privacy.settings import FieldAction

__all__ = ["BASE", "IMAGES", "LABEL", "Features", "KeptScores", "OwnHead", "ServedModel"]

LABEL, IMAGES, TEXTS = "label", "image", "text"
"""The output that names the class of each sample, and the inputs of image files or raw pixels, and of texts."""
_LENGTHS = 8
"""Texts are padded to a multiple of so many tokens, so that those of like length run together."""
_ROUNDS = 5
_AGAIN = "export it again"
_MOST_WATCHED = 256
"""Numbers of a sample up to which they are kept, where there are no features."""
_NAMES = {np.dtype(name): name for name in ("float32", "float64", "int64")}
"""Of common types: NumPy takes microseconds to write one."""


class Features(NamedTuple):
    """What the model makes of a request."""

    scores: NDArray[np.float32]
    """(N, ...), the package's own output."""
    features: NDArray[np.float32] | None
    """(N, D), what its head is given; None where that cannot be taken."""


class OwnHead:
    """The head of a package, apart from what makes its features."""

    def __init__(self, classes: tuple[str, ...], opened: Any) -> None:
        self.classes, self._opened = classes, opened
        self._name = opened.get_inputs()[0].name

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, K) of features (N, D)."""
        return self._opened.run(None, {self._name: features})[0]


class KeptScores:
    """The scores that are kept of answers, where no head stands on features; see `ServedModel.watched`."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes

    def scores(self, kept: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, K), which stand last in what is kept (N, D)."""
        return kept[:, -len(self.classes) :]


class ServedModel:
    """A package, opened and tried on an example of its own.

    Parameters
    ----------
    name
        In the paths of the protocol.
    folder
        The package.
    threads
        Of the session.
    trust
        Whose packages are loaded; as the environment says, where None is given.
    fields, pseudonyms
        What becomes of a table's fields before anything of a row is kept; see `FieldRules`.

    Raises
    ------
    StoreError, TrustError, MissingExtra, DomainError
        As `Predictor`; or its answers are not those that it was exported with.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        threads: int = 1,
        most_wait: float = 1.0,
        observe: Any = None,
        trust: Trust | None = None,
        fields: Mapping[str, FieldAction] | None = None,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self.name, self.folder, self.observe = name, folder, observe
        self.trust = Trust.of() if trust is None else trust
        json_numbers.prepare()
        self.verified = verified(folder, self.trust)
        checked = self.verified.manifest()
        self.signature, self.digest = checked.signature, _digest(checked.tree)
        self.runtime = checked.runtime
        self._fields, self._pseudonyms = fields or {}, pseudonyms
        self.rules = FieldRules(self._fields, self.signature.preprocessing.columns, pseudonyms)
        self._features = False
        self._run: Run
        self._path = checked.files[checked.model]
        self._sha256 = str(checked.tree["files"][checked.model]["sha256"])
        if checked.runtime == "onnxruntime" and not self.signature.is_dense and self.signature.answers == "classes":
            self._run = self._session(checked.files[checked.model], threads)
        else:
            with self.verified.explained():
                predictor = Predictor(self.verified.folder, threads=threads, trust=Trust(unsigned="warn"))

            def run(samples: NDArray[Any]) -> Sequence[NDArray[Any]]:
                return [predictor.outputs(samples)]

            self._run = run
        if self._features and self.rules.hashed:
            raise SpecError(
                "a model that adapts would learn from other categories than its answers stand on",
                where=f"privacy: fields: {self.rules.hashed[0]}: hash",
                hint="drop or coarsen the field",
            )
        self.seconds = self._tried(checked.tree)
        self.batcher = Batcher(self._run, seconds=self.seconds, most_wait=most_wait, observe=observe)

    @property
    def adapts(self) -> bool:
        """Whether features can be taken, on which heads for other classes stand."""
        return self._features

    def own_head(self) -> OwnHead | KeptScores | None:
        """What gives the package's own scores of what is kept of its answers; None where it has no classes."""
        classes = self.signature.classes
        if classes is None or self.signature.answers != "classes" or self.signature.is_dense:
            return None
        if not self._features:
            return KeptScores(classes)
        from mapsto.nn.export.embedding import head_alone

        content = self._path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self._sha256:  # a file of the next package, which is loaded soon
            return None
        return OwnHead(classes, session(head_alone(content, where=self.name)))

    @property
    def platform(self) -> str:
        """The runtime and format, as the protocol's metadata has them."""
        return "onnxruntime_onnx" if self.runtime == "onnxruntime" else f"mapsto_{self.runtime}"

    def samples(self, inputs: Sequence[Given]) -> NDArray[Any]:
        """Prepared samples (N, ...) of a request's inputs: the model's own tensor, images, or the columns of a table.

        Raises `Refusal` (400) where they are not what the model takes.
        """
        spec = self.signature.inputs[0]
        if len(inputs) == 1 and inputs[0].name == spec.name:
            return self._tensor(inputs[0])
        before = self.signature.preprocessing
        if before.kind == "image" and len(inputs) == 1 and inputs[0].name == IMAGES:
            return self._images(inputs[0])
        if before.kind == "text":
            return self._texts(inputs)
        if before.columns:
            return self._rows(inputs)
        raise Refusal(400, f"the model takes {self._taken()}; given: {few([short(given.name) for given in inputs])}")

    def to_keep(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Prepared samples as anything of them may be kept: the samples themselves where no rule is for a field of theirs."""
        if not self.rules or samples.ndim != 2:
            return samples
        return self.rules.applied(samples)

    async def kept(
        self, samples: NDArray[Any], found: Features, *, deadline: float, key: str
    ) -> NDArray[np.float32] | None:
        """As `watched`, of `to_keep`: features are made anew where a rule changes what they are made of."""
        own = self.to_keep(samples)
        if found.features is not None and own is not samples and not np.array_equal(own, samples, equal_nan=True):
            found = await self.infer(own, deadline=deadline, key=key)
        return self.watched(own, found)

    def reloaded(self, *, most_wait: float) -> ServedModel:
        """The package as its files are now. Raises as the class does, and `SpecError` where a rule has no field any more."""
        new = ServedModel(
            self.name,
            self.folder,
            most_wait=most_wait,
            observe=self.observe,
            trust=self.trust,
            fields=self._fields,
            pseudonyms=self._pseudonyms,
        )
        lost = sorted(self.rules.patterns - new.rules.patterns)
        if lost:
            raise SpecError(f"the new package has no field '{short(lost[0])}'", where="privacy: fields")
        return new

    def reads_slowly(self, inputs: Sequence[Given]) -> bool:
        """Whether inputs are files to decode, which a few bytes may make long work."""
        return self.signature.preprocessing.kind == "image" and any(each.datatype == "BYTES" for each in inputs)

    async def infer(self, samples: NDArray[Any], *, deadline: float, key: str) -> Features:
        """The model's outputs for prepared samples."""
        outputs = await self.batcher.submit(samples, deadline=deadline, key=key)
        return Features(outputs[0], outputs[1] if len(outputs) > 1 else None)

    def embedded(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Features (N, D) of prepared samples, outside the queue. Raises `DomainError` where none can be taken."""
        if not self._features:
            raise DomainError(
                "no features can be taken of this package, so that it does not adapt",
                where=self.name,
                hint="serve a package for ONNX Runtime whose last layer is linear",
            )
        before = self.signature.preprocessing
        if before.kind == "text":
            return by_length(lambda part: self._run(part)[-1], samples, before.padding, 64)
        return np.concatenate([self._run(samples[i : i + 64])[-1] for i in range(0, len(samples), 64)])

    def watched(self, samples: NDArray[Any], found: Features) -> NDArray[np.float32] | None:
        """What is kept of answers, (N, D): the features; else the prepared inputs, where they are few numbers, and the scores behind them.

        None for maps: their answers are not kept.
        """
        if found.features is not None:
            return found.features
        if found.scores.ndim != 2 or self.signature.is_dense:
            return None
        inputs = samples.reshape(len(samples), -1)
        few_numbers = inputs.dtype.kind == "f" and inputs.shape[1] <= _MOST_WATCHED
        return np.concatenate([inputs, found.scores] if few_numbers else [found.scores], axis=1, dtype=np.float32)

    def tried(self) -> Features:
        """What it makes of one sample of zeros."""
        spec = self.signature.inputs[0]
        outputs = self._run(np.zeros(self.signature.input_shape(1), spec.dtype))
        return Features(outputs[0], outputs[1] if len(outputs) > 1 else None)

    def outputs(self, found: Features, head: VersionHead | None) -> list[Output]:
        """The outputs of an answer: scores, and of classes the label of each sample."""
        spec = self.signature.outputs[0]
        classes = self.signature.classes
        scores = found.scores
        if head is not None:
            if found.features is None:
                raise Refusal(500, "the version needs features, and the package gives none")
            classes, scores = head.classes, head.scores(found.features)
        outputs = [Output(spec.name, datatype_of(_NAMES.get(scores.dtype) or str(scores.dtype)), scores)]
        if classes is not None and self.signature.answers == "classes" and scores.ndim == 2:
            names = np.empty(len(scores), object)
            names[:] = [classes[number] for number in scores.argmax(1).tolist()]
            names[~np.isfinite(scores).all(axis=1)] = ""  # of which nothing can be said
            outputs.append(Output(LABEL, "BYTES", names))
        return outputs

    def metadata(self, version: str, versions: Sequence[str], head: VersionHead | None) -> dict[str, Any]:
        """As the protocol has it; `parameters` says what is beyond it."""
        spec, output = self.signature.inputs[0], self.signature.outputs[0]
        classes = self.signature.classes if head is None else head.classes
        outputs: list[dict[str, Any]] = [
            {
                "name": output.name,
                "datatype": datatype_of(output.dtype),
                "shape": [-1, len(classes)] if classes is not None else _shape(output.shape),
            }
        ]
        if classes is not None and self.signature.answers == "classes" and not self.signature.is_dense:
            outputs.append({"name": LABEL, "datatype": "BYTES", "shape": [-1]})
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": self.platform,
            "inputs": [{"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": _shape(spec.shape)}],
            "outputs": outputs,
            "parameters": {
                "version": version,
                "classes": None if classes is None else list(classes),
                "raw_inputs": self.raw_inputs(),
                "adapts": self.adapts,
                "package": self.digest,
            },
        }

    def raw_inputs(self) -> list[dict[str, Any]]:
        """Inputs that are taken in place of the tensor: the runtime prepares them."""
        before = self.signature.preprocessing
        if before.kind == "image":
            return [
                {"name": IMAGES, "datatype": "BYTES", "shape": [-1]},
                {"name": IMAGES, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            ]
        if before.kind == "text":
            return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in self._names_of_texts()]
        kinds = {"numbers": "FP64", "words": "BYTES"}
        return [{"name": each.name, "datatype": kinds[each.type], "shape": [-1]} for each in before.columns]

    # -- private

    def _session(self, path: Path, threads: int) -> Run:
        from mapsto.nn.export.embedding import with_embedding

        model: bytes | Path = path
        if self.signature.classes is None:
            self._features = True
        else:
            try:
                model = with_embedding(path.read_bytes(), where=self.name)
                self._features = True
            except DomainError:  # no linear head ends it: it answers, and does not adapt
                self._features = False
        opened = session(model, threads=threads)
        name = opened.get_inputs()[0].name
        one = self.signature.classes is None

        def run(samples: NDArray[Any]) -> Sequence[NDArray[Any]]:
            outputs = opened.run(None, {name: samples})
            return [outputs[0], outputs[0]] if one else outputs

        return run

    def _tried(self, manifest: Mapping[str, Any]) -> float:
        """Seconds of one sample, on the package's own example, which it must answer as when it was exported.

        Raises `StoreError` where it does not, or gives NaN or infinity.
        """
        example: Any = manifest.get("example")
        x = self._example(example)
        scores = self._run(x)[0]
        times: list[float] = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            self._run(x)
            times.append(time.perf_counter() - began)
        if not np.isfinite(scores).all():
            raise StoreError("its model gives NaN or infinity for its own example", where=str(self.folder), hint=_AGAIN)
        if example is not None:
            try:
                wrong, count = own_example.differences(example, manifest.get("parity") or {}, scores)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise StoreError("its own example cannot be read", where=str(self.folder), hint=_AGAIN) from error
            if wrong:
                raise StoreError(
                    f"it does not answer its own example as when it was exported: {wrong} of {count} outputs are others",
                    where=str(self.folder),
                    hint="export it again on this machine; if that does not help, the runtime here computes otherwise",
                )
        return sorted(times)[_ROUNDS // 2]

    def _example(self, described: Any) -> NDArray[Any]:
        """One prepared sample: the package's own, else zeros or an image of its examples."""
        place = self.verified.folder / "examples"
        examples = sorted(place.glob("*")) if place.is_dir() else []
        if isinstance(described, dict):
            name: Any = cast("dict[str, Any]", described).get("input")
            own = [path for path in examples if f"examples/{path.name}" == name]
            return read_input(own[0], self.signature) if own else own_example.pattern(self.signature)
        if examples and self.signature.preprocessing.kind == "image":
            return read_input(examples[0], self.signature)
        return np.zeros(self.signature.input_shape(1), self.signature.inputs[0].dtype)

    def _tensor(self, given: Given) -> NDArray[Any]:
        spec = self.signature.inputs[0]
        wanted = datatype_of(spec.dtype)
        if given.datatype != wanted:
            raise Refusal(400, f"input '{spec.name}' is of type {wanted}, not {given.datatype}")
        rest = spec.shape[1:]
        fits = len(given.shape) == len(rest) + 1 and all(
            isinstance(size, str) or size == own for size, own in zip(rest, given.shape[1:], strict=True)
        )
        if not fits or not given.shape[0]:
            raise Refusal(400, f"input '{spec.name}' has the shape {_shape(spec.shape)}, not {list(given.shape)}")
        samples = tensor(given)
        if self.signature.preprocessing.ids:
            try:
                require_ids(samples, self.signature.preprocessing.ids, spec.name)
            except DataError as error:
                raise Refusal(400, str(error)) from error
        return samples

    def _images(self, given: Given) -> NDArray[Any]:
        """Prepared samples of image files (BYTES) or raw pixels (UINT8, (N, H, W) or (N, H, W, C))."""
        if given.datatype not in ("BYTES", "UINT8"):
            raise Refusal(400, f"input '{IMAGES}' is BYTES, an image file each, or UINT8 pixels; not {given.datatype}")
        if given.datatype == "UINT8" and len(given.shape) not in (3, 4):
            raise Refusal(400, f"pixels have the shape [N, H, W] or [N, H, W, C], not {list(given.shape)}")
        found = tensor(given)
        try:
            if given.datatype == "UINT8":
                return read_input(found, self.signature)
            files = found.ravel().tolist()
            if not files:
                raise Refusal(400, f"input '{IMAGES}' holds no image")
            return read_inputs(files, self.signature)
        except DataError as error:
            said = str(error).replace("standard input", IMAGES)
            if given.datatype == "BYTES" and found.size > 1:
                said = self._first_wrong(found.ravel().tolist()) or said
            base64 = (
                ""
                if given.content_type or given.datatype != "BYTES"
                else '; of base64 the parameter content_type is "base64"'
            )
            raise Refusal(400, f"{said}{base64}") from error

    def _texts(self, inputs: Sequence[Given]) -> NDArray[Any]:
        """Token ids of texts (BYTES), an input each for the texts of a pair."""
        before = self.signature.preprocessing
        names = self._names_of_texts()
        given = {each.name: each for each in inputs}
        if set(given) != set(names):
            raise Refusal(400, f"the model takes {self._taken()}; given: {few([short(name) for name in given])}")
        columns: list[list[str]] = []
        for name in names:
            if given[name].datatype != "BYTES":
                raise Refusal(400, f"input '{name}' is BYTES, a text each; not {given[name].datatype}")
            columns.append([_cell(value, name) or "" for value in cells(given[name])])
        if len({len(column) for column in columns}) != 1 or not columns[0]:
            raise Refusal(
                400, "the inputs hold no text" if not columns[0] else "the texts of pairs are not equally many"
            )
        texts: list[Text] = list(columns[0]) if before.texts == 1 else list(zip(*columns, strict=True))
        found = encoded_texts(texts, before, "the request")
        if found.errors:
            raise Refusal(400, str(found.errors[min(found.errors)]))
        length = found.ids.shape[-1]
        most = min(-(-length // _LENGTHS) * _LENGTHS, max(before.length, length))
        free = [(0, 0)] * (found.ids.ndim - 1)
        return np.pad(found.ids, [*free, (0, most - length)], constant_values=before.padding)

    def _names_of_texts(self) -> tuple[str, ...]:
        before = self.signature.preprocessing
        return (TEXTS,) if before.texts == 1 else tuple(f"{TEXTS}_{number + 1}" for number in range(before.texts))

    def _first_wrong(self, files: Sequence[bytes]) -> str:
        """What is wrong with the first of several files that cannot be read, and which it is."""
        for number, content in enumerate(files):
            try:
                read_input(content, self.signature)
            except DataError as error:
                return str(error).replace("standard input", f"{IMAGES} {number + 1} of {len(files)}")
        return ""

    def _rows(self, inputs: Sequence[Given]) -> NDArray[Any]:
        """Prepared samples of a table: an input a column."""
        before = self.signature.preprocessing
        names = [column.name for column in before.columns]
        given = {each.name: each for each in inputs}
        missing = [name for name in names if name not in given]
        unknown = [name for name in given if name not in names and name not in before.header]
        if missing or unknown:
            said = (
                f"lacks the column {few(missing)}"
                if missing
                else f"has the column {few(unknown)}, which it does not know"
            )
            raise Refusal(400, f"the model takes {self._taken()}; the request {said}")
        columns: list[NDArray[Any]] = []
        for name in names:
            values: list[Any] = [_cell(value, name) for value in cells(given[name])]
            columns.append(np.array([*values, None], object)[:-1])
        if len({len(column) for column in columns}) != 1:
            raise Refusal(400, "the columns are of different lengths")
        if not len(columns[0]):
            raise Refusal(400, "the columns hold no row")
        rows = encoded(RawTable(names=tuple(names), columns=tuple(columns)), before, "request")
        if rows.errors:
            raise Refusal(400, str(rows.errors[min(rows.errors)]))
        return rows.rows

    def _taken(self) -> str:
        spec = self.signature.inputs[0]
        own = f"'{spec.name}' ({datatype_of(spec.dtype)} {_shape(spec.shape)})"
        names = list(dict.fromkeys(f"'{each['name']}'" for each in self.raw_inputs()))
        return f"{own}, or {', '.join(names[:20])}" if names else own


def _shape(shape: Sequence[int | str]) -> list[int]:
    return [-1 if isinstance(size, str) else size for size in shape]


def _cell(value: Any, name: str) -> Any:
    """A cell as a table has it: None where it is missing. Raises `Refusal` (400) for what is no text."""
    if isinstance(value, bytes):
        try:
            return value.decode() or None
        except UnicodeDecodeError as error:
            raise Refusal(400, f"column '{short(name)}' holds what is no UTF-8") from error
    return None if value != value else value  # noqa: PLR0124 - NaN


def _digest(manifest: Mapping[str, Any]) -> str:
    """Of a package: what its manifest says of its files."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
