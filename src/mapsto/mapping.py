"""The verb of mapsto: a mapping takes a value of one kind and gives a value of another.

A `Mapping` is a frozen, keyword-only dataclass with one method, `apply`. Its fields are its whole configuration. Mappings
compose with ``>>``, which is associative and checks kinds when it is written:

    big = networks.vgg(depth=16) >> train.supervised(data=train)
    small = big >> prune.taylor(macs=0.25, data=train) >> distill.logits(teacher=big, data=train)
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from collections.abc import Mapping as AbcMapping
from dataclasses import dataclass, replace
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

from mapsto import discovery
from mapsto.errors import ComposeError, DomainError, SpecError
from mapsto.kinds import Dataset, Forked, Frozen, Model, Network, Package, Report, Stream, Tasks

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo

    from mapsto.context import Context

__all__ = [
    "KINDS",
    "Branches",
    "BuildNode",
    "Chain",
    "DataSource",
    "Fork",
    "Labelled",
    "Lazy",
    "Mapping",
    "MappingField",
    "Misfit",
    "NetworkSource",
    "Observe",
    "Of",
    "Ref",
    "StreamSource",
    "TasksSource",
    "absent",
    "accepts",
    "fields_of",
    "fork",
    "kind_name",
    "labels_in",
    "left_out_text",
    "misfits",
    "observe",
    "ref",
    "refusal",
    "step_takes",
    "steps_of",
]


A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)
C = TypeVar("C")
_ABSENT: Any = None
LONGEST_LABEL = 100
"""Letters of a label, of a report's name and of a branch's: they stand in tables, in paths of logs and in databases."""

KINDS: dict[str, type[Any]] = {
    "network": Network,
    "dataset": Dataset,
    "tasks": Tasks,
    "stream": Stream,
    "report": Report,
    "package": Package,
    "model": Model,
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


BuildNode: TypeAlias = Callable[[str, Any], Any]
"""A kind and the YAML of a value of it → the value; raises pydantic's own errors."""


class Of:
    """Marks a field whose value is of a kind, comes from a source mapping of that kind, or is a reference to one.

    In YAML such a field is ``$label`` or ``{name: {fields}}``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"Of({self.kind!r})"

    def validate(self, value: Any, info: ValidationInfo) -> Any:
        """The value as the field stores it; pydantic's own error where it is of no use here.

        A dict or list is what YAML holds for a value. Where the validation's context has a `BuildNode` under ``build``, as it has when a
        recipe is read, that one makes the value of it.
        """
        if self.kind != "mapping":
            if isinstance(value, str) and value.startswith("$"):
                return Ref(value[1:])
            if isinstance(value, Ref):
                return value
        build: BuildNode | None = (info.context or {}).get("build")
        if isinstance(value, (dict, list)) and build is not None:
            value = build(self.kind, value)
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

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": r"^\$"}, {"type": "object"}], "x-kind": self.kind}


class Mapping(Frozen, Generic[A, B]):
    """A frozen configuration with one method, `apply`, that maps a value of kind A to one of kind B."""

    version: ClassVar[int] = 1
    """Raised whenever the same fields would give another result; it enters every key."""
    leaves_out: ClassVar[bool] = False
    """Whether, behind a fork, it goes on without the branches that cannot be made; else one of them ends it all."""
    uses_torch: ClassVar[bool] = True
    """Whether, given nothing, it computes with torch: else that is not imported for it, which takes seconds, and no generator is seeded."""
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
        return Chain(steps=(*steps_of(self), *steps_of(other)))

    def __call__(self, value: A = _ABSENT, *, seed: int = 0) -> B:
        """Apply in memory, without a store: for notebooks and tests. The number of torch's threads is afterwards what it was."""
        import torch

        from mapsto.context import Context

        before = torch.get_num_threads()
        try:
            return Context(seed=seed).apply(self, value)
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)


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
        kinds: dict[str, Any] = {}
        for label, kind in self.kinds.items():
            kinds.update(kind.flat() if isinstance(kind, Branches) else {label: kind})
        return kinds


def accepts(takes: Any, given: Any) -> bool:
    """Whether a mapping that takes `takes` can be given `given`."""
    if takes is Any or given is Any or takes is given:
        return True
    if isinstance(given, Branches):
        given = Forked
    if get_origin(takes) in (Union, types.UnionType):
        return any(accepts(part, given) for part in get_args(takes))
    return isinstance(takes, type) and isinstance(given, type) and issubclass(given, takes)


def steps_of(mapping: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], ...]:
    """The steps of a chain; of another mapping itself."""
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
            wrong = [replace(misfit, path=(max(node, 0), *misfit.path)) for misfit in misfits(step, given, before)]
            yield from wrong
            if wrong:
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
    label: str = Field(pattern=r"^[A-Za-z_]\w*$", max_length=LONGEST_LABEL)
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

    reports: dict[Annotated[str, Field(pattern=r"^\w[\w-]*$", max_length=LONGEST_LABEL)], MappingField] = Field(
        min_length=1
    )
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

    branches: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=LONGEST_LABEL)], MappingField] = Field(
        min_length=1
    )
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
    for step in steps_of(branch):
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


def observe(**reports: Mapping[Any, Report]) -> Observe[Any]:
    """``recipe >> observe(pruned=evaluate.accuracy(data=test)) >> …`` stores the report under its name."""
    return Observe(reports=reports)


def fork(**branches: Mapping[C, Any]) -> Fork[C]:
    """``recipe >> fork(mild=prune.taylor(macs=0.5), hard=prune.taylor(macs=0.1)) >> choose.best(...)``."""
    return Fork(branches=branches)


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
