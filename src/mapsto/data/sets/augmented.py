"""Another data set whose samples are changed at random: what a network meets when the world looks different.

A camera that darkens, shakes or gets dirty, as ``[affine: …, noise: …]``: to measure how much of an accuracy is left (Hendrycks and
Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019), or as the drift of a stream.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentations, refuse_mixing
from mapsto.kinds import Dataset, Samples
from mapsto.mapping import DataSource

__all__ = ["Augmented"]

_AT_ONCE = 512
"""Samples that are changed together: what each draws depends on its place alone."""


class Augmented(Dataset):
    """The samples of `data`, each changed, with its label.

    >>> from mapsto.data.sets.digits import Digits
    >>> plain = Digits(size=8)
    >>> noisy = Augmented(data=plain, augment=[{"noise": {"std": 0.2}}]).open()
    >>> before, after = plain.open().inputs.astype(float), noisy.inputs.astype(float)
    >>> noisy.classes == plain.open().classes, bool(20 < abs(after - before).mean() < 60)
    (True, True)
    """

    data: DataSource
    """What is changed."""
    augment: Augmentations = ()
    """What is done to each sample, in order; nothing that mixes samples."""
    copies: int = Field(default=1, ge=1, le=1000)
    """How often each sample comes, changed anew each time: all of them, then all of them again."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every change."""

    contract: ClassVar[dict[str, Any]] = {
        "data": {"subset": {"data": {"digits": {"size": 8}}, "per_class": 3}},
        "augment": [{"noise": {"std": 0.1}}],
        "copies": 2,
    }

    def __post_init__(self) -> None:
        refuse_mixing(self.augment, "each sample keeps its label", where="augmented")

    def fingerprint(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def open(self) -> Samples:
        """Raises `DomainError` for an operation that is not for samples such as these."""
        import dataclasses

        import numpy as np

        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_some
        from mapsto.data.io.fingerprint import dataset_of

        samples = require_some(dataset_of(self.data, where="augmented.data").open(), where="augmented.data")
        require_fitting(self.augment, samples, where="augmented.augment")
        starts = [(copy, first) for copy in range(self.copies) for first in range(0, len(samples), _AT_ONCE)]
        inputs = np.concatenate([self._changed(samples, copy, first) for copy, first in starts])
        labels = np.concatenate([samples.labels] * self.copies)
        return dataclasses.replace(samples, inputs=inputs, labels=labels)

    def _changed(self, samples: Samples, copy: int, first: int) -> Any:
        """Samples from `first` on, as this copy has them."""
        import numpy as np
        import torch

        from mapsto.data.augment._apply import changed, generator_of

        def generator(place: int) -> torch.Generator:
            drawn = np.random.SeedSequence([self.seed, copy, first, place]).generate_state(1, np.uint64)
            return generator_of(int(drawn[0] >> np.uint64(1)))

        raw = torch.as_tensor(np.ascontiguousarray(samples.inputs[first : first + _AT_ONCE]))
        return changed(self.augment, raw, generator).numpy()
