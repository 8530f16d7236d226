"""From a pretrained network and a few labelled examples to a recipe that makes a package of them: what ``mapsto adapt`` runs.

A text encoder may be trained further on a pool of unlabelled texts, and is kept as it was where the examples are not sure of the other.
The way to adapt is chosen by cross-validation on the labelled examples (`adapt.best`), with a pool of unlabelled ones where there is one.
Where there is time, fine-tuning (of texts contrastive tuning) is tried beside it, and judged on the same examples fold by fold. Where the
package is to be small, the adapted network is pruned to the share that is left, refitted and quantized on the pool without training, and
its head is fitted anew: to what the adapted network answers to the pool, without one to the examples. An encoder of texts
is first left with the words of its texts and quantized, then with half of its layers, then a static table of words takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mapsto.search.recipe_text import recipe_text

__all__ = [
    "MIN_COUNT",
    "TEXT_WAYS",
    "Examples",
    "Small",
    "TextWay",
    "adaptation_recipe",
    "head_recipe",
    "share_to_fit",
    "text_steps",
]

_SAMPLES = 256
"""Unlabelled samples that pruning and quantization look at."""
_SPARE = 0.99
"""Of the share of parameters that would just fit, what is taken: the number of channels is rounded."""


TextWay = Literal["int8", "layers", "static"]
TEXT_WAYS: dict[TextWay, str] = {
    "int8": "the words of the texts in int8",
    "layers": "half of the layers",
    "static": "a static table of words",
}
"""Ways to make an encoder of texts small, each smaller than the one before → in words."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The data as a recipe writes them."""

    labelled: dict[str, Any]
    pool: dict[str, Any] | None = None
    """Samples without labels."""
    test: dict[str, Any] | None = None
    """Labelled examples that are only reported on."""
    class_weights: str = "none"
    augment: bool = True
    """Whether random changes of the examples are tried."""
    contrastive: int = 0
    """Of texts: so many top layers are tuned by `adapt.contrastive`, in the place of `adapt.finetune`; 0: not that."""
    tuning: dict[str, Any] | None = None
    """Further fields of the step that tunes, the same in every fold."""
    pretraining: dict[str, Any] | None = None
    """The step that trains the network further on the pool, without its `data`; where the examples are not sure of it, it is undone."""
    out_of_scope: str | None = None
    """What is answered where an input is far from all classes; None: nothing, they are always one of the classes."""
    outside: dict[str, Any] | None = None
    """Examples out of scope."""


@dataclass(frozen=True, kw_only=True)
class Small:
    """That the package is to be small."""

    head: str
    """Path of the network's head: it stays in float, and is replaced once the rest is quantized."""

    share: float = 1.0
    """Of the adapted network's parameters, in (0, 1]; 1 leaves it whole, and quantizes it alone."""
    texts: TextWay | None = None
    """How an encoder of texts is made small, in place of `share`."""


def adaptation_recipe(
    *,
    network: dict[str, Any],
    examples: Examples,
    title: str,
    folds: int = 0,
    small: Small | None = None,
    seed: int = 0,
) -> str:
    """The recipe as YAML.

    Parameters
    ----------
    network
        The step that gives the pretrained network.
    folds
        Of the cross-validation that judges fine-tuning beside a frozen embedding; 0: it is not tried.
    small
        None: the package is the adapted network as it is.
    """
    test = {"evaluate.accuracy": {"data": "$test"}} if examples.test is not None else None
    observe: dict[str, Any] = {"test": test} if test is not None else {}
    data: dict[str, Any] = {"examples": examples.labelled}
    if examples.pool is not None:
        data["pool"] = examples.pool
    if examples.test is not None:
        data["test"] = examples.test
    if examples.outside is not None:
        data["outside"] = examples.outside
    frozen = {"adapt.best": _fields(examples, "$examples")}
    if folds:
        data |= {
            f"without_{number}": {"fold": {"data": "$examples", "folds": folds, "number": number}}
            for number in range(folds)
        }
        steps: list[dict[str, Any]] = [*_with_tuned(examples, folds, observe, small=small is not None)]
    else:
        steps = [{**frozen, "as": "adapted", "observe": {**observe, "size": {"evaluate.size": {}}}}]
    if small is not None:
        steps += _smaller(examples, small, observe)
    if examples.out_of_scope is not None:
        scope: dict[str, Any] = {"data": "$examples", "called": examples.out_of_scope}
        if examples.outside is not None:
            scope["outside"] = "$outside"
        steps.append({"adapt.out_of_scope": scope, "as": "scoped"})
    export = _export(small)
    return _written(title, seed, data, [{**network, "as": "network"}, *_pretrained(examples), *steps, export])


def head_recipe(
    *,
    network: dict[str, Any],
    examples: Examples,
    head: dict[str, Any],
    title: str,
    small: Small | None = None,
    seed: int = 0,
) -> str:
    """The recipe of a head that is no classifier, for an encoder of texts that stays as it is: labels, numbers or tags of words.

    Parameters
    ----------
    network
        The step that gives the encoder.
    head
        The step that fits the head, by its name and without its data; its tables say how good it is.
    small
        None: the package is the adapted encoder as it is.
    """
    ((name, fields),) = head.items()
    fitted = {name: {"data": "$examples", **fields}}
    size = {"size": {"evaluate.size": {}}}
    steps: list[dict[str, Any]] = [{**fitted, "as": "adapted", "observe": size}]
    if small is not None and small.texts is not None:
        unlabelled = "$examples" if examples.pool is None else "$pool"
        steps += _small_encoder(small.texts, unlabelled, small.head)
        steps.append({**fitted, "as": "small", "observe": size})
    data = {"examples": examples.labelled, **({} if examples.pool is None else {"pool": examples.pool})}
    return _written(title, seed, data, [{**network, "as": "network"}, *steps, _export(small)])


def _written(title: str, seed: int, data: dict[str, Any], steps: list[dict[str, Any]]) -> str:
    return recipe_text({"schema": 1, "name": "adapt", "title": title, "seed": seed, "data": data, "steps": steps})


def _export(small: Small | None) -> dict[str, Any]:
    """To a package, measured; a small one beside the adapted network."""
    observe: dict[str, Any] = {"size": {"evaluate.size": {}}}
    if small is not None:
        observe["latency"] = {"evaluate.latency": {"baselines": {"adapted": "$adapted"}, "all_threads": False}}
    return {"export.onnx": {"data": "$examples"}, "as": "package", "observe": observe}


def _small_encoder(way: TextWay, unlabelled: str, head: str) -> list[dict[str, Any]]:
    """From an adapted encoder of texts to a small one in int8, whose head is to be fitted anew."""
    made = text_steps(way, data=unlabelled, head=head)
    made[-1]["as"] = "int8"
    return [{"prune.vocabulary": {"data": unlabelled, "min_count": MIN_COUNT}, "as": "words"}, *made]


def share_to_fit(size: float, most: float, parameters: float) -> float:
    """The share of a network's parameters with which its int8 package has at most so many bytes; 1 where it has already.

    Parameters
    ----------
    size, most
        Bytes of the package as it is, and at most.
    parameters
        Of the network as it is, a byte each; the rest of the package stays.

    >>> share_to_fit(3.7e6, 4e6, 3.4e6), round(share_to_fit(3.7e6, 3.4e6, 3.4e6), 3)
    (1.0, 0.903)
    """
    if size <= most:
        return 1.0
    return max((most - (size - parameters)) / parameters * _SPARE, 0.0)


def _pretrained(examples: Examples) -> list[dict[str, Any]]:
    """Training on the pool without labels, and going back to the network where that is not surely better."""
    if examples.pretraining is None:
        return []
    ((name, fields),) = examples.pretraining.items()
    back = {"choose.better": {"original": "$network", "data": "$examples"}, "as": "encoder"}
    return [{name: {"data": "$pool", **fields}, "as": "pretrained"}, back]


def _fields(examples: Examples, labelled: str) -> dict[str, Any]:
    found: dict[str, Any] = {"data": labelled}
    if examples.pool is not None:
        found["unlabelled"] = "$pool"
    if examples.augment:
        found["augment"] = "auto"
    if examples.class_weights != "none":
        found["class_weights"] = examples.class_weights
    return found


def _with_tuned(examples: Examples, folds: int, observe: dict[str, Any], *, small: bool) -> list[dict[str, Any]]:
    """A frozen embedding and a tuned one beside it, and the choice by what both get right of the same held-out examples."""
    tuning = "adapt.contrastive" if examples.contrastive else "adapt.finetune"

    def branches(labelled: str, suffix: str, entries: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        best = {"adapt.best": _fields(examples, labelled)}
        tuned: dict[str, Any] = {
            "data": labelled,
            **({"augment": "auto"} if examples.augment else {}),
            **(examples.tuning or {}),
        }
        if examples.class_weights != "none":
            tuned["class_weights"] = examples.class_weights
        if examples.contrastive:
            tuned["layers"] = examples.contrastive
            if small:  # two branches would be pruned apart
                tuned["answer"] = "tuned"
        return {
            f"frozen{suffix}": [{**best, **entries}],
            f"tuned{suffix}": [{tuning: tuned, **entries}],
        }

    fork = branches("$examples", "", {"observe": observe} if observe else {})
    for number in range(folds):
        fork |= branches(f"$without_{number}", f"_without_{number}", {})
    judge = {
        "evaluate.cross_validated": {
            "data": "$examples",
            "folds": folds,
            "candidates": {"frozen": "$frozen", "tuned": "$tuned"},
            "without": [f"${way}_without_{number}" for way in ("frozen", "tuned") for number in range(folds)],
        }
    }
    choose: dict[str, Any] = {"by": judge, "among": ["frozen", "tuned"]}
    seen = {"accuracy": judge, **observe, "size": {"evaluate.size": {}}}
    return [{"fork": fork}, {"choose.best": choose, "as": "adapted", "observe": seen}]


def _smaller(examples: Examples, small: Small, observe: dict[str, Any]) -> list[dict[str, Any]]:
    unlabelled = "$examples" if examples.pool is None else "$pool"
    head: dict[str, Any]
    if small.texts is not None:
        head = {"adapt.best": _fields(examples, "$examples")}
        fitted = {**head, "as": "small", "observe": {**observe, "size": {"evaluate.size": {}}}}
        return [*_small_encoder(small.texts, unlabelled, small.head), fitted]
    steps: list[dict[str, Any]] = []
    if small.share < 1:
        steps += [
            {
                "prune.taylor": {"data": "$examples", "parameters": round(small.share, 4), "multiple_of": 8},
                "as": "pruned",
            },
            {"prune.reconstruct": {"data": unlabelled, "teacher": "$adapted", "samples": _SAMPLES}, "as": "refitted"},
        ]
    head = {"adapt.best": _fields(examples, "$examples")}
    if examples.pool is not None:
        head = {"distill.head": {"data": "$pool", "teacher": "$adapted"}}
    return [
        *steps,
        {"quantize.static": {"data": unlabelled, "samples": _SAMPLES, "skip": [small.head]}, "as": "int8"},
        {**head, "as": "small", "observe": {**observe, "size": {"evaluate.size": {}}}},
    ]


MIN_COUNT = 2
"""Times that a word occurs in the texts to keep a vector: of CLINC150 half of the words occur once, and are spelled by pieces."""


def text_steps(way: TextWay, *, data: str, head: str | None = None) -> list[dict[str, Any]]:
    """From the network labelled ``words``, which has the vocabulary of the texts `data`, to a smaller one in int8, in steps.

    `head` is the path of a head that stays in float. After ``static`` there is none: it has another embedding.
    """
    quantized: dict[str, Any] = {"quantize.dynamic": {} if head is None or way == "static" else {"skip": [head]}}
    if way == "layers":
        taught = {"data": data, "teacher": "$words"}
        return [{"prune.blocks": {"share": 0.5, "data": data}}, {"distill.embedding": taught}, quantized]
    if way == "static":
        return [{"distill.static": {"data": data}}, quantized]
    return [quantized]
