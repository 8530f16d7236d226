"""What a run looks like on a terminal: progress bars with estimates, tables, and what to try next."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from mapsto.errors import command
from mapsto.intervals import interval_text
from mapsto.recipe.reader import shipped_recipes
from mapsto.report.gaps import gap_of
from mapsto.report.messages import MOST_ALIKE, form, names, together
from mapsto.report.streams import beaten_by, in_order, shown_figure
from mapsto.run.result import Listener, StepResult
from mapsto_runtime.shown import shown

__all__ = [
    "Notes",
    "Progress",
    "print_comparison",
    "print_figures",
    "print_keys",
    "print_outcome",
    "print_plan",
    "print_rows",
    "print_store",
]


class Screen(Console):
    """A console on which control characters in names and messages are shown, not obeyed."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(shown(text), **how)


class Progress(Listener):
    """Draws a run on standard error; on no terminal, one line a step and one every ten seconds of a long one.

    Where it is not enabled, as with ``--json``, only warnings are printed.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.console = Screen(stderr=True, quiet=not enabled, highlight=False)
        self.warnings = self.console if enabled else Screen(stderr=True, highlight=False)
        self.bars = Bars(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self.console,
            transient=True,
            disable=not enabled or not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.spoken = 0.0
        self.notes: set[str] = set()
        self.said: dict[str, list[str]] = {}
        """What was said so far, without its figures → each text of this form."""
        self.again: dict[str, tuple[Console, list[str]]] = {}
        """The form of what was not shown again → where it is to be said at the end, and who said it."""

    def __enter__(self) -> Progress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()
        for key, (console, titles) in self.again.items():
            who = names(list(dict.fromkeys(titles)))
            console.print(f"  [dim]said again by {who}: {escape(self.said[key][0])}[/]", soft_wrap=True)
        self.again.clear()

    def _is_new(self, step: StepResult, text: str, console: Console) -> bool:
        """Whether a text is worth its line: many branches and folds of a search say the same, with other figures at most."""
        key = form(text)
        texts = self.said.setdefault(key, [])
        if text in texts or len(texts) >= MOST_ALIKE:
            self.again.setdefault(key, (console, []))[1].append(_title(step).strip())
            return False
        texts.append(text)
        return True

    def started(self, step: StepResult) -> None:
        self.task = self.bars.add_task(_title(step), total=None, metrics="")
        self.spoken = time.monotonic()

    def advanced(self, step: StepResult, done: int, total: int | None, metrics: Mapping[str, float]) -> None:
        if self.task is None:
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:3])
        self.bars.update(self.task, completed=done, total=total)
        if shown:
            self.bars.update(self.task, metrics=escape(shown))
        now = time.monotonic()
        if not self.console.is_terminal and now - self.spoken > 10:
            self.spoken = now
            self.console.print(f"    {_title(step)}: {done}{f' of {total}' if total else ''}  {escape(shown)}")

    def finished(self, step: StepResult) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
        mark = "[dim]·[/]" if step.hit else _MARKS.get(step.status, "[green]✓[/]")
        took = "from the store" if step.hit else f"{step.seconds:.1f} s"
        took = {"failed": "left out", "stopped": "stopped early"}.get(step.status, took)
        self.console.print(f"{mark} {_title(step):<44} [dim]{took:>14}  {step.digest[:12]}[/]")

    def warned(self, step: StepResult, text: str) -> None:
        if self._is_new(step, text, self.warnings):
            self.warnings.print(
                f"[bold yellow]![/] [yellow]warning[/] {_title(step).strip()}: {escape(text)}", soft_wrap=True
            )

    def noted(self, step: StepResult, text: str) -> None:
        if self._is_new(step, text, self.console):
            self.console.print(f"  [dim]{_title(step).strip()}: {escape(text)}[/]", soft_wrap=True)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.add(text)
            self.console.print(f"  [dim]{escape(text)}[/]")


_MARKS = {"failed": "[red]✗[/]", "stopped": "[yellow]■[/]"}


def _title(step: StepResult) -> str:
    label = f" ({step.label})" if step.label else f" (of {step.branch[-1]})" if step.branch else ""
    return escape(f"{'  ' if step.of is not None else ''}{step.name}{label}")


def _sampled(cell: Mapping[str, Any], unit: str) -> str:
    """A value, with its interval where it has one."""
    value = cell.get("value")
    interval = interval_text(cell, unit) if value is not None else ""
    return f"{value:.2f} {interval}" if interval else _number(value)


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if abs(value) >= 10_000:
        size = 1e6 if abs(value) >= 1e6 else 1e3
        return f"{value / size:.3g} {'M' if size == 1e6 else 'k'}"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    return f"{int(value):,}"


def print_outcome(report: Mapping[str, Any], folder: Path) -> None:
    """A run's summary table, its targets, where the report is, and three commands to try next."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    if report["summary"]["rows"]:
        _print_stages(console, report)
    for step in report["steps"]:
        if (step.get("account") or {}).get("figures"):
            console.print(escape(step["path"]), style="bold")
            print_figures(console, step["account"])
        elif (gap := gap_of(step, report["steps"])) is not None:
            within = f" (of {step['branch'][-1]})" if step.get("branch") and not step.get("label") else ""
            console.print(f"{escape(step['path'])}{escape(within)}: {escape(str(gap))}", soft_wrap=True)
    if report["targets"]:
        _print_targets(console, report["targets"])
    if warnings := report.get("warnings"):
        told = together((warning["path"], warning["text"]) for warning in warnings)
        console.print(f"[bold yellow]{len(told)} warning{'s' if len(told) > 1 else ''}[/]")
        for warning in told:
            console.print(f"  {escape(warning.path)}: {escape(warning.text)}", soft_wrap=True)
    if skipped := report.get("skipped", {}):
        reasons: dict[str, list[str]] = {}
        for name, reason in skipped.items():
            reasons.setdefault(reason, []).append(name)
        said = "; ".join(f"{', '.join(which)} ({reason})" for reason, which in reasons.items())
        console.print(f"[dim]not run: {escape(said)}[/]", soft_wrap=True)
    for line in verdict(report):
        console.print(line, markup=False, style="bold", soft_wrap=True)
    console.print(f"took {report['wall_s']:.1f} s; report: [bold]{escape(str(folder / 'report.html'))}[/]")
    console.print("try next:")
    for line in try_next(report, folder):
        console.print(f"  {line}", markup=False, soft_wrap=True)


def print_figures(console: Console, account: Mapping[str, Any]) -> None:
    """What a learner over a stream came to, beside the answers without a model, and loudly where it is no better than these."""
    main, figures = str(account["main"]), in_order(account["figures"])
    baselines = in_order(account["baselines"])
    if not figures:
        console.print("no event had a label to learn from", style="yellow")
        return
    title = f"{account['labels']:,} labels, each answered before it was seen"
    table = Table(title=title, title_justify="left", min_width=len(title))
    for column in ("", "learner", *baselines):
        table.add_column(escape(column), justify="right" if column else "left")
    beside = [shown_figure(main, value) for value in baselines.values()]
    table.add_row(main, f"[bold]{shown_figure(main, figures.pop(main))}[/]", *beside)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), shown_figure(name, value))
    console.print(table)
    for line in beaten_by(account):
        console.print(f"[bold red]! {escape(line)}[/]", soft_wrap=True)


def try_next(report: Mapping[str, Any], folder: Path) -> list[str]:
    """Commands that go on from a run: use its package, see what would run again, start a recipe of one's own from it.

    They carry the options that the run was given as far as they need them, so that each does what it says when it is pasted.
    """
    package, kept = folder / "package", folder / "recipe.yaml"
    given = report.get("command") or {"recipe": report["name"], "options": []}
    recipe, options = str(given["recipe"]), list(map(str, given["options"]))
    changed = {"--set", "--quick"} & {*options} or recipe not in shipped_recipes()
    found: list[str] = []
    if (package / "learner").is_dir():
        trust = [word for i, name in enumerate(options) if name == "--trust" for word in options[i : i + 2]]
        found.append(command("mapsto adapt {folder} FOLDER_OF_EXAMPLES", *trust, folder=folder))
    elif (package / "examples").is_dir():
        found.append(command("mapsto predict {folder} {pictures}/*.png", folder=folder, pictures=package / "examples"))
    elif (package / "manifest.json").is_file():
        found.append(command("mapsto predict {folder} YOUR_FILE", folder=folder))
    found.append(command("mapsto run {recipe} --plan", *options, recipe=recipe))
    source = kept if changed and kept.is_file() else recipe
    found.append(command("mapsto new {free} --from {source}", free=_free_name(), source=source))
    return found


def _free_name() -> str:
    """A name for a recipe of one's own, of which there is no file here yet."""
    names = ("mine", *(f"mine_{number}" for number in range(2, 1000)))
    return next(name for name in names if not Path(f"{name}.yaml").exists())


class Notes(Listener):
    """Keeps what a plan has to say, each text once, to be shown below its table."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        if text not in self.texts:
            self.texts.append(text)


def _print_stages(console: Console, report: Mapping[str, Any]) -> None:
    """A row a stage, explained in a few words: in a last column where there is room, else in lines below."""
    summary, meanings = report["summary"], meanings_of(report["steps"])

    def table(explained: bool) -> Table:
        title = escape(report["title"] or report["name"])
        made = Table(title=title, title_justify="left", padding=(0, 0), pad_edge=False)
        for column in summary["columns"]:
            unit = summary["units"].get(column, "")
            head = escape(column.replace(" ", "\n") + (f"\n{unit}" if unit and unit not in ("MAC",) else ""))
            made.add_column(head, justify="left" if column == "stage" else "right", no_wrap=True)
        if explained:
            made.add_column("what it is", no_wrap=True)
        for stage, *cells in summary["rows"]:
            units = [summary["units"].get(column, "") for column in summary["columns"][1:]]
            shown = ["" if c is None else _sampled(c, unit) for c, unit in zip(cells, units, strict=True)]
            made.add_row(escape(stage), *shown, *([escape(meanings.get(stage, ""))] if explained else []))
        return made

    whole = table(True)
    fits = console.measure(whole, options=console.options.update(width=1000)).maximum <= console.width
    console.print(whole if fits else table(False))
    told = [(stage, meanings[stage]) for stage, *_ in summary["rows"] if meanings.get(stage)]
    for stage, meaning in [] if fits else told:
        console.print(f"  {escape(stage):<{max(len(name) for name, _ in told)}}  [dim]{escape(meaning)}[/]")


def _print_targets(console: Console, targets: Sequence[Mapping[str, Any]]) -> None:
    """A row for each target that was judged, then one line for the others."""
    judged = [target for target in targets if target["met"] is not None]
    if judged:
        table = Table(title="Targets", title_justify="left")
        for column in ("what", "goal", "measured", "met"):
            table.add_column(column, justify="right" if column in ("goal", "measured") else "left")
        for target in judged:
            met = "[green]yes[/]" if target["met"] else "[red]NO[/]"
            table.add_row(
                escape(target["what"]),
                str(target["goal"]),
                _sampled({**target, "value": target["measured"]}, target.get("unit", "")),
                met,
            )
        console.print(table)
    waiting = [target["what"] for target in targets if target["met"] is None]
    if waiting:
        console.print(f"[dim]not measured in this run: {escape('; '.join(waiting))}[/]", soft_wrap=True)


def verdict(report: Mapping[str, Any]) -> list[str]:
    """What the result means, in one or two lines: how many targets were met, and those that were not, with their figures.

    >>> target = {"what": "points lost", "goal": "<= 1", "measured": 1.26, "ci95": None, "met": False}
    >>> verdict({"targets": [target, {**target, "measured": 0.2, "met": True}]})
    ['1 of 2 targets met.', 'Not met: points lost (1.26, goal <= 1).']
    """
    judged = [target for target in report["targets"] if target["met"] is not None]
    if not judged:
        return []
    missed = [target for target in judged if not target["met"]]
    if not missed:
        return [f"All {len(judged)} targets that were measured are met." if len(judged) > 1 else "The target is met."]
    told = "; ".join(f"{each['what']} ({_number(each['measured'])}, goal {each['goal']})" for each in missed[:3])
    more = f"; and {len(missed) - 3} more" if len(missed) > 3 else ""
    return [f"{len(judged) - len(missed)} of {len(judged)} targets met.", f"Not met: {told}{more}."]


def meanings_of(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What each stage is, in about five words: the last thing that was done to the network, by its mapping or the family of that."""
    return {
        str(step["path"]): _MEANING.get(name, _MEANING.get(name.partition(".")[0], ""))
        for step in steps
        if step["of"] is None
        for name in (str(step["name"]),)
    }


_MEANING = {
    "networks": "as it was made",
    "meta": "trained on many small tasks",
    "train": "trained on labelled data",
    "adapt": "given the few examples' classes",
    "semi": "given a few labels and a pool without",
    "prune": "channels removed, not yet retrained",
    "distill": "distilled from its teacher",
    "quantize": "computes in fewer bits",
    "choose": "the branch that was chosen",
    "export": "what goes to the device",
    "networks.ensemble": "several networks as one",
    "choose.ensemble": "all branches as one network",
    "train.adversarial": "trained against attacks",
    "train.masked_autoencoder": "trained without labels",
    "train.simclr": "trained without labels",
    "adapt.finetune": "tuned on labelled examples",
    "adapt.merge": "adapters merged into its weights",
    "adapt.merge_lora": "adapters merged into its weights",
    **dict.fromkeys(
        [f"adapt.{way}" for way in ("adapters", "bitfit", "dora", "ia3", "lora", "prompts", "ssf")],
        "with few numbers to train",
    ),
    **dict.fromkeys(
        [f"adapt.{way}" for way in ("coral", "dann", "deep_coral", "mmd", "tent", "transfer")],
        "brought to another domain",
    ),
}


def print_plan(rows: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> None:
    """What would run, with the time and disk that earlier runs suggest."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(title="Plan", title_justify="left")
    for column in ("seed", "step", "mapping", "status", "about", "disk"):
        table.add_column(column, justify="right" if column in ("seed", "about", "disk") else "left")
    for row in rows:
        seconds, size = row["seconds"], row["bytes"]
        table.add_row(
            str(row["seed"]),
            escape(row["step"]),
            row["name"],
            row["status"],
            "not timed yet" if seconds is None else f"{seconds:.1f} s",
            "unknown" if size is None else f"{size / 2**20:.2f} MiB",
        )
    console.print(table)
    for note in notes:
        console.print(escape(note))
    console.print(f"{estimate(rows)}; nothing was run")


def estimate(rows: Sequence[Mapping[str, Any]]) -> str:
    """How long a plan would take and how much it would store, as far as earlier runs tell.

    >>> known = {"status": "would run", "seconds": 12.0, "bytes": 2**20}
    >>> new = {**known, "seconds": None, "bytes": None}
    >>> estimate([known]), estimate([known, new])
    ('about 12 s and 1.0 MiB', 'at least 12 s and 1.0 MiB: 1 of 2 steps is not timed yet')
    >>> estimate([new])
    'how long it takes is not known: no such step was timed yet'
    """
    due = [row for row in rows if row["status"] != "hit"]
    timed = [row for row in due if row["seconds"] is not None]
    if due and not timed:
        return "how long it takes is not known: no such step was timed yet"
    seconds, size = (sum(row[name] or 0 for row in timed) for name in ("seconds", "bytes"))
    text = f"{seconds:.0f} s and {size / 2**20:.1f} MiB"
    new = len(due) - len(timed)
    if not new:
        return f"about {text}"
    return f"at least {text}: {new} of {len(due)} steps {'is' if new == 1 else 'are'} not timed yet"


def print_store(rows: Sequence[Mapping[str, Any]]) -> None:
    """The finished steps of a store."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table()
    for column in ("made", "step", "kind", "seconds", "MiB", "digest"):
        table.add_column(column, justify="right" if column in ("seconds", "MiB") else "left")
    for row in rows:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        size = "damaged" if row["bytes"] is None else f"{row['bytes'] / 2**20:.2f}"
        table.add_row(made, row["name"], row["kind"], f"{row['seconds']:.1f}", size, row["digest"][:12])
    console.print(table)
    console.print(f"{len(rows)} steps")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of the same names as a table; numbers to the right."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table()
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, (int, float)) else "left")
    for row in rows:
        table.add_row(
            *(escape(f"{value:,}" if isinstance(value, (int, float)) else str(value)) for value in row.values())
        )
    console.print(table)


def print_keys(rows: Sequence[Mapping[str, Any]]) -> None:
    """The keys of a service."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table()
    for column in ("name", "tenant", "may", "made", "until", "requests/s"):
        table.add_column(column, justify="right" if column == "requests/s" else "left")
    for row in rows:
        times = [
            "" if row[name] is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(row[name]))
            for name in ("created", "ends")
        ]
        until = times[1] if row["valid"] else f"ended {times[1]}"
        rate = "" if row["rate"] is None else f"{row['rate']:g}"
        table.add_row(escape(row["name"]), escape(row["tenant"]), ", ".join(row["scopes"]), times[0], until, rate)
    console.print(table)


def print_comparison(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Two runs side by side."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(title=f"{names[0]}  against  {names[1]}", title_justify="left")
    for column in ("metric", "unit", names[0], names[1], "difference"):
        table.add_column(column, justify="left" if column in ("metric", "unit") else "right")
    for row in rows:
        table.add_row(
            escape(row["metric"]),
            row["unit"],
            *(
                _sampled(
                    {"value": row[side], **{name: row.get(f"{name}_{side}") for name in ("ci95", "low", "high")}},
                    row["unit"],
                )
                for side in ("a", "b")
            ),
            "" if row["difference"] is None else f"{row['difference']:+.4g}",
        )
    console.print(table)
