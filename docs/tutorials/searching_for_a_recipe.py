# %% [markdown]
# # Searching for a recipe
#
# How wide, how much to prune, with a teacher or without, eight bits or floats? Each choice alone is easy to try, all of them together
# are thousands of recipes. *Search* maps a recipe with **holes** to its best recipes. This page leaves five holes in one, lets
# `mapsto search` fill them, reads the frontier that comes out, asks which choice earned what, and then asks `mapsto advise`, which
# needs no trial at all.
#
# $$\text{recipe with holes} \;\mapsto\; \{\text{recipes that no other is better than}\}$$

# %%
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

plt.rcParams["figure.constrained_layout.use"] = True
folder = Path(tempfile.mkdtemp())
os.environ["MAPSTO_STORE"] = str(folder / "store")  # leave it out, and all trials lie in your own store


def mapsto(*arguments):
    """Run a command, as in a terminal, and give what it printed."""
    command = [sys.executable, "-m", "mapsto", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


# %% [markdown]
# ## 1. A recipe with holes
#
# Where a value would stand, `choice` and `range` leave it open; `optional` leaves a whole step open. `$share` is one hole for two
# places. Two objectives: few mistakes on held-out digits, few bytes. A fifth of the digits is held out to judge the trials. The test
# images take no part: a search that sees them finds recipes that suit them.

# %%
(folder / "holes.yaml").write_text("""\
schema: 1
name: holes
search:
  holes: {share: {range: [0.1, 0.6]}}
  objectives:
    - {metric: small.check.accuracy, goal: maximize}
    - {metric: small.size.bytes, goal: minimize}
data:
  train: {digits: {split: train, size: 16}}
  learn: {fold: {data: $train, folds: 5}}
  check: {fold: {data: $train, folds: 5, part: judge}}
steps:
  - networks.conv4: {data: $learn, classes: data, blocks: 2, width: {choice: [8, 16, 24]}}
  - train.supervised: {data: $learn, epochs: 4, batch_size: 64, learning_rate: 0.05}
    as: big
  - choice:
      magnitude: [prune.magnitude: {macs: $share}]
      taylor: [prune.taylor: {macs: $share, data: $learn}]
    as: pruned
  - distill.logits: {teacher: $big, data: $learn, epochs: 2, batch_size: 64, learning_rate: 0.05}
    optional: true
    as: distilled
  - choice:
      int8: [quantize.static: {data: $learn}]
      float: []
    as: small
    observe: {check: {evaluate.accuracy: {data: $check, pictures: 0}}, size: {evaluate.size: {}}}
""")
print(mapsto("search", "holes.yaml", "--plan"))

# %% [markdown]
# ## 2. Search
#
# The sampler `evolution` changes a hole or two of the good trials; `tpe` and `nsga2` come with the extra `search`. All trials share one
# store: a network that two of them begin with is trained once. After the trials the best recipe runs again with each choice taken back:
# the **ablation**.

# %%
print(mapsto("search", "holes.yaml", "--trials", "12", "--sampler", "evolution", "--out", "found", "--threads", "1"))

# %% [markdown]
# ## 3. The frontier
#
# A recipe is on the frontier if no other is both more accurate and smaller. Which point of it you want is for you to say. Each is a
# recipe file of its own, so to have one is to run it, and all of its steps are hits.

# %%
found = json.loads((folder / "found" / "frontier.json").read_text())
trials = [trial for trial in found["trials"] if trial["state"] == "complete"]
figure, axis = plt.subplots(figsize=(6, 3.4))
for teacher, marker in ((True, "o"), (False, "x")):
    points = [trial["values"] for trial in trials if trial["holes"]["distilled.kept"] is teacher]
    label = "with a teacher" if teacher else "without"
    axis.plot([size / 1e3 for _, size in points], [right for right, _ in points], marker, color="tab:grey", label=label)
edge = sorted((point["values"][1] / 1e3, point["values"][0]) for point in found["frontier"])
axis.plot(*zip(*edge, strict=True), "-", drawstyle="steps-post", color="tab:blue", label="the frontier")
axis.set(xscale="log", xlabel="kB", ylabel="accuracy on held-out digits, %", title="up and left is better")
axis.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
axis.set_xticks([], minor=True)
axis.legend()
assert edge == sorted(edge, key=lambda point: point[1]), "more bytes on the frontier buy more accuracy"
assert found["saved"]["hits"] > 10

# %% [markdown]
# Each point stands for 270 held-out digits, so two points of accuracy are five digits: the smaller of two such recipes is as good a
# choice.
#
# ## 4. What earned what
#
# A recipe that was found is not understood yet. The ablation took each choice of the best one back by itself, to the hole's default. A
# step that earns nothing can go.

# %%
objectives = [each["metric"] for each in found["objectives"]]
rows = [(each["what"], *each["differences"]) for each in found["ablation"]]
for what, right, size in rows:
    print(f"{what}: {right:+.1f} points, {size / 1e3:+.1f} kB")
figure, axis = plt.subplots(figsize=(7, 0.5 + 0.45 * len(rows)))
bars = axis.barh([what for what, *_ in rows], [right for _, right, _ in rows], color="tab:blue")
axis.bar_label(bars, fmt="%+.1f", padding=3)
axis.axvline(0, color="black", linewidth=0.8)
axis.margins(x=0.25)
axis.set(xlabel="points of accuracy when it is taken back", title="what each choice earned")
axis.invert_yaxis()
assert rows

# %% [markdown]
# ## 5. Use one
#
# The best one, run from its file and judged at last on test images that no trial has seen:

# %%
best = found["best"]
recipe = yaml.safe_load((folder / "found" / "recipes" / f"trial_{best:03d}.yaml").read_text())
recipe["data"]["unseen"] = {"digits": {"split": "test", "size": 16}}
recipe["steps"][-1]["observe"]["test"] = {"evaluate.accuracy": {"data": "$unseen", "pictures": 0}}
recipe["steps"].append({"export.onnx": {"data": "$learn"}})
(folder / "best.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
said = mapsto("run", "best.yaml", "--threads", "1", "--out", "best")
print(said)
assert (folder / "best" / "package" / "manifest.json").is_file()

# %% [markdown]
# ## 6. Before any trial: advice
#
# A search begins from nothing. `mapsto advise` begins from runs on other tasks: it describes your data by a few dozen numbers, looks
# which known tasks are like it, and proposes recipes with the accuracy to expect and how sure that is. Here are measurements of 178
# wines, as scikit-learn brings them; nothing is trained for the advice.

# %%
from sklearn.datasets import load_wine

wine = load_wine()
order = np.random.default_rng(0).permutation(len(wine.data))
with (folder / "wine.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow([*(name.replace("/", " to ") for name in wine.feature_names), "kind"])
    writer.writerows([*wine.data[row], f"cultivar {wine.target[row]}"] for row in order)
print(mapsto("advise", "wine.csv", "--target", "kind", "--n", "3"))
print(mapsto("run", "advised.yaml", "--threads", "1", "--out", "advised"))

# %% [markdown]
# ## What you have made
#
# - a space of recipes, a search of it, and the frontier of accuracy and size;
# - an account of what each choice of the best recipe earned;
# - a package by advice, in one run.
#
# `mapsto compress` and `mapsto adapt` with `--trials` are such searches, made ready. [Search](../search.md) says the rest: limits,
# early stopping, many machines. Next: [A package of your own](a_package_of_your_own.ipynb).
