"""The examples of CONTRIBUTING.md work, in this repository and from a package of someone else's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import mapsto
from mapsto import discovery, testing
from mapsto.errors import SpecError
from mapsto.kinds import Network, trusting
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute
from tests.command import mapsto as run_mapsto

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    path = tmp_path / "smallest.py"
    path.write_text(code[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("smallest_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smallest_example", module)
    spec.loader.exec_module(module)
    return module


def test_the_example_sets_the_smallest_weights_to_zero(example: ModuleType) -> None:
    with trusting("torch"):
        network = Network.from_module(nn.Linear(16, 4), torch.zeros(1, 16))
        before = network.tensors["weight"].clone()
        after = example.Smallest(share=0.25)(network).tensors["weight"]
    assert int((after == 0).sum()) == 16
    assert float(before[after == 0].abs().max()) < float(after[after != 0].abs().min())
    assert torch.equal(network.tensors["weight"], before)


def test_the_example_refuses_a_share_out_of_range(example: ModuleType) -> None:
    with pytest.raises(SpecError, match="share"):
        example.Smallest(share=2)


# ------------------------------------------------------------------------------------------- from a package of someone else's


def _forget() -> None:
    for cached in (discovery.entries, discovery.find):
        cached.cache_clear()
    vars(mapsto).pop("yours", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "yours"]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package ``yours`` as pip would have installed it: each module and entry point that the guide shows for it."""
    guide = GUIDE.read_text(encoding="utf-8")
    place = tmp_path / "site"
    (place / "yours").mkdir(parents=True)
    points: list[str] = []
    for section in re.split(r"^## ", guide, flags=re.MULTILINE):
        declared = re.search(
            r'```toml\n\[project\.entry-points\."(.+?)"\]\n"(.+?)" = "yours\.(\w+):(\w+)"\n```', section
        )
        if declared:
            group, name, module, attribute = declared.groups()
            code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
            assert code
            (place / "yours" / f"{module}.py").write_text(code[1], encoding="utf-8")
            points.append(f"[{group}]\n{name} = yours.{module}:{attribute}\n")
    assert points
    about = place / "yours-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: yours\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    monkeypatch.syspath_prepend(str(place))
    importlib.invalidate_caches()
    _forget()
    yield
    _forget()


@pytest.mark.usefixtures("installed")
def test_a_criterion_of_another_package_is_used_like_one_of_mapsto() -> None:
    assert "yours.alive" in run_mapsto("list", "yours", code=0).out
    assert "threshold  (number in (0, ∞], default 0.01)" in run_mapsto("show", "yours.alive", code=0).out
    recipe = parse_recipe(
        "schema: 1\ndata: {images: {digits: {size: 16}}}\nsteps:\n  - networks.conv4: {data: $images, classes: data}\n"
        "  - prune.gradual: {criterion: {yours.alive: {macs: 0.5}}, train: {train.supervised: {data: $images}}}\n"
    )
    assert recipe.steps.steps[1].criterion == mapsto.yours.alive(macs=0.5)  # type: ignore[attr-defined]
    small = mapsto.yours.alive(macs=0.5)(testing.contract_network())
    assert small.tensors["features.0.0.weight"].shape[0] < 4
    with pytest.raises(SpecError, match="threshold"):
        mapsto.yours.alive(macs=0.5, threshold=0)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["yours.alive", "yours.most"])
def test_what_another_package_adds_keeps_the_contract(name: str, tmp_path: Path) -> None:
    (case,) = testing.cases(name)
    case.check(tmp_path)


@pytest.mark.usefixtures("installed")
def test_the_criterion_of_another_package_drops_what_is_close_to_zero() -> None:
    import numpy as np

    from mapsto.context import Context
    from mapsto.nn.prune.dependency_groups import find_groups

    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    for weight, values in zip(
        net.parameters(), ([[9.0, 0.001], [0.5, 0.5], [0.001, 0.001]], [[0.001, 2.0, 2.0]]), strict=True
    ):
        weight.data = torch.tensor(values)
    groups = find_groups(net, torch.ones(9, 2)).groups
    with trusting("torch"):
        network = Network.from_module(nn.Linear(2, 3), torch.zeros(1, 2))
    counted = mapsto.yours.alive(macs=0.5).importance(network, Context())(net, groups)["0"]
    assert np.allclose(counted, np.array([1, 3, 1]) / (5 / 3))


@pytest.mark.usefixtures("installed")
def test_an_online_learner_of_another_package_counts_the_classes(tmp_path: Path) -> None:
    recipe = parse_recipe("schema: 1\nsteps:\n  - yours.most: {stream: {sea: {events: 300}}}\n")
    model = execute(recipe, store=tmp_path / "store").value()
    assert model.arrays["counts"].sum() == 300
    assert set(model.signature.classes) == {"yes", "no"}
    (case,) = testing.cases("yours.most")
    assert case.example().stream.events == 300


@pytest.mark.usefixtures("installed")
def test_an_augmentation_of_another_package_changes_the_light() -> None:
    from mapsto.data.augment import Drawn

    steps = parse_recipe(
        "schema: 1\ndata: {images: {digits: {size: 16}}}\nsteps:\n  - networks.conv4: {data: $images, classes: data}\n"
        "  - train.supervised: {data: $images, augment: [flip, jitter: {strength: 0.5}]}\n"
    ).steps
    _, jitter = steps.steps[1].augment  # type: ignore[attr-defined]
    grey = Drawn(x=torch.full((200, 1, 2, 2), 100, dtype=torch.uint8), targets=torch.zeros(200))
    light = jitter.draw(grey, torch.Generator().manual_seed(0)).x[:, 0].float()
    assert (light.amax((1, 2)) == light.amin((1, 2))).all(), "one factor for an image"
    assert 50 <= light.min() < 60
    assert 140 < light.max() <= 150
