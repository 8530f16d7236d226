"""An evaluation card on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mapsto.cli.progress import Screen
from mapsto.intervals import interval_text
from mapsto.report.card import FIGURES, metric_text, unjudged
from mapsto.report.charts import short as si
from mapsto.report.page import _bytes, _duration
from mapsto_runtime.shown import short

__all__ = ["print_card"]

_MOST_CLASSES = 20
_MOST_CONFUSIONS = 3


def print_card(card: Mapping[str, Any], folder: Path) -> None:
    """Figures by domain, the classes of the first, speed and size, what is to be warned of, and where the card is."""
    console = Screen(highlight=False, width=None if sys.stdout.isatty() else 160)
    _print_figures(console, card)
    domain, first = next(iter(card["packages"][0]["results"].items()))
    if first.get("per_class"):
        several = f" of {short(card['packages'][0]['name'])}" if len(card["packages"]) > 1 else ""
        where = f"{several}, on {short(domain)}" if several or len(card["data"]) > 1 else ""
        _print_classes(console, first, card["kind"], where)
    _print_cost(console, card["packages"])
    for package in card["packages"]:
        if package["training"] is not None:
            _print_training(console, package)
    if card["seeds"] is not None:
        _print_seeds(console, card["seeds"])
    for text in card["warnings"]:
        console.print(f"[bold yellow]![/] [yellow]warning[/] {escape(text)}", soft_wrap=True)
    if card["absent"]:
        said = "; ".join(f"{each['figure']} ({each['reason']})" for each in card["absent"])
        console.print(f"[dim]not told: {escape(said)}[/]", soft_wrap=True)
    console.print(f"took {card['wall_s']:.1f} s; card: [bold]{escape(str(folder / 'card.html'))}[/]", soft_wrap=True)


def _print_figures(console: Console, card: Mapping[str, Any]) -> None:
    """One row a package and domain."""
    results = [
        (package["name"], name, each) for package in card["packages"] for name, each in package["results"].items()
    ]
    several = len(card["packages"]) > 1
    wanted = [
        name
        for name in (
            "accuracy",
            "accuracy_5_shot",
            "balanced_accuracy",
            "macro_f1",
            "all_right",
            "micro_f1",
            "span_f1",
            "span_precision",
            "span_recall",
            "words_right",
            "rmse",
            "mae",
            "r2",
            "rmse_of_mean",
            "ece",
            "nll",
        )
        if any(name in _metrics(each) for _, _, each in results)
    ]
    others = [name for _, _, each in results for name in each["metrics"] if name not in FIGURES]
    wanted += list(dict.fromkeys(others))  # of several values, whose figures are named by them, or of tasks
    table = Table(title=escape(card["title"]), title_justify="left")
    for column in (*(["package"] if several else []), "data", "samples"):
        table.add_column(column, justify="right" if column == "samples" else "left")
    for name in wanted:
        table.add_column(escape(_HEADS.get(name, name)), justify="right")
    samples = {each["name"]: each["samples"] for each in card["data"]}
    for package, domain, each in results:
        metrics = _metrics(each)
        cells = [metric_text(metrics[name]) if name in metrics else "–" for name in wanted]
        total = samples[domain]
        judged = total - unjudged(each)
        count = f"{judged:,} of {total:,}" if judged < total else f"{total:,}"
        table.add_row(*([escape(short(package))] if several else []), escape(short(domain)), count, *cells)
    console.print(table)


_HEADS = (
    {"accuracy_5_shot": "5 shots"}
    | {
        "balanced_accuracy": "balanced",
        "macro_f1": "macro F1",
        "ece": "ECE",
        "nll": "NLL",
        "r2": "R²",
        "rmse": "RMSE",
    }
    | {
        "mae": "MAE",
        "rmse_of_mean": "RMSE of mean",
        "all_right": "all labels right",
        "micro_f1": "micro F1",
        "span_f1": "F1 of spans",
        "span_precision": "precision",
        "span_recall": "recall",
        "words_right": "words right",
    }
)


def _metrics(result: Mapping[str, Any]) -> dict[str, Any]:
    return {**result["metrics"], **((result.get("calibration") or {}).get("metrics") or {})}


def _print_classes(console: Console, result: Mapping[str, Any], kind: str, where: str) -> None:
    rows: Sequence[Sequence[Any]] = result["per_class"]["rows"]
    if len(rows) > _MOST_CLASSES:
        worst = sorted(rows, key=lambda row: row[3])[:_MOST_CLASSES]
        title = f"The {_MOST_CLASSES} of {len(rows)} classes with the lowest F1{where}"
    else:
        worst, title = rows, f"Classes{where}" if kind == "classes" else f"Labels{where}"
    table = Table(title=escape(title), title_justify="left")
    for column in ("class", "precision", "recall", "F1", "samples"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, precision, recall, f1, support in worst:
        table.add_row(escape(short(name)), f"{precision:.1f}", f"{recall:.1f}", f"{f1:.1f}", f"{support:,}")
    console.print(table)
    confusions = _confusions(result.get("confusion"))
    if confusions:
        console.print(f"[dim]most confused: {escape('; '.join(confusions))}[/]", soft_wrap=True)


def _confusions(table: Mapping[str, Any] | None) -> list[str]:
    """The classes that are taken for others most often."""
    if table is None:
        return []
    names = [str(name) for name in table["columns"][1:]]
    wrong = [
        (count, names[row], names[column])
        for row, (_, *counts) in enumerate(table["rows"])
        for column, count in enumerate(counts)
        if row != column and count
    ]
    most = sorted(wrong, key=lambda each: -each[0])[:_MOST_CONFUSIONS]
    return [f"'{short(label)}' taken for '{short(answer)}' {count} times" for count, label, answer in most]


def _print_cost(console: Console, packages: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="Speed and size", title_justify="left")
    several = len(packages) > 1
    columns = [
        "package bytes",
        "parameters",
        "MACs",
        "threads",
        "one sample",
        "99 %",
        "a second in batches",
        "peak memory",
    ]
    for column in (*(["package"] if several else []), *columns):
        table.add_column(column, justify="left" if column == "package" else "right")
    for each in packages:
        size, speed = each["size"], each["speed"]
        head = [
            _bytes(size["package_bytes"]),
            si(size["parameters"]) if "parameters" in size else "–",
            si(size["macs"]) if "macs" in size else "–",
        ]
        name = [escape(short(each["name"]))] if several else []
        peak = _bytes(speed["memory_peak"]) if speed.get("memory_peak") else "–"
        for number, one in enumerate(speed.get("by_threads") or [None]):
            timed = (
                ["–"] * 4
                if one is None
                else [
                    str(one["threads"]),
                    f"{one['p50_ms']:.3g} ms",
                    f"{one['p99_ms']:.3g} ms",
                    f"{one['samples_per_s']:,.0f}",
                ]
            )
            table.add_row(
                *(name if number == 0 else [""] * len(name)), *(head if number == 0 else [""] * 3), *timed, peak
            )
            peak = ""
    console.print(table)
    first = packages[0]["speed"]
    if "process_s" in first:
        console.print(
            f"[dim]cold start: {_duration(first['process_s'])} from a new process to an answer, "
            f"{_duration(first['open_s'])} of it to open the package[/]"
        )


def _print_training(console: Console, package: Mapping[str, Any]) -> None:
    """What making it took, and how much better it is on its own examples than on others."""
    training = package["training"]
    stored = f", {training['from_store']} of its steps from the store" if training["from_store"] else ""
    gap = f"; {training['gap']['text']}" if training["gap"] is not None else ""
    text = f"{package['name']} was made in {_duration(float(training['wall_s']))} with seed {training['seed']}{stored}{gap}"
    console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)


def _print_seeds(console: Console, seeds: Mapping[str, Any]) -> None:
    table = Table(title=f"Over seeds {', '.join(map(str, seeds['seeds']))}", title_justify="left")
    for column in ("figure", "mean", "least", "most"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, each in seeds["metrics"].items():
        domain, _, figure = name.rpartition(": ")
        unit = f" {each['unit']}" if each["unit"] else ""
        table.add_row(
            escape(f"{domain}: {FIGURES.get(figure, figure)}"),
            f"{each['value']:.4g}{unit} {interval_text(each, each['unit'])}".strip(),
            f"{min(each['values']):.4g}",
            f"{max(each['values']):.4g}",
        )
    console.print(table)
