"""Metrics of a network on held-out data while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mapsto.kinds import Preprocessing, Samples
from mapsto.nn.network.inference import forward
from mapsto.nn.train.label_kinds import Kind, kind_of, loss

__all__ = ["class_metrics", "target_metrics"]


def class_metrics(
    module: nn.Module, samples: Samples, preprocessing: Preprocessing, *, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """`target_metrics` of a network on held-out data; the labels say which."""
    outputs = forward(module, samples.inputs, preprocessing, device=device)
    return target_metrics(kind_of(samples.labels), outputs, torch.as_tensor(samples.labels))


def target_metrics(kind: Kind, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """``val_loss``, and ``val_accuracy`` (%) of classes or ``val_rmse`` of values (in their own unit).

    >>> target_metrics("regression", torch.zeros(2, 1), torch.tensor([[3.0], [3.0]]))["val_rmse"]
    3.0
    """
    metrics = {"val_loss": float(loss(kind, outputs, labels))}
    if kind == "classification":
        metrics["val_accuracy"] = float((outputs.argmax(1) == labels).double().mean() * 100)
    elif kind == "regression":
        metrics["val_rmse"] = float((outputs.double() - labels.double()).square().mean().sqrt())
    return metrics
