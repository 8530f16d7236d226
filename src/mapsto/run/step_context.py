"""The context of one step: references through the executor, checkpoints in the store, metrics to the logs."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mapsto.context import Context, Numerics, make_fabric
from mapsto.kinds import Network, Report, Stream
from mapsto.mapping import Mapping, Ref
from mapsto.process import Live, Process, State
from mapsto.run.attachments import unpacked
from mapsto.run.driver import Driver
from mapsto.run.metrics_log import curves
from mapsto.run.prefetch import Prefetched
from mapsto.run.stopping import StopSignals
from mapsto.store.row_log import RowLog

if TYPE_CHECKING:
    import numpy as np
    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from mapsto.kinds import Block
    from mapsto.run.executor import Executor
    from mapsto.run.result import StepResult

__all__ = ["StepContext", "Team", "logged_to"]


A = TypeVar("A")
T = TypeVar("T")


class Team:
    """The processes of a run (Fabric's ranks): the first decides and writes, the others compute along with it."""

    def __init__(self, numerics: Numerics, *, plan: bool = False) -> None:
        self._numerics = numerics
        self._alone = plan or numerics.world_size == 1  # to say what would run takes one process
        self._fabric: Fabric | None = None

    @property
    def fabric(self) -> Fabric:
        """The one Fabric of the run; launched when first asked for."""
        if self._fabric is None:
            self._fabric = make_fabric(self._numerics)
        return self._fabric

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self._alone or self.fabric.global_rank == 0

    def share(self, value: T) -> T:
        """The first process's value, in all of them."""
        return value if self._alone else self.fabric.broadcast(value)


class StepContext(Context):
    """The context of one step: references through the executor, checkpoints in the store, metrics to the logs."""

    def __init__(self, executor: Executor, step: StepResult) -> None:
        super().__init__(seed=executor.seed, key=step.key, numerics=executor.numerics)
        self._executor = executor
        self._step = step
        self._drives = 0
        self._began, self._before = time.monotonic(), 0.0
        self._log: RowLog | None = None
        self.stopped = False
        """Whether a process of the step was stopped before its end: what the step gives is no result of its key."""
        self.reached = 0
        """Items, or events, that the step's last process had advanced over."""
        self._scratch = ExitStack()

    def scratch(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="mapsto-", ignore_cleanup_errors=True)
        return Path(self._scratch.enter_context(folder))

    def close(self) -> None:
        """Remove the files of the result: the store has its own."""
        self._scratch.close()

    @property
    def seconds(self) -> float:
        """How long the step has been worked on, in runs that were stopped too, up to their last checkpoint."""
        return self._before + time.monotonic() - self._began

    @property
    def fabric(self) -> Fabric:
        return self._executor.team.fabric

    def resolve(self, source: Any, kind: type[T]) -> T:
        if isinstance(source, Ref):
            source = self._executor.label(source.label).load()
        elif isinstance(source, Mapping) and not issubclass(kind, Mapping):
            source = self._executor.source(cast("Mapping[Any, Any]", source)).load()
        return super().resolve(source, kind)

    def report(self, mapping: Mapping[A, Report], value: A) -> Report:
        if not isinstance(value, Network):
            return super().report(mapping, value)
        return self._executor.observed(mapping, value)

    def drive(self, process: Process[A, T], value: A) -> T:
        executor, store, team = self._executor, self._executor.store, self._executor.team
        name = self.key if self._drives == 0 else f"{self.key}-{self._drives}"
        self._drives += 1
        # What follows a stopped process works on no final value: its checkpoint would be taken up once that one has come to its end.
        writes = team.leads and not self.stopped
        saved = team.share(self._loaded(name) if writes else None)
        with ExitStack() as stack:
            rows = self._opened_log(name, saved) if writes else None
            if team.share(rows is None if writes else None):
                saved = None
                executor.listener.note(f"{self._step.name} starts anew: its checkpoint's log is not whole")
                rows = RowLog(store, name, None) if writes else None
            if rows is not None:
                self._log = stack.enter_context(rows)
            live = process.open(value, None if saved is None else self._told(saved), self)
            items = process.items(value, self)
            if saved is not None:
                executor.listener.note(f"{self._step.name} goes on from {_place(live, items)}")
            csv = stack.enter_context(executor.log_file(self._step, () if rows is None else rows.rows()))
            driver = Driver(self, executor, self._step, live, name=name, rows=rows, csv=csv)
            if saved is None:
                driver.save()
            with StopSignals() as stop:
                if isinstance(items, Stream):
                    driver.run_stream(items, stop)
                else:
                    if workers := int(getattr(items, "workers", 0)):
                        items = stack.enter_context(Prefetched(items, workers))
                    driver.run_items(items, stop)
            if stop.caught is not None and not driver.stopped and not executor.listener.ends_well:
                stop.end()  # it came after the last item
            self.stopped, self.reached = self.stopped or driver.stopped, live.step
            self.account |= live.account()
            return live.result()

    def _loaded(self, name: str) -> State | None:
        """The last checkpoint; None where there is none, or where it is damaged, which is said."""
        store = self._executor.store
        saved = store.load_state(name)
        if saved is None and store.has_state(name):
            self._executor.listener.note(f"{self._step.name} starts anew: its checkpoint is damaged")
        return saved

    def _opened_log(self, name: str, saved: State | None) -> RowLog | None:
        """The log as it was at the checkpoint; None where it is not whole."""
        try:
            return RowLog(self._executor.store, name, None if saved is None else saved["log"])
        except (LookupError, TypeError, ValueError):  # the latter: of a mapsto that marked logs in another way
            return None

    def _told(self, saved: State) -> State:
        """The state of a checkpoint, after what else it holds was taken up."""
        for text in saved.get("warnings", ()):
            self.warn(text)
        for text in saved.get("notes", ()):
            self.note(text)
        self.attached |= unpacked(saved.get("attached", {}))
        self._before = max(self._before, float(saved.get("seconds", 0.0)))
        return saved["state"]

    def curves(self) -> dict[str, Any] | None:
        """What a record keeps of the rows of the step's last process; None where there was none."""
        return None if self._log is None else curves(self._log.rows)

    def log(self, text: str) -> None:
        self._executor.listener.note(text)

    def show_message(self, text: str, level: int) -> None:
        listener = self._executor.listener
        (listener.warned if level >= logging.WARNING else listener.noted)(self._step, text)

    def answered(self, start: int, block: Block, scores: NDArray[np.float64], classes: Sequence[str]) -> None:
        self._executor.listener.answered(self._step, start, block, scores, classes)

    def track(self, work: Iterable[T], *, total: int | None = None, what: str = "") -> Iterable[T]:
        for done, item in enumerate(work, 1):
            yield item
            self._executor.listener.advanced(self._step, done, total, {})


def _place(live: Live[Any], items: Any) -> str:
    return f"event {live.step}" if isinstance(items, Stream) else f"item {live.step}"


class _Forward(logging.Handler):
    """Hands what is logged as a warning to a step."""

    def __init__(self, context: Context) -> None:
        super().__init__(logging.WARNING)
        self._context = context

    def emit(self, record: logging.LogRecord) -> None:
        self._context.warn(record.getMessage())


@contextmanager
def logged_to(context: Context) -> Generator[None]:
    """Warnings that are logged to ``mapsto`` where no context is at hand, as by a data set, are the step's."""
    logger, handler = logging.getLogger("mapsto"), _Forward(context)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
