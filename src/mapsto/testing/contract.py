"""What every mapping promises, and how each promise is checked on one: see `mapsto.testing`."""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

from mapsto import discovery, mapping
from mapsto.context import Context
from mapsto.errors import MapstoError, SpecError
from mapsto.kinds import Dataset, Forked, Model, Network, Package, Stream, Tasks
from mapsto.mapping import Mapping, accepts, fork, kind_name
from mapsto.process import Items, Live, Process
from mapsto.recipe.document import Recipe
from mapsto.recipe.nodes import data_from_node, from_plain
from mapsto.recipe.reader import marker_in, parse_recipe
from mapsto.recipe.writer import dump
from mapsto.run.executor import execute
from mapsto.store import Store, decode_state, encode_state
from mapsto.testing.streams import check_learner

__all__ = ["Case", "cases", "contract_network"]


SMALL: dict[str, Any] = {
    "epochs": 1,
    "steps": 2,
    "episodes": 3,
    "batch_size": 8,
    "rounds": 1,
    "samples": 16,
    "seconds": 0.01,
    "runs": 3,
    "warmup": 1,
}
"""Values that make any mapping quick, for fields of these names."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One mapping under contract."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def cls(self) -> type[Mapping[Any, Any]]:
        """Its class."""
        return discovery.find("mappings", self.name)

    def example(self) -> Mapping[Any, Any]:
        """An instance with small settings; required fields are filled by their kind."""
        return example(self.cls)

    def check(self, folder: Path, promise: str | None = None) -> None:
        """Every promise in turn, or the one of that title. Raises `ContractError` that names the promise and what broke it."""
        exempt: dict[str, str] = getattr(self.cls, "exempt", {})
        for title in PROMISES if promise is None else (promise,):
            if title not in exempt:
                try:
                    PROMISES[title](self, folder)
                except ContractError as error:
                    raise ContractError(f"{self.name}: {title}: {error}") from error


class ContractError(AssertionError):
    """A promise that was not kept."""


def _require(kept: bool, message: str) -> None:
    if not kept:
        raise ContractError(message)


def cases(prefix: str = "") -> list[Case]:
    """Every mapping found whose name starts with `prefix`."""
    return [Case(name) for name in discovery.entries("mappings") if name.startswith(prefix)]


@cache
def contract_data() -> Dataset:
    """A few handwritten digits."""
    return data_from_node({"subset": {"data": {"digits": {"size": 16}}, "per_class": 8}})


@cache
def contract_tasks() -> Tasks:
    """Three-way one-shot episodes over them."""
    return discovery.find("data", "episodes")(data=contract_data(), ways=3, shots=1, queries=2)


@cache
def contract_network(*, classes: bool = True) -> Network:
    """A small untrained conv4 over digits, with a head of ten classes or as a learner."""
    source = discovery.find("mappings", "networks.conv4")
    names = tuple(map(str, range(10)))
    network: Network = source(channels=1, size=16, width=4, classes=10 if classes else None)(seed=0)
    signature = dataclasses.replace(network.signature, classes=names if classes else None)
    return dataclasses.replace(network, signature=signature)


@cache
def _package() -> Package:
    return discovery.find("mappings", "export.onnx")()(contract_network())


@cache
def _model() -> Model:
    stream = discovery.find("streams", "sea")(events=100)
    return discovery.find("mappings", "online.softmax")(stream=stream)(None)


def example(cls: type[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    """An instance with small settings."""
    infos: dict[str, Any] = cast("Any", cls).__pydantic_fields__
    values: dict[str, Any] = {name: SMALL[name] for name in infos if name in SMALL}
    values |= getattr(cls, "contract", {})
    for name, info in infos.items():
        marker = marker_in((info.annotation, *info.metadata))
        if name in values or marker is None or not info.is_required():
            continue
        values[name] = _of_kind(marker.kind)
    return from_plain(cls, values)


def _of_kind(kind: str) -> Any:
    if kind == "dataset":
        return contract_data()
    if kind == "tasks":
        return contract_tasks()
    if kind == "network":
        return discovery.find("mappings", "networks.conv4")(channels=1, size=16, width=4, classes=10)
    if kind == "mapping":
        return discovery.find("mappings", "evaluate.size")()
    raise ContractError(f"a required field of kind {kind} needs a value in `contract`")


def _input(case: Case) -> Any:
    takes = mapping.step_takes(case.example())
    given = getattr(case.cls, "contract_input", None)
    if given is not None:
        return given()
    if accepts(takes, type(None)):
        return None
    if accepts(takes, Network):
        return contract_network()
    if accepts(takes, Package):
        return _package()
    if accepts(takes, Model):
        return _model()
    return Forked(parts={"a": contract_network(), "b": contract_network()})


def _source(case: Case) -> Mapping[Any, Any]:
    """The mapping after a source of its input, as a chain that the executor can run."""
    value, made = _input(case), case.example()
    if value is None:
        return made
    if isinstance(value, Forked):
        return fork(**{label: _given(part) for label, part in value.parts.items()}) >> made
    return _given(value) >> made


def _given(value: Any) -> Mapping[None, Any]:
    token = _digest(value)
    _GIVEN[token] = value
    return _Given(token=token)


_GIVEN: dict[str, Any] = {}


class _Given(Mapping[None, Any]):
    """A source of a value that is there already."""

    token: str
    """The value's digest."""

    def gives_for(self, given: Any) -> Any:
        return type(_GIVEN[self.token])

    def apply(self, value: None, ctx: Context) -> Any:
        return _GIVEN[self.token]


def _digest(value: Any) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        if isinstance(value, Forked):
            return "-".join(_digest(part) for part in value.parts.values())
        return Store(folder).save(value)


SEED = 3


@cache
def _applied(name: str) -> Any:
    """The result of a mapping's example on its input."""
    case = Case(name)
    return Context(seed=SEED).apply(case.example(), _input(case))


def _defaults_construct(case: Case, folder: Path) -> None:
    case.example()


def _yaml_round_trips(case: Case, folder: Path) -> None:
    made = case.example()
    if mapping.step_takes(made) is not type(None):
        text = dump(Recipe(steps=_Opening() >> made))
        text = text.replace(
            f"- {discovery.name_of(_Opening)}: {{}}\n", "- networks.conv4: {channels: 1, size: 16, width: 4}\n"
        )
        if not accepts(mapping.step_takes(made), Network):
            return
    else:
        text = dump(Recipe(steps=made))
    again = parse_recipe(text)
    steps = mapping.steps_of(again.steps)
    _require(steps[-1] == made, f"{steps[-1]!r} came back for {made!r}")
    _require(dump(again) == dump(parse_recipe(dump(again))), "a second dump differs")


class _Opening(Mapping[None, Any]):
    """Stands for any input while a mapping is written to YAML."""


def _input_unchanged_and_deterministic(case: Case, folder: Path) -> None:
    value, made = _input(case), case.example()
    before = None if value is None else _digest(value)
    first = _digest(_applied(case.name))
    second = _digest(Context(seed=SEED).apply(made, value))
    _require(value is None or _digest(value) == before, "its input was changed")
    _require(first == second, "the same seed gave two results")


def _output_kind_as_declared(case: Case, folder: Path) -> None:
    made, result = case.example(), _applied(case.name)
    _require(
        accepts(made.gives_for(type(None)), type(result)),
        f"declared {kind_name(made.gives)}, gave {type(result).__name__}",
    )


def _saved_loaded_and_run_again_agree(case: Case, folder: Path) -> None:
    execute(_source(case), store=folder / "agree", seed=1)
    again = execute(_source(case), store=folder / "agree", seed=1)
    _require(all(step.hit for step in again.steps), "the second run computed something")
    value = _applied(case.name)
    if isinstance(value, Network):
        import torch

        store = Store(folder / "agree")
        loaded: Network = store.load(store.save(value))
        batch = torch.rand(value.signature.input_shape(2))
        if value.signature.inputs[0].dtype == "int64":
            batch = torch.randint(1, 8, value.signature.input_shape(2))
        with torch.no_grad():
            out, expected = loaded.module()(batch), value.module()(batch)
        _require(bool(torch.equal(out, expected)), "the loaded network's output differs from the one in memory")


def _killed_at_a_random_step_it_resumes(case: Case, folder: Path) -> None:
    made = case.example()
    if not isinstance(made, Process):
        return
    value = _input(case)
    whole = _digest(_applied(case.name))
    context = Context(seed=SEED)
    context.seed_everything(made.name)
    live = made.open(value, None, context)
    items = made.items(value, context)
    if isinstance(items, Stream):
        _stopped_stream_goes_on(made, value, items, live, whole)
        return
    stop = random.Random(0).randint(1, max(1, (live.total or 4) - 1))
    expected: bytes | None = None
    while not live.done:
        context.seed_everything(live.step)
        live.advance(cast("Items", items)[live.step])
        if expected is not None:
            _require(encode_state(live.snapshot()) == expected, "after a result on the way, an item gave another state")
            expected = None
        if live.step == stop:
            saved = _encoded(live)
            expected = _result_is_its_own(live, cast("Items", items), context)
            live = made.open(value, saved, context)
            items = made.items(value, context)
    _require(_digest(live.result()) == whole, f"resumed at item {stop}, it gave another result than undisturbed")


def _result_is_its_own(live: Live[Any], items: Items | None, context: Context) -> bytes | None:
    """A result on the way changes nothing of the process, and neither shares memory with the other.

    One more item is worked on, if there is one; gives the state after it.
    """
    before = encode_state(live.snapshot())
    result = live.result()
    _require(encode_state(live.snapshot()) == before, "a result on the way changed its state")
    held, advanced = _digest(result), items is not None and not live.done
    if items is not None and advanced:
        context.seed_everything(live.step)
        live.advance(items[live.step])
        _require(_digest(result) == held, "a result on the way changed as the process went on")
        before = encode_state(live.snapshot())
    _overwrite(result)
    _require(encode_state(live.snapshot()) == before, "who writes to a result on the way writes to the process")
    return before if advanced else None


def _overwrite(result: Any) -> None:
    """Write to all memory of a value."""
    if isinstance(result, Network):
        for tensor in result.tensors.values():
            tensor.detach().zero_()
    elif isinstance(result, Model):
        for array in result.arrays.values():
            array[...] = 0
    elif isinstance(result, Forked):
        for part in result.parts.values():
            _overwrite(part)


def _encoded(live: Live[Any]) -> dict[str, Any]:
    """The live process's state after it was written and read."""
    saved = decode_state(encode_state(live.snapshot()))
    _require(saved is not None, "its state does not survive encoding")
    return cast("dict[str, Any]", saved)


def _stopped_stream_goes_on(made: Any, value: Any, stream: Stream, live: Live[Any], whole: str) -> None:
    """Blocks of another size each time, and after each block it is closed and opened again."""
    sizes = random.Random(0)
    while True:
        block = next(stream.open(live.position, size=sizes.choice((1, 7, 64, 256))), None)
        if block is None:
            break
        live.advance(block)
        saved = _encoded(live)
        _result_is_its_own(live, None, Context(seed=SEED))
        live = made.open(value, saved, Context(seed=SEED))
    _require(_digest(live.result()) == whole, "with blocks of other sizes, and resumed, it gave another result")


def _bad_values_are_refused_by_name(case: Case, folder: Path) -> None:
    made = case.example()
    values = {f.name: getattr(made, f.name) for f in dataclasses.fields(cast("Any", made))}
    for name in values:
        for bad in _bad_values(case.cls, name):
            try:
                case.cls(**{**values, name: bad})
            except SpecError as error:
                _require(name in str(error), f"{name}={bad!r} was refused without naming the field: {error}")
            except MapstoError as error:
                _require(False, f"{name}={bad!r} raised {type(error).__name__}, not SpecError")
            else:
                _require(False, f"{name}={bad!r} was accepted")
    try:
        case.cls(**{**values, "no_such_field": 1})
    except SpecError as error:
        _require("no_such_field" in str(error), "an unknown field was refused without naming it")
    else:
        _require(False, "an unknown field was accepted")


def _bad_values(cls: type[Any], name: str) -> Iterator[Any]:
    """An object of no use anywhere, and values just out of the field's range."""
    import pydantic

    yield object()
    schema = pydantic.TypeAdapter(cls).json_schema().get("properties", {}).get(name, {})
    for part in (schema, *schema.get("anyOf", [])):
        if part.get("type") not in ("integer", "number"):
            continue
        if "minimum" in part:
            yield part["minimum"] - 1
        if "exclusiveMinimum" in part:
            yield part["exclusiveMinimum"]
        if "maximum" in part:
            yield part["maximum"] + 1
        if "exclusiveMaximum" in part:
            yield part["exclusiveMaximum"]


def _docstring_is_complete(case: Case, folder: Path) -> None:
    module = sys.modules[case.cls.__module__]
    text = module.__doc__ or ""
    _require(len(text.split()) >= 12, "the module docstring does not say what it does")
    _require(bool(case.cls.__doc__), "the class has no docstring")
    infos: dict[str, Any] = cast("Any", case.cls).__pydantic_fields__
    bare = [name for name, info in infos.items() if not info.description]
    _require(not bare, f"fields without a docstring: {', '.join(bare)}")
    family = case.name.partition(".")[0]
    if family in ("meta", "prune", "quantize", "distill", "adapt"):
        _require(
            bool(re.search(r"\b(19|20)\d\d\b", text)), "the module docstring names no source (author, year, title)"
        )


def _blocks_of_any_size_agree(case: Case, folder: Path) -> None:
    made = case.example()
    if isinstance(made, Process):
        value = _input(case)
        if isinstance(made.items(value, Context(seed=SEED)), Stream):
            check_learner(made, value, SEED)


PROMISES: dict[str, Callable[[Case, Path], None]] = {
    promise.__name__.removeprefix("_").replace("_", " "): promise
    for promise in (
        _defaults_construct,
        _yaml_round_trips,
        _input_unchanged_and_deterministic,
        _output_kind_as_declared,
        _saved_loaded_and_run_again_agree,
        _killed_at_a_random_step_it_resumes,
        _blocks_of_any_size_agree,
        _bad_values_are_refused_by_name,
        _docstring_is_complete,
    )
}
"""What every mapping promises: a title, and what checks it."""
