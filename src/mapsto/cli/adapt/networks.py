"""From a pretrained network and a few examples to a package, as a recipe that is run: what ``mapsto adapt`` does without a learner."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.cli.adapt.ways import sure_of, ways_in
from mapsto.errors import DomainError, command
from mapsto.search.adapt import TEXT_WAYS, Examples, Small, TextWay, adaptation_recipe, head_recipe, share_to_fit

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Network, Samples
    from mapsto.run.result import Listener, RunResult
    from mapsto.search.compress import Limit

__all__ = ["Asked", "adapt_head", "adapt_network", "figures_of", "head_figures", "network_node", "rows_of"]

_EPOCHS = 30
"""Passes over the examples that fine-tuning is taken to need, for the estimate of its time."""
_CONTRASTIVE_EPOCHS = 8
"""Of `adapt.contrastive`, whose lower layers are run once."""
_BACKWARD = 3
"""Times of a forward pass that a step of training takes."""
_FOLDS = 3
"""Folds by which fine-tuning is judged: each takes as long as the training itself."""
_TRIES = 4
"""Networks that are made to meet the limits, each smaller than the one before."""
_LEAST_SHARE = 0.05
_FIGURES = {
    "bytes": "package.size.bytes",
    "parameters": "small.size.parameters",
    "macs": "small.size.macs",
    "latency": "package.latency.p50",
}
"""Where a report has what is limited."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be made, and where it goes."""

    examples: Examples
    title: str
    folder: Path
    store: str | None = None
    seed: int = 0
    minutes: float = 10.0
    """How long fine-tuning may take."""
    trials: int | None = None
    """How many settings of fine-tuning are searched; None: its defaults are taken."""
    quiet: bool = False
    """Whether the search says nothing on standard output."""
    limits: Sequence[Limit] = ()
    typed: Sequence[str] = field(default=())
    """The options of the command, for the report."""


def network_node(network: Network | str, folder: Path) -> dict[str, Any]:
    """The step that gives a network: a mapping's name with its defaults, or a network at hand, which is kept in ``folder/network``."""
    from mapsto.nn.network.serialization import saved
    from mapsto.store import write_atomically

    if isinstance(network, str):
        return {network: {}}
    place = folder / "network"
    for name, content in saved(network).items():
        write_atomically(place / name, content)
    return {"networks.saved": {"folder": str(place.resolve())}}


def adapt_network(
    node: dict[str, Any], network: Network, samples: Samples, asked: Asked, ctx: Context, listener: Listener
) -> dict[str, Any]:
    """Run the recipe, smaller each time until its package keeps the limits; that one goes into the folder, and its report is given.

    Parameters
    ----------
    node
        The step that gives `network`.
    network
        The pretrained network, which tells how long fine-tuning would take.
    samples
        The labelled examples as the network reads them.

    Raises
    ------
    DomainError
        No network that is made keeps the limits.
    """
    _require_within_reach(network, asked)
    folds = _folds_of_tuning(network, samples, asked, ctx)
    if asked.trials is not None:
        asked = _searched(node, asked, folds, ctx)

    def recipe(small: Small | None) -> str:
        return adaptation_recipe(
            network=node, examples=asked.examples, title=asked.title, folds=folds, small=small, seed=asked.seed
        )

    ways: tuple[TextWay, ...] = tuple(TEXT_WAYS) if network.signature.preprocessing.kind == "text" else ()
    return _within_limits(
        recipe, ways, lambda report: _right(report, samples, folds), network, samples, asked, ctx, listener
    )


def _searched(node: dict[str, Any], asked: Asked, folds: int, ctx: Context) -> Asked:
    """The same with the settings of fine-tuning that were best in a search."""
    from mapsto.cli.search import searched
    from mapsto.search.adapt_space import adaptation_space, tuning_of

    if not folds:
        ctx.note("no settings are searched, as fine-tuning is not tried")
        return asked
    best = searched(
        adaptation_space(network=node, examples=asked.examples, title=asked.title, folds=folds, seed=asked.seed),
        asked.folder / "search",
        first=[{}],
        trials=asked.trials,
        minutes=None,
        store=asked.store,
        threads=None,
        trust=None,
        seed=asked.seed,
        plan=False,
        as_json=asked.quiet,
    )
    if best is None:
        return asked
    ctx.note(
        f"settings of fine-tuning were chosen among {asked.trials} by the accuracy that is told, which is so a little too good"
    )
    return dataclasses.replace(
        asked, examples=dataclasses.replace(asked.examples, tuning=tuning_of(best.holes, asked.examples))
    )


def adapt_head(
    node: dict[str, Any],
    network: Network,
    head: dict[str, Any],
    samples: Samples,
    asked: Asked,
    ctx: Context,
    listener: Listener,
    *,
    ways: tuple[TextWay, ...] = tuple(TEXT_WAYS),
) -> dict[str, Any]:
    """As `adapt_network`, of a head that is no classifier (`head`, its step without its data) on an encoder of texts that stays as it is.

    `ways` are those to make the encoder small that leave what the head reads.
    """

    def recipe(small: Small | None) -> str:
        return head_recipe(
            network=node, examples=asked.examples, head=head, title=asked.title, small=small, seed=asked.seed
        )

    return _within_limits(recipe, ways, lambda _: "", network, samples, asked, ctx, listener)


def _within_limits(
    recipe: Callable[[Small | None], str],
    ways: tuple[TextWay, ...],
    right: Callable[[Mapping[str, Any]], str],
    network: Network,
    samples: Samples,
    asked: Asked,
    ctx: Context,
    listener: Listener,
) -> dict[str, Any]:
    """Run recipes, each of a smaller network, until a package keeps the limits; `right` says how often one is right, in words."""
    from mapsto.nn.export.training_digests import with_training_digests
    from mapsto.nn.network.head import require_head_path
    from mapsto.report import build as reports

    share, over = 1.0, ""
    for number in range(len(ways) or _TRIES):
        way = ways[number] if ways else None
        small = Small(head=require_head_path(network.module()), share=share, texts=way) if asked.limits else None
        text = recipe(small)
        result = _run(text, asked, listener)
        report = reports.build(result) | {"command": {"recipe": "adapt", "options": list(asked.typed)}}
        over = _over(report, asked.limits)
        if not over:
            package = with_training_digests(
                result.value(), samples.inputs, ctx, columns=_columns_of(asked.examples.labelled)
            )
            reports.save(report, asked.folder, recipe_yaml=text, package=package)
            return report
        if way is not None:
            ctx.note(f"{over}, with {TEXT_WAYS[way]}{right(report)}")
            continue
        share = _next_share(report, asked.limits, share)
        if share < _LEAST_SHARE:
            break
        ctx.note(f"{over}: {100 * share:.0f} % of the parameters are tried")
    raise _out_of_reach(f"{over}, and less is left of the network than can be adapted without training", asked)


def _columns_of(labelled: Mapping[str, Any]) -> dict[str, Any] | None:
    """The columns of a table of texts, which the package remembers; None of other data."""
    ((kind, fields),) = labelled.items()
    names = {"text": ("text", "target"), "tags": ("tokens", "tags")}.get(kind)
    if names is None:
        return None
    found = {
        role: [fields[name]] if isinstance(fields[name], str) else list(fields[name])
        for role, name in zip(("text", "target"), names, strict=True)
    }
    return {**found, "separator": fields["separator"]} if "separator" in fields else found


def _right(report: Mapping[str, Any], samples: Samples, folds: int) -> str:
    """How often the small network is right, in words; empty where that is not known."""
    accuracy = figures_of(report, samples, folds).get("accuracy_percent")
    return "" if accuracy is None else f" (right on {accuracy:.4g} % by cross-validation)"


def _require_within_reach(network: Network, asked: Asked) -> None:
    """Raises `DomainError`, for a limit that not even the smallest network that is tried can keep."""
    if network.signature.preprocessing.kind == "text":
        return
    parameters = sum(each.numel() for each in network.module().parameters())
    least = math.floor(parameters * _LEAST_SHARE)
    for limit in asked.limits:
        if limit.kind in ("bytes", "parameters") and limit.most < least:
            raise _out_of_reach(
                f"the network has {parameters:,} parameters, and with fewer than {least:,} of them, a byte each, it is not adapted without "
                f"training, which is more than {limit.text}",
                asked,
            )


def _out_of_reach(what: str, asked: Asked) -> DomainError:
    return DomainError(
        what,
        where="--limit",
        hint="raise the limit, or leave it out and let the package be trained smaller: `"
        + command("mapsto compress {run} FOLDER --limit {limit}", run=asked.folder, limit=asked.limits[0].text)
        + "`",
    )


def _run(text: str, asked: Asked, listener: Listener) -> RunResult:
    from mapsto.recipe.reader import parse_recipe
    from mapsto.run.executor import execute
    from mapsto.store import Store

    return execute(
        parse_recipe(text),
        store=Store(asked.store),
        seed=asked.seed,
        listener=listener,
        logs=asked.folder / "logs",
    )


# ------------------------------------------------------------------------------------------------------------ fine-tuning


def _folds_of_tuning(network: Network, samples: Samples, asked: Asked, ctx: Context) -> int:
    """The folds by which fine-tuning is judged; 0 where it is not tried, which is said."""
    import numpy as np

    from mapsto.nn.adapt.top_layers import share_of_layers

    least = int(np.bincount(samples.labels, minlength=len(samples.classes)).min())
    if not asked.minutes or least < 2:
        return 0
    if asked.limits and asked.examples.out_of_scope is not None:
        ctx.note(
            "tuning is not tried: within a limit no frozen branch is left, and examples that an embedding was tuned on do not show how far "
            "a text may be"
        )
        return 0
    folds = min(_FOLDS, least)
    epochs: float = _EPOCHS
    if asked.examples.contrastive:
        epochs = _CONTRASTIVE_EPOCHS * share_of_layers(network, asked.examples.contrastive)
    seconds = _seconds_a_sample(network, samples, ctx) * _BACKWARD * epochs * len(samples) * (folds + 1)
    if seconds <= 60 * asked.minutes:
        return folds
    ctx.note(
        f"fine-tuning is not tried: with its cross-validation it would take about {math.ceil(seconds / 60)} minutes on this machine, and "
        f"{asked.minutes:g} are given; to try it: --minutes {math.ceil(seconds / 60)}"
    )
    return 0


def _seconds_a_sample(network: Network, samples: Samples, ctx: Context) -> float:
    """Of a forward pass, measured on a few examples."""
    from mapsto.nn.network.inference import embeddings

    module, few = network.module(), samples.inputs[:16]
    embeddings(module, few[:2], network.signature.preprocessing, device=ctx.device)
    began = time.perf_counter()
    embeddings(module, few, network.signature.preprocessing, device=ctx.device)
    return (time.perf_counter() - began) / len(few)


# ----------------------------------------------------------------------------------------------------------------- limits


def _figure(report: Mapping[str, Any], limit: Limit) -> float:
    """What the report has of what is limited, in the limit's unit."""
    path, _, name = _FIGURES[limit.kind].rpartition(".")
    step = next(step for step in report["steps"] if step["path"] == path)
    return float(step["report"]["metrics"][name]["value"])


def _over(report: Mapping[str, Any], limits: Sequence[Limit]) -> str:
    """Which limits the package does not keep, in words; empty where it keeps all."""
    said = [
        f"{limit.kind} {_number(value)}, which is more than {limit.text}"
        for limit in limits
        if (value := _figure(report, limit)) > limit.most
    ]
    return f"the package has {' and '.join(said)}" if said else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _next_share(report: Mapping[str, Any], limits: Sequence[Limit], share: float) -> float:
    """The share of the parameters that may keep the limits, from what the network of `share` has."""
    parameters = next(step for step in report["steps"] if step["path"] == "small.size")["report"]["metrics"][
        "parameters"
    ]
    found = [share * 0.95]
    for limit in limits:
        value = _figure(report, limit)
        if limit.kind == "bytes":
            found.append(share * share_to_fit(value, limit.most, float(parameters["value"])))
        elif value > limit.most:
            found.append(share * 0.97 * limit.most / value)
    return min(found)


# ---------------------------------------------------------------------------------------------------------------- figures


def figures_of(report: Mapping[str, Any], samples: Samples, folds: int) -> dict[str, Any]:
    """What the report says, as ``mapsto adapt`` prints it.

    Returns
    -------
    dict
        ``method``; ``ways``, a row each with its figures; ``accuracy_percent`` with both ends of its interval where something could be held
        out; with limits ``whole_accuracy_percent``, of the network before it was made smaller. Where the small one's head was fitted to
        the pool it is judged by that: then ``accuracy_percent`` is of the network before, and ``agreement_percent`` says for how many
        samples of the pool both give the same class. ``out_of_scope``, figure → value, where that is told. ``bytes`` of the
        package's model;
        ``warnings`` and ``notes``.
    """
    steps = {str(step["path"]): step for step in report["steps"]}
    tables = {path: step["report"]["tables"] for path, step in steps.items() if step["report"]}
    refitted = "ways" in tables.get("small", {})
    ways = ways_in(tables["small" if refitted else ("frozen" if "frozen" in steps else "adapted")]["ways"])
    taken = next(way for way in ways if way["taken"])
    method, accuracy = str(taken["way"]), taken["accuracy"]
    if "adapted.accuracy" in steps and not refitted:
        found = steps["adapted.accuracy"]["report"]
        accuracy = found["metrics"]["accuracy"]["value"]
        rows = {row[0]: row[1] for row in found["tables"]["candidates"]["rows"]}
        tuning = "contrastive tuning" if _is_contrastive(steps) else "fine-tuning"
        ways = [{"way": tuning, "accuracy": rows.get("tuned", ""), "taken": ""}, *ways]
        if rows.get("tuned") == accuracy and rows.get("frozen") != accuracy:
            method = tuning
            ways = [{**way, "taken": "yes" if way["way"] == method else ""} for way in ways]
    sure = sure_of(accuracy, samples, folds)
    agreement = tables.get("small", {}).get("agreement")
    if agreement is not None:
        sure["agreement_percent"] = agreement["rows"][0][1]
    if refitted and sure:
        sure["whole_accuracy_percent"] = _accuracy_before(steps)
    scope = tables.get("scoped", {}).get("out_of_scope")
    if scope is not None:
        sure["out_of_scope"] = {row[0]: row[1] for row in scope["rows"]}
    return {"method": method, "ways": ways, **sure, **_size_and_messages(steps)}


def head_figures(report: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The tables of the head that the package of `adapt_head` has, and ``bytes``, ``warnings`` and ``notes`` of the run."""
    steps = {str(step["path"]): step for step in report["steps"]}
    return (steps.get("small") or steps["adapted"])["report"]["tables"], _size_and_messages(steps)


def _size_and_messages(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Bytes of the package's model, and what all steps said."""
    said = {part: [text for step in steps.values() for text in step[part]] for part in ("warnings", "notes")}
    return {"bytes": steps["package.size"]["report"]["metrics"]["bytes"]["value"], **said}


def rows_of(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a report's table, by their columns."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _is_contrastive(steps: Mapping[str, Mapping[str, Any]]) -> bool:
    return steps.get("tuned", {}).get("name") == "adapt.contrastive"


def _accuracy_before(steps: Mapping[str, Mapping[str, Any]]) -> float:
    """How often the adapted network is right on held-out examples, in %, before limits make it smaller."""
    if "adapted.accuracy" in steps:
        return float(steps["adapted.accuracy"]["report"]["metrics"]["accuracy"]["value"])
    ways = ways_in(steps["adapted"]["report"]["tables"]["ways"])
    return float(next(way["accuracy"] for way in ways if way["taken"]))
