"""The space that ``mapsto adapt --trials`` searches: how a network is tuned, judged fold by fold beside a frozen embedding.

The holes are shared by all folds, so that a trial's accuracy is one of cross-validation on the labelled examples; the frozen branches are
the same in every trial, and computed once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from mapsto.search.adapt import Examples, adaptation_recipe
from mapsto.search.recipe_text import recipe_text

__all__ = ["adaptation_space", "tuning_of"]

_OF_FINETUNE: dict[str, Any] = {
    "learning_rate": {"range": [0.0001, 0.01], "log": True, "default": 0.001},
    "unfreeze": {"choice": [0, 1, 2]},
    "layer_decay": {"choice": [1.0, 0.8, 0.6]},
    "smoothing": {"choice": [0.0, 0.1]},
}
_OF_CONTRASTIVE: dict[str, Any] = {
    "learning_rate": {"range": [0.0001, 0.01], "log": True, "default": 0.001},
    "epochs": {"choice": [4, 8, 16], "default": 8},
    "temperature": {"range": [0.05, 0.3], "log": True, "default": 0.1},
}


def adaptation_space(*, network: dict[str, Any], examples: Examples, title: str, folds: int, seed: int) -> str:
    """The recipe with holes as YAML; parameters as of `mapsto.search.adapt.adaptation_recipe`."""
    holes = _holes(examples)
    tuned = dataclasses.replace(examples, tuning={name: f"${name}" for name in holes})
    text = adaptation_recipe(network=network, examples=tuned, title=title, folds=folds, seed=seed)
    tree: dict[str, Any] = yaml.safe_load(text)
    tree["steps"] = [step for step in tree["steps"] if "export.onnx" not in step]
    tree["search"] = {"objectives": [{"metric": "adapted.accuracy.accuracy", "goal": "maximize"}], "holes": holes}
    return recipe_text(tree)


def tuning_of(holes: dict[str, Any], examples: Examples) -> dict[str, Any]:
    """The fields of the step that tunes, from a trial's holes."""
    return {name: holes[name] for name in _holes(examples)}


def _holes(examples: Examples) -> dict[str, Any]:
    return _OF_CONTRASTIVE if examples.contrastive else _OF_FINETUNE
