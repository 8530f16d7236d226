"""A data set whose samples are changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mapsto import datasets
from mapsto.errors import DomainError, SpecError

FEW = datasets.subset(data=datasets.digits(size=8), per_class=3)


def test_each_copy_is_changed_anew_and_keeps_its_labels() -> None:
    plain = FEW.open()
    changed = datasets.augmented(data=FEW, augment=[{"noise": {"std": 0.1}}], copies=3)
    samples = changed.open()
    parts = np.split(samples.inputs, 3)
    assert (samples.labels == np.tile(plain.labels, 3)).all()
    assert len({part.tobytes() for part in (plain.inputs, *parts)}) == 4
    assert (changed.open().inputs == samples.inputs).all()
    assert samples.inputs.dtype == plain.inputs.dtype


def test_a_seed_decides_the_changes_and_the_fingerprint() -> None:
    one, other = (datasets.augmented(data=FEW, augment=["flip"], seed=seed) for seed in (0, 1))
    assert one.fingerprint() != other.fingerprint()
    assert (one.open().inputs != other.open().inputs).any()


def test_without_operations_it_is_what_it_was() -> None:
    assert (datasets.augmented(data=FEW).open().inputs == FEW.open().inputs).all()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="mixes samples, but each sample keeps its label"):
        datasets.augmented(data=FEW, augment=["mixup"])
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((6, 4), np.float32), labels=np.array([0, 1] * 3))
    with pytest.raises(DomainError, match="flip is for images"):
        datasets.augmented(data=datasets.arrays(file=str(tmp_path / "rows.npz")), augment=["flip"]).open()
