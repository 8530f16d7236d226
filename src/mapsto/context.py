"""What a mapping is given besides its value: seeds, numerics, references, and the driver of processes."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from mapsto import kinds
from mapsto.errors import DataError, MapstoError, SpecError, command, nearest
from mapsto.kinds import Dataset, Network, Preprocessing, Report, Tasks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from mapsto.process import Process
from mapsto.mapping import Lazy, Mapping, Ref

__all__ = ["Context", "Numerics", "SilentContext", "make_fabric"]


A = TypeVar("A", contravariant=True)
T = TypeVar("T")
_Reading: TypeAlias = "tuple[Any, ...] | None"
"""What of a network's preprocessing decides how a file is read (`_form`)."""


STRATEGIES = ("auto", "ddp")
PRECISIONS = ("16-mixed", "16-true", "32-true", "64-true", "bf16-mixed", "bf16-true")


def _misfit(samples: kinds.Samples, network: Network) -> tuple[str, str] | None:
    """What to say where rows are given to a network that takes images, or images or other rows to one that takes rows, and a hint."""
    kind, given = network.signature.preprocessing.kind, samples.inputs.shape[1:]
    wanted = network.signature.inputs[0].shape[1:]
    if kind == "text" or (kind == "image" and len(given) != 1) or (kind == "none" and len(wanted) != 1):
        return None
    if kind == "none" and len(given) == 1 and (isinstance(wanted[0], str) or wanted == given):
        return None
    takes = "images" if kind == "image" else f"rows of {wanted[0]} numbers"
    data = f"rows of {given[0]} numbers" if len(given) == 1 else f"samples of shape {' × '.join(map(str, given))}"
    hint = (
        "give images, as `images` or `arrays` reads them, or a network for rows, such as networks.mlp"
        if kind == "image"
        else "give rows like those that the network was made for, or a network for these data"
    )
    return f"the network takes {takes}, and the data are {data}", hint


def _form(reading: Preprocessing) -> tuple[Any, ...]:
    """Size, channels, ink and fit of images, columns of a table, the tokenizer of texts."""
    texts = (reading.tokenizer, reading.length, reading.padding, reading.texts)
    return (reading.size, reading.channels, reading.ink, reading.fit, reading.columns, *texts)


def _one_tokenizer(readings: Sequence[Preprocessing]) -> Preprocessing:
    """The tokenizer that all networks share, at the largest length. Raises `SpecError` where they have different ones."""
    first = readings[0]
    if any(
        (each.tokenizer, each.padding, each.texts) != (first.tokenizer, first.padding, first.texts) for each in readings
    ):
        raise SpecError(
            "the networks read texts by different tokenizers, so that the same token ids mean other words to them",
            where="data",
            hint="give networks of one tokenizer: make the vocabulary smaller first, and let the network that has it be the teacher",
        )
    return max(readings, key=lambda each: each.length)


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
        self.attached: dict[str, kinds.Table | kinds.Series | bytes] = {}
        """What `attach` was given, by name."""
        self.account: dict[str, Any] = {}
        """What is to be told of the step besides its result, as JSON: what its processes tell (`mapsto.process.Live.account`), and what
        a mapping adds, such as the ``gap`` of `mapsto.nn.train.gap`."""
        self.leaves_out = False
        """Whether a fork goes on without the branches that cannot be made."""
        self.advice: dict[str, str] = {}
        """Field → how the user sets it, for hints, where that is not in a recipe: by an option of the command that runs the mapping."""
        self._sources: dict[int, tuple[Any, Any]] = {}
        self._opened: dict[tuple[int, _Reading], tuple[Any, Any]] = {}
        self._given: Any = None
        self._unfit: tuple[str, str] | None = None
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
        """For a block, `value` is what a mapping works on: where it is a network, data are read as this network reads them.

        Raises `DataError` in the place of what PyTorch or NumPy say of images given to a network of rows, or rows to one of images, where
        the mapping has not refused them itself.
        """
        before, unfit = self._given, self._unfit
        self._given, self._unfit = value, None
        try:
            yield
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            found = cast("tuple[str, str] | None", self._unfit)
            if found is None or isinstance(error, MapstoError):
                raise
            raise DataError(found[0], hint=found[1]) from error
        finally:
            self._given, self._unfit = before, unfit

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
        reading = self._reading(for_, also)
        samples: kinds.Samples = self._once(self.resolve(source, Dataset), reading, warn=for_ is None and not also)
        if for_ is None and isinstance(self._given, Network):
            self._unfit = self._unfit or _misfit(samples, self._given)
        return samples

    def tasks(self, source: Any, *, for_: Preprocessing | None = None, also: Sequence[Network] = ()) -> kinds.Episodes:
        """The opened episodes of a tasks field, over data read as `dataset` reads them."""
        return self._once(self.resolve(source, Tasks), self._reading(for_, also), warn=for_ is None and not also)

    def _reading(self, for_: Preprocessing | None, also: Sequence[Network]) -> Preprocessing | None:
        own = [self._given] if isinstance(self._given, Network) and for_ is None else []
        wanted = [network.signature.preprocessing for network in (*own, *also)] + ([for_] if for_ is not None else [])
        tables = [each for each in wanted if each.columns]
        if tables:
            return tables[0]
        texts = [each for each in wanted if each.kind == "text"]
        if texts:
            return _one_tokenizer(texts)
        wanted = [each for each in wanted if each.kind == "image"]
        if not wanted:
            return None
        height, width = (max(each.size[axis] for each in wanted) for axis in (0, 1))
        fits = {each.fit for each in wanted}
        if len(fits) > 1:
            self.warn(
                "of networks that are given the same samples one crops photos and another stretches them, so that one of them sees other "
                "parts of a photo than its package does; make them from images of the same fit"
            )
        fit = "crop" if "crop" in fits else "stretch"
        return replace(wanted[0], size=(height, width), channels=max(each.channels for each in wanted), fit=fit)

    def _once(self, reference: Any, reading: Preprocessing | None, *, warn: bool) -> Any:
        form = _form(reading) if reading is not None else None
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
        live = process.open(value, None, self)
        items = process.items(value, self)
        if isinstance(items, kinds.Stream):
            for block in items.open(live.position):
                live.advance(block)
            return live.result()
        while not live.done:
            self.seed_everything(live.step)
            live.advance(items[live.step])
        return live.result()

    def scratch(self) -> Path:
        """A new folder for files of a result; it lasts until this process ends, in a run until the store has its own copies."""
        import tempfile

        folder = tempfile.TemporaryDirectory(prefix="mapsto-")
        _SCRATCH.append(folder)
        return Path(folder.name)

    def log(self, text: str) -> None:
        """A line for the user, shown beside the progress bar and not kept."""

    def answered(self, start: int, block: kinds.Block, scores: NDArray[np.float64], classes: Sequence[str]) -> None:
        """A learner has answered a block, or a part of one, whose first event is number `start` of its stream, from 0.

        `scores` (N, K) are those of before each label, of values (N, 1); NaN for what was set aside. In memory nobody listens.
        """

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

    def attach(self, name: str, evidence: kinds.Table | kinds.Series | bytes) -> None:
        """Something to look at beside the result: a table, curves, or a picture (PNG) such as training images as they are augmented.

        It is kept with the step and stands in the report, also of a run in which the step is a hit. A name counts once, the last time.
        It must be the same whenever the step runs again: nothing that was measured by a clock.
        """
        self.attached[name] = evidence

    def show_message(self, text: str, level: int) -> None:
        """Show a warning or a note now; `level` is `logging`'s. In memory, through the logger ``mapsto``."""
        logging.getLogger("mapsto").log(level, text)

    def track(self, work: Iterable[T], *, total: int | None = None, what: str = "") -> Iterable[T]:
        """Iterate with progress, for long work that is not a process."""
        return work


class SilentContext(Context):
    """A context that shows no message: what a mapping has to say is said elsewhere."""

    def show_message(self, text: str, level: int) -> None:
        pass


_SCRATCH: list[Any] = []
"""Temporary folders, removed when the interpreter ends."""


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
