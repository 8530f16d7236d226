"""How often a classifier is right on images that are spoilt as cameras, weather and files spoil them: 15 ways, each in 5 severities.

``mean corruption accuracy = mean_c mean_s accuracy(c(x, s))`` over corruptions c and severities s (Hendrycks and Dietterich, "Benchmarking
Neural Network Robustness to Common Corruptions and Perturbations", 2019). The images are made here from the given ones, so that any data
set of images can be judged; figures are near those on CIFAR-10-C and ImageNet-C, not the same.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.data.corruptions.severities import CORRUPTIONS, Corruption
from mapsto.kinds import Metric, Network, Report, Samples, Series, Table
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Corruptions"]


class Corruptions(Mapping[Network, Report]):
    """Accuracy (%) on clean images, ``corrupted``, its mean over corruptions and severities, and ``lost`` between them.

    A table by corruption and severity, a series over severities, and a picture of one image in all of them.
    """

    data: DataSource
    """The labelled images as bytes, one class each, never those it was trained on."""
    corruptions: tuple[Corruption, ...] = Field(default=CORRUPTIONS, min_length=1)
    """Which corruptions."""
    severities: tuple[int, ...] = Field(default=(1, 2, 3, 4, 5), min_length=1)
    """Which severities, 1 to 5."""
    samples: int = Field(default=1000, ge=2)
    """How many images, drawn without replacement; all where there are fewer. Each is judged in every corruption and severity."""
    draws: int = Field(default=0, ge=0)
    """Seed of noise, flakes and clouds: the same images and seed are spoilt alike for every network."""
    batch_size: int = Field(default=256, ge=1)
    """Samples of a forward pass."""

    contract: ClassVar[dict[str, Any]] = {"corruptions": ["gaussian_noise", "contrast"], "severities": [1, 5]}

    def __post_init__(self) -> None:
        from mapsto.errors import SpecError

        wrong = [severity for severity in self.severities if severity not in range(1, 6)]
        if wrong:
            raise SpecError(f"severity {wrong[0]} is none", where=self.name, hint="give severities from 1 to 5")

    def apply(self, value: Network, ctx: Context) -> Report:
        """Raises `DomainError` for a network without scores of these classes, `DataError` for other data than images of bytes."""
        import numpy as np

        from mapsto.data.corruptions.severities import corrupted
        from mapsto.nn.evaluate.classification import share

        samples = self._samples(value, ctx)
        kinds, severities = tuple(dict.fromkeys(self.corruptions)), tuple(sorted(set(self.severities)))
        right = np.zeros((len(kinds), len(severities), len(samples)), bool)
        answers = self._answers(value, ctx)
        clean = answers(samples.inputs) == samples.labels
        cells = [(place, level) for place in range(len(kinds)) for level in range(len(severities))]
        for place, level in ctx.track(cells, total=len(cells), what="corruptions"):
            images = corrupted(np.asarray(samples.inputs), kinds[place], severities[level], seed=self.draws)
            right[place, level] = answers(images) == samples.labels
        each = 100 * right.mean((0, 1))  # of an image, over all that was done to it
        half = 1.959964 * float(each.std(ddof=1)) / len(each) ** 0.5 if len(each) > 1 else None
        metrics = {
            "accuracy": share(int(clean.sum()), len(clean)),
            "corrupted": Metric(value=float(each.mean()), unit="%", ci95=half, n=len(each)),
            "lost": Metric(value=float(100 * clean.mean() - each.mean()), unit="points", n=len(each)),
        }
        return Report(
            metrics=metrics,
            tables={"corruptions": _table(kinds, severities, 100 * right.mean(2))},
            series={"severities": _series(kinds, severities, 100 * right.mean(2))},
            pictures={"one_image_in_every_corruption": self._sheet(samples.inputs, kinds, severities)},
        )

    def _samples(self, value: Network, ctx: Context) -> Samples:
        from mapsto.data.checks import require_labelled, require_some
        from mapsto.nn.evaluate.class_scores import require_class_scores

        samples = require_some(ctx.dataset(self.data), where=f"{self.name}: data")
        require_labelled(samples, where=f"{self.name}: data")
        require_class_scores(value, samples.classes, where=self.name)
        return samples.take(ctx.random("samples").permutation(len(samples))[: self.samples])

    def _answers(self, value: Network, ctx: Context) -> Any:
        from mapsto.nn.network.inference import forward

        module, before = value.module(), value.signature.preprocessing

        def answers(images: NDArray[np.uint8]) -> NDArray[np.int64]:
            return forward(module, images, before, batch_size=self.batch_size, device=ctx.device).argmax(1).numpy()

        return answers

    def _sheet(self, images: NDArray[np.uint8], kinds: tuple[str, ...], severities: tuple[int, ...]) -> bytes:
        """The first image, a row for each corruption: as it is, then by severity."""
        import numpy as np
        from PIL import Image

        from mapsto.data.corruptions.severities import corrupted

        first = images[:1]
        rows = [
            np.concatenate([first, *(corrupted(first, kind, level, seed=self.draws) for level in severities)], 3)[0]
            for kind in kinds
        ]
        sheet = np.concatenate(rows, 1)
        file = io.BytesIO()
        Image.fromarray(sheet[0] if len(sheet) == 1 else sheet.transpose(1, 2, 0)).save(file, format="PNG")
        return file.getvalue()


def _table(kinds: tuple[str, ...], severities: tuple[int, ...], accuracy: NDArray[np.float64]) -> Table:
    columns = ("corruption", *(f"severity {level}" for level in severities), "mean")
    rows = tuple(
        (kind, *(round(float(cell), 2) for cell in row), round(float(row.mean()), 2))
        for kind, row in zip(kinds, accuracy, strict=True)
    )
    return Table(columns=columns, rows=rows, units=dict.fromkeys(columns[1:], "%"))


def _series(kinds: tuple[str, ...], severities: tuple[int, ...], accuracy: NDArray[np.float64]) -> Series:
    curves = {"mean": accuracy.mean(0), **dict(zip(kinds, accuracy, strict=True))}
    ys = {name: tuple(float(cell) for cell in row) for name, row in curves.items()}
    return Series(x=tuple(map(float, severities)), ys=ys, x_name="severity", y_name="right, %")
