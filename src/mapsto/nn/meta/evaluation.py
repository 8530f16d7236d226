"""How well a learner does on episodes, each sample embedded once where the method allows it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Adaptation, Episode, Preprocessing
from mapsto.nn.meta import batch_norm
from mapsto.nn.meta.adaptation_methods import (
    StepwiseMethod,
    feature_method,
    feature_task_scores,
    method,
    predicts_values,
    unlabelled_method,
)
from mapsto.nn.network.head import embed
from mapsto.nn.network.inference import compact, embeddings, evaluating
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.train.batches import episode_scores, indices_of, task_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EpisodeResults", "accuracies_by_step", "episode_metrics", "episode_results", "own_statistics"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeResults:
    """One number an episode, in their order."""

    accuracies: NDArray[np.float64]
    """Share of queries that are right, 0 to 1, shape (episodes,); NaN for regression tasks."""
    losses: NDArray[np.float64]
    """Mean cross-entropy of the queries, or their mean squared error, shape (episodes,)."""
    errors: NDArray[np.float64] | None = None
    """Mean squared error of the queries, shape (episodes,), where the tasks are of regression."""


def episode_results(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    *,
    device: torch.device | str = "cpu",
    batch: int = 32,
    statistics: Literal["own", "transductive", "inductive"] = "own",
) -> EpisodeResults:
    """Adapt to each episode's support and score its queries; `module` may have a head, which is passed over.

    Parameters
    ----------
    episodes
        Drawn from one set of samples; those of one form are worked on together, `batch` at a time.
    statistics
        Which batch norms take: as the learner says; of each task's images, queries among themselves; or such that a query's
        score depends on no other query: those of the support set where the learner's are of the task, else its own.
    """
    accuracies, losses = np.full(len(episodes), np.nan), np.zeros(len(episodes))
    regression = _is_regression(episodes, adaptation)
    adaptation = _with_statistics(adaptation, statistics)
    if statistics == "transductive" and feature_method(adaptation.method) is not None:
        score = _task_by_task(module, preprocessing, adaptation, device)
    else:
        score = _by_features(module, preprocessing, adaptation, episodes, device) or _whole(
            module, preprocessing, adaptation, device
        )
    with evaluating(compact(module.to(device))), torch.no_grad():
        for places in _alike(episodes, batch):
            chosen = [episodes[place] for place in places]
            labels = torch.as_tensor(np.stack([episode.query_labels for episode in chosen]))
            scores = score(chosen).float().cpu()
            if regression:
                losses[places] = _squares(scores, labels).numpy()
                continue
            accuracies[places] = (scores.argmax(-1) == labels).double().mean(-1).numpy()
            loss = torch.nn.functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none")
            losses[places] = loss.double().mean(-1).numpy()
    return EpisodeResults(accuracies=accuracies, losses=losses, errors=losses if regression else None)


def accuracies_by_step(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    *,
    device: torch.device | str = "cpu",
    batch: int = 32,
) -> NDArray[np.float64] | None:
    """Share of queries that are right before the first inner step and after each, shape (steps + 1, episodes).

    Of regression tasks it is the queries' mean squared error. None for a method that does not adapt step by step.
    """
    file = method(adaptation.method)
    if not hasattr(file, "path_scores"):
        return None
    regression = _is_regression(episodes, adaptation)
    stepwise = cast("StepwiseMethod", file)
    parts: dict[int, NDArray[np.float64]] = {}
    with evaluating(compact(module.to(device))), torch.no_grad():
        for places in _alike(episodes, batch):
            task = task_of([episodes[place] for place in places])
            inputs = prepare(task.inputs.reshape(-1, *task.inputs.shape[2:]), preprocessing, device=device)
            inputs = inputs.unflatten(0, task.inputs.shape[:2])
            labels = torch.as_tensor(task.support_labels, device=inputs.device)
            shots = labels.shape[1]
            scores = stepwise.path_scores(module, inputs[:, :shots], labels, inputs[:, shots:], task.ways, adaptation)
            wanted = torch.as_tensor(task.query_labels)
            if regression:
                right = _squares(scores.float().cpu(), wanted).numpy()
            else:
                right = (scores.argmax(-1).cpu() == wanted).double().mean(-1).numpy()
            parts |= {place: right[:, number] for number, place in enumerate(places)}
    return np.stack([parts[place] for place in range(len(episodes))], 1)


def episode_metrics(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    *,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """``val_loss`` and ``val_accuracy`` (%) over episodes, or ``val_error``, the mean squared error of regression tasks."""
    results = episode_results(module, preprocessing, adaptation, episodes, device=device)
    if results.errors is not None:
        return {"val_loss": float(results.losses.mean()), "val_error": float(results.errors.mean())}
    return {"val_loss": float(results.losses.mean()), "val_accuracy": float(results.accuracies.mean() * 100)}


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each task, over its queries and their numbers: (..., Q, K) → (...)."""
    return (outputs.double() - targets.double()).square().mean((-2, -1))


def _is_regression(episodes: Sequence[Episode], adaptation: Adaptation) -> bool:
    """Whether the tasks ask for numbers. Raises `DomainError` where the learner can only tell classes."""
    regression = any(not episode.classes for episode in episodes)
    if regression and not predicts_values(adaptation.method):
        raise DomainError(
            f"the tasks ask for numbers, but a learner that adapts by {adaptation.method} tells classes",
            hint="train one that adapts by gradient descent (meta.maml) or ridge regression (meta.r2d2), or choose tasks of classes",
        )
    return regression


def _alike(episodes: Sequence[Episode], batch: int) -> list[list[int]]:
    """Places of episodes with as many ways, support and query samples, at most `batch` together."""
    forms: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, episode in enumerate(episodes):
        rest = 0 if episode.unlabelled_indices is None else len(episode.unlabelled_indices)
        forms[episode.outputs, len(episode.support_indices), len(episode.query_indices), rest].append(place)
    return [places[start : start + batch] for places in forms.values() for start in range(0, len(places), batch)]


def _by_features(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    device: torch.device | str,
) -> Any:
    """Scores from embeddings of the samples that occur; None where the method needs more than embeddings."""
    if feature_method(adaptation.method) is None:
        return None
    if any(episode.samples is not episodes[0].samples for episode in episodes):
        return _each_by_features(module, preprocessing, adaptation, device)
    unlabelled = unlabelled_method(adaptation.method) is not None
    used = np.unique(np.concatenate([indices_of(episode, unlabelled=unlabelled) for episode in episodes]))
    features = embeddings(module, episodes[0].samples.inputs[used], preprocessing, device=device)

    def score(chosen: list[Episode]) -> Tensor:
        places = np.searchsorted(used, np.stack([indices_of(e, unlabelled=unlabelled) for e in chosen]))
        labels, queries = np.stack([episode.support_labels for episode in chosen]), len(chosen[0].query_labels)
        return _feature_scores(features[places], labels, queries, chosen[0].outputs, adaptation)

    return score


def _feature_scores(features: Tensor, labels: NDArray[Any], queries: int, ways: int, adaptation: Adaptation) -> Tensor:
    """Scores from the embeddings (B, S + Q + U, D) of tasks with support labels (B, S, ...)."""
    support_labels = torch.as_tensor(labels, device=features.device)
    return feature_task_scores(features, support_labels, queries, ways, adaptation)


def _each_by_features(
    module: nn.Module, preprocessing: Preprocessing, adaptation: Adaptation, device: torch.device | str
) -> Any:
    """Scores from embeddings of tasks that have their own samples each."""
    unlabelled = unlabelled_method(adaptation.method) is not None

    def score(chosen: list[Episode]) -> Tensor:
        task = task_of(chosen, unlabelled=unlabelled)
        together = embeddings(module, task.inputs.reshape(-1, *task.inputs.shape[2:]), preprocessing, device=device)
        features, queries = together.unflatten(0, task.inputs.shape[:2]), task.query_labels.shape[1]
        return _feature_scores(features, task.support_labels, queries, task.ways, adaptation)

    return score


def own_statistics(adaptation: Adaptation) -> Literal["transductive", "inductive"]:
    """Whether a learner's batch norms take a task's images, queries among themselves, where nothing else is asked for."""
    transductive = adaptation.settings.get("batch_norm") == "transductive" and feature_method(adaptation.method) is None
    return "transductive" if transductive else "inductive"


def _with_statistics(adaptation: Adaptation, statistics: str) -> Adaptation:
    """The adaptation with that mode of its batch norms, where it has one."""
    current = adaptation.settings.get("batch_norm")
    kept = statistics == "own" or current is None or (statistics == "inductive" and current != "transductive")
    if kept:
        return adaptation
    return dataclasses.replace(adaptation, settings={**adaptation.settings, "batch_norm": statistics})


def _task_by_task(
    module: nn.Module, preprocessing: Preprocessing, adaptation: Adaptation, device: torch.device | str
) -> Any:
    """Scores by embeddings that are normalised within each task."""
    unlabelled = unlabelled_method(adaptation.method) is not None

    def score(chosen: list[Episode]) -> Tensor:
        found: list[Tensor] = []
        with batch_norm.task_norms(module):
            for episode in chosen:
                task = task_of([episode], unlabelled=unlabelled)
                inputs = prepare(task.inputs[0], preprocessing, device=device)
                features, queries = embed(module, inputs).unsqueeze(0), task.query_labels.shape[1]
                found.append(_feature_scores(features, task.support_labels, queries, task.ways, adaptation))
        return torch.cat(found)

    return score


def _whole(module: nn.Module, preprocessing: Preprocessing, adaptation: Adaptation, device: torch.device | str) -> Any:
    def score(chosen: list[Episode]) -> Tensor:
        task = task_of(chosen)
        inputs = prepare(task.inputs.reshape(-1, *task.inputs.shape[2:]), preprocessing, device=device)
        return episode_scores(module, inputs, task, adaptation)

    return score
