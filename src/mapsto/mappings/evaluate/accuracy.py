"""How often a classifier is right, for which classes, and with what it confuses them.

``accuracy = right / N`` with Wilson's score interval at 95 % (both its ends and its half-width; Wilson, "Probable Inference, the Law of
Succession, and Statistical Inference", 1927); precision, recall and F1 of each class as usual. Several labels at once are
judged at 0.5, label by label and all of a sample together, numbers by their root mean squared error.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Metric, Model, Network, Report, Samples, Table
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.evaluate.classification import confusion_counts, per_class, share
from mapsto.nn.evaluate.labels import label_figures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Accuracy"]

_LEAST = 1e-12
"""A probability below it counts as this: a class that a model has not met would cost infinity."""


class Accuracy(Mapping[Network | Model, Report]):
    """Accuracy (%, ± CI95) and loss of a classifier; tables by class and of confusions; example pictures.

    A model that learnt from a stream is asked each sample as a question, and learns nothing from it.
    """

    version: ClassVar[int] = 3

    data: DataSource
    """The labelled samples, never those it was trained on."""
    batch_size: int = Field(default=256, ge=1)
    """Samples of a forward pass."""
    pictures: int = Field(default=6, ge=0, le=64)
    """How many example images that it got right, and as many that it got wrong."""
    confusion_classes: int = Field(default=100, ge=0)
    """The table of confusions is left out where there are more classes."""
    top: int | None = Field(default=None, ge=2)
    """Also the share of samples whose class is among so many with the highest scores, as ``top5_accuracy`` for 5. For classes."""

    def apply(self, value: Network | Model, ctx: Context) -> Report:
        """Raises `DomainError` where network or model has no such outputs, `DataError` for NaN or no sample."""
        from mapsto.data.checks import require_finite, require_some

        samples = require_some(ctx.dataset(self.data), where="evaluate.accuracy")
        require_finite(samples.inputs, where="evaluate.accuracy: data")
        return self._of_model(value, samples) if isinstance(value, Model) else self._of_network(value, samples, ctx)

    def _of_model(self, value: Model, samples: Samples) -> Report:
        import numpy as np

        from mapsto.nn.online.dataset_events import class_scores

        if samples.labels.ndim != 1 or samples.labels.dtype.kind not in "iu" or value.values.get("task") == "values":
            raise DomainError(
                "of models that learnt from a stream only classifiers are evaluated on data",
                where="evaluate.accuracy",
                hint="read the record of the stream instead",
            )
        scores = class_scores(value, samples, batch=self.batch_size, where="evaluate.accuracy")
        if np.isnan(scores).any():
            raise DomainError(
                f"the model takes no sample like number {int(np.isnan(scores).any(1).argmax())}",
                where="evaluate.accuracy",
                hint="give it data like the stream's",
            )
        of_label = np.maximum(scores[np.arange(len(samples)), samples.labels], _LEAST)
        mean = Metric(value=float(-np.log(of_label).mean()), n=len(samples))
        return self._classification(samples, scores, mean)

    def _of_network(self, value: Network, samples: Samples, ctx: Context) -> Report:
        import torch

        from mapsto.nn.network.inference import forward
        from mapsto.nn.train.label_kinds import kind_of, loss

        _require_outputs(value, samples)
        outputs = forward(
            value.module(), samples.inputs, value.signature.preprocessing, batch_size=self.batch_size, device=ctx.device
        )
        kind = kind_of(samples.labels)
        labels = torch.as_tensor(samples.labels)
        mean = Metric(value=float(loss(kind, outputs, labels)), n=len(samples))
        if kind == "multilabel":
            return self._labels(samples, (outputs > 0).numpy(), mean)
        if kind == "regression":
            error = float((outputs - labels).double().square().mean().sqrt())
            return Report(metrics={"rmse": Metric(value=error, n=len(samples)), "loss": mean})
        return self._classification(samples, outputs.numpy(), mean)

    def _labels(self, samples: Samples, predicted: NDArray[np.bool_], loss: Metric) -> Report:
        """Of labels that stand each by itself: accuracy counts each label, `exact` the samples of which all are right."""
        found = label_figures(samples.labels, predicted, samples.classes)
        right = predicted == (samples.labels > 0.5)
        metrics = {
            "accuracy": share(int(right.sum()), right.size),
            "exact": share(found.exact, found.samples),
            "micro_f1": Metric(value=found.micro_f1, unit="%", n=found.samples),
            "macro_f1": Metric(value=found.macro_f1, unit="%", n=found.samples),
            "loss": loss,
        }
        return Report(metrics=metrics, tables={"per_label": found.per_label})

    def _classification(self, samples: Samples, scores: NDArray[Any], loss: Metric) -> Report:
        predicted = scores.argmax(1)
        metrics = {"accuracy": share(int((predicted == samples.labels).sum()), len(samples)), "loss": loss}
        if self.top is not None:
            metrics[f"top{self.top}_accuracy"] = share(_among_highest(scores, samples.labels, self.top), len(samples))
        counts = confusion_counts(samples.labels, predicted, len(samples.classes))
        tables = {"per_class": per_class(counts, samples.classes)}
        if len(samples.classes) <= self.confusion_classes:
            rows = tuple((name, *map(int, row)) for name, row in zip(samples.classes, counts, strict=True))
            tables["confusion"] = Table(columns=("label \\ predicted", *samples.classes), rows=rows)
        return Report(
            metrics=metrics,
            tables=tables,
            pictures=self._examples(samples, predicted),
        )

    def _examples(self, samples: Samples, predicted: NDArray[np.int64]) -> dict[str, bytes]:
        """The first images it got right and wrong, by name ``right_1_cat`` and ``wrong_1_cat_as_dog``."""
        import numpy as np

        if samples.inputs.ndim != 4 or samples.inputs.dtype != np.uint8:
            return {}
        pictures: dict[str, bytes] = {}
        for name, right in (("right", True), ("wrong", False)):
            places = np.flatnonzero((predicted == samples.labels) == right)
            for number, place in enumerate(_spread(places, self.pictures), 1):
                label = _word(samples.classes[samples.labels[place]])
                guess = "" if right else f"_as_{_word(samples.classes[predicted[place]])}"
                pictures[f"{name}_{number}_{label}{guess}"] = _png(samples.inputs[place])
        return pictures


def _among_highest(scores: NDArray[Any], labels: NDArray[np.int64], top: int) -> int:
    """How many samples have fewer than `top` classes with a higher score than their own; of equal ones the first counts as higher.

    >>> import numpy as np
    >>> _among_highest(np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), np.array([1, 2]), 2)
    1
    """
    import numpy as np

    right = 0
    for start in range(0, len(scores), 4096):
        part, own = scores[start : start + 4096], labels[start : start + 4096, None]
        score = np.take_along_axis(part, own, 1)
        before = (part > score) | ((part == score) & (np.arange(part.shape[1]) < own))
        right += int((before.sum(1) < top).sum())
    return right


def _require_outputs(value: Network, samples: Samples) -> None:
    from mapsto.data.checks import require_alike
    from mapsto.nn.network.dense_outputs import refuse_dense

    refuse_dense(value.signature, where="evaluate.accuracy")
    shape, known = value.signature.outputs[0].shape, value.signature.classes
    if value.adaptation is not None or (known is None and shape[-1] != len(samples.classes)):
        raise DomainError(
            f"the network gives an embedding of {shape[-1]} numbers, not {len(samples.classes)} classes",
            where="evaluate.accuracy",
            hint="adapt it first (adapt.centroid, adapt.linear), or evaluate it by evaluate.episodes",
        )
    if shape[-1] != len(samples.classes):
        raise DomainError(
            f"the network has {shape[-1]} outputs, but the data has {len(samples.classes)} classes",
            where="evaluate.accuracy",
            hint="give it data with the network's classes",
        )
    require_alike(known, samples.classes, where="evaluate.accuracy")


def _spread(places: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of them, evenly over the whole, so that they are of different classes."""
    import numpy as np

    chosen = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return places[chosen].tolist()


def _word(name: str) -> str:
    return "".join(character if character.isalnum() or character == "-" else " " for character in name).strip()


def _png(image: NDArray[np.uint8]) -> bytes:
    """An image (C, H, W) as PNG."""
    from PIL import Image

    array = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()
