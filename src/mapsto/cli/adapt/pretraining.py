"""Whether ``mapsto adapt`` trains an encoder further on unlabelled texts, and for how many steps: as the minutes allow."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Network, Samples
    from mapsto.search.adapt import Examples

__all__ = ["with_pretraining"]

_STEP, _BATCH, _LAYERS = "train.tsdae", 32, 2
_SHARE = 0.5
"""Of the minutes: the rest is for fine-tuning."""
_PASSES = 3.0
"""Forward passes that a step takes for each of its texts; a step of `train.tsdae` with two of six layers was measured at 2 to 3."""
_EPOCHS = 3
"""At most so many passes over the texts."""
_LEAST_STEPS, _LEAST_TEXTS = 50, 200
"""Fewer are not worth the time."""


def with_pretraining(examples: Examples, network: Network, samples: Samples, minutes: float, ctx: Context) -> Examples:
    """The examples with a step of pretraining on their pool; as they are where there is no pool, no time or nothing to judge by."""
    from mapsto.nn.networks.hf import TextEncoder

    if examples.pool is None or not minutes:
        return examples
    if not isinstance(network.module(), TextEncoder):
        return examples
    if int(np.bincount(samples.labels).max()) < 2:
        ctx.note(
            "the encoder is not trained further on the unlabelled texts: with one example of each class nothing says whether it helps"
        )
        return examples
    texts = _texts(examples.pool, network, ctx)
    seconds = _seconds_a_step(network, samples, ctx)
    steps = min(int(_SHARE * 60 * minutes / seconds), math.ceil(_EPOCHS * texts / _BATCH))
    if texts < _LEAST_TEXTS or steps < _LEAST_STEPS:
        why = (
            f"{texts} are too few"
            if texts < _LEAST_TEXTS
            else f"it would take {_minutes(seconds)} minutes; to try it: --minutes {_minutes(seconds)}"
        )
        ctx.note(f"the encoder is not trained further on the unlabelled texts: {why}")
        return examples
    fields: dict[str, Any] = {"steps": steps, "batch_size": _BATCH, "layers": _LAYERS}
    ctx.note(
        f"the encoder is trained further on the unlabelled texts by {_STEP}, {steps} steps, about {math.ceil(steps * seconds / 60)} "
        "minutes; where the labelled examples are not surely answered better by it, that is undone"
    )
    return dataclasses.replace(examples, pretraining={_STEP: fields})


def _minutes(seconds: float) -> int:
    """What is to be given so that the least number of steps is made."""
    return math.ceil(_LEAST_STEPS * seconds / 60 / _SHARE)


def _texts(pool: dict[str, Any], network: Network, ctx: Context) -> int:
    from mapsto.recipe.nodes import data_from_node

    return len(ctx.dataset(data_from_node(pool), for_=network.signature.preprocessing))


def _seconds_a_step(network: Network, samples: Samples, ctx: Context) -> float:
    """By a forward pass of a few examples."""
    from mapsto.nn.network.inference import embeddings

    module, few = network.module(), samples.inputs[:_BATCH]
    embeddings(module, few[:2], network.signature.preprocessing, device=ctx.device)
    began = time.perf_counter()
    embeddings(module, few, network.signature.preprocessing, device=ctx.device)
    return _PASSES * _BATCH * (time.perf_counter() - began) / len(few)
