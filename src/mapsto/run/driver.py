"""What drives a live process through its items or its stream: log, checkpoints, progress, publishing, stopping."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mapsto.errors import DataError
from mapsto.kinds import Block, Json, Stream
from mapsto.process import Items, Live
from mapsto.run.attachments import packed
from mapsto.run.stopping import StopSignals
from mapsto.store.row_log import RowLog

if TYPE_CHECKING:
    from mapsto.run.executor import Executor
    from mapsto.run.result import StepResult
    from mapsto.run.step_context import StepContext

__all__ = ["Driver"]

_LOOK_SECONDS = 0.05
"""How often a process over a stream is looked at: for progress, checkpoints and whoever wants to stop it."""


class Driver:
    """Drives one live process.

    Parameters
    ----------
    context, executor, step
        Whose process it is.
    live
        The process, at its beginning or where a checkpoint left it.
    name
        The checkpoint's name.
    rows
        The log; None where nothing is written: in processes of a team that do not lead, and after a process that was stopped.
    csv
        Writes a row for people too.
    """

    def __init__(
        self,
        context: StepContext,
        executor: Executor,
        step: StepResult,
        live: Live[Any],
        *,
        name: str,
        rows: RowLog | None,
        csv: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        self._context, self._executor, self._step, self._live = context, executor, step, live
        self._name, self._rows, self._csv = name, rows, csv
        self._published = live.step
        self._saved, self._cost = time.monotonic(), 0.0
        self.stopped = False
        """Whether it was stopped before its end."""

    def run_items(self, items: Items, stop: StopSignals) -> None:
        """Advance over addressable items to the end, or until it is stopped."""
        live, executor, context = self._live, self._executor, self._context
        executor.listener.advanced(self._step, live.step, live.total, {})
        while not live.done and not self._is_stopped(stop):
            context.seed_everything(live.step)
            metrics = self._logged(live.advance(items[live.step]))
            executor.listener.advanced(self._step, live.step, live.total, metrics)
            self._save_in_time()
            self._publish()

    def run_stream(self, stream: Stream, stop: StopSignals) -> None:
        """Advance over the blocks of a stream to its end, or until it is stopped."""
        live, executor = self._live, self._executor
        metrics: Mapping[str, float] = {}
        looked = 0.0
        for block in stream.open(live.position, size=executor.block_size):
            before = live.position
            rows = live.advance(block)
            _require_position(stream, block, before)
            if rows:
                metrics = self._logged(rows)
            self._publish()
            if stop.caught is None and time.monotonic() - looked < _LOOK_SECONDS:
                continue
            executor.listener.advanced(self._step, live.step, live.total, metrics)
            executor.listener.watched(self._step, live.account)
            if self._is_stopped(stop):
                break
            self._save_in_time()
            looked = time.monotonic()
        executor.listener.advanced(self._step, live.step, live.total, metrics)
        if self._rows is not None and not self.stopped:
            self.save()

    def save(self) -> None:
        """Take a checkpoint."""
        if self._rows is None:
            return
        began = time.monotonic()
        state = {
            "state": self._live.snapshot(),
            "log": self._rows.mark(),
            "seconds": self._context.seconds,
            "warnings": self._context.warnings,
            "notes": self._context.notes,
            "attached": packed(self._context.attached),
        }
        self._executor.store.save_state(self._name, state)
        self._saved = time.monotonic()
        self._cost = self._saved - began

    def _logged(self, rows: Any) -> Mapping[str, float]:
        """Write rows to the logs; gives the last one's metrics."""
        metrics: Mapping[str, float] = {}
        for n, metrics in rows:
            if self._rows is not None:
                self._rows.append(n, metrics)
            self._csv(n, metrics)
            self._executor.listener.logged(self._step, n, metrics)
        return metrics

    def _save_in_time(self) -> None:
        """A checkpoint where it is time for one."""
        if time.monotonic() - self._saved > max(self._executor.checkpoint_seconds, 20 * self._cost):
            self.save()

    def _publish(self) -> None:
        """A published result where so many items were passed since the last one, however long they took."""
        every = self._executor.publish_every
        if self._rows is None or every is None:
            return
        if self._live.step // every > self._published // every:
            self._published = self._live.step
            self._executor.publish(self._step, self._live.step, self._live.result())

    def _is_stopped(self, stop: StopSignals) -> bool:
        """Whether it is to end here; a checkpoint is then taken. A signal ends the whole run, unless the listener ends well on it."""
        listener = self._executor.listener
        asked = listener.wants_stop(self._step)
        stopped, ends = self._executor.team.share((asked or stop.caught is not None, stop.caught is not None))
        if stopped:
            self.save()
            if ends and not listener.ends_well:
                stop.end()
            self.stopped = True
        return self.stopped


def _require_position(stream: Stream, block: Block, before: Json) -> None:
    """Raises `DataError` for a block at whose end the stream could not be opened again."""
    if type(block.next) is int and block.next != before:
        return  # as of most streams
    try:
        plain = isinstance(json.loads(json.dumps(block.next)), type(block.next))
    except (TypeError, ValueError):
        plain = False
    if not plain or (len(block) and block.next in (None, before)):
        fault = "which is that before it" if plain else f"which is no JSON, but {type(block.next).__name__}"
        raise DataError(
            f"a block of {len(block)} events gives {block.next!r} as the position after it, {fault}",
            where=type(stream).__name__,
            hint="the stream's `open` must give in each block's `next` where it goes on",
        )
