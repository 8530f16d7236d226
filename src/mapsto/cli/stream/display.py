"""A stream at work on a terminal: how good the answers are now and were over time, how fast, what drifted; else a line now and then."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mapsto.cli.progress import Screen, print_figures
from mapsto.report.streams import shown_figure
from mapsto.run.result import Listener, StepResult
from mapsto_runtime.shown import short, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.cli.stream.predictions import PredictionFile
    from mapsto.kinds import Block

__all__ = ["StreamDisplay", "print_end", "sparkline"]

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 5.0
_RATE_SECONDS = 5.0
"""The present rate is that of so long."""
_POINTS = 60
_MOST_LINES = 8
_BARS = "▁▂▃▄▅▆▇█"


class StreamDisplay(Listener):
    """Draws a run over a stream on standard error. Ctrl-C ends it well: a checkpoint is taken, and the run goes on to its report.

    Parameters
    ----------
    title
        What is learnt from what.
    size
        Bytes of the stream, where its positions are bytes and its end is known.
    quiet
        Nothing but warnings.
    as_json
        Each row of the record as a line of JSON on standard output.
    predictions
        Where answers are written.
    """

    ends_well = True

    def __init__(
        self,
        title: str,
        *,
        size: int | None = None,
        quiet: bool = False,
        as_json: bool = False,
        predictions: PredictionFile | None = None,
    ) -> None:
        self.console = Screen(stderr=True, quiet=quiet or as_json, highlight=False)
        self.warnings = Screen(stderr=True, highlight=False)
        self._title, self._size, self._as_json, self._predictions = title, size, as_json, predictions
        draws = self.console.is_terminal and not self.console.quiet
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if draws else None
        self._began = self._looked = self._spoke = time.monotonic()
        self._rates: list[tuple[float, int]] = []
        self._points: list[float] = []
        self._stride, self._looks = 1, 0
        self._said: set[str] = set()
        self.is_unread = False
        """Whether nobody reads standard output any more."""

    def __enter__(self) -> StreamDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._predictions is not None:
            self._predictions.close()

    # -- what a run tells

    def watched(self, step: StepResult, account: Callable[[], dict[str, Any]]) -> None:
        now = time.monotonic()
        if self.console.quiet or now - self._looked < _REFRESH_SECONDS:
            return
        self._looked = now
        told = account()
        self._note(now, told)
        if self._live is not None:
            self._live.update(self.picture(told), refresh=True)
        elif now - self._spoke >= _LINE_SECONDS:
            self._spoke = now
            self.console.print(f"  {escape(self._line(told))}", soft_wrap=True)

    def logged(self, step: StepResult, n: int, metrics: Mapping[str, float]) -> None:
        if self._as_json:
            try:
                sys.stdout.write(f"{json.dumps({'event': n, **metrics})}\n")
                sys.stdout.flush()
            except BrokenPipeError:
                self.is_unread = True

    def wants_stop(self, step: StepResult) -> bool:
        return self.is_unread

    def answered(
        self, step: StepResult, start: int, block: Block, scores: NDArray[np.float64], classes: Sequence[str]
    ) -> None:
        if self._predictions is not None:
            self._predictions.add(start, block, scores, classes)

    def warned(self, step: StepResult, text: str) -> None:
        self.say(text, "[bold yellow]![/] [yellow]warning[/] ", self.warnings)

    def noted(self, step: StepResult, text: str) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        self.say(text, "  ", self.console)

    def say(self, text: str, before: str, console: Screen) -> None:
        """Say a text, once."""
        if text not in self._said:
            self._said.add(text)
            console.print(f"{before}{escape(text)}", soft_wrap=True)

    # -- pictures

    def picture(self, told: Mapping[str, Any]) -> RenderableType:
        """What has come to be so far."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, shown_ in self._lines(told):
            grid.add_row(name, shown_)
        return Panel(Group(grid), title=escape(shown(self._title)), title_align="left", border_style="dim")

    def _lines(self, told: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
        figures, main = told["figures"], str(told["main"])
        lines: list[tuple[str, RenderableType]] = [("events", Text(self._progress(told)))]
        if not figures:
            lines.append((main, Text("no label yet")))
        else:
            lines.append((main, Text(_figures(told))))
            low, high = (shown_figure(main, each(self._points, default=0.0)) for each in (min, max))
            over_time = Text(sparkline(self._points, _POINTS), style="cyan")
            lines.append(("over time", over_time.append(f"   {low} to {high}", style="dim")))
        for place, each in enumerate(told["classes"][:_MOST_LINES]):
            lines.append(("" if place else "recall", _bar(each["recall"], f"{short(each['class'])}", told, each)))
        more = len(told["classes"]) - _MOST_LINES
        if more > 0:
            lines.append(("", Text(f"… and {more} more classes", style="dim")))
        shares = sorted(told["shares"].items(), key=lambda pair: -pair[1])
        for place, (name, share) in enumerate(shares[:_MOST_LINES]):
            lines.append(("" if place else "members", Text(f"{_block(share)} {share:5.0%}  {name}")))
        if marks := told.get("marks"):
            last = "; ".join(f"event {each['event']:,}, {each['what']}" for each in marks[-2:])
            lines.append(("did", Text(f"{'… ' if len(marks) > 2 else ''}{last}", style="cyan")))
        if drifts := told.get("drifts"):
            last = "; ".join(f"event {each['event']:,}, {each['what']}" for each in drifts[-3:])
            lines.append(
                ("drifts", Text(f"{told['drift_count']}: {'… ' if len(drifts) > 3 else ''}{last}", style="magenta"))
            )
        if told["aside"]:
            lines.append(("set aside", Text(_aside(told["aside"]), style="yellow")))
        if told["measured"]:
            lines.append(("memory", Text(_memory(told))))
        return lines

    def _note(self, now: float, told: Mapping[str, Any]) -> None:
        self._rates = [(at, n) for at, n in self._rates if now - at <= _RATE_SECONDS] + [(now, told["events"])]
        if told["figures"]:
            if self._looks % self._stride == 0:
                self._points.append(float(told["figures"][f"window_{told['main']}"]))
            self._looks += 1
            if len(self._points) > 2 * _POINTS:
                self._points, self._stride = self._points[::2], 2 * self._stride

    def _progress(self, told: Mapping[str, Any]) -> str:
        """Events, rate, time, and what is left where that is known."""
        parts = [f"{told['events']:,}"]
        rate = self._rate()
        if rate is not None:
            parts.append(f"{rate:,.0f}/s")
        elapsed = self._looked - self._began
        parts.append(_clock(elapsed))
        position = told.get("position")
        if isinstance(position, list) and position:  # of a text: the file and the byte in it
            position = cast("list[Any]", position)[-1]
        if self._size and isinstance(position, int):
            share = min(1.0, position / self._size)
            parts.append(f"{share:.0%}")
            if rate and told["events"]:
                left = told["events"] * (1 / share - 1) / rate if share else 0.0
                parts.append(f"about {_clock(left)} left")
        return "   ".join(parts)

    def _rate(self) -> float | None:
        """Events a second over the last seconds."""
        if len(self._rates) < 2:
            return None
        (began, first), (now, last) = self._rates[0], self._rates[-1]
        return (last - first) / (now - began) if now > began else None

    def _line(self, told: Mapping[str, Any]) -> str:
        """One line for no terminal."""
        parts = [f"event {self._progress(told)}"]
        if told["figures"]:
            parts.append(f"{told['main']} {_figures(told)}")
        if drifts := told.get("drifts"):
            parts.append(f"{told['drift_count']} drifts, the last at {drifts[-1]['event']:,}")
        if told["aside"]:
            parts.append(f"{sum(told['aside'].values()):,} set aside")
        return ";  ".join(parts)


def sparkline(values: Sequence[float], most: int) -> str:
    """Values as small bars between the least and the greatest; of many the means of neighbours.

    >>> sparkline([0.0, 50.0, 100.0, 100.0], 4), sparkline([1.0, 1.0], 9), sparkline([], 9)
    ('▁▅██', '▄▄', '')
    """
    if not values:
        return ""
    width = -(-len(values) // most)
    parts = [values[at : at + width] for at in range(0, len(values), width)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    if high - low < 1e-9:
        return _BARS[3] * len(means)
    return "".join(_BARS[min(7, int(8 * (mean - low) / (high - low)))] for mean in means)


def print_end(
    account: Mapping[str, Any], *, folder: str, stopped: bool, go_on: str, answer: str, seconds: float
) -> None:
    """What came of a stream: the figures beside the answers without a model, how fast it was, and what to type next."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 120)
    print_figures(console, account)
    measured = account["measured"]
    if measured:
        console.print(
            f"learning took {measured['p50_us']:,.0f} µs an event (median; 99 %: {measured['p99_us']:,.0f} µs, both of "
            f"whole blocks), {measured['events_per_second']:,.0f} events a second",
            soft_wrap=True,
        )
    if account["aside"]:
        console.print(f"[yellow]set aside: {escape(_aside(account['aside']))}[/]", soft_wrap=True)
    what = "stopped after" if stopped else "took"
    console.print(f"{what} {seconds:.1f} s; report: [bold]{escape(folder)}/report.html[/]", soft_wrap=True)
    if next_command := go_on if stopped else answer:
        console.print("it goes on with:" if stopped else "try next:")
        console.print(f"  {next_command}", markup=False, soft_wrap=True)


def _figures(told: Mapping[str, Any]) -> str:
    """The main figure, now and of all, and those of the baselines."""
    figures, main = told["figures"], told["main"]
    parts = [
        f"{shown_figure(main, figures[f'window_{main}'])} now",
        f"{shown_figure(main, figures[main])} of all",
        *(f"{name} {shown_figure(main, value)}" for name, value in told["baselines"].items()),
    ]
    return "   ".join(parts)


def _bar(recall: float | None, name: str, told: Mapping[str, Any], each: Mapping[str, Any]) -> Text:
    share = each["labels"] / max(told["labels"], 1)
    if recall is None:
        return Text(f"{_block(0.0)}    –  {name} (not yet on this stream)", style="dim")
    return Text(f"{_block(recall / 100)} {recall:4.0f} %  {name} ({share:.0%} of labels, first at {each['first']:,})")


def _block(share: float, width: int = 16) -> str:
    filled = round(max(0.0, min(1.0, share)) * width)
    return "█" * filled + "░" * (width - filled)


def _aside(aside: Mapping[str, int]) -> str:
    return "; ".join(f"{count:,} × {shown(reason)}" for reason, count in aside.items())


def _memory(told: Mapping[str, Any]) -> str:
    measured = told["measured"]
    return (
        f"{measured['memory_bytes'] / 2**20:,.0f} MiB   {measured['p50_us']:,.0f} µs an event "
        f"(99 %: {measured['p99_us']:,.0f} µs)"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
