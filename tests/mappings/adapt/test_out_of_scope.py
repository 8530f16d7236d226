"""What is far from all classes is answered by a class of its own: its threshold, its examples, and the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Network
from mapsto.mappings.adapt.linear import Linear
from mapsto.mappings.adapt.nearest import Nearest
from mapsto.mappings.adapt.out_of_scope import OutOfScope
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.export.onnx import Onnx
from mapsto.mappings.networks.mlp import Mlp
from mapsto.nn.adapt import scope
from mapsto.nn.edits.out_of_scope import OutOfScope as Edit
from mapsto.nn.edits.tuned_branch import untuned_size
from mapsto.nn.network.inference import forward
from mapsto_runtime.predictor import Predictor


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of rows of three classes around axes, and of rows around another one."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    rows = np.eye(8)[labels] + 0.1 * rng.normal(size=(24, 8))
    np.savez(folder / "within.npz", inputs=rows.astype(np.float32), labels=labels)
    far = np.eye(8)[np.full(10, 5)] + 0.1 * rng.normal(size=(10, 8))
    np.savez(folder / "outside.npz", inputs=far.astype(np.float32), labels=np.zeros(10, np.int64))
    return folder


def rows_of(place: Path, name: str) -> np.ndarray:
    return datasets.arrays(file=str(place / name)).open().inputs


@pytest.fixture(scope="module")
def bare(place: Path) -> Network:
    """A network whose embedding is its input."""
    return Mlp(data=datasets.arrays(file=str(place / "within.npz")), widths=())()


@pytest.mark.parametrize("head", [Linear, Ridge, Nearest])
@pytest.mark.parametrize("given", [False, True])
def test_far_inputs_get_the_new_class_and_others_keep_their_scores(
    bare: Network, place: Path, head: type[Linear] | type[Ridge] | type[Nearest], given: bool
) -> None:
    data = datasets.arrays(file=str(place / "within.npz"))
    outside = datasets.arrays(file=str(place / "outside.npz")) if given else None
    ctx = Context()
    adapted = ctx.apply(head(data=data), bare)
    found = ctx.apply(OutOfScope(data=data, outside=outside, called="other"), adapted)
    assert found.signature.classes == (*(adapted.signature.classes or ()), "other")
    before = found.signature.preprocessing
    near, far = (forward(found.module(), rows_of(place, name), before) for name in ("within.npz", "outside.npz"))
    assert (far.argmax(1) == 3).all()
    assert float((near.argmax(1) == 3).float().mean()) <= 0.1
    assert near[:, :3].equal(forward(adapted.module(), rows_of(place, "within.npz"), before))
    assert "out_of_scope" in ctx.attached


def test_a_package_answers_it(bare: Network, place: Path, tmp_path: Path) -> None:
    data = datasets.arrays(file=str(place / "within.npz"))
    ctx = Context()
    found = ctx.apply(OutOfScope(data=data), ctx.apply(Linear(data=data), bare))
    package = ctx.apply(Onnx(data=data), found)
    for name, path in package.files.items():
        (tmp_path / name).write_bytes(path.read_bytes())
    answers = Predictor(tmp_path).predict([rows_of(place, "outside.npz")])
    assert {answer.label for answer in answers} == {"none of these"}


def test_the_threshold_keeps_the_share_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    within, outside = rng.normal(0.6, 0.1, 1000), rng.normal(0.3, 0.1, 1000)
    alone, both = scope.calibrated(within, None, 0.9), scope.calibrated(within, outside, 0.9)
    assert alone.kept == pytest.approx(0.9, abs=0.001)
    assert both.threshold == pytest.approx(0.45, abs=0.03)
    assert both.auroc == pytest.approx(0.983, abs=0.01)
    assert both.kept >= 0.8


def test_what_cannot_be_calibrated_is_refused(bare: Network, place: Path) -> None:
    data = datasets.arrays(file=str(place / "within.npz"))
    adapted = Linear(data=data)(bare)
    with pytest.raises(DataError, match="is one of the classes"):
        OutOfScope(data=data, called="1")(adapted)
    again = OutOfScope(data=data)(adapted)
    with pytest.raises(DataError, match="of other classes"):
        OutOfScope(data=data, called="else")(again)
    one = datasets.subset(data=data, per_class=1)
    with pytest.raises(DataError, match="every class has one example"):
        OutOfScope(data=one)(Linear(data=one)(bare))


def test_of_two_branches_the_one_that_was_not_tuned_tells_what_is_far(place: Path) -> None:
    """Else examples would look nearer to each other than any new input does, for it was tuned to bring them there."""
    data = datasets.arrays(file=str(place / "within.npz"))
    bare = Mlp(data=data, widths=())()
    module = bare.module()
    rows = torch.from_numpy(rows_of(place, "within.npz"))
    assert untuned_size(module, 8) == 8
    module.branches = 2  # as of an encoder of texts with a tuned copy of its top layers
    assert untuned_size(module, 8) == 4
    head = nn.Sequential(nn.Linear(8, 3))
    edit = Edit(path="0", inputs=4, means=3, threshold=0.5, steepness=10.0)
    edit.apply(head)
    with torch.no_grad():
        head[0].scope.weight.copy_(torch.eye(4)[:3])
    changed = rows.clone()
    changed[:, 4:] = 7.0
    plain, other = head(rows), head(changed)
    nones = [scores[:, 3] - scores[:, :3].amax(1) for scores in (plain, other)]
    assert torch.allclose(nones[0], nones[1], atol=1e-5), "the numbers behind the first four do not count"
