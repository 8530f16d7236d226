"""An evaluation card as a page and as Markdown, from its JSON; what the card does not hold is left out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mapsto.errors import SpecError
from mapsto.intervals import interval_text
from mapsto.report import card_charts, charts, page
from mapsto.report.explained_cases import explained_case, strongest
from mapsto.report.gaps import Gap, gap_table
from mapsto.report.page import Doc, Figure, Tile, View
from mapsto.report.template_environment import environment
from mapsto.store import write_atomically
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["FIGURES", "SCHEMA", "markdown", "metric_text", "render", "save", "unjudged"]

SCHEMA = 1
"""The version of card.json."""

FIGURES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "accuracy_5_shot": "accuracy with five examples a class",
    "balanced_accuracy": "balanced accuracy (mean recall)",
    "macro_f1": "macro F1",
    "top_5": "right among the five likeliest",
    "most_frequent": "accuracy of always answering the most frequent class",
    "all_right": "samples with every label right",
    "micro_f1": "F1 of all labels together",
    "span_f1": "F1 of spans",
    "span_precision": "spans that are right, of those said",
    "span_recall": "spans that are found, of those there",
    "words_right": "words with the right tag",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "share of variance explained, R²",
    "bias": "mean error",
    "rmse_of_mean": "root mean squared error of always answering the mean",
    "ece": "expected calibration error",
    "ece_by_chance": "what perfect probabilities would show of it, by chance",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "confidence": "mean confidence",
}
"""What figures are called."""


class _Case(NamedTuple):
    """A picture that was told wrong."""

    uri: str
    caption: str
    note: str
    width: int
    shown: int


class _Result(NamedTuple):
    """What a package came to on a domain, as shown."""

    title: str
    headline: str
    said: list[str]
    metrics: View | None
    figures: list[Figure]
    tables: list[tuple[str, View]]
    pictures: list[_Case]
    cases: View | None
    explained: list[Doc]
    """Answers and what they rest on."""


def save(card: Doc, folder: Path) -> None:
    """Write ``card.json``, ``card.html`` and ``card.md``; each appears whole or not at all."""
    texts = {
        "card.json": json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "card.html": render(card),
        "card.md": markdown(card),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode("utf-8", "backslashreplace"))


def render(card: Doc) -> str:
    """The page as text. Raises `SpecError` for a card of another schema."""
    _require_schema(card)
    environment: Doc = dict(card["environment"])
    packages: Doc = environment.pop("packages", None) or {}
    several = len(card["packages"]) > 1
    results = [
        _result(result, package["name"] if several else "", name, card)
        for package in card["packages"]
        for name, result in package["results"].items()
    ]
    return (
        _environment()
        .get_template("card.html.j2")
        .render(
            title=card["title"],
            facts=_facts(card),
            tiles=_tiles(card),
            warnings=card["warnings"],
            notes=card["notes"],
            results=results,
            transfer=_transfer(card),
            seeds=list(_seeds(card)),
            cost=list(_cost(card)),
            training=_training(card),
            data=list(_data(card)),
            absent=card["absent"],
            environment=[(name.replace("_", " "), page._plain(value)) for name, value in page._flat(environment)],
            packages=sorted(packages.items()),
            schema=SCHEMA,
            script=page._script(),
            script_hash=base64.b64encode(sha256(page._script().encode()).digest()).decode(),
        )
    )


def markdown(card: Doc) -> str:
    """A model card in Markdown, with the headings and the front matter that the Hugging Face Hub reads."""
    _require_schema(card)
    first = card["packages"][0]
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            card=card,
            first=first,
            front=_front_matter(card),
            metrics=[
                (package["name"], domain, _called(name), metric_text(metric))
                for package in card["packages"]
                for domain, result in package["results"].items()
                for name, metric in _every_metric(result)
            ],
            per_class=(next(iter(first["results"].values())).get("per_class") or {}).get("rows") or [],
            facts=_facts(card),
            cost=[(name, _marked(view)) for name, view in _cost(card)],
            data=[(name, _marked(view)) for name, view in _data(card)],
            explained=[
                (domain, case["source"], case["label"], case["answer"], rests)
                for package in card["packages"][:1]
                for domain, result in package["results"].items()
                for case in result.get("explained") or []
                if (rests := strongest(case))
            ],
            transfer=_marked(transfer["view"]) if (transfer := _transfer(card)) is not None else None,
            cell=_escaped,
        )
    )


@cache
def _environment() -> Environment:
    return environment(autoescape=lambda name: name is not None and ".html" in name)


def _require_schema(card: Doc) -> None:
    if card.get("schema") != SCHEMA or card.get("what") != "card":
        raise SpecError(
            f"this card is of schema {card.get('schema')!r}, this version of mapsto reads {SCHEMA}",
            where="card.json",
            hint="evaluate again, or install the version of mapsto that made it",
        )


# ------------------------------------------------------------------------------------------------------------------ figures


def metric_text(metric: Mapping[str, Any]) -> str:
    """A metric with its unit and interval.

    >>> metric_text({"value": 95.0, "unit": "%", "low": 88.8, "high": 97.8, "ci95": 4.5})
    '95.0 % (88.8 to 97.8)'
    """
    unit = str(metric.get("unit") or "")
    value = float(metric["value"])
    text = f"{value:.1f}" if unit == "%" else f"{value:.4g}"
    interval = interval_text(metric, unit)
    return f"{text}{' ' + unit if unit else ''}{' ' + interval if interval else ''}"


def unjudged(result: Mapping[str, Any]) -> int:
    """How many samples of a domain are of classes that the package does not know, and in none of its figures."""
    return sum(int(each["samples"]) for each in result.get("unknown") or [])


def _called(name: str) -> str:
    base = name.rpartition(" ")[2]
    return name[: len(name) - len(base)] + FIGURES.get(base, base.replace("_", " "))


def _every_metric(result: Doc) -> Iterator[tuple[str, Doc]]:
    yield from result["metrics"].items()
    yield from ((result.get("calibration") or {}).get("metrics") or {}).items()


def _main_metric(card: Doc, package: Doc) -> tuple[str, Doc] | None:
    """The main figure on the first domain; of several outputs the first one's."""
    metrics: Doc = next(iter(package["results"].values()))["metrics"]
    name = next((name for name in metrics if name.rpartition(" ")[2] == card["main"]), None)
    return None if name is None else (name, metrics[name])


def _facts(card: Doc) -> list[str]:
    facts = [f"{datetime.fromisoformat(str(card['created'])):%d %B %Y, %H:%M}".lstrip("0")]
    samples = sum(int(each["samples"]) for each in card["data"])
    facts.append(f"{samples:,} samples" + (f" in {len(card['data'])} domains" if len(card["data"]) > 1 else ""))
    first = card["packages"][0]
    without = sum(map(unjudged, first["results"].values()))
    if without:
        facts[-1] += f", {samples - without:,} of them judged"
    facts.append(f"takes {first['takes']}")
    if first["classes"] and card["kind"] == "classes":
        facts.append(f"{len(first['classes'])} classes")
    facts.append(f"runs in {first['runtime']}")
    return facts


def _tiles(card: Doc) -> list[Tile]:
    package: Doc = card["packages"][0]
    domain, result = next(iter(package["results"].items()))
    found: list[Tile] = []
    main = _main_metric(card, package)
    if main is not None:
        value = page._plain(float(f"{main[1]['value']:.3g}")) + (" %" if main[1]["unit"] == "%" else "")
        found.append(Tile(value, f"{_called(main[0])}, {short(domain)}", interval_text(main[1], main[1]["unit"])))
    sure: Doc = (result.get("calibration") or {}).get("metrics") or {}
    if sure:
        note = f"perfect ones would show up to {sure['ece_by_chance']['high']:.2g} %"
        found.append(Tile(f"{sure['ece']['value']:.3g} %", "expected calibration error", note))
    speed: Doc = package["speed"]
    if speed.get("by_threads"):
        one = speed["by_threads"][0]
        note = f"{one['threads']} thread, {one['samples_per_s']:,.0f} a second in batches"
        found.append(Tile(f"{one['p50_ms']:.3g} ms", "a sample, median", note))
    size: Doc = package["size"]
    note = f"{charts.short(size['parameters'])} parameters" if "parameters" in size else ""
    found.append(Tile(page._bytes(size["package_bytes"]), "the package", note))
    if speed.get("memory_peak"):
        grown = page._bytes(speed["memory_peak"] - speed["memory_before"])
        found.append(Tile(page._bytes(speed["memory_peak"]), "peak memory", f"{grown} by the model"))
    training: Doc | None = package["training"]
    if training is not None:
        found.append(Tile(page._duration(float(training["wall_s"])), "the run", f"seed {training['seed']}"))
    return found


# ------------------------------------------------------------------------------------------------------------------ results


def _result(result: Doc, package: str, domain: str, card: Doc) -> _Result:
    title = f"{short(package)} on {short(domain)}" if package else f"On {short(domain)}"
    main = next((each for name, each in result["metrics"].items() if name.rpartition(" ")[2] == card["main"]), None)
    part = _Result(
        title=title,
        headline=metric_text(main) if main is not None else "",
        said=list(_said(result)),
        metrics=_metrics(result),
        figures=[],
        tables=[],
        pictures=[_case(case) for case in result.get("worst") or [] if "picture" in case],
        cases=_cases([case for case in result.get("worst") or [] if "picture" not in case]),
        explained=[explained_case(case) for case in result.get("explained") or []],
    )
    if result.get("confusion"):
        square = page._square(result["confusion"])
        if square:
            caption = "Confusions: a row is a true class, shaded by its share"
            part.figures.append(Figure(charts.heat_map(square[1], square[0]), caption))
    sure: Doc | None = result.get("calibration")
    if sure:
        caption = "Calibration: how often answers of each confidence are right; bars should end on the dashed line"
        part.figures.append(Figure(card_charts.reliability(sure["bins"]["rows"]), caption))
    for each in result.get("outputs") or []:
        name, points = str(each["name"]), each["points"]
        svg = card_charts.against(points["value"], points["answer"], name=short(name))
        part.figures.append(Figure(svg, f"{short(name)}: answers against values; dashed where they are the same"))
        svg = card_charts.histogram(each["residuals"], x_name="answer − value")
        part.figures.append(Figure(svg, f"{short(name)}: how errors are spread"))
    if result.get("per_class"):
        part.tables.append(("Classes" if card["kind"] == "classes" else "Labels", page._view(result["per_class"])))
    if result.get("episodes"):
        part.tables.append(
            (
                f"Tasks of classes that it never saw, adapted to by {result['adapted_by']}",
                page._view(result["episodes"]),
            )
        )
    if result.get("unknown"):
        part.tables.append(("Classes that the package does not know", _unknown(result["unknown"])))
    return part


def _said(result: Doc) -> Iterator[str]:
    absent: Sequence[str] = result.get("absent_classes") or ()
    if absent:
        named = few([f"'{short(name)}'" for name in absent])
        yield f"There is no sample of {len(absent)} of the package's classes: {named}."
    warm: Doc = (result.get("calibration") or {}).get("temperature") or {}
    if warm:
        before = result["calibration"]["metrics"]
        temperature, ece = warm["temperature"]["value"], before["ece"]["value"]
        better = warm["nll"]["value"] < before["nll"]["value"] - 0.005
        how = "too sure" if temperature > 1 else "not sure enough"
        yield (
            f"Its probabilities are {how}: scores divided by a temperature of {temperature:.2f} would have an expected calibration error "
            f"of {warm['ece']['value']:.1f} % instead of {ece:.1f} % (each half of the samples with the other half's temperature)."
            if better
            else f"A temperature would not make its probabilities better (the best one is {temperature:.2f})."
        )


def _metrics(result: Doc) -> View | None:
    rows = [
        [
            page.Cell(_called(name)),
            page.Cell(_value_text(metric), repr(metric["value"]), None, interval_text(metric, metric["unit"])),
            page.Cell(page._plain(metric["n"]) if metric.get("n") is not None else ""),
        ]
        for name, metric in _every_metric(result)
    ]
    return View(["figure", "value", "n"], [False, True, True], rows) if rows else None


def _value_text(metric: Doc) -> str:
    return f"{metric['value']:.2f} %" if metric["unit"] == "%" else f"{metric['value']:.4g} {metric['unit']}".strip()


def _unknown(rows: Sequence[Doc]) -> View:
    columns = ["class", "samples", "mostly taken for", "so many of them", "mean confidence"]
    cells = [
        [each["class"], each["samples"], each["taken_for"], each["share_percent"], each["confidence"]] for each in rows
    ]
    return page._view({"columns": columns, "rows": cells, "units": {"so many of them": "%"}})


def _case(case: Doc) -> _Case:
    uri = str(case["picture"])
    width = int.from_bytes(base64.b64decode(uri.removeprefix(page._PNG)[:32])[16:20], "big") or 1
    sure = f" ({case['confidence']:.2f})" if "confidence" in case else ""
    caption = f"{short(str(case['label']))} → {short(str(case['answer']))}{sure}"
    return _Case(uri, caption, short(Path(str(case["source"])).name, 36), width, width * max(1, 96 // width))


def _cases(cases: Sequence[Doc]) -> View | None:
    if not cases:
        return None
    names = list(dict.fromkeys(name for case in cases for name in case.get("cells") or {}))
    sure = any("confidence" in case for case in cases)
    rows = [
        [
            str(case["source"]),
            str(case["label"]),
            str(case["answer"]),
            *([f"{case['confidence']:.2f}"] if sure else []),
            *(str((case.get("cells") or {}).get(name, "")) for name in names),
        ]
        for case in cases
    ]
    return page._view(
        {"columns": ["sample", "right", "answer", *(["probability"] if sure else []), *names], "rows": rows}
    )


# --------------------------------------------------------------------------------------------------------- transfer and seeds


def _transfer(card: Doc) -> dict[str, Any] | None:
    matrix: Doc = card["transfer"]
    if len(matrix["domains"]) * len(matrix["rows"]) < 2 or not any(
        cell for row in matrix["rows"] for cell in row["cells"]
    ):
        return None
    names = [short(name) for name in matrix["domains"]]
    rows = [[row["package"], *row["cells"]] for row in matrix["rows"]]
    view = page._view({"columns": ["package", *names], "rows": rows, "units": dict.fromkeys(names, matrix["unit"])})
    figure = None
    cells: list[list[Doc | None]] = [row["cells"] for row in matrix["rows"]]
    if matrix["unit"] == "%" and all(cell for row in cells for cell in row) and len(cells) > 1:
        values = [[(cell or {"value": 0.0})["value"] / 100 for cell in row] for row in cells]
        packages = [short(row["package"]) for row in matrix["rows"]]
        svg = charts.matrix(values, packages, names, row_name="package", column_name="domain")
        figure = Figure(svg, f"{FIGURES.get(matrix['figure'], matrix['figure'])} as a share, packages against domains")
    caption = f"{FIGURES.get(matrix['figure'], matrix['figure'])}, on the classes that package and data share"
    return {
        "view": view,
        "figure": figure,
        "caption": caption if card["kind"] == "classes" else caption.partition(",")[0],
    }


def _seeds(card: Doc) -> Iterator[tuple[str, View]]:
    if card["seeds"] is not None:
        view = page._seeds(card["seeds"])
        if view is not None:
            yield f"Mean over {len(card['seeds']['seeds'])} seeds with its 95 % interval, evaluated here", view
    for package in card["packages"]:
        own: Doc | None = (package["training"] or {}).get("seeds")
        view = page._seeds(own) if own else None
        if view is not None:
            yield f"{short(package['name'])}: mean over seeds with its 95 % interval, by the run's record", view


# --------------------------------------------------------------------------------------------------------------------- cost


def _cost(card: Doc) -> Iterator[tuple[str, View]]:
    packages: list[Doc] = card["packages"]
    rows = [
        [
            each["name"],
            each["size"]["package_bytes"],
            each["size"]["model_bytes"],
            each["size"].get("parameters"),
            each["size"].get("macs"),
        ]
        for each in packages
    ]
    columns = ["package", "package bytes", "model bytes", "parameters", "macs"]
    units = {"package bytes": "B", "model bytes": "B", "macs": "MAC"}
    yield "Size", page._view({"columns": columns, "rows": rows, "units": units})
    timed = [each for each in packages if each["speed"].get("by_threads")]
    if not timed:
        return
    columns = ["package", "threads", "median", "95 %", "99 %", "spread", "samples a second, alone", "in batches"]
    rows = [
        [
            each["name"],
            one["threads"],
            one["p50_ms"],
            one["p95_ms"],
            one["p99_ms"],
            one["std_ms"],
            1e3 / one["p50_ms"],
            one["samples_per_s"],
        ]
        for each in timed
        for one in each["speed"]["by_threads"]
    ]
    units = dict.fromkeys(("median", "95 %", "99 %", "spread"), "ms")
    yield "Time of one sample", page._view({"columns": columns, "rows": rows, "units": units})
    columns = ["package", "opened in", "first answer", "process with one answer", "peak memory", "grown by the model"]
    rows = [
        [
            each["name"],
            page._duration(each["speed"]["open_s"]),
            page._duration(each["speed"]["first_ms"] / 1e3),
            page._duration(each["speed"]["process_s"]) if "process_s" in each["speed"] else None,
            page._bytes(each["speed"]["memory_peak"]) if each["speed"]["memory_peak"] else None,
            page._bytes(each["speed"]["memory_peak"] - each["speed"]["memory_before"])
            if each["speed"]["memory_peak"]
            else None,
        ]
        for each in timed
    ]
    yield "Cold start and memory", page._view({"columns": columns, "rows": rows})


def _training(card: Doc) -> dict[str, Any] | None:
    known = [(each["name"], each["training"]) for each in card["packages"] if each["training"] is not None]
    if not known:
        return None
    tables: list[tuple[str, View]] = []
    figures: list[Figure] = []
    rows = [
        [
            name,
            each["recipe"],
            each["seed"],
            page._duration(float(each["wall_s"])),
            page._duration(float(each["seconds"])),
            each["from_store"],
            each["threads"],
            page._bytes(each["peak_memory"]) if each["peak_memory"] else None,
        ]
        for name, each in known
    ]
    columns = [
        "package",
        "recipe",
        "seed",
        "whole run",
        "steps that ran",
        "steps from the store",
        "threads",
        "peak memory",
    ]
    tables.append(("What it cost", page._view({"columns": columns, "rows": rows})))
    for name, each in known:
        if each["steps"]:
            steps = [
                [
                    step["step"],
                    step["mapping"],
                    "from the store" if step["from_store"] else page._duration(float(step["seconds"])),
                ]
                for step in each["steps"]
            ]
            tables.append(
                (f"Steps of {short(name)}", page._view({"columns": ["step", "mapping", "time"], "rows": steps}))
            )
        gap: Doc | None = each["gap"]
        if gap is not None:
            own = Gap(gap["figure"], gap["training"], gap["held_out"], gap["start"], gap["judge"])
            tables.append((f"Over-fitting of {short(name)}, {gap['step']}", page._view(gap_table(own))))
        losses: Doc | None = each["losses"]
        if losses is not None:
            curves = {key: (losses["epoch"], losses[key]) for key in ("train_loss", "val_loss")}
            svg = charts.lines(curves, x_name="epoch", y_name="loss")
            figures.append(Figure(svg, f"{short(name)}, {losses['step']}: loss on training and validation samples"))
    return {"tables": tables, "figures": figures}


def _data(card: Doc) -> Iterator[tuple[str, View]]:
    columns = ["domain", "path", "samples", "classes", "not read", "duplicates", "sizes", "formats", "fingerprint"]
    rows = [
        [
            short(each["name"]),
            short(each["path"] + (f" ({each['split']})" if each["split"] else ""), 60),
            each["samples"],
            len(each["classes"]) or None,
            each["skipped"],
            each["duplicates"],
            _counts(each["sizes"]) or None,
            _counts(each["modes"]) or None,
            each["fingerprint"][:12],
        ]
        for each in card["data"]
    ]
    kept = [place for place in range(len(columns)) if any(row[place] is not None for row in rows)]
    yield (
        "What was judged",
        page._view(
            {"columns": [columns[place] for place in kept], "rows": [[row[place] for place in kept] for row in rows]}
        ),
    )


def _counts(counts: Mapping[str, int]) -> str:
    return few([f"{name}: {count:,}" for name, count in counts.items()], 3)


# ----------------------------------------------------------------------------------------------------------------- markdown


def _front_matter(card: Doc) -> str:
    """What the Hugging Face Hub reads of a model card, as YAML."""
    import yaml

    task = {"classes": "image-classification", "values": "tabular-regression", "tags": "token-classification"}.get(
        card["kind"], "other"
    )
    if card["data"][0]["kind"] == "table" and card["kind"] == "classes":
        task = "tabular-classification"
    results = [
        {
            "task": {"type": task},
            "dataset": {"name": domain, "type": data["kind"], "revision": data["fingerprint"][:12]},
            "metrics": [
                {"type": name, "name": _called(name), "value": round(metric["value"], 4)}
                for name, metric in _every_metric(result)
            ],
        }
        for (domain, result), data in zip(card["packages"][0]["results"].items(), card["data"], strict=True)
    ]
    tree: Doc = {
        "library_name": "mapsto",
        "pipeline_tag": task,
        "tags": ["mapsto", card["packages"][0]["runtime"]],
        "model-index": [{"name": card["packages"][0]["name"], "results": results}],
    }
    if task == "other":
        del tree["pipeline_tag"]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def _marked(view: View) -> str:
    """A table in Markdown."""
    lines = [
        "| " + " | ".join(map(_escaped, view.columns)) + " |",
        "|" + "|".join("---:" if numeric else "---" for numeric in view.numeric) + "|",
    ]
    lines += [
        "| " + " | ".join(_escaped(f"{cell.text} {cell.interval}".strip()) for cell in row) + " |" for row in view.rows
    ]
    return "\n".join(lines)


def _escaped(text: Any) -> str:
    r"""A text in a cell of a table of Markdown.

    >>> print(_escaped("a|b <i>\nc"))
    a\|b &lt;i> c
    """
    plain = " ".join(str(text).split())
    for sign in ("\\", "|", "*", "_", "`", "["):
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("&", "&amp;").replace("<", "&lt;")
