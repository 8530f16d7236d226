"""The nouns of mapsto: what mappings take and give.

A small closed set of frozen values: `Network`, `Dataset`, `Tasks`, `Stream`, `Report`, `Package` and `Forked`. Nothing here
imports torch until a network is built, so that a recipe can be read, typed and keyed in milliseconds.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar, cast, dataclass_transform

import pydantic
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from mapsto.errors import DataError, DomainError, SpecError, TrustError, nearest
from mapsto.intervals import interval_text
from mapsto_runtime.signature import Column, Preprocessing, Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

__all__ = [
    "Adaptation",
    "Column",
    "Dataset",
    "Edit",
    "Episode",
    "Episodes",
    "Factory",
    "Forked",
    "Frozen",
    "Json",
    "Metric",
    "Network",
    "Package",
    "Preprocessing",
    "Report",
    "Samples",
    "Series",
    "Signature",
    "Stream",
    "Table",
    "Tasks",
    "TensorSpec",
    "trusting",
    "vouched",
]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def _spec_error(cls: type, error: ValidationError) -> SpecError:
    """Pydantic's findings in one sentence: every wrong field, what was given, what is allowed."""
    known = [f.name for f in dataclasses.fields(cls)]
    details: list[tuple[tuple[str | int, ...], str]] = []
    for item in error.errors(include_url=False):
        path = tuple(item["loc"])
        place = ".".join(str(part) for part in path) or "value"
        nested: Any = item.get("ctx", {}).get("details")
        if nested:
            details += [((*path, *inner), message) for inner, message in nested]
        elif item["type"] == "unexpected_keyword_argument":
            details.append((path, f"unknown field '{place}' ({nearest(place, known)})"))
        elif item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            details.append(((), f"field '{place}' is missing"))
        else:
            message = item["msg"][:1].lower() + item["msg"][1:]
            details.append((path, f"field '{place}': {message}, got {item['input']!r}"))
    return SpecError("; ".join(message for _, message in details), where=cls.__name__, details=details)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field, pydantic.Field))
class Frozen:
    """A base whose subclasses are frozen, keyword-only pydantic dataclasses.

    Fields are validated when written; a wrong one raises `SpecError` that names the field, what was given and what is
    allowed. The string under a field is its description in the command line, the JSON schema and the docs.

    >>> class Point(Frozen):
    ...     x: int = Field(default=0, ge=0)
    >>> Point(x=3).x
    3
    >>> Point(y=3)
    Traceback (most recent call last):
    mapsto.errors.SpecError: Point: unknown field 'y' (known: x)
    """

    config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pydantic_dataclass(cls, frozen=True, kw_only=True, config=Frozen.config)
        validated: Callable[..., None] = cls.__init__

        def checked(self: Frozen, /, *args: Any, **values: Any) -> None:
            try:
                validated(self, *args, **values)
            except ValidationError as error:
                raise _spec_error(cls, error) from None

        checked.__wrapped__ = validated  # type: ignore[attr-defined]
        checked.__pydantic_base_init__ = True  # type: ignore[attr-defined]
        cls.__init__ = checked  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------------------------------ network

_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())
_ALLOWED = "mapsto.nn.networks."
_IMPORTED_HERE = ("mapsto", "mapsto_runtime", "torch")
"""Where mapsto's own factories live. Not the whole package: through its modules' imports a name would reach anything."""


@contextmanager
def trusting(*modules: str) -> Generator[None]:
    """Allow factories of these top-level modules to be imported within the block (the command line's ``--trust``).

    Within it a module may be a file of the working folder, which is looked through last, so that it hides no other.
    """
    token = _trusted.set(_trusted.get() | frozenset(modules))
    folder = os.getcwd()
    added = bool(modules) and folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        _trusted.reset(token)
        if added and folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def vouched(factory: str) -> Generator[None]:
    """Within the block this very factory may be called where the caller has imported its module: who names it means it."""
    token = _vouched.set(_vouched.get() | {factory})
    try:
        yield
    finally:
        _vouched.reset(token)


_vouched: ContextVar[frozenset[str]] = ContextVar("vouched", default=frozenset())


class Factory(Frozen):
    """An importable callable and the JSON arguments that make it give a `torch.nn.Module`."""

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """``package.module:callable``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments, JSON values only."""

    def load(self) -> Callable[..., nn.Module]:
        """The callable. Raises `TrustError` for a module the user has not named, `SpecError` where there is none."""
        path, _, attribute = self.name.partition(":")
        package = path.partition(".")[0]
        own = path.startswith(_ALLOWED) and "." not in attribute
        if not own and package not in _trusted.get() and not self._is_imported():
            raise TrustError(
                f"building this network would run code of '{path}', which is not on the list of trusted modules",
                where=self.name,
                hint=f"pass --trust {package} (or use mapsto.kinds.trusting('{package}')) if you trust it",
            )
        try:
            found: Any = importlib.import_module(path)
            for part in attribute.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise SpecError(
                f"no such factory: {error}", where=self.name, hint="check the module and the name"
            ) from error
        if own and getattr(found, "__module__", path) != path and package not in _trusted.get():
            raise TrustError(
                f"'{attribute}' is only imported by '{path}', it is no factory of mapsto",
                where=self.name,
                hint="name the module that defines it, and pass --trust if you trust it",
            )
        if not callable(found):
            raise SpecError(
                f"a {type(found).__name__} is no factory", where=self.name, hint="name a function or a class"
            )
        return cast("Callable[..., nn.Module]", found)

    def _is_imported(self) -> bool:
        """Whether it is there without importing anything, and may be called: the caller's class of modules, or what it vouches for.

        Of functions that are there the name alone does not tell what a call does, so that a stored name is not enough for them; nor is
        it for what mapsto has imported itself.
        """
        from torch import nn

        path, _, attribute = self.name.partition(":")
        found: Any = sys.modules.get(path)
        for part in attribute.split("."):
            found = getattr(found, "__dict__", {}).get(part)  # never a module's own __getattr__, which may import
        if found is None or self.name in _vouched.get():
            return found is not None
        return path.partition(".")[0] not in _IMPORTED_HERE and isinstance(found, type) and issubclass(found, nn.Module)

    def build(self) -> nn.Module:
        """A fresh module. Its initial weights are drawn from torch's global generator.

        Raises `SpecError` where the arguments are not the factory's, or what it gives is no module.
        """
        from torch import nn

        call = self.load()
        try:
            inspect.signature(call).bind(**self.arguments)
        except TypeError as error:
            raise SpecError(str(error), where=self.name, hint="check arguments against the factory's own") from error
        except ValueError:
            pass  # a callable written in C may have no signature to check
        module: Any = call(**self.arguments)
        if not isinstance(module, nn.Module):
            raise SpecError(
                f"it gives a {type(module).__name__}, not a torch.nn.Module",
                where=self.name,
                hint="name another factory",
            )
        return module


class Edit(Frozen):
    """A change of a module's structure that can be replayed: explicit indices and numbers, never a trace.

    One file in ``mapsto/nn/edits/`` each; the file's name is the edit's name. An edit addresses the factory's own names,
    adds, reshapes or drops tensors, and never renames them.
    """

    version: ClassVar[int] = 1

    @abstractmethod
    def apply(self, module: nn.Module) -> nn.Module:
        """Change `module` in place (tensors it holds are sliced, not redrawn) and return it."""

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        """How a tensor that follows parameter `name` changes with it; None where the parameter is dropped."""
        return tensor


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How a learner adapts: the method's name, its settings, and its own tensors.

    `method` is a file in ``mapsto/nn/adaptation/``. A tensor named as a parameter or buffer follows it (pruning slices it too),
    as does one named so with ``@`` and something after it; one whose name starts with ``~`` is free.
    """

    method: str
    settings: Mapping[str, Json] = field(default_factory=dict[str, Json])
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network as data: *call the factory → replay the edits → load the tensors strictly*. No pickle, ever."""

    arch: Factory
    edits: tuple[Edit, ...] = ()
    tensors: Mapping[str, Tensor]
    """Every parameter and buffer by its name in the edited module."""
    signature: Signature
    assets: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Named blobs that travel with the network, such as a tokenizer."""
    adaptation: Adaptation | None = None
    """Set on a learner: how it adapts to a new task."""

    def module(self, *, device: str | torch.device = "cpu") -> nn.Module:
        """Plain PyTorch, in evaluation mode, with its own copy of the tensors.

        Raises `TrustError` for an untrusted factory and `DomainError` naming the tensors that do not fit.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            module = self.arch.build()
        for edit in self.edits:
            module = edit.apply(module)
        load_strictly(module, self.tensors, where=self.arch.name)
        object.__setattr__(
            module, "mapsto_origin", (self.arch, self.edits, self.signature, self.assets, self.adaptation)
        )
        return module.to(device).eval()

    def with_module(self, module: nn.Module, *edits: Edit, **changes: Any) -> Network:
        """This network with `module`'s tensors, `edits` added to the list (already applied to it) and fields replaced."""
        network = dataclasses.replace(
            self, edits=(*self.edits, *edits), tensors=detached(module.state_dict(keep_vars=False)), **changes
        )
        adaptation = network.adaptation
        if adaptation is not None and edits and "adaptation" not in changes:
            tensors: dict[str, Tensor] = {}
            for name, tensor in adaptation.tensors.items():
                kept: Tensor | None = tensor
                for edit in () if name.startswith("~") else edits:
                    kept = edit.follow(name.partition("@")[0], kept) if kept is not None else None
                if kept is not None:
                    tensors[name] = kept
            network = dataclasses.replace(network, adaptation=dataclasses.replace(adaptation, tensors=tensors))
        return network

    def edited(self, *edits: Edit, **changes: Any) -> Network:
        """This network with `edits` applied to its module."""
        module = self.module()
        for edit in edits:
            module = edit.apply(module)
        return self.with_module(module, *edits, **changes)

    @staticmethod
    def from_module(
        module: nn.Module,
        example: Tensor | tuple[Tensor] | Mapping[str, Tensor],
        *,
        factory: str | None = None,
        arguments: Mapping[str, Json] | None = None,
        output: str | int | None = None,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
    ) -> Network:
        """A live module as a `Network`.

        Parameters
        ----------
        module
            Its class must be importable, unless `factory` builds it. A module that `Network.module` gave keeps its factory and
            edits; a model of transformers keeps its configuration and class names; a `LightningModule` that called
            ``save_hyperparameters`` gives its arguments itself. Weight, spectral and orthogonal norms are folded.
        example
            One batch of input, shape (N, ...); the first dimension is symbolic in the signature. For a model of transformers also
            what its tokenizer gives.
        factory
            ``package.module:callable`` that builds it, as ``resnet:resnet20``: a module that you have imported, or one of the
            working folder that is trusted. By default its class.
        arguments
            What the constructor or `factory` was called with, as JSON values; by default a constructor's are read from ``hparams``
            or from attributes of the same name, and the rebuilt module is checked against this one.
        output
            Which of its outputs is taken, where it gives several: a name, or a place from 0. By default the only one, or ``logits``.
        preprocessing, classes
            For the signature; by default none.

        Raises
        ------
        TrustError
            The class lives in a notebook or in ``__main__``: save it to a file that can be imported. Or `factory` would be imported
            and is not trusted.
        DomainError
            The module cannot be rebuilt from its arguments (the message names the tensors or arguments), it has several inputs, or
            several outputs of which none is named.
        """
        origin = getattr(module, "mapsto_origin", None)
        if origin is not None:
            arch, edits, signature, assets, adaptation = origin
            tensors = detached(module.state_dict())
            return Network(
                arch=arch, edits=edits, tensors=tensors, signature=signature, assets=assets, adaptation=adaptation
            )
        made: Any = importlib.import_module("mapsto.nn.foreign")  # above this file, which is read without torch
        return made.network_of_module(
            module,
            example,
            factory=factory,
            arguments=arguments,
            output=output,
            preprocessing=preprocessing,
            classes=classes,
        )


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous, without gradients; tensors that share storage whole stay one tensor."""
    seen: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        alias = (tensor.data_ptr(), tuple(tensor.shape)) if tensor.numel() else (id(tensor), ())
        if alias not in seen:
            seen[alias] = tensor.detach().to("cpu", copy=True).contiguous()
        result[name] = seen[alias]
    return result


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    hint: str = "check the factory's arguments against the checkpoint",
) -> None:
    """Copy `tensors` into `module`.

    Raises `DomainError` that names every missing, unknown or misshapen tensor, and one that is sparse or lazy.
    """
    import torch

    own = module.state_dict()
    for name, tensor in (*tensors.items(), *own.items()):
        if torch.nn.parameter.is_lazy(tensor):
            raise DomainError(
                f"tensor '{name}' is lazy: its shape is not known yet",
                where=where,
                hint="call the module once, and save it then",
            )
        if tensor.layout != torch.strided:
            raise DomainError(
                f"tensor '{name}' is sparse", where=where, hint="make it dense with .to_dense(), and save it again"
            )
    missing = sorted(own.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - own.keys())
    shapes = sorted(
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    )
    findings = [
        f"{what}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("misshapen", shapes))
        if names
    ]
    if findings:
        raise DomainError(
            f"the tensors do not fit the network ({'; '.join(findings)})",
            where=where,
            hint=hint,
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


# --------------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """An opened data set, in memory or memory-mapped.

    `inputs` has shape (N, ...): images are uint8 (N, C, H, W), rows float32 (N, D), token ids integers (N, L). `labels` is int64 (N,)
    for classes, float32 (N, K) for multi-label and regression targets.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    """Names of the classes (or targets) in the order of their labels."""
    preprocessing: Preprocessing
    warnings: tuple[str, ...] = ()
    """What may spoil a result, with its remedy: broken files that were left out, pictures of one value."""
    notes: tuple[str, ...] = ()
    """What is worth knowing of how the data were read, such as files that were passed over."""

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise DataError(f"{len(self.inputs)} inputs but {len(self.labels)} labels", hint="give one label an input")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """The samples at `indices`, in that order."""
        return dataclasses.replace(self, inputs=self.inputs[indices], labels=self.labels[indices])


class Dataset(Frozen):
    """A reference to labelled data: a spec and a content fingerprint, opened lazily. One file in ``mapsto/data/sets/``."""

    version: ClassVar[int] = 1

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the content (never of a path), cheap to compute and without opening the data where possible."""

    @abstractmethod
    def open(self) -> Samples:
        """The samples. Raises `DataError` that names the file and the remedy."""

    def read_for(self, preprocessing: Preprocessing) -> Dataset:
        """This data set as a network reads it: where the spec leaves open how files become samples, the network says it.

        Raw samples are the same for every network, so by default only the data sets that this one is made from are asked. What reads
        files overrides it. The fingerprint of a spec never depends on it.
        """
        return _read_for(self, preprocessing)

    def misread(self, preprocessing: Preprocessing) -> tuple[str, ...]:
        """Where the spec has files read otherwise than a network's package reads them, each with its remedy."""
        return _misread(self, preprocessing)


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One task: a labelled support set and a query set, as indices into the samples it was drawn from.

    Labels are 0 to ways - 1, int64, of shape (ways × shots,) and (ways × queries,); a regression task has targets instead,
    float32, of shape (shots, K) and (queries, K), and no classes.
    """

    samples: Samples
    support_indices: NDArray[np.int64]
    support_labels: NDArray[Any]
    query_indices: NDArray[np.int64]
    query_labels: NDArray[Any]
    classes: tuple[int, ...]
    """The data set's label of each way."""
    unlabelled_indices: NDArray[np.int64] | None = None
    """Samples that are given without labels, of the episode's classes and of others; None where there are none."""

    @property
    def outputs(self) -> int:
        """Numbers that a prediction consists of: one a class, or K."""
        return len(self.classes) or int(self.support_labels.shape[-1])

    @property
    def support(self) -> NDArray[Any]:
        """The support inputs, shape (ways × shots, ...)."""
        return self.samples.inputs[self.support_indices]

    @property
    def query(self) -> NDArray[Any]:
        """The query inputs, shape (ways × queries, ...)."""
        return self.samples.inputs[self.query_indices]


class Episodes:
    """An opened distribution of tasks: `episodes[i]` is deterministic in (seed, i).

    `samples` are those that tasks are drawn from; of tasks that are made rather than drawn, those of the first one. `ways` is 0
    for regression.
    """

    samples: Samples
    ways: int
    shots: int
    queries: int

    @abstractmethod
    def __getitem__(self, index: int) -> Episode: ...


class Tasks(Frozen):
    """A distribution of episodes over a `Dataset`."""

    version: ClassVar[int] = 1

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the data and of how tasks are drawn from it."""

    @abstractmethod
    def open(self) -> Episodes:
        """The tasks. Raises `DataError` where the data cannot give such an episode."""

    def read_for(self, preprocessing: Preprocessing) -> Tasks:
        """These tasks over data as a network reads them; see `Dataset.read_for`."""
        return _read_for(self, preprocessing)

    def misread(self, preprocessing: Preprocessing) -> tuple[str, ...]:
        """Where the data are read otherwise than a network's package reads them, each with its remedy."""
        return _misread(self, preprocessing)


_Reading = TypeVar("_Reading", Dataset, Tasks)


def _parts(spec: Frozen) -> dict[str, Dataset | Tasks]:
    """The data sets and tasks that a spec is made from, by field."""
    fields = {f.name: getattr(spec, f.name) for f in dataclasses.fields(cast("Any", spec))}
    return {name: value for name, value in fields.items() if isinstance(value, Dataset | Tasks)}


def _read_for(spec: _Reading, preprocessing: Preprocessing) -> _Reading:
    parts = _parts(spec)
    read = {name: part.read_for(preprocessing) for name, part in parts.items()}
    changes = {name: part for name, part in read.items() if part is not parts[name]}
    return dataclasses.replace(cast("Any", spec), **changes) if changes else spec


def _misread(spec: Frozen, preprocessing: Preprocessing) -> tuple[str, ...]:
    return tuple(text for part in _parts(spec).values() for text in part.misread(preprocessing))


class Stream(Frozen):
    """A reference to timestamped events: (source, offset range), labels possibly late."""

    version: ClassVar[int] = 1

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the source and the offset range; an unbounded stream has none and raises `DomainError`."""

    @abstractmethod
    def events(self, offset: int) -> Iterator[tuple[float, Any]]:
        """(timestamp in seconds, event) from `offset` on."""


# ------------------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number with its unit and, where it was sampled, its 95 % confidence interval."""

    value: float
    unit: str = ""
    ci95: float | None = None
    """Half-width of the interval, in `unit`."""
    n: int | None = None
    """How many samples (episodes, rounds, images) it is the mean of."""
    measured: bool = False
    """Times, memory, rates: values that differ from run to run and stay outside a report's digest."""
    low: float | None = None
    """Lower end of the interval, in `unit`, where it does not lie evenly around the value, as of a share near 0 or 100 %."""
    high: float | None = None
    """Its upper end."""

    def __str__(self) -> str:
        text = f"{self.value:.4g}" if abs(self.value) < 1e4 or not math.isfinite(self.value) else f"{self.value:,.0f}"
        unit, interval = f" {self.unit}" if self.unit else "", interval_text(vars(self), self.unit)
        return f"{text}{unit} {interval}" if interval.startswith("(") else f"{text} {interval}".rstrip() + unit


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named columns and rows of plain values."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    units: Mapping[str, str] = field(default_factory=dict[str, str])
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """One or more curves over a common x."""

    x: tuple[float, ...]
    ys: Mapping[str, tuple[float, ...]]
    x_name: str = "step"
    y_name: str = ""
    measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured: typed metrics, tables, series and pictures (PNG)."""

    metrics: Mapping[str, Metric] = field(default_factory=dict[str, Metric])
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    series: Mapping[str, Series] = field(default_factory=dict[str, Series])
    pictures: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


# ------------------------------------------------------------------------------------------------------------------ package


@dataclass(frozen=True, kw_only=True, eq=False)
class Package:
    """A folder that runs without the training half of mapsto.

    `files` maps each path inside the package (POSIX, relative) to a local file that holds its bytes; ``manifest.json``
    names the others with their hashes, the signature, and the parity report.
    """

    files: Mapping[str, Path]
    measured: Mapping[str, Table] = field(default_factory=dict[str, Table])
    """Times that a choice was made by: they differ from run to run and stay outside the package's digest."""

    def manifest(self) -> dict[str, Any]:
        """The parsed ``manifest.json``."""
        return json.loads(self.files["manifest.json"].read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Forked:
    """The labelled results of a fork; only ``choose.*`` or a reference to a label consumes it."""

    parts: Mapping[str, Any]
    """Label → what the branch gives; of a branch that ends in a fork this is a `Forked` too."""
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    """Label → why there is no such part: a branch that could not be made, where the choice goes on without."""

    def flat(self) -> dict[str, Any]:
        """Every part by its own label, those of inner forks in place of these."""
        found: dict[str, Any] = {}
        for label, part in self.parts.items():
            found.update(part.flat() if isinstance(part, Forked) else {label: part})
        return found

    @property
    def missing(self) -> dict[str, str]:
        """What was left out, in inner forks too."""
        inner = [part.missing for part in self.parts.values() if isinstance(part, Forked)]
        return {label: why for each in (self.left_out, *inner) for label, why in each.items()}
