"""The card of packages as one JSON document: what was judged, on what, at what speed, at what cost, and what could not be told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from mapsto.cli.evaluate.examples import Domain, opened
from mapsto.cli.evaluate.explainer import Explainer
from mapsto.cli.evaluate.judge import Doc, judged
from mapsto.cli.evaluate.leakage import chosen_by, known_to, seen_in
from mapsto.cli.evaluate.speed import speed_of
from mapsto.cli.evaluate.subjects import Subject, fingerprint_of, same_recipe, size_of, training_of
from mapsto.report.build import environment, t95
from mapsto.report.card import SCHEMA
from mapsto_runtime.shown import few, short

__all__ = ["card_of"]

Watch: TypeAlias = Callable[[str, int | None, int], None]
_MAIN = {"classes": "accuracy", "labels": "accuracy", "values": "rmse", "tags": "span_f1", "embeddings": "accuracy"}


def card_of(
    subjects: Sequence[Subject],
    domains: Sequence[tuple[str, Path]],
    *,
    target: str | None,
    split: str | None,
    timed: bool,
    watch: Watch,
    explain: bool = False,
) -> Doc:
    """The card as JSON, of the schema `mapsto.report.card.SCHEMA`.

    Parameters
    ----------
    subjects
        The packages, all of which answer with the same kind of thing.
    domains
        Names and paths of the data.
    target, split
        As the command's options.
    timed
        Whether speed and memory are measured.
    watch
        Is told of progress: (what is read, how many there are, how many more were read).
    explain
        Whether a few answers to each domain are explained.
    """
    packages: list[Doc] = []
    notes: list[str] = []
    warnings: list[str] = []
    read: list[Doc] = []
    for subject in subjects:
        results: dict[str, Doc] = {}
        notes += subject.notes
        known, chosen = known_to(subject), chosen_by(subject)
        explainer = Explainer(subject) if explain else None
        notes += explainer.notes if explainer is not None else []
        for name, path in domains:
            predictor = subject.predictor
            domain = opened(name, path, predictor.signature, target=target, split=split, manifest=predictor.manifest)
            title = name if len(subjects) == 1 else f"{subject.name}: {name}"
            found = judged(
                subject.predictor,
                domain,
                advance=lambda more, t=title, n=domain.total: watch(t, n, more),
                explainer=explainer,
            )
            if subject is subjects[0]:
                read.append(_domain(domain, found))
            digests: list[str] = found.pop("data")["_digests"]
            found["leakage"], said = seen_in(known, digests, domain.kind, where=str(path))
            warnings += said
            if chosen is not None and (count := chosen.count_in(digests)):
                found["leakage"]["validation_seen"] = count
                warnings.append(
                    f"{path}: {count} of {len(digests)} samples are among the run's validation data, by which it may have chosen, so that "
                    "figures here may be too good"
                )
            results[name] = found
            _say_skipped(domain)
            _say_twice(domain, read[-1])
            notes += domain.notes
            warnings += domain.warnings
        packages.append(_package(subject, results, timed))
        if explainer is not None and explainer.absent:
            packages[-1]["explanations"] = {"absent": explainer.absent}
    kind = str(next(iter(packages[0]["results"].values()))["kind"])
    card: Doc = {
        "schema": SCHEMA,
        "what": "card",
        "title": " and ".join([short(subject.name) for subject in subjects[:3]])
        + (f" and {len(subjects) - 3} more" if len(subjects) > 3 else ""),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kind": kind,
        "main": _MAIN[kind],
        "packages": packages,
        "data": read,
        "transfer": _transfer(packages, [name for name, _ in domains], _MAIN[kind]),
        "seeds": _over_seeds(subjects, packages),
        "absent": [],
        "warnings": list(dict.fromkeys(warnings)),
        "notes": list(dict.fromkeys(notes)),
        "environment": environment(),
    }
    card["absent"] = _absent(card, timed)
    return card


def _domain(domain: Domain, found: Doc) -> Doc:
    data: Doc = {name: value for name, value in found["data"].items() if not name.startswith("_")}
    return {
        "name": domain.name,
        "path": str(domain.path),
        "kind": domain.kind,
        "split": domain.split,
        "target": domain.target,
        **data,
        "skipped_first": domain.skipped[:8],
    }


def _say_skipped(domain: Domain) -> None:
    if domain.skipped:
        first = few([f"{each['source']} ({each['reason']})" for each in domain.skipped], 3)
        count = len(domain.skipped)
        which = "1 sample could not be read and is" if count == 1 else f"{count} samples could not be read and are"
        domain.warnings.append(f"{domain.path}: {which} not judged: {first}")


def _say_twice(domain: Domain, data: Doc) -> None:
    count, others = data["duplicates"], data["contradictions"]
    if others:
        domain.warnings.append(
            f"{domain.path}: {others} sample{'s are' if others > 1 else ' is'} there more than once and labelled differently, so that not "
            "all answers can be right; mend the labels"
        )
    elif count and domain.kind != "table":
        which = "1 sample is" if count == 1 else f"{count} samples are"
        domain.notes.append(f"{domain.path}: {which} the same as another")


def _package(subject: Subject, results: dict[str, Doc], timed: bool) -> Doc:
    signature, tree = subject.predictor.signature, subject.predictor.manifest
    before = signature.preprocessing
    takes = f"images, {before.size[0]} × {before.size[1]}, {'colour' if before.channels == 3 else 'grey'}"
    if before.columns:
        takes = f"rows of {len(before.columns)} columns"
    elif before.kind == "text":
        takes = f"{'texts' if before.texts == 1 else 'pairs of texts'} of at most {before.length} tokens"
    elif before.kind == "none":
        takes = f"{signature.inputs[0].dtype} of shape {' × '.join(map(str, signature.inputs[0].shape[1:]))}"
    return {
        "name": subject.name,
        "path": str(subject.folder),
        "fingerprint": fingerprint_of(subject),
        "runtime": subject.predictor.checked.runtime,
        "format": tree["format"],
        "takes": takes,
        "answers": signature.answers if signature.classes is not None else "embeddings",
        "classes": list(signature.classes or ()),
        "size": size_of(subject),
        "speed": speed_of(subject.folder) if timed else {"absent": "--no-speed was given"},
        "training": training_of(subject),
        "results": results,
    }


def _transfer(packages: Sequence[Doc], domains: Sequence[str], main: str) -> Doc:
    """The main figure of each package (a row) on each domain (a column)."""
    rows = [
        {"package": package["name"], "cells": [package["results"][name]["metrics"].get(main) for name in domains]}
        for package in packages
    ]
    unit = next((cell["unit"] for row in rows for cell in row["cells"] if cell), "")
    return {"figure": main, "unit": unit, "domains": list(domains), "rows": rows}


def _over_seeds(subjects: Sequence[Subject], packages: Sequence[Doc]) -> Doc | None:
    """Mean and CI95 of each figure on each domain, where the packages are of one recipe with different seeds."""
    seeds = same_recipe(subjects)
    if seeds is None:
        return None
    metrics: Doc = {}
    for domain, first in packages[0]["results"].items():
        for name, metric in first["metrics"].items():
            values = [package["results"][domain]["metrics"].get(name, {}).get("value") for package in packages]
            if None in values:
                continue
            mean = sum(values) / len(values)
            metrics[f"{domain}: {name}"] = {
                "value": mean,
                "ci95": t95(values),
                "values": values,
                "unit": metric["unit"],
            }
    return {"seeds": seeds, "metrics": metrics}


def _absent(card: Doc, timed: bool) -> list[Doc]:
    """What the card has no figure for, and why."""
    found: list[Doc] = []
    for package in card["packages"]:
        name = package["name"] if len(card["packages"]) > 1 else ""

        def lacks(figure: str, reason: str, name: str = name) -> None:
            found.append({"figure": f"{figure} of {name}" if name else figure, "reason": reason})

        training = package["training"]
        if card["kind"] == "classes" and any(each["confusion"] is None for each in package["results"].values()):
            lacks("table of confusions", f"{len(package['classes'])} classes are too many to show")
        leakage = next(iter(package["results"].values()))["leakage"]
        if "absent" in leakage:
            lacks("whether it was made with these samples", leakage["absent"])
        if "absent" in package["speed"]:
            lacks("speed and peak memory", package["speed"]["absent"])
        elif package["speed"]["memory_peak"] is None:
            lacks("peak memory", "this system does not tell it")
        if "explanations" in package:
            lacks("explanations", package["explanations"]["absent"])
        if training is None:
            lacks("training cost", "no run's report lies beside the package")
        else:
            if training["peak_memory"] is None:
                lacks("peak memory of training", "the run did not record it")
            if training["gap"] is None:
                lacks("gap between training and validation", "no step of the run had validation data")
        if "parameters" not in package["size"]:
            lacks("parameters", "the package's manifest does not tell")
    if card["seeds"] is None and not any((each["training"] or {}).get("seeds") for each in card["packages"]):
        what = "one package was given" if len(card["packages"]) == 1 else "these are not runs of one recipe"
        found.append({"figure": "spread over seeds", "reason": f"{what}; give runs of a recipe with different seeds"})
    if len(card["data"]) < 2:
        found.append({"figure": "transfer between domains", "reason": "one domain was given; give --data again"})
    return found
