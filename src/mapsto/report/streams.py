"""What a learner over a stream came to, for people: its account (`mapsto.process.Live.account`) as figures, charts and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mapsto.report import timelines
from mapsto.report.timelines import Curve, Mark
from mapsto_runtime.shown import short

__all__ = ["StreamPart", "beaten_by", "in_order", "shown_figure", "stream_metrics", "stream_part", "stream_tiles"]

_FEW = 50
"""Of fewer labels chance decides who is better."""
_PERCENT = ("accuracy", "hit_rate")
_CURVES = {
    "accuracy": {
        "accuracy of the last 1000 labels": ("window_accuracy", False),
        "accuracy of all labels": ("mean_accuracy", False),
        "the label before, of the last 1000": ("window_no_change", True),
        "the most frequent class, of the last 1000": ("window_majority", True),
    },
    "mae": {
        "error of the last 1000 labels": ("window_mae", False),
        "error of all labels": ("mean_mae", False),
        "the value before, of the last 1000": ("window_last_value", True),
        "the mean so far, of the last 1000": ("window_mean", True),
    },
    "bits_per_byte": {
        "bits per byte since the last row": ("bits_per_byte", False),
        "of all bytes": ("mean_bits_per_byte", False),
        "the n-gram alone, since the last row": ("bits_per_byte_n_gram_alone", True),
        "the network alone, since the last row": ("bits_per_byte_network_alone", True),
        "by how often bytes came, of the last 1000": ("window_order_0", True),
    },
    "rmse": {
        "error of the last 1000 labels": ("window_rmse", False),
        "error of all labels": ("mean_rmse", False),
        "the value before, of the last 1000": ("window_last_value", True),
        "the mean so far, of the last 1000": ("window_mean", True),
    },
    "hit_rate": {
        "hit rate@10 of the last 1000 labels": ("window_hit_rate", False),
        "hit rate@10 of all labels": ("mean_hit_rate", False),
        "what came most often, of the last 1000": ("window_popular", True),
        "what came last, of the last 1000": ("window_latest", True),
    },
}
"""What a chart over time shows → the column of the log, and whether it is there to be compared with."""
_NAMES = {
    "accuracy": "accuracy",
    "mae": "mean absolute error",
    "bits_per_byte": "bits per byte",
    "window_bits_per_byte": "bits per byte of the last 1000 bytes",
    "last_10000_bits_per_byte": "bits per byte of the last 10,000 bytes",
    "faded_bits_per_byte": "bits per byte, faded by 0.999 a byte",
    "perplexity": "perplexity of a byte",
    "window_accuracy": "accuracy of the last 1000 labels",
    "window_mae": "mean absolute error of the last 1000 labels",
    "faded_accuracy": "accuracy, faded by 0.999 a label",
    "faded_mae": "mean absolute error, faded by 0.999 a label",
    "kappa": "κ (against chance)",
    "kappa_temporal": "κ temporal (against the label before)",
    "log_loss": "log loss",
    "rmse": "root mean squared error",
    "r2": "R²",
    "window_rmse": "root mean squared error of the last 1000 labels",
    "faded_rmse": "root mean squared error, faded by 0.999 a label",
    "hit_rate": "hit rate@10",
    "window_hit_rate": "hit rate@10 of the last 1000 labels",
    "faded_hit_rate": "hit rate@10, faded by 0.999 a label",
    "ndcg": "NDCG@10",
    "mrr": "mean reciprocal rank",
}
_ORDER = (
    *(*_NAMES, "no change", "majority", "last value", "mean", "popular", "latest"),
    *("n-gram alone", "network alone", "order 0", "8 bits"),
)
_MOST_DRIFTS = 100
_MOST_BESIDE = 3
"""Baselines that stand beside the learner in one table."""


@dataclass(kw_only=True)
class StreamPart:
    """What the page shows of one learner: tables as in a report, charts as SVG with their captions."""

    alarms: list[str]
    tiles: list[tuple[str, str, str]]
    """Value, what it is, and a note."""
    charts: list[tuple[str, str]]
    tables: list[tuple[str, dict[str, Any]]] = field(default_factory=list["tuple[str, dict[str, Any]]"])
    stretches: list[tuple[str, dict[str, Any]]] = field(default_factory=list["tuple[str, dict[str, Any]]"])
    """A title, and the table of a stretch's examples."""


def shown_figure(name: str, value: float) -> str:
    """A figure as it is shown: accuracies in percent, others with four digits.

    >>> shown_figure("window_accuracy", 88.649), shown_figure("kappa", 0.71458), shown_figure("mae", 12345.6)
    ('88.6 %', '0.7146', '1.235e+04')
    """
    return f"{value:.1f} %" if name.endswith(_PERCENT) else f"{value:.4g}"


_OF_ITSELF = " alone"
"""How baselines are called that are parts of the learner itself, as a language model's: to be no better than one is no alarm."""
_LABEL_BEFORE = ("no change", "last value")
"""Baselines that, where labels come late, know labels that the learner did not know when it was asked."""


def beaten_by(account: Mapping[str, Any]) -> list[str]:
    """A line for each answer without a model that was as good as the learner's, or better.

    >>> told = {"labels": 900, "main": "accuracy", "better": 1, "figures": {"accuracy": 60.0}, "baselines": {"majority": 61.29}}
    >>> beaten_by(told)
    ["NOT BETTER than 'majority': 60.0 % beside 61.3 %, so that there is nothing yet to be had from these features"]
    """
    if account.get("labels", 0) < _FEW:
        return []
    if account.get("blind") == account["labels"]:
        return [
            f"all {account['labels']:,} questions were asked before any label was known, so that none could be answered"
        ]
    if not account.get("figures"):
        return []
    main, better = account["main"], account["better"]
    own = account["figures"][main]
    return [
        f"NOT BETTER than '{name}': {shown_figure(main, own)} beside {shown_figure(main, value)}, so that there is nothing yet "
        "to be had from these features"
        for name, value in account["baselines"].items()
        if better * (own - value) <= 0
        and not name.endswith(_OF_ITSELF)
        and not (account.get("late") and name in _LABEL_BEFORE)
    ]


def stream_metrics(account: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of an account as metrics of a report, and its speed.

    >>> stream_metrics({"figures": {"accuracy": 80.0, "kappa": 0.5}, "measured": {}})["accuracy"]
    {'value': 80.0, 'unit': '%', 'measured': False}
    """
    found = {
        name: {"value": value, "unit": "%" if name.endswith(_PERCENT) else "", "measured": False}
        for name, value in (account.get("figures") or {}).items()
    }
    speed = (account.get("measured") or {}).get("events_per_second")
    if speed is not None:
        found["events_per_second"] = {"value": speed, "unit": "1/s", "measured": True}
    return found


def stream_part(step: Mapping[str, Any]) -> StreamPart | None:
    """What to show of a step of a report; None where it is no learner over a stream."""
    account: Mapping[str, Any] = step.get("account") or {}
    if "figures" not in account:
        return None
    curves: Mapping[str, Any] = step.get("curves") or {"columns": [], "rows": []}
    return StreamPart(
        alarms=beaten_by(account),
        tiles=stream_tiles(account),
        charts=_charts(account, curves),
        tables=[
            *_figures(account),
            *_classes(account),
            *_importance(account),
            *_marks("Drifts", account.get("drifts")),
            *_marks("What it did of itself", account.get("marks")),
            *_own_tables(account),
            *_cost(account),
            *_aside(account),
        ],
        stretches=[_stretch(account, each) for each in account["stretches"]],
    )


def _called(name: str) -> str:
    """A figure's name for people."""
    return _NAMES.get(name, name.replace("_", " "))


def in_order(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures or baselines in the order in which they are always shown: one that comes from a store has lost its own.

    >>> [*in_order({"majority": 1, "log_loss": 2, "no change": 3, "accuracy": 4})]
    ['accuracy', 'log_loss', 'no change', 'majority']
    """
    places = {name: place for place, name in enumerate(_ORDER)}
    return dict(sorted(figures.items(), key=lambda item: places.get(item[0], len(places))))


def stream_tiles(account: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The headline figures of an account: value, what it is, and a note."""
    before = f", {account['blind']:,} of them asked before any was known" if account.get("blind") else ""
    found = [(f"{account['events']:,}", "events", f"{account['labels']:,} with a label{before}")]
    figures, main = account["figures"], account["main"]
    if figures:
        beside = ", ".join(
            f"{name} {shown_figure(main, value)}" for name, value in in_order(account["baselines"]).items()
        )
        found.append((shown_figure(main, figures[main]), _called(main), beside))
        last = f"window_{main}"
        found.append((shown_figure(last, figures[last]), "over the last 1000 labels", "at the end of the stream"))
    if account.get("drifts") is not None:
        found.append((f"{account.get('drift_count', len(account['drifts'])):,}", "drifts detected", ""))
    measured = account["measured"]
    if measured:
        found.append(
            (
                f"{measured['events_per_second']:,.0f}",
                "events a second",
                f"{measured['p50_us']:,.0f} µs an event, learning alone",
            )
        )
    return found


def _charts(account: Mapping[str, Any], curves: Mapping[str, Any]) -> list[tuple[str, str]]:
    columns = [str(name) for name in curves["columns"]]
    by_name = {
        name: [math.nan if row[place] is None else float(row[place]) for row in curves["rows"]]
        for place, name in enumerate(columns)
    }
    xs = by_name.get("step", [])
    main = str(account["main"])
    if account["figures"] and account["events"] > (xs[-1] if xs else 0):  # what came after the last row
        now = {**account["figures"], f"mean_{main}": account["figures"][main], "step": account["events"]}
        now.pop(main)
        by_name = {name: [*values, float(now.get(name, math.nan))] for name, values in by_name.items()}
        xs = by_name.get("step", [])
    drawn = {
        title: Curve(xs, by_name[column], quiet)
        for title, (column, quiet) in _CURVES.get(main, {}).items()
        if column in by_name
    }
    marks = [Mark(each["event"], str(each["what"]), "drift") for each in account.get("drifts") or ()]
    marks += [Mark(each["event"], short(str(each["what"]), 18), "reaction") for each in account.get("marks") or ()]
    marks += [
        Mark(each["first"], short(str(each["class"]), 18), "class")
        for each in sorted(account["classes"], key=lambda each: each["first"])
        if each["first"] > 0
    ]
    found: list[tuple[str, str]] = []
    unit = ", %" if main.endswith(_PERCENT) else ""
    if len(xs) > 1 and (svg := timelines.timeline(drawn, marks, x_name="event", y_name=f"{_called(main)}{unit}")):
        found.append((svg, "How good the answers were, each given before its label was seen"))
    members = {name.removeprefix("share_"): values for name, values in by_name.items() if name.startswith("share_")}
    if members:
        whole = {name: [0.0 if math.isnan(v) else v for v in values] for name, values in members.items()}
        if svg := timelines.shares(xs, whole, x_name="event"):
            found.append((svg, "Whose answer it was: the members' shares"))
    rows: Sequence[Sequence[float]] = account["measured"].get("rows", ())
    if len(rows) > 2:
        at = [row[0] for row in rows]
        memory = {"memory of the process": Curve(at, [row[2] / 2**20 for row in rows])}
        if svg := timelines.timeline(memory, (), x_name="event", y_name="MiB", from_zero=True, height=220.0):
            found.append((svg, "Memory over the stream, measured"))
    return found


def _figures(account: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    figures, main = dict(account["figures"]), account["main"]
    if not figures:
        return []
    baselines = in_order(account["baselines"])
    first = [_called(main), *(shown_figure(main, v) for v in (figures.pop(main), *baselines.values()))]
    if len(baselines) > _MOST_BESIDE:
        rows = [["learner", shown_figure(main, account["figures"][main])]]
        rows += [[name, shown_figure(main, value)] for name, value in baselines.items()]
        others = [[_called(name), shown_figure(name, figures[name])] for name in in_order(figures)]
        return [
            (f"{_called(main).capitalize()}", {"columns": ["answered by", _called(main)], "rows": rows}),
            ("Figures", {"columns": ["figure", "learner"], "rows": others}),
        ]
    rest = [[_called(name), shown_figure(name, figures[name]), *([""] * len(baselines))] for name in in_order(figures)]
    return [("Figures", {"columns": ["figure", "learner", *baselines], "rows": [first, *rest]})]


def _classes(account: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    if not account["classes"]:
        return []
    rows = [
        [str(each["class"]), each["recall"], each["labels"], each["first"] if each["first"] > 0 else "before"]
        for each in account["classes"]
    ]
    columns = ["class", "recall", "labels", "first at event"]
    found = [("Classes", {"columns": columns, "rows": rows, "units": {"recall": "%"}})]
    if all("early" in each for each in account["classes"]):
        by_time = [[str(each["class"]), each["early"], each["late"], each["last"]] for each in account["classes"]]
        columns = ["class", "recall at first", "recall of late", "last at event"]
        units = {"recall at first": "%", "recall of late": "%"}
        found.append(
            ("Classes by when they came, over fifty labels each", {"columns": columns, "rows": by_time, "units": units})
        )
    return found


def _importance(account: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    rows = [[short(str(name)), 100 * share] for name, share in account.get("importance") or ()]
    if not rows:
        return []
    return [
        (
            "Columns that matter, by the gain of the forests' splits",
            {"columns": ["column", "share"], "rows": rows, "units": {"share": "%"}},
        )
    ]


def _marks(title: str, marks: Sequence[Mapping[str, Any]] | None) -> list[tuple[str, dict[str, Any]]]:
    rows = [[each["event"], str(each["what"])] for each in marks or ()]
    if not rows:
        return []
    if len(rows) > _MOST_DRIFTS:
        title = f"{title}, the last {_MOST_DRIFTS}"
    return [(title, {"columns": ["event", "what"], "rows": rows[-_MOST_DRIFTS:]})]


def _own_tables(account: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The tables that a learner has beside those of all."""
    return [
        (str(each["title"]), {name: each[name] for name in ("columns", "rows", "units") if name in each})
        for each in account.get("tables") or ()
    ]


def _cost(account: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    measured = account["measured"]
    if not measured:
        return []
    rows = [
        ["events a second, learning alone", f"{measured['events_per_second']:,.0f}"],
        ["time an event, median", f"{measured['p50_us']:,.0f} µs"],
        ["time an event, 99 %", f"{measured['p99_us']:,.0f} µs"],
        ["memory of the process at the end", f"{measured['memory_bytes'] / 2**20:,.0f} MiB"],
    ]
    return [("Cost, measured over whole blocks of events", {"columns": ["what", "measured"], "rows": rows})]


def _aside(account: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    rows = [[str(reason), count] for reason, count in account["aside"].items()]
    return [("Events set aside", {"columns": ["reason", "events"], "rows": rows})] if rows else []


def _stretch(account: Mapping[str, Any], each: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A stretch and the events that the learner was most wrong about there."""
    main = account["main"]
    said = {"accuracy": "right", "hit_rate": "among the first ten"}.get(main)
    shown = shown_figure(main, 100 * (1 - each["error"])) if said is not None else f"{each['error']:.4g}"
    title = f"events {each['from']:,} to {each['to']:,}: {shown} {said or _called(main if main == 'bits_per_byte' else 'mae')}"
    examples: Sequence[Mapping[str, Any]] = each["examples"]
    features = list(dict.fromkeys(name for example in examples for name in example["values"]))
    sure = any("confidence" in example for example in examples)
    named = any("id" in example for example in examples)
    columns = ["event", *(["id"] if named else []), "answer", *(["probability"] if sure else []), "label"]
    rows = [
        [
            example["event"],
            *([example.get("id", "")] if named else []),
            _cell(example["answer"]),
            *([_cell(example.get("confidence"))] if sure else []),
            _cell(example["label"]),
            *(_cell(example["values"].get(name)) for name in features),
        ]
        for example in examples
    ]
    return title, {"columns": [*columns, *map(short, features)], "rows": rows}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
