"""How well a learner does on episodes, each sample embedded once where the method allows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.kinds import Adaptation, Episode, Preprocessing
from mapsto.nn.batches import episode_scores, task_of
from mapsto.nn.inference import compact, embeddings, evaluating
from mapsto.nn.learners import feature_method
from mapsto.nn.preprocess import prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EpisodeResults", "episode_metrics", "episode_results"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeResults:
    """One number an episode, in their order."""

    accuracies: NDArray[np.float64]
    """Share of queries that are right, 0 to 1, shape (episodes,)."""
    losses: NDArray[np.float64]
    """Mean cross-entropy of the queries, shape (episodes,)."""


def episode_results(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    *,
    device: torch.device | str = "cpu",
    batch: int = 32,
) -> EpisodeResults:
    """Adapt to each episode's support and score its queries; `module` may have a head, which is passed over.

    Parameters
    ----------
    episodes
        Drawn from one set of samples; those of one form are worked on together, `batch` at a time.
    """
    accuracies, losses = np.zeros(len(episodes)), np.zeros(len(episodes))
    score = _by_features(module, preprocessing, adaptation, episodes, device) or _whole(
        module, preprocessing, adaptation, device
    )
    with evaluating(compact(module.to(device))), torch.no_grad():
        for places in _alike(episodes, batch):
            chosen = [episodes[place] for place in places]
            labels = torch.as_tensor(np.stack([episode.query_labels for episode in chosen]))
            scores = score(chosen).float().cpu()
            accuracies[places] = (scores.argmax(-1) == labels).double().mean(-1).numpy()
            loss = torch.nn.functional.cross_entropy(scores.transpose(1, 2), labels, reduction="none")
            losses[places] = loss.double().mean(-1).numpy()
    return EpisodeResults(accuracies=accuracies, losses=losses)


def episode_metrics(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    *,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """``val_loss`` and ``val_accuracy`` (%) over episodes."""
    results = episode_results(module, preprocessing, adaptation, episodes, device=device)
    return {"val_loss": float(results.losses.mean()), "val_accuracy": float(results.accuracies.mean() * 100)}


def _alike(episodes: Sequence[Episode], batch: int) -> list[list[int]]:
    """Places of episodes with as many ways, support and query samples, at most `batch` together."""
    forms: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for place, episode in enumerate(episodes):
        forms[len(episode.classes), len(episode.support_indices), len(episode.query_indices)].append(place)
    return [places[start : start + batch] for places in forms.values() for start in range(0, len(places), batch)]


def _by_features(
    module: nn.Module,
    preprocessing: Preprocessing,
    adaptation: Adaptation,
    episodes: Sequence[Episode],
    device: torch.device | str,
) -> Any:
    """Scores from embeddings of the samples that occur; None where the method needs more than embeddings."""
    learner = feature_method(adaptation.method)
    if learner is None:
        return None
    used = np.unique(np.concatenate([np.r_[e.support_indices, e.query_indices] for e in episodes]))
    features = embeddings(module, episodes[0].samples.inputs[used], preprocessing, device=device)

    def score(chosen: list[Episode]) -> Tensor:
        support = np.searchsorted(used, np.stack([episode.support_indices for episode in chosen]))
        query = np.searchsorted(used, np.stack([episode.query_indices for episode in chosen]))
        labels = torch.as_tensor(np.stack([episode.support_labels for episode in chosen]))
        ways = len(chosen[0].classes)
        return learner.feature_scores(features[support], labels, features[query], ways, adaptation.settings)

    return score


def _whole(module: nn.Module, preprocessing: Preprocessing, adaptation: Adaptation, device: torch.device | str) -> Any:
    def score(chosen: list[Episode]) -> Tensor:
        task = task_of(chosen)
        inputs = prepare(task.inputs.reshape(-1, *task.inputs.shape[2:]), preprocessing, device=device)
        return episode_scores(module, inputs, task, adaptation)

    return score
