"""What a network lost on the way to another: accuracy before and after, or how far their answers agree, on a few hundred samples.

Answers are compared by what they are: classes by the most likely one, labels by Dice's coefficient of those that are given, numbers
and maps by the share of variance that is kept, embeddings by the cosine of their centred vectors (by the correlation of all distances
where they differ in size). A learner with labelled tasks is compared after adaptation (Gretton et al., "Measuring Statistical
Similarity", 2005, and Kriegeskorte et al., "Representational Similarity Analysis", 2008, for unlike embeddings).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Dataset, Network, Tasks
from mapsto.nn.network.inference import evaluating
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.train.label_kinds import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers", "agreement", "answers_of", "compare"]

Answers = Literal["classes", "labels", "values", "maps", "embeddings"]

SAMPLES = 400
"""The most samples that two networks are compared on."""
ENOUGH = 128
"""With so many it ends once `SECONDS` have passed."""
SECONDS = 8.0
_BATCH = 32


def compare(
    before: Network,
    after: Network,
    data: Dataset | Tasks,
    ctx: Context,
    *,
    labelled: bool,
    reference: Network | None = None,
) -> dict[str, Any]:
    """Two networks on the same samples, as JSON.

    Parameters
    ----------
    data
        A data set, or tasks, whose support and query samples are used.
    labelled
        Whether labels may decide; else the answers of both are compared.
    reference
        Whose answers are to be met, a teacher's; by default those of `before`.

    Returns
    -------
    dict
        ``n``; ``agreement`` in percent and ``answers``, what was compared; with a reference ``agreement_before``, of `before` with it;
        with labels ``accuracy`` as ``{"of", "before", "after", "drop", "se"}`` in percent (numbers: the share of variance explained),
        the drop and its standard error paired by sample.

    Raises
    ------
    MapstoError
        The data do not fit the networks.
    """
    learners = before.adaptation is not None and after.adaptation is not None
    if isinstance(data, Tasks) and learners and labelled:
        return _on_tasks(before, after, data, ctx)
    inputs, labels = _samples(data, after, ctx)
    networks = [before, after, *([reference] if reference is not None else [])]
    first, second, *others = _outputs(networks, [_as_read_by(each, after, inputs, data, ctx) for each in networks], ctx)
    target = others[0] if others else first
    answers = answers_of(reference or before, target)
    found: dict[str, Any] = {
        "n": len(first),
        "answers": answers,
        "agreement": _rounded(agreement(target, second, answers)),
    }
    if others:
        found["agreement_before"] = _rounded(agreement(target, first, answers))
    if labelled and labels is not None and not learners:
        accuracy = _accuracy(first, second, torch.as_tensor(labels[: len(first)]), answers_of(after, second))
        if accuracy is not None:
            found["accuracy"] = accuracy
    return found


def answers_of(network: Network, outputs: Tensor) -> Answers:
    """What a network's outputs are, from its signature and their shape."""
    if outputs.ndim > 2:
        return "maps"
    if network.signature.answers in ("labels", "values"):
        return network.signature.answers
    if network.adaptation is not None or network.signature.classes is None:
        return "embeddings"
    return "classes" if outputs.ndim == 2 and outputs.shape[1] > 1 else "values"


def agreement(first: Tensor, second: Tensor, answers: Answers) -> float:
    """How far two networks' outputs (N, ...) for the same samples agree, in percent; 100 for the same, about 0 for unrelated ones.

    >>> one = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    >>> agreement(one, one.flip(1), "classes"), agreement(one, 2 * one, "classes")
    (0.0, 100.0)
    >>> agreement(one, one.roll(1, 0), "values")
    0.0
    """
    if answers == "embeddings" and first.shape != second.shape:
        return _distances_agree(first, second)
    if first.shape != second.shape:
        one, other = (" × ".join(map(str, outputs.shape[1:])) for outputs in (first, second))
        raise DomainError(f"it had {one} outputs a sample and has {other}, which cannot be compared")
    first, second = first.double(), second.double()
    if not bool(torch.isfinite(second).all()):
        return 0.0
    if answers == "classes":
        return 100 * float((first.argmax(1) == second.argmax(1)).double().mean())
    if answers == "labels":
        one, other = first > 0, second > 0
        given = int(one.sum() + other.sum())
        return 100.0 if given == 0 else 100 * 2 * int((one & other).sum()) / given
    if answers == "embeddings":
        middle = first.mean(0)
        return 100 * max(
            0.0, float(torch.cosine_similarity((first - middle).flatten(1), (second - middle).flatten(1)).mean())
        )
    left = (first - second).square().sum()
    spread = (first - first.mean(0)).square().sum()
    if float(spread) == 0:
        return 100.0 if float(left) == 0 else 0.0
    return 100 * max(0.0, 1 - float(left / spread))


def _distances_agree(first: Tensor, second: Tensor) -> float:
    """Correlation of the distances between all pairs of samples, in percent."""
    parts = torch.stack([torch.pdist(first.double().flatten(1)), torch.pdist(second.double().flatten(1))])
    found = float(torch.corrcoef(parts)[0, 1]) if parts.shape[1] > 1 else 1.0
    return 100 * max(0.0, found) if math.isfinite(found) else 0.0


def _accuracy(first: Tensor, second: Tensor, labels: Tensor, answers: Answers) -> dict[str, Any] | None:
    """Score before and after, the drop and its standard error, paired by sample; None where the labels are of another kind."""
    kind = kind_of(labels.numpy())
    if kind == "classification":
        if answers != "classes" or int(labels.max()) >= first.shape[1]:
            return None
        scores = [(outputs.argmax(1) == labels).double() for outputs in (first, second)]
    elif first.shape != labels.shape:
        return None
    elif kind == "multilabel" and answers != "values":
        scores = [((outputs > 0) == (labels > 0.5)).double().mean(1) for outputs in (first, second)]
    else:
        spread = (labels - labels.double().mean(0)).square().mean()
        if float(spread) == 0:
            return None
        scores = [1 - (outputs.double() - labels).square().mean(1) / spread for outputs in (first, second)]
    return _paired(scores[0].numpy(), scores[1].numpy(), of="variance" if kind == "regression" else "accuracy")


def _paired(first: NDArray[Any], second: NDArray[Any], *, of: str) -> dict[str, Any]:
    """Means in percent, and the mean difference with its standard error over the same samples."""
    lost = first - second
    error = float(lost.std(ddof=1)) / math.sqrt(len(lost)) if len(lost) > 1 else 1.0
    values = {"before": first.mean(), "after": second.mean(), "drop": lost.mean(), "se": error}
    return {"of": of, **{name: _rounded(100 * float(value)) for name, value in values.items()}}


def _on_tasks(before: Network, after: Network, data: Tasks, ctx: Context) -> dict[str, Any]:
    """Two learners after adaptation to the same tasks."""
    from mapsto.nn.meta.evaluation import episode_results

    tasks = ctx.tasks(data)
    one = tasks[0]
    size = len(one.support_indices) + len(one.query_indices)
    episodes = [tasks[number] for number in range(max(4, min(24, 2 * SAMPLES // size)))]
    scores: list[Any] = []
    for network in (before, after):
        if network.adaptation is None:
            raise DomainError("the network is no learner")
        results = episode_results(
            network.module(), network.signature.preprocessing, network.adaptation, episodes, device=ctx.device, batch=4
        )
        scores.append(results.accuracies if results.errors is None else 1 - results.errors / _spread(episodes))
    values = results.errors is not None
    found = _paired(scores[0], scores[1], of="variance" if values else "accuracy")
    return {"n": len(episodes), "unit": "tasks", "accuracy": found}


def _spread(episodes: list[Any]) -> float:
    """The mean variance of the episodes' query targets."""
    return max(float(np.mean([np.var(episode.query_labels) for episode in episodes])), 1e-12)


def _samples(data: Dataset | Tasks, network: Network, ctx: Context) -> tuple[Any, Any]:
    """Raw inputs, in an order that is the same each time, and their labels, where they are those of the network's classes."""
    if isinstance(data, Tasks):
        tasks, parts, count = ctx.tasks(data), [], 0
        while count < SAMPLES:
            episode = tasks[len(parts)]
            parts.append(np.concatenate([episode.support, episode.query]))
            count += len(parts[-1])
        return np.concatenate(parts)[:SAMPLES], None
    samples = ctx.dataset(data)
    chosen = np.random.default_rng(0).permutation(len(samples))[:SAMPLES]
    known = network.signature.classes
    labels = samples.labels[chosen] if known in (None, samples.classes) else None
    return samples.inputs[chosen], labels


def _as_read_by(network: Network, after: Network, inputs: Any, data: Dataset | Tasks, ctx: Context) -> Any:
    """The samples as a network reads them: of another tokenizer the same texts have other ids."""
    if network.signature.preprocessing.tokenizer == after.signature.preprocessing.tokenizer:
        return inputs
    with ctx.giving(network):
        return _samples(data, network, ctx)[0]


def _outputs(networks: list[Network], inputs: list[Any], ctx: Context) -> list[Tensor]:
    """Every network's outputs of its inputs, batch by batch in turn, until all samples are through or the time is up."""
    modules = [network.module().to(ctx.device) for network in networks]
    parts: list[list[Tensor]] = [[] for _ in networks]
    began = time.monotonic()
    with torch.no_grad():
        for start in range(0, len(inputs[0]), _BATCH):
            if start >= ENOUGH and time.monotonic() - began > SECONDS:
                break
            for module, network, given, kept in zip(modules, networks, inputs, parts, strict=True):
                batch = prepare(given[start : start + _BATCH], network.signature.preprocessing, device=ctx.device)
                with evaluating(module):
                    output = module(batch)
                if not isinstance(output, Tensor):
                    raise DomainError("the network gives no single tensor")
                kept.append(output.float().cpu())
    if not parts[0]:
        raise DomainError("there is not one sample")
    return [torch.cat(kept) for kept in parts]


def _rounded(value: float) -> float:
    return round(value, 3) if math.isfinite(value) else -1e9
