"""The table of steps: native code and PyTorch follow it to the same bytes, and to those of Pillow where Pillow knows the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._pixels import by_native_code
from mapsto.data.augment.crop import Crop
from mapsto.data.augment.flip import Flip
from mapsto.data.augment.randaugment import Randaugment
from mapsto.native.image_steps import ImageSteps


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, (count, *shape), generator=seeded(1), dtype=torch.uint8)


def changed(operation: Augmentation, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return operation.draw(Drawn(x=x, targets=torch.zeros(len(x), 0)), seeded(seed)).x


@pytest.fixture(name="without_native")
def _without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a compiler."""
    nowhere = ImageSteps.__new__(ImageSteps)
    nowhere.missing = "there is no C++ compiler"
    monkeypatch.setattr(ImageSteps, "_kept", nowhere)


@pytest.mark.skipif(ImageSteps.kept().missing is not None, reason="there is no native code here")
@pytest.mark.parametrize(
    "operation",
    [Flip(vertical=0.5), Crop(padding=3), Randaugment(operations=3, magnitude=30)],
    ids=lambda each: each.name,
)
@pytest.mark.parametrize("shape", [(3, 17, 12), (1, 9, 20)], ids=["colours", "grey"])
def test_native_code_and_pytorch_give_the_same_bytes(
    operation: Augmentation, shape: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    batch = images(60, *shape)
    native = changed(operation, batch)
    request.getfixturevalue("without_native")
    assert by_native_code(None, batch) is None  # type: ignore[arg-type]
    assert torch.equal(changed(operation, batch), native)
    assert np.unique(native.numpy()).size > 1
