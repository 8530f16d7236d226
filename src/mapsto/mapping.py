"""The verb of mapsto: a mapping takes a value of one kind and gives a value of another.

A `Mapping` is a frozen, keyword-only dataclass with one method, `apply`. Its fields are its whole configuration. Mappings
compose with ``>>``, which is associative and checks kinds when it is written:

    big = networks.vgg(depth=16) >> train.supervised(data=train)
    small = big >> prune.taylor(macs=0.25, data=train) >> distill.logits(teacher=big, data=train)
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import sys
import types
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from collections.abc import Mapping as AbcMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import Field
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from mapsto import discovery, kinds
from mapsto.errors import ComposeError, DomainError, MapstoError, SpecError, command, nearest
from mapsto.kinds import Dataset, Forked, Frozen, Network, Package, Preprocessing, Report, Stream, Tasks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning_fabric import Fabric
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler

    from mapsto.process import Process

__all__ = [
    "Branches",
    "Chain",
    "Context",
    "DataSource",
    "Fork",
    "Labelled",
    "Mapping",
    "MappingField",
    "Misfit",
    "NetworkSource",
    "Numerics",
    "Observe",
    "Of",
    "Ref",
    "StreamSource",
    "TasksSource",
    "absent",
    "fork",
    "kind_name",
    "labels_in",
    "left_out_text",
    "misfits",
    "observe",
    "ref",
    "refusal",
]

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)
C = TypeVar("C")
T = TypeVar("T")
_ABSENT: Any = None
_Reading: TypeAlias = "tuple[tuple[int, int], int, str, tuple[kinds.Column, ...]] | None"
"""What of a network's preprocessing decides how a file is read: size, channels, ink, columns of a table."""

KINDS: dict[str, type[Any]] = {
    "network": Network,
    "dataset": Dataset,
    "tasks": Tasks,
    "stream": Stream,
    "report": Report,
    "package": Package,
    "forked": Forked,
}


@dataclass(frozen=True)
class Ref:
    """A reference to an earlier output or data entry of a recipe by its label; ``$label`` in YAML."""

    label: str

    def __repr__(self) -> str:
        return f"${self.label}"


def ref(label: str) -> Any:
    """A reference to what an earlier step or data entry is labelled.

    >>> ref("teacher")
    $teacher
    """
    return Ref(label)


class Of:
    """Marks a field whose value is of a kind, comes from a source mapping of that kind, or is a reference to one.

    In YAML such a field is ``$label`` or ``{name: {fields}}``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"Of({self.kind!r})"

    def validate(self, value: Any) -> Any:
        """The value as the field stores it; pydantic's own error where it is of no use here."""
        if self.kind != "mapping":
            if isinstance(value, str) and value.startswith("$"):
                return Ref(value[1:])
            if isinstance(value, Ref):
                return value
        if isinstance(value, (dict, list)):
            value = self._built(value)
        if self.kind == "mapping":
            if isinstance(value, Mapping):
                return cast("Mapping[Any, Any]", value)
        elif isinstance(value, KINDS[self.kind]):
            return value
        elif isinstance(value, Mapping):
            source = cast("Mapping[Any, Any]", value)
            if accepts(step_takes(source), type(None)) and source.gives_for(type(None)) is KINDS[self.kind]:
                return source
        article = "a mapping" if self.kind == "mapping" else f"a {self.kind}, a source of one, or $label"
        raise PydanticCustomError("kind", "should be {article}", {"article": article})

    def _built(self, node: Any) -> Any:
        try:
            if self.kind in ("dataset", "tasks", "stream"):
                return data_from_node(node)
            return chain_from_nodes(node) if isinstance(node, list) else step_from_node(node)
        except SpecError as error:
            found = {"message": error.what, "details": _details(error)}
            raise PydanticCustomError("nested", "{message}", found) from error
        except MapstoError as error:
            raise PydanticCustomError("nested", "{message}", {"message": str(error)}) from error

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": r"^\$"}, {"type": "object"}], "x-kind": self.kind}


class Mapping(Frozen, Generic[A, B]):
    """A frozen configuration with one method, `apply`, that maps a value of kind A to one of kind B."""

    version: ClassVar[int] = 1
    """Raised whenever the same fields would give another result; it enters every key."""
    leaves_out: ClassVar[bool] = False
    """Whether, behind a fork, it goes on without the branches that cannot be made; else one of them ends it all."""
    takes: ClassVar[Any] = Any
    gives: ClassVar[Any] = Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cast("tuple[Any, ...]", getattr(cls, "__orig_bases__", ())):
            arguments = get_args(base)
            if isinstance(get_origin(base), type) and issubclass(get_origin(base), Mapping) and len(arguments) == 2:
                cls.takes, cls.gives = (_plain(argument) for argument in arguments)

    def apply(self, value: A, ctx: Context) -> B:
        """Map `value`. Never changes `value`; draws every random number from generators that `ctx` has seeded."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply")

    def gives_for(self, given: Any) -> Any:
        """The kind of the result for an input of kind `given`."""
        return self.gives

    def misfit(self, given: Any) -> str | None:
        """Why a value of kind `given` cannot be the input, to be read after the mapping's name; None where it can."""
        return None if accepts(self.takes, given) else f"takes {kind_name(self.takes)}"

    @property
    def name(self) -> str:
        """The dotted name, such as ``prune.taylor``."""
        return discovery.name_of(type(self))

    def labelled(self, label: str) -> Mapping[A, B]:
        """This mapping with a label that later steps refer to; ``as:`` in YAML."""
        return Labelled(mapping=self, label=label)

    def __rshift__(self, other: Mapping[B, C]) -> Chain[A, C]:
        return Chain(steps=(*_steps(self), *_steps(other)))

    def __call__(self, value: A = _ABSENT, *, seed: int = 0) -> B:
        """Apply in memory, without a store: for notebooks and tests."""
        return Context(seed=seed).apply(self, value)


def _plain(kind: Any) -> Any:
    if kind is None:
        return type(None)
    if isinstance(kind, TypeVar):
        return Any
    return kind


def kind_name(kind: Any) -> str:
    """A kind as people write it: ``Network``, ``Network or Package``, ``nothing``."""
    if kind is Any:
        return "anything"
    if kind is type(None):
        return "nothing"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(kind_name(part) for part in get_args(kind))
    return Forked.__name__ if isinstance(kind, Branches) else getattr(kind, "__name__", str(kind))


@dataclass(frozen=True)
class Branches:
    """The kind of a fork's result: `Forked`, with what is known of its parts before any of them is computed."""

    kinds: dict[str, Any]
    """Label → the kind that the branch gives."""

    def flat(self) -> dict[str, Any]:
        """The kind of every part by its own label, those of inner forks in place of these."""
        found: dict[str, Any] = {}
        for label, kind in self.kinds.items():
            found.update(kind.flat() if isinstance(kind, Branches) else {label: kind})
        return found


def accepts(takes: Any, given: Any) -> bool:
    """Whether a mapping that takes `takes` can be given `given`."""
    if takes is Any or given is Any or takes is given:
        return True
    if isinstance(given, Branches):
        given = Forked
    if get_origin(takes) in (Union, types.UnionType):
        return any(accepts(part, given) for part in get_args(takes))
    return isinstance(takes, type) and isinstance(given, type) and issubclass(given, takes)


def _steps(mapping: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], ...]:
    return mapping.steps if isinstance(mapping, Chain) else (mapping,)


MappingField: TypeAlias = Annotated[Mapping[Any, Any], Of("mapping")]
NetworkSource: TypeAlias = Annotated[Mapping[None, Network] | Network | Ref, Of("network")]
DataSource: TypeAlias = Annotated[Dataset | Ref, Of("dataset")]
TasksSource: TypeAlias = Annotated[Tasks | Ref, Of("tasks")]
StreamSource: TypeAlias = Annotated[Stream | Ref, Of("stream")]


class Chain(Mapping[A, B]):
    """Mappings one after another; what ``>>`` gives."""

    steps: tuple[MappingField, ...] = Field(min_length=1)
    """The mappings in order; a chain inside a chain is flattened."""

    def __post_init__(self) -> None:
        for misfit in misfits(self, self.takes_first):
            raise ComposeError(
                misfit.problem,
                where=f"{misfit.before} >> {misfit.name}",
                hint="put a mapping between them that turns the one into the other",
                details=((misfit.path, misfit.problem),),
            )

    @property
    def takes_first(self) -> Any:
        """The kind that the first step takes."""
        return step_takes(self.steps[0])

    def gives_for(self, given: Any) -> Any:
        for step in self.steps:
            given = step.gives_for(given)
        return given

    def labelled(self, label: str) -> Chain[A, B]:
        """This chain, whose last step has the label: the chain's result is that step's; what only observes is passed over."""
        last = max((at for at, step in enumerate(self.steps) if not isinstance(step, Observe)), default=-1)
        named = self.steps[last].labelled(label)
        return Chain(steps=(*self.steps[:last], named, *self.steps[last:][1:]))

    def apply(self, value: A, ctx: Context) -> B:
        result: Any = value
        for place, step in enumerate(self.steps):
            with ctx.leaving_out(self.chosen_from(place)):
                result = ctx.apply(step, result)
        return result

    def chosen_from(self, place: int) -> bool:
        """Whether the step at `place` is a fork, and the choice behind it goes on without branches that cannot be made."""
        after = next((step for step in self.steps[place + 1 :] if not isinstance(step, Observe)), None)
        fork, chooser = (each.mapping if isinstance(each, Labelled) else each for each in (self.steps[place], after))
        return isinstance(fork, Fork) and chooser is not None and chooser.leaves_out


def step_takes(mapping: Mapping[Any, Any]) -> Any:
    """The kind that a mapping takes, seen through labels and chains."""
    if isinstance(mapping, Chain):
        return mapping.takes_first
    if isinstance(mapping, Labelled):
        return step_takes(mapping.mapping)
    return mapping.takes


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """A part of a mapping that cannot take what it would be given."""

    path: tuple[str | int, ...]
    """Where the part stands, as in the YAML of the mapping: steps by number, branches and reports by label."""
    before: str
    """The name of the mapping that gives the value; empty for what is given from outside."""
    name: str
    problem: str


def misfits(mapping: Mapping[Any, Any], given: Any, before: str = "") -> Iterator[Misfit]:
    """What of a mapping does not fit a value of kind `given`, looking into chains, forks and reports."""
    if isinstance(mapping, Chain):
        node = -1
        for step in mapping.steps:
            node += 0 if isinstance(step, Observe) else 1
            found = [replace(misfit, path=(max(node, 0), *misfit.path)) for misfit in misfits(step, given, before)]
            yield from found
            if found:
                return  # what it would give is not known
            if not isinstance(step, Observe):
                given, before = step.gives_for(given), step.name
    elif isinstance(mapping, Labelled):
        yield from misfits(mapping.mapping, given, before)
    elif isinstance(mapping, (Observe, Fork)):
        inner = mapping.reports if isinstance(mapping, Observe) else mapping.branches
        for label, part in inner.items():
            for misfit in misfits(part, given, before):
                yield replace(misfit, path=(mapping.name, label, *misfit.path))
    elif reason := mapping.misfit(given):
        source = f"{before} gives {kind_name(given)}" if before else "it is the first step"
        yield Misfit(path=(), before=before, name=mapping.name, problem=f"{source}, but {mapping.name} {reason}")


class Labelled(Mapping[A, B]):
    """A mapping whose result has a label; ``as:`` in YAML."""

    mapping: MappingField
    """What is applied."""
    label: str = Field(pattern=r"^[A-Za-z_]\w*$")
    """The label, unique in its recipe."""

    def __post_init__(self) -> None:
        """Raises `SpecError` for what YAML has no place for a label at, so that every recipe can be written down."""
        remedy = None
        if isinstance(self.mapping, Labelled):
            remedy = f"it is labelled '{self.mapping.label}' already, and a step has one label; refer to that one"
        elif isinstance(self.mapping, Observe):
            remedy = "what observes gives no result of its own; label the step before it"
        elif isinstance(self.mapping, Chain):
            remedy = "steps one after another have no label; label the last one, as .labelled() does"
        if remedy is not None:
            raise SpecError(remedy, where=f"label '{self.label}'", details=((("mapping",), remedy),))

    @property
    def name(self) -> str:
        return self.mapping.name

    def gives_for(self, given: Any) -> Any:
        return self.mapping.gives_for(given)

    def apply(self, value: A, ctx: Context) -> B:
        result = ctx.apply(self.mapping, value)
        ctx.values[self.label] = result
        return result


class Observe(Mapping[C, C]):
    """Stores named reports about a value and passes the value through; ``observe:`` in YAML."""

    reports: dict[Annotated[str, Field(pattern=r"^\w[\w-]*$")], MappingField] = Field(min_length=1)
    """Report name → a mapping that gives a `Report`."""

    def __post_init__(self) -> None:
        for label, mapping in self.reports.items():
            if mapping.gives_for(Any) is not Report:
                problem = f"'{label}' is {mapping.name}, which gives {kind_name(mapping.gives_for(Any))}, not a Report"
                raise ComposeError(
                    problem,
                    where="observe",
                    hint="observe with evaluate.* mappings",
                    details=((("reports", label), f"{problem} (observe with evaluate.* mappings)"),),
                )

    @property
    def name(self) -> str:
        return "observe"

    def gives_for(self, given: Any) -> Any:
        return given

    def apply(self, value: C, ctx: Context) -> C:
        for label, mapping in self.reports.items():
            ctx.observed[label] = ctx.apply(mapping, value)
        return value


class Fork(Mapping[C, Forked]):
    """Applies several mappings to one value and gives their labelled results."""

    branches: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], MappingField] = Field(min_length=1)
    """Label → mapping; every branch takes the same value."""

    @property
    def name(self) -> str:
        return "fork"

    def gives_for(self, given: Any) -> Any:
        return Branches({label: branch.gives_for(given) for label, branch in self.branches.items()})

    def apply(self, value: C, ctx: Context) -> Forked:
        """Raises a branch's `DomainError` unless the choice goes on without, and the last where no branch is left."""
        parts: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for at, (label, mapping) in enumerate(self.branches.items()):
            try:
                parts[label] = ctx.apply(mapping, value)
            except DomainError as error:
                if not ctx.leaves_out or (not parts and at == len(self.branches) - 1):
                    raise
                left_out |= dict.fromkeys(labels_in(label, mapping), str(error))
                ctx.warn(left_out_text(label, error))
        ctx.values.update(parts)
        ctx.values.update({label: Lazy(absent(label, why)) for label, why in left_out.items()})
        return Forked(parts=parts, left_out=left_out)


def labels_in(label: str, branch: Mapping[Any, Any]) -> Iterator[str]:
    """The label of a fork's branch, and those of the steps and inner forks in it."""
    yield label
    for step in _steps(branch):
        inner = step.mapping if isinstance(step, Labelled) else step
        if isinstance(step, Labelled):
            yield step.label
        if isinstance(inner, Fork):
            for name, part in inner.branches.items():
                yield from labels_in(name, part)


def absent(label: str, why: str) -> Callable[[], Any]:
    """What stands for a step that was left out: to ask for it is a `DomainError`."""

    def missing() -> Any:
        raise DomainError(f"'{label}' was left out: {why}", hint="refer to another branch, or mend this one")

    return missing


def left_out_text(label: str, error: DomainError) -> str:
    """What is warned of where a choice goes on without a branch."""
    return f"branch '{label}' is left out of the choice: {error}"


def refusal(error: BaseException) -> DomainError | None:
    """The `DomainError` that an error is, or that a step of a run failed by; None for any other."""
    return next((each for each in (error, error.__cause__) if isinstance(each, DomainError)), None)


def data_from_node(node: Any) -> Any:
    """A data set, tasks or stream from ``{name: {fields}}`` as YAML gives it."""
    name, fields = _one_name(node)
    return _construct(discovery.find("data", name), name, fields)


def step_from_node(node: Any) -> Mapping[Any, Any]:
    """A mapping from ``{name: {fields}, as: label, observe: {name: mapping}}``; all of the node's errors at once."""
    if not isinstance(node, dict):
        raise SpecError("a step is a name with its fields, as in prune.taylor: {macs: 0.25}", where=repr(node)[:60])
    rest = dict(cast("dict[str, Any]", node))
    label, reports = rest.pop("as", None), rest.pop("observe", None)
    name, fields = _one_name(rest)
    details: list[Detail] = []
    found: list[Mapping[Any, Any]] = []

    def attempt(path: tuple[str | int, ...], build: Callable[[], Mapping[Any, Any]], *, within: int = 0) -> None:
        """Build a part; its errors stand at `path`, without the first `within` names of their own, which YAML has not."""
        try:
            found.append(build())
        except SpecError as error:
            details.extend(((*path, *inner[within:]), message) for inner, message in _details(error))

    if name == "fork":
        attempt((name,), lambda: Fork(branches=fields), within=1)
    else:
        attempt((name,), lambda: _construct(discovery.find("mappings", name), name, fields))
    if label is not None and found:
        attempt(("as",), lambda: Labelled(mapping=found.pop(), label=label), within=1)
    if reports is not None:
        attempt(("observe",), lambda: Observe(reports=reports), within=1)
    if details:
        raise SpecError("; ".join(message for _, message in details), where=name, details=details)
    try:
        return found[0] if len(found) == 1 else Chain(steps=tuple(found))
    except SpecError as error:
        error.details = tuple((path[1:], message) for path, message in error.details)  # its steps are one node in YAML
        raise


def chain_from_nodes(nodes: Any) -> Mapping[Any, Any]:
    """The chain of a list of step nodes; one step stays itself. All of their errors at once."""
    details: list[Detail] = []
    steps: list[Mapping[Any, Any]] = []
    for index, node in enumerate(nodes):
        try:
            steps.extend(_steps(step_from_node(node)))
        except SpecError as error:
            details.extend(((index, *inner), message) for inner, message in _details(error))
    if details:
        raise SpecError("; ".join(message for _, message in details), details=details)
    return steps[0] if len(steps) == 1 else Chain(steps=tuple(steps))


Detail: TypeAlias = tuple[tuple[str | int, ...], str]


def _details(error: SpecError) -> Sequence[Detail]:
    """An error's findings, each with its path; the error itself where it has none."""
    return error.details or (((), f"{error.what} ({error.hint})" if error.hint else error.what),)


def _one_name(node: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, dict) or len(cast("dict[Any, Any]", node)) != 1:
        raise SpecError(f"expected one name with its fields, as in glyphs: {{split: train}}, got {node!r}"[:200])
    ((name, fields),) = cast("dict[str, Any]", node).items()
    if fields is not None and not isinstance(fields, dict):
        raise SpecError(f"the fields of '{name}' are not a mapping of names to values: {fields!r}"[:200])
    return str(name), {str(k): v for k, v in cast("dict[Any, Any]", fields or {}).items()}


def _construct(cls: type[T], name: str, fields: dict[str, Any]) -> T:
    try:
        return cls(**fields)
    except SpecError as error:
        error.where = name
        raise


def observe(**reports: Mapping[Any, Report]) -> Observe[Any]:
    """``recipe >> observe(pruned=evaluate.accuracy(data=test)) >> …`` stores the report under its name."""
    return Observe(reports=reports)


def fork(**branches: Mapping[C, Any]) -> Fork[C]:
    """``recipe >> fork(mild=prune.taylor(macs=0.5), hard=prune.taylor(macs=0.1)) >> choose.best(...)``."""
    return Fork(branches=branches)


# ------------------------------------------------------------------------------------------------------------------ context


STRATEGIES = ("auto", "ddp")
PRECISIONS = ("16-mixed", "16-true", "32-true", "64-true", "bf16-mixed", "bf16-true")


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """The policy that decides the last bits of a result: it enters every key, and is never a mapping's field."""

    device: str = "cpu"
    """``cpu``, ``cuda``, ``mps`` or ``cuda:0``, as Lightning Fabric names accelerators."""
    precision: str = "32-true"
    """Lightning Fabric's precision: ``32-true``, ``bf16-mixed``, ``16-mixed``, …"""
    strategy: str = "auto"
    """Lightning Fabric's strategy: ``auto`` or ``ddp``. Others are refused: no test shows that their results are right."""
    world_size: int = 1
    """Processes."""
    threads: int = field(
        default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    )
    """Threads of torch's own pool."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(cpu|cuda|mps|tpu|auto)(:\d+)?", self.device):
            raise SpecError(f"unknown device '{self.device}'", where="--device", hint="cpu, cuda, cuda:0 or mps")
        if self.precision not in PRECISIONS:
            raise SpecError(
                f"unknown precision '{self.precision}'", where="--precision", hint=nearest(self.precision, PRECISIONS)
            )
        if self.strategy not in STRATEGIES:
            raise SpecError(
                f"the strategy '{self.strategy}' is not offered: no test shows that its results are right",
                where="--strategy",
                hint=f"{' or '.join(STRATEGIES)}: with ddp every process holds the whole network",
            )


class Context:
    """What a mapping is given besides its value: seeds, numerics, references, and the driver of processes.

    This one works in memory. The executor's own (`mapsto.run`) adds the store, checkpoints and progress.
    """

    def __init__(self, *, seed: int = 0, key: str = "", numerics: Numerics | None = None) -> None:
        self.seed = seed
        self.key = key or f"seed {seed}"
        self.numerics = numerics or Numerics()
        self.values: dict[str, Any] = {}
        self.observed: dict[str, Report] = {}
        self.warnings: list[str] = []
        """What `warn` was told so far, each text once."""
        self.notes: list[str] = []
        """What `note` was told so far, each text once."""
        self.leaves_out = False
        """Whether a fork goes on without the branches that cannot be made."""
        self.advice: dict[str, str] = {}
        """Field → how the user sets it, for hints, where that is not in a recipe: by an option of the command that runs the mapping."""
        self._sources: dict[int, tuple[Any, Any]] = {}
        self._opened: dict[tuple[int, _Reading], tuple[Any, Any]] = {}
        self._given: Any = None
        self._fabric: Fabric | None = None

    # -- values

    def apply(self, mapping: Mapping[A, T], value: A) -> T:
        """Apply a mapping to a value within this context, its generators seeded from this context's key."""
        importlib.import_module("torch")  # its generator can be seeded only once it is there
        self.seed_everything(mapping.name)
        with self.giving(value):
            return mapping.apply(value, self)

    def report(self, mapping: Mapping[A, kinds.Report], value: A) -> kinds.Report:
        """A report on a value: in a run the one that whoever observes the same value reads, so that nothing is measured twice."""
        return self.apply(mapping, value)

    @contextmanager
    def leaving_out(self, wanted: bool) -> Generator[None]:
        """For a block, forks go on without the branches that cannot be made, where this is `wanted` or so already."""
        before, self.leaves_out = self.leaves_out, self.leaves_out or wanted
        try:
            yield
        finally:
            self.leaves_out = before

    @contextmanager
    def giving(self, value: Any) -> Generator[None]:
        """For a block, `value` is what a mapping works on: where it is a network, data are read as this network reads them."""
        before, self._given = self._given, value
        try:
            yield
        finally:
            self._given = before

    def resolve(self, source: Any, kind: type[T]) -> T:
        """The value behind a field: itself, a reference's, or what a source mapping gives.

        Raises `SpecError` for an unknown label or a value of another kind.
        """
        value: Any = source
        if isinstance(source, Ref):
            if source.label not in self.values:
                raise SpecError(
                    f"no step or data entry is labelled '{source.label}'", hint=nearest(source.label, self.values)
                )
            value = self.values[source.label]
        elif isinstance(source, Mapping) and not issubclass(kind, Mapping):
            known = self._sources.get(id(source))  # pyright: ignore[reportUnknownArgumentType]
            if known is None:
                known = (source, self.apply(cast("Mapping[None, T]", source), None))  # keeps `source` alive: ids recur
                self._sources[id(known[0])] = known
            value = known[1]
        if callable(value) and isinstance(value, Lazy):
            value = value()
        if not isinstance(value, kind):
            raise SpecError(f"expected a {kind.__name__}, got {type(value).__name__}", where=repr(source)[:80])
        return cast("T", value)

    def dataset(self, source: Any, *, for_: Preprocessing | None = None, also: Sequence[Network] = ()) -> kinds.Samples:
        """The opened samples of a data field; a data set is opened once for each way of reading it.

        Image files are read at the size, channels and ink of the network that the mapping is applied to, as its package reads them;
        a spec that says otherwise is warned of. Rows of a table are encoded by the columns that the network was trained on.

        Parameters
        ----------
        for_
            How to read what the spec leaves open instead, without a warning: for a network that is yet to be made.
        also
            Other networks that are given the same samples, such as a teacher: files are read at the largest size of all of them, and
            in colour where one takes colour.
        """
        return self._once(self.resolve(source, Dataset), self._reading(for_, also), warn=for_ is None and not also)

    def tasks(self, source: Any, *, for_: Preprocessing | None = None, also: Sequence[Network] = ()) -> kinds.Episodes:
        """The opened episodes of a tasks field, over data read as `dataset` reads them."""
        return self._once(self.resolve(source, Tasks), self._reading(for_, also), warn=for_ is None and not also)

    def _reading(self, for_: Preprocessing | None, also: Sequence[Network]) -> Preprocessing | None:
        own = [self._given] if isinstance(self._given, Network) and for_ is None else []
        wanted = [network.signature.preprocessing for network in (*own, *also)] + ([for_] if for_ is not None else [])
        tables = [each for each in wanted if each.columns]
        if tables:
            return tables[0]
        wanted = [each for each in wanted if each.kind == "image"]
        if not wanted:
            return None
        height, width = (max(each.size[axis] for each in wanted) for axis in (0, 1))
        return replace(wanted[0], size=(height, width), channels=max(each.channels for each in wanted))

    def _once(self, reference: Any, reading: Preprocessing | None, *, warn: bool) -> Any:
        form = (reading.size, reading.channels, reading.ink, reading.columns) if reading is not None else None
        key = (id(reference), form)
        if key not in self._opened:
            read = reference if reading is None else reference.read_for(reading)
            shared = (id(reference), None)
            if read is reference and shared in self._opened:
                self._opened[key] = self._opened[shared]
            else:
                self._opened[key] = (reference, read.open())  # keeps `reference` alive: ids recur
                if read is reference:
                    self._opened[shared] = self._opened[key]
                self._tell(reference, reading if warn else None, self._opened[key][1])
        return self._opened[key][1]

    def _tell(self, reference: Any, reading: Preprocessing | None, opened: Any) -> None:
        """Pass on what data have to say of themselves."""
        samples: kinds.Samples = opened if isinstance(opened, kinds.Samples) else opened.samples
        for text in (*(reference.misread(reading) if reading is not None else ()), *samples.warnings):
            self.warn(text)
        for text in samples.notes:
            self.note(text)

    def network(self, source: Any) -> Network:
        """The network of a network field."""
        return self.resolve(source, Network)

    # -- randomness

    def seed_for(self, *parts: object) -> int:
        """A 63-bit seed that depends on this step's key and on `parts`."""
        text = "\0".join([self.key, *map(str, parts)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def random(self, *parts: object) -> np.random.Generator:
        """A NumPy generator of its own for `parts`."""
        import numpy as np

        return np.random.default_rng(self.seed_for(*parts))

    def seed_everything(self, *parts: object) -> None:
        """Seed the global generators of random, NumPy and torch from this step's key and `parts`."""
        import random

        import numpy as np
        import torch

        seed = self.seed_for(*parts)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        # torch.manual_seed also asks every kind of accelerator, which takes a hundred times as long.
        if self.numerics.device == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    # -- work

    @property
    def fabric(self) -> Fabric:
        """Lightning Fabric with this run's device, precision and strategy; made when first asked for."""
        if self._fabric is None:
            self._fabric = make_fabric(self.numerics)
        return self._fabric

    @property
    def device(self) -> torch.device:
        """The device that work is done on."""
        return self.fabric.device

    def drive(self, process: Process[A, T], value: A) -> T:
        """Run a process to its end."""
        state = process.start(value, self)
        live = process.open(value, state, self)
        items = process.items(value, self)
        while not live.done:
            self.seed_everything(live.step)
            live.advance(items[live.step])
        return process.finish(value, live.snapshot(), self)

    def scratch(self) -> Path:
        """A new folder for files of a result; it lasts until this process ends, in a run until the store has its own copies."""
        import tempfile

        folder = tempfile.TemporaryDirectory(prefix="mapsto-")
        _SCRATCH.append(folder)
        return Path(folder.name)

    def log(self, text: str) -> None:
        """A line for the user, shown beside the progress bar and not kept."""

    def warn(self, text: str) -> None:
        """Something that makes the result worse or other than the user would expect, with what to do about it.

        It is shown when it happens and kept with the step: a hit shows it again, and so does the report. A text counts once.
        What is logged to ``mapsto`` as a warning while a step runs, as where data are read, comes here too.
        """
        if text not in self.warnings:
            self.warnings.append(text)
            self.show_message(text, logging.WARNING)

    def note(self, text: str) -> None:
        """Something worth knowing that is no cause for worry; shown and kept as a warning is, but less prominent."""
        if text not in self.notes:
            self.notes.append(text)
            self.show_message(text, logging.INFO)

    def show_message(self, text: str, level: int) -> None:
        """Show a warning or a note now; `level` is `logging`'s. In memory, through the logger ``mapsto``."""
        logging.getLogger("mapsto").log(level, text)

    def track(self, work: Iterable[T], *, total: int | None = None, what: str = "") -> Iterable[T]:
        """Iterate with progress, for long work that is not a process."""
        return work


_SCRATCH: list[Any] = []
"""Temporary folders, removed when the interpreter ends."""


class Lazy:
    """A value that is loaded when first asked for."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._value: Any = None
        self._loaded = False

    def __call__(self) -> Any:
        if not self._loaded:
            self._value, self._loaded = self._load(), True
        return self._value


def fields_of(mapping: Frozen) -> AbcMapping[str, Any]:
    """The fields and their values in the order they are declared."""
    import dataclasses

    return {f.name: getattr(mapping, f.name) for f in dataclasses.fields(cast("Any", mapping))}


@contextmanager
def _without(package: str) -> Generator[None]:
    """A package cannot be imported. Fabric imports torchmetrics to compare its version: seconds, with all of SciPy and transformers."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # as Python's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules[package]


def make_fabric(numerics: Numerics) -> Fabric:
    """Lightning Fabric for a numerics policy, launched where it spans processes.

    Raises `SpecError` where this machine lacks the device, or Fabric refuses the precision or the strategy on it.
    """
    import torch

    with _without("torchmetrics"):
        from lightning_fabric import Fabric
        from lightning_fabric.utilities.exceptions import MisconfigurationException

    torch.set_num_threads(numerics.threads)
    kind, _, index = numerics.device.partition(":")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", numerics.world_size))  # torchrun says how many are on this machine
    devices: Any = [int(index)] if index else here
    try:
        fabric = Fabric(
            accelerator=kind,
            devices=devices,
            num_nodes=max(1, numerics.world_size // here),
            precision=cast("Any", numerics.precision),
            strategy=numerics.strategy,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise SpecError(
            f"{numerics.device} with {numerics.precision} and {numerics.strategy} does not work here: {error}",
            where="--device, --precision",
            hint=f"`{command('mapsto doctor')}` says which devices there are",
        ) from error
    fabric.launch()
    return fabric
