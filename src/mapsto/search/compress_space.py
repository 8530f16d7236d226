"""The space that ``mapsto compress --trials`` searches, in the place of a fork of fixed branches, and the recipe that ends it.

Holes are the share of the work that is left, how layers share what is pruned and by which criterion, whether what is left is refitted,
whether it is distilled, for how many epochs and at which temperature, and how ranges are read for int8. The first trials are what the
fork would have tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from mapsto.errors import SpecError
from mapsto.search.adapt import MIN_COUNT, TEXT_WAYS
from mapsto.search.compress import BEST, EXPORTS, METRICS, knows, plan_for, text_branch, together
from mapsto.search.recipe_text import recipe_text

if TYPE_CHECKING:
    from mapsto.kinds import Signature
    from mapsto.search.compress import Limit, Plan

__all__ = ["CompressionSpace", "compression_space"]

_SHARES = (0.1, 0.9)
"""Of the multiply-accumulates that are left, besides the whole network."""
_MAX_PRUNE = 0.95
"""Most of a layer that goes: for a tenth of the work nearly all of some layers has to."""
_CHOSEN = "chosen"


@dataclass(frozen=True, kw_only=True)
class CompressionSpace:
    """A recipe with holes, what to try first, and what follows the best."""

    text: str
    """The recipe with holes as YAML."""
    first: tuple[dict[str, Any], ...]
    """Holes that are tried before the sampler chooses."""
    title: str
    test: dict[str, Any] | None
    ends: tuple[dict[str, Any], ...]
    """Steps that follow what is chosen."""
    targets: tuple[dict[str, str], ...]

    def recipe_of(self, recipe: str) -> str:
        """The recipe of a trial, with the report on test data, the export and the targets behind it, as YAML."""
        tree: dict[str, Any] = yaml.safe_load(recipe)
        chosen = tree["steps"][-1]
        chosen["as"] = _CHOSEN
        if self.test is not None:
            chosen["observe"] = {**chosen.get("observe", {}), "test": self.test}
        tree |= {"title": self.title, "targets": list(self.targets)}
        tree["steps"] += self.ends
        return recipe_text(tree)


def compression_space(
    *,
    model: tuple[dict[str, Any], list[dict[str, Any]]],
    data: dict[str, Any],
    test: dict[str, Any] | None,
    limits: tuple[Limit, ...],
    shares: tuple[float, ...],
    epochs: int | None = None,
    seed: int = 0,
    runtime: str = "onnxruntime",
    signature: Signature | None = None,
) -> CompressionSpace:
    """The space of a network's compressions; parameters as of `mapsto.search.compress.compression_recipe`.

    Raises what that does, and `SpecError` where so few examples are given that candidates are judged by cross-validation.
    """
    wanted = together(limits)
    plan, label, _ = plan_for(model=model, data=data, test=test, epochs=epochs, runtime=runtime, signature=signature)
    if plan.folds is not None:
        raise SpecError(
            f"{plan.folds.examples} examples are too few to keep some back for a search",
            where="--trials",
            hint="leave it out: a few sizes are then judged by cross-validation; or give ten examples of each class",
        )
    entries, steps = model
    cost: dict[str, Any] = {"evaluate.exported": {"runtime": runtime}}
    observe: dict[str, Any] = {plan.metric: plan.judge, "cost": cost}
    original = {**steps[-1], "as": label, "observe": observe if plan.judges_original else {"cost": cost}}
    named: dict[str, Any] = {}
    if next(iter(data)) == "text":
        holes, first = _of_texts(plan, observe, epochs)
    else:
        holes, first = _of_networks(plan, label, observe, shares)
        named = {
            "share": {"range": list(_SHARES), "log": True},
            "ranking": {"choice": ["per_cost", "global", "per_layer"]},
        }
    title = f"{BEST[plan.metric]} within {' and '.join(each.text for each in wanted)}"
    title += " (the original has learnt from these very data)" if knows(model, data) else ""
    objective = {
        "metric": f"{_CHOSEN}.{plan.metric}.{plan.metric}",
        "goal": "maximize" if plan.maximize else "minimize",
    }
    bounds = [(f"{_CHOSEN}.cost.{METRICS[each.kind]}", f"<= {each.most:.15g}", each.text) for each in wanted]
    tree = {
        "schema": 1,
        "name": "compress",
        "seed": seed,
        "search": {
            "objectives": [objective],
            "limits": [{"metric": metric, "limit": goal} for metric, goal, _ in bounds],
            "holes": named,
        },
        "data": {**entries, **plan.data},
        "steps": [*steps[:-1], original, *holes],
    }
    latency = {"evaluate.latency": {"baselines": {"original": f"${label}"}, "all_threads": False}}
    export = {
        EXPORTS.get(runtime, f"export.{runtime}"): {"data": plan.parity},
        "as": "package",
        "observe": {"latency": latency},
    }
    return CompressionSpace(
        text=recipe_text(tree),
        first=tuple(first),
        title=title,
        test=plan.test,
        ends=(export,),
        targets=tuple({"what": what, "metric": metric, "goal": goal} for metric, goal, what in bounds),
    )


def _of_networks(
    plan: Plan, label: str, observe: dict[str, Any], shares: tuple[float, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Prune, refit, distil, quantize; or quantize alone."""
    (prune, which), (distil, how) = plan.prune, plan.distil
    budget = {"macs": "$share", "ranking": "$ranking", "max_prune": _MAX_PRUNE, "multiple_of": 4}
    pruned: dict[str, Any] = {prune: {**which, **budget}, "as": "pruned"}
    criterion: dict[str, Any] = {}
    if "data" in plan.seen and plan.judges_original:
        first_way = prune.partition(".")[2]
        ways = {first_way: [{prune: {**which, **budget}}], "taylor": [{"prune.taylor": {**plan.seen, **budget}}]}
        pruned, criterion = {"choice": ways, "as": "pruned"}, {"pruned": first_way}
    teacher = {"teacher": f"${label}"}
    epochs = max(int(how.get("epochs", 0)), 1)
    tried = {"epochs": {"choice": sorted({max(epochs // 2, 1), epochs, 2 * epochs})}} if "epochs" in how else {}
    temperature = (
        {"temperature": {"range": [1.0, 8.0], "log": True, "default": 4.0}} if distil == "distill.logits" else {}
    )
    branches = {
        "whole": [],
        "smaller": [
            pruned,
            {"prune.reconstruct": {**teacher, **plan.seen}, "as": "refitted", "optional": True},
            {distil: {**teacher, **how, **tried, **temperature}, "as": "distilled", "optional": True},
        ],
    }
    quantized = {"quantize.static": {**plan.seen, "observer": {"choice": ["minmax", "mse", "percentile"]}}}
    holes = [{"choice": branches, "as": "size"}, {**quantized, "as": _CHOSEN, "observe": observe}]
    kept = {"size": "smaller", **criterion, "ranking": "per_cost", "refitted.kept": True, "chosen.observer": "minmax"}
    more: dict[str, Any] = {"distilled.kept": True, **({"distilled.epochs": epochs} if tried else {})}
    sizes = [{**kept, "share": share, **more} for share in shares if _SHARES[0] <= share <= _SHARES[1]]
    first: list[dict[str, Any]] = [{"size": "whole", "chosen.observer": "minmax"}, *sizes]
    return holes, first


def _of_texts(
    plan: Plan, observe: dict[str, Any], epochs: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The words of the texts, then one of the ways to make an encoder small."""
    ways = {way: text_branch(way, plan, {}, epochs) for way in TEXT_WAYS}
    plain = {way: [{key: part for key, part in step.items() if key != "observe"} for step in ways[way]] for way in ways}
    for step in (step for steps in plain.values() for step in steps):
        if "distill.embedding" in step and epochs is None:
            step["distill.embedding"]["epochs"] = {"choice": [2, 3, 6], "default": 3}
    words = {"prune.vocabulary": {**plan.seen, "min_count": {"choice": [1, MIN_COUNT, 4], "default": MIN_COUNT}}}
    holes = [{**words, "as": "words"}, {"choice": plain, "as": _CHOSEN, "observe": observe}]
    return holes, [{"words.min_count": MIN_COUNT, _CHOSEN: way} for way in ways]
