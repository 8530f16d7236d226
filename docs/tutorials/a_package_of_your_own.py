# %% [markdown]
# # A package of your own
#
# At the beginning of this path you wrote a mapping in a notebook. Here it becomes a package that others install: with a name in
# recipes, a page in `mapsto show`, the tests that mapsto's own mappings pass, and a wheel. Nothing of mapsto is changed for it.
#
# $$\text{one class} \;\mapsto\; \text{a name that every recipe knows}$$

# %%
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

plt.rcParams["figure.constrained_layout.use"] = True
folder = Path(tempfile.mkdtemp())
project, site = folder / "hardware", folder / "site"
(project / "src" / "hardware").mkdir(parents=True)
(project / "tests").mkdir()
paths = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
environment = {**os.environ, "MAPSTO_STORE": str(folder / "store"), "PYTHONPATH": paths}


def run(*arguments, where=folder):
    """Run a Python module, as in a terminal, and give what it printed."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


# %% [markdown]
# ## 1. The mapping
#
# One file, one class. The docstring of the module becomes its summary, those of the fields their help; `Field` says which values are
# allowed. What decides the result is in the fields and in `version`, since these are in the key under which results are stored. torch
# is imported where it is needed, so that `mapsto list` stays fast.

# %%
(project / "src" / "hardware" / "__init__.py").write_text("")
(project / "src" / "hardware" / "noise.py").write_text('''\
"""Add noise to the weights, as analogue hardware does that stores them as voltages.

``w ← w + amount · σ(w) · ε`` with ε drawn from the standard normal distribution, layer by layer.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mapsto import Context, Mapping, Network

__all__ = ["Noise"]


class Noise(Mapping[Network, Network]):
    """The network with noise on the weights of every layer."""

    version: ClassVar[int] = 1

    amount: float = Field(default=0.1, ge=0)
    """Standard deviation of the noise, as a share of that of the layer's weights."""

    def apply(self, value: Network, ctx: Context) -> Network:
        import torch

        module = value.module()
        for name, weight in module.named_parameters():
            if weight.ndim > 1:
                drawn = torch.from_numpy(ctx.random(name).standard_normal(weight.shape, dtype="float32"))
                with torch.no_grad():
                    weight.add_(self.amount * weight.std() * drawn)
        return value.with_module(module)
''')

# %% [markdown]
# ## 2. The entry point
#
# Two lines tell mapsto of it: the group, and the name that recipes will use. Data sets, streams, augmentations and edits have groups of
# their own: `mapsto.data`, `mapsto.streams`, `mapsto.augment`, `mapsto.edits`.

# %%
(project / "pyproject.toml").write_text("""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mapsto-hardware"
version = "1.0"
dependencies = ["mapsto"]

[project.entry-points."mapsto.mappings"]
"hardware.noise" = "hardware.noise:Noise"

[tool.hatch.build.targets.wheel]
packages = ["src/hardware"]
""")

# %% [markdown]
# ## 3. The wheel
#
# Build it, and install it. Here it goes into a folder of its own that later commands are told of, so that this page leaves your
# environment as it was; you would say `pip install dist/*.whl`.

# %%
have = importlib.util.find_spec("hatchling") is not None  # else pip fetches it into a place of its own
isolation = ["--no-build-isolation"] if have else []
run("pip", "wheel", "--no-deps", *isolation, "--wheel-dir", "dist", "./hardware")
(wheel,) = (folder / "dist").glob("*.whl")
run("pip", "install", "--no-deps", "--quiet", "--target", site, wheel)
print(wheel.name, f"{wheel.stat().st_size:,} bytes")
print(run("mapsto", "list", "hardware"))
print(run("mapsto", "show", "hardware.noise"))

# %% [markdown]
# ## 4. The contract
#
# Every mapping promises things that its author easily forgets: its defaults construct, YAML gives the same mapping back, its input
# stays as it was, the same seed gives the same digest, its result survives saving and loading, and a wrong value is refused with a
# message that names the field. `mapsto.testing` checks all of them on yours. What it cannot know is whether the numbers are right, so
# that is a test of your own.

# %%
(project / "tests" / "test_noise.py").write_text("""\
import pytest
from mapsto import hardware, testing


@pytest.mark.parametrize("case", testing.cases("hardware."), ids=str)
@pytest.mark.parametrize("promise", testing.PROMISES)
def test_contract(case, promise, tmp_path):
    case.check(tmp_path, promise)


def test_the_noise_is_as_large_as_it_says():
    network = testing.contract_network()
    noisy = hardware.noise(amount=0.5)(network)
    name = "classifier.weight"
    before, after = (each.module().get_parameter(name).detach() for each in (network, noisy))
    assert float((after - before).std() / before.std()) == pytest.approx(0.5, rel=0.15)
""")
print(run("pytest", "-q", "-p", "no:cacheprovider", "tests", where=project))

# %% [markdown]
# ## 5. In a recipe
#
# From now on it is a step like any other: it has a place in YAML, its fields can be set on the command line, its results are stored. A
# search takes it, too, and here the hole is the amount of noise: does a network bear more of it that was trained with noise on its
# inputs?

# %%
(folder / "noise.yaml").write_text("""\
schema: 1
name: noise
search:
  objectives: [{metric: noisy.test.accuracy, goal: maximize}]
data:
  learn: {digits: {split: train, size: 16}}
  held: {digits: {split: test, size: 16}}
steps:
  - networks.conv4: {data: $learn, classes: data, width: 16, blocks: 2}
  - train.supervised:
      data: $learn
      epochs: 5
      batch_size: 64
      learning_rate: 0.05
      augment: {choice: {plain: [], noisy: [noise: {std: 0.2}]}}
  - hardware.noise: {amount: {choice: [0.0, 0.25, 0.5, 0.75]}}
    as: noisy
    observe: {test: {evaluate.accuracy: {data: $held, pictures: 0}}}
""")
run(
    "mapsto",
    "search",
    "noise.yaml",
    "--sampler",
    "grid",
    "--trials",
    "8",
    "--no-ablate",
    "--threads",
    "1",
    "--out",
    "found",
)
trials = json.loads((folder / "found" / "frontier.json").read_text())["trials"]
assert len(trials) == 8

figure, axis = plt.subplots(figsize=(5, 3))
ends = {}
for way in ("plain", "noisy"):
    points = sorted((t["holes"]["noisy.amount"], t["values"][0]) for t in trials if way in t["holes"].values())
    axis.plot(*zip(*points, strict=True), "o-", label=f"trained on {way} images")
    print(way, [f"{amount}: {right:.1f} %" for amount, right in points])
    ends[way] = points
axis.set(xlabel="noise of the weights, as a share of their deviation", ylabel="accuracy, %", ylim=(50, 102))
axis.legend()
assert all(points[0][1] > 90 and points[-1][1] < points[0][1] for points in ends.values())

# %% [markdown]
# On these digits it does, for a small price where there is no noise.
#
# ## What you have made
#
# - a mapping with a name, a version, fields that are checked, and help;
# - a test suite that holds it to what mapsto's own mappings promise;
# - a wheel of two kilobytes that anyone can install beside mapsto and use in a recipe, a search or a service.
#
# That is the whole path: you can read any mapping of mapsto now, for each is a file like this one, and write the one that is missing.
# [Contributing](../contributing.md) shows a pruning criterion, an augmentation and an online learner in the same way, and [the reading
# list](../reading.md) leads on to the papers.
