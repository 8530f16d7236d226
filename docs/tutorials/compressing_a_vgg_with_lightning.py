# %% [markdown]
# # Compressing a VGG with Lightning: the founding example, corrected and run
#
# mapsto began with an article whose one worked example is this: take a VGG that was trained for the task, make a smaller copy, and train
# the copy to answer as the original does. With a teacher $M_0$ of parameters $\theta$ and a student $M_1$ of parameters $\theta'$,
#
# $$\theta \;\mapsto\; \theta', \qquad \min_{\theta'} D\big(M_0(x; \theta),\, M_1(x; \theta')\big)$$
#
# where the distance $D$ is Euclidean, or the cosine, or another. The idea is sound; the code printed with it cannot run. On this page it
# runs, on CIFAR-10 and a CPU, twice: written by hand for PyTorch Lightning around mapsto's networks, and as a recipe of four lines.
#
# | what the article prints | what is wrong with it | here |
# |---|---|---|
# | the networks: a VGG and a compressed VGG | both classes are empty: there is no layer in them, nothing to train, nothing to load | `networks.vgg`, trained (section 1) |
# | the compressed one | nothing is pruned: no channel is chosen, and none is taken out | `prune.taylor`, a quarter of the work (section 2) |
# | the training step | it applies the network to what the network has already answered, by a name that was never defined | one call for a batch (section 3) |
# | the loss | cross-entropy with the labels alone; the teacher, which is the whole idea, takes no part | cross-entropy and the distance to the teacher, of either kind (section 3) |
# | the training | the module is called as if it were the trainer | `lightning.Trainer.fit` (section 4) |
# | the checkpoints that it loads | nothing has written them | `ModelCheckpoint` writes them, a cell reads them back (section 4) |
# | a table of losses, five epochs on ImageNet | with the above it cannot have come from this code, so nobody can get it again | tables that this page makes, from a seed (sections 4 and 7) |
#
# What it says of the optimiser is kept: Adam, from 0.001, lowered step by step. You need the extra `lightning`, and CIFAR-10 in the folder
# that `MAPSTO_DATA` names.

# %%
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mapsto import (
    Context,
    Numerics,
    augment,
    datasets,
    distill,
    evaluate,
    execute,
    export,
    networks,
    prune,
    quantize,
    train,
)
from mapsto.nn.network.preprocess import prepare

plt.rcParams["figure.constrained_layout.use"] = True

FULL = False  # True: the sizes behind the tables of section 7, some thirty minutes of one CPU core
SEED = 0  # of what the students draw; teacher and pruned copy stay the same
folder = Path("runs/vgg").resolve() if FULL else Path(tempfile.mkdtemp())
folder.mkdir(parents=True, exist_ok=True)
one_thread = Numerics(threads=1)
context = Context(numerics=one_thread)  # else what is applied in memory sets PyTorch's threads to all cores
torch.set_num_threads(1)

# %% [markdown]
# ## 1. Data, and a teacher for the task
#
# 20,000 training images, 2,000 held-out ones to watch the training by, and the 10,000 test images, which decide
# nothing and are only reported (a small part of each where `FULL` is not set). The teacher is a narrow VGG-11: six convolutions with batch
# norm. `execute` keeps what it has trained in the store, under a key made of everything that decides it: run this page again, or after a
# kill, and no step is computed twice.

# %%
per_class = (2000, 200, 1000) if FULL else (50, 10, 10)
learn = datasets.subset(data=datasets.cifar10(split="train", holdout=5000), per_class=per_class[0])
check = datasets.subset(data=datasets.cifar10(split="validation", holdout=5000), per_class=per_class[1])
test = datasets.subset(data=datasets.cifar10(split="test"), per_class=per_class[2])
epochs = 8 if FULL else 2
changes = (augment.flip(), augment.crop(padding=4))

vgg = networks.vgg(depth=11, width=16, stages=4, data=learn, classes="data") >> train.supervised(
    data=learn,
    validation=check,
    epochs=epochs,
    batch_size=64,
    learning_rate=0.05,
    schedule="onecycle",
    augment=changes,
)
teacher = execute(vgg, numerics=one_thread).value()
judge = evaluate.accuracy(data=test, pictures=0)


def accuracy(network):
    return context.apply(judge, network).metrics["accuracy"].value


def size(network):
    return {name: metric.value for name, metric in context.apply(evaluate.size(), network).metrics.items()}


print(teacher.module().features)
print(f"{accuracy(teacher):.1f} % of the test images")

# %% [markdown]
# ## 2. A copy that really is smaller
#
# `prune.taylor` asks of each channel how much the loss would change without it, and takes channels out until a quarter of the
# multiply-accumulates is left. The copy starts from what is left of the teacher's weights; until it is trained it answers badly.

# %%
cut = prune.taylor(macs=0.25, data=learn)
pruned = execute(vgg >> cut, numerics=one_thread).value()
for name, network in (("teacher", teacher), ("pruned copy", pruned)):
    print(f"{name}: {size(network)['macs'] / 1e6:.2f} million multiply-accumulates, {accuracy(network):.1f} %")
widths = [part.out_channels for part in pruned.module().modules() if isinstance(part, torch.nn.Conv2d)]
print("channels of its convolutions:", widths)
assert size(pruned)["macs"] < 0.26 * size(teacher)["macs"]

# %% [markdown]
# ## 3. The module: one call, two losses
#
# A `Network` of mapsto gives an ordinary `torch.nn.Module`, so a training of your own may do with it what it likes. Three things that the
# article leaves out decide whether it works: the student is in training mode (mapsto gives modules in evaluation mode, and Lightning leaves
# each as it is), the teacher is not and wants no gradients, and both see the same images after the same change. (Lightning warns of
# parts in evaluation mode: they are the teacher's.) `labels alone` is what the article's listing would do if it ran.


# %%
def euclidean(answers, wanted):
    return torch.linalg.vector_norm(answers - wanted, dim=1).mean()


def cosine(answers, wanted):
    return (1 - cosine_similarity(answers, wanted, dim=1)).mean()


def nothing(answers, wanted):
    return answers.new_zeros(())


WAYS = {"labels alone": nothing, "Euclidean distance": euclidean, "cosine distance": cosine}


class Compression(lightning.LightningModule):
    """A student that learns from labels, and to be near to its teacher."""

    def __init__(self, student, teacher, distance):
        super().__init__()
        self.preprocessing = student.signature.preprocessing
        self.student = student.module().train()
        self.teacher = teacher.module().eval().requires_grad_(False)
        self.distance = distance
        self.to(memory_format=torch.channels_last)  # convolutions on a CPU are faster so

    def forward(self, images):
        return self.student(prepare(images, self.preprocessing))

    def losses(self, images, labels):
        inputs = prepare(images, self.preprocessing)
        answers = self.student(inputs)
        with torch.no_grad():
            wanted = self.teacher(inputs)
        return cross_entropy(answers, labels) + self.distance(answers, wanted), answers

    def training_step(self, batch, index):
        images, labels = batch
        mirrored = torch.rand(len(images)) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        loss, _ = self.losses(images, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        images, labels = batch
        loss, answers = self.losses(images, labels)
        self.log("val_loss", loss)
        self.log("val_accuracy", 100 * (answers.argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        adam = torch.optim.Adam(self.student.parameters(), lr=0.001)
        return [adam], [torch.optim.lr_scheduler.StepLR(adam, step_size=1, gamma=0.65)]


# %% [markdown]
# ## 4. The Trainer, a table by epoch, and checkpoints that exist
#
# The module is *given* to a `Trainer`. A callback writes the table; its rows lie in the checkpoint too, so that a training that was killed
# goes on with them. Lightning's file does not know what it was made from: after a change of the loss delete the folder (mapsto's
# store would make another key of it). To prune *within* a training of Lightning's, use the callback `mapsto.interop.lightning.ApplyMapping`.


# %%
class EpochTable(Callback):
    """Losses of each epoch."""

    def __init__(self):
        self.rows, self.rate = [], 0.0

    def on_train_epoch_start(self, trainer, module):
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer, module):
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch + 1, "learning rate": self.rate, **found})

    def state_dict(self):
        return {"rows": self.rows}

    def load_state_dict(self, state):
        self.rows = state["rows"]


def batches(source, shuffle):
    samples = source.open()
    pairs = TensorDataset(torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels).long())
    return DataLoader(pairs, batch_size=64, shuffle=shuffle)


def taught(way):
    """The module after its training, the table, and the best checkpoint's file."""
    lightning.seed_everything(SEED, verbose=False)
    place = folder / f"{way.replace(' ', '_')}_{SEED}"
    kept = ModelCheckpoint(
        place, monitor="val_loss", filename="{epoch}-{val_loss:.4f}", save_last=True, save_on_train_epoch_end=True
    )
    table = EpochTable()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[table, kept],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Compression(pruned, teacher, WAYS[way])
    last = place / "last.ckpt"
    trainer.fit(module, batches(learn, True), batches(check, False), ckpt_path=str(last) if last.is_file() else None)
    return module, table.rows, kept.best_model_path


students, tables = {}, {}
for way in WAYS:
    module, tables[way], best = taught(way)
    assert module.student.training
    assert not module.teacher.training
    restored = Compression(pruned, teacher, WAYS[way])
    restored.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    students[way] = pruned.with_module(restored.student)
    print(f"\n{way}: the best is in {Path(best).name}, {os.path.getsize(best) / 1e3:.0f} kB")
    print("epoch  learning rate  train loss  validation loss  validation accuracy")
    for row in tables[way]:
        print(
            f"{row['epoch']:5}  {row['learning rate']:13.5f}  {row['train_loss']:10.4f}  {row['val_loss']:15.4f}"
            f"  {row['val_accuracy']:17.1f} %"
        )
    assert [row["epoch"] for row in tables[way]] == list(range(1, epochs + 1))
    assert tables[way][-1]["train_loss"] < tables[way][0]["train_loss"]

# %% [markdown]
# The losses of the three have different scales, as they are sums of different things; what can be compared is the accuracy. What was
# read back from the file is what the best epoch had, and `pruned.with_module` makes a `Network` of it, which everything in mapsto takes.

# %%
figure, (axes, *_) = plt.subplots(1, len(WAYS), figsize=(9, 2.8), squeeze=False)
for axis, (way, rows) in zip(axes, tables.items(), strict=True):
    numbers = [row["epoch"] for row in rows]
    axis.plot(numbers, [row["train_loss"] for row in rows], "o-", label="train")
    axis.plot(numbers, [row["val_loss"] for row in rows], "s--", label="validation")
    axis.set(title=way, xlabel="epoch", ylabel="loss", xticks=numbers)
axes[0].legend()

# %% [markdown]
# ## 5. The same as a recipe of four lines
#
# Prune, train with the teacher, eight bits instead of 32, a package for a device. Each line is a step that is stored; the first is the
# cut from above and is not computed again.

# %%
recipe = (
    prune.taylor(macs=0.25, data=learn)
    >> distill.logits(teacher=vgg, data=learn, epochs=epochs, batch_size=64, learning_rate=0.02, augment=changes)
    >> quantize.static(data=learn)
    >> export.onnx(data=check)
)
package = execute(vgg >> recipe, numerics=one_thread).value()
by_recipe = execute(vgg >> recipe.steps[0] >> recipe.steps[1], numerics=one_thread).value()
int8 = execute(vgg >> recipe.steps[0] >> recipe.steps[1] >> recipe.steps[2], numerics=one_thread).value()
print(f"distilled {accuracy(by_recipe):.1f} %, int8 {accuracy(int8):.1f} %")
print(sorted(name for name in package.files if "/" not in name))
assert size(int8)["bytes"] < size(by_recipe)["bytes"] / 2

# %% [markdown]
# ## 6. One command
#
# The same as its user would type it. The teacher's recipe goes into a file (`dump` writes it, and the store knows that it has run already).
# `mapsto compress` gets 5,000 photographs which the teacher has not seen, prunes to a half, a quarter and an eighth of the work, each with
# and without distillation, makes eight bits of it, and exports the most accurate one that is small enough. The test images are
# only reported.
#
# ```sh
# mapsto run vgg.yaml --out runs/vgg
# mapsto compress runs/vgg '{cifar10: {split: validation, holdout: 5000}}' --limit bytes=150kB --epochs 20 --test '{cifar10: {split: test}}'
# ```

# %%
from mapsto.recipe.writer import dump


def mapsto(*arguments):
    command = [sys.executable, "-m", "mapsto", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout + done.stderr


(folder / "vgg.yaml").write_text(dump(vgg))
unseen, reported = "{cifar10: {split: validation, holdout: 5000}}", "{cifar10: {split: test}}"
few = ["--epochs", "20"]
if not FULL:
    unseen, reported = (f"{{subset: {{data: {data}, per_class: 20}}}}" for data in (unseen, reported))
    few = ["--shares", "0.25", "--epochs", "1"]
mapsto("run", "vgg.yaml", "--out", "runs/vgg", "--threads", "1")
said = mapsto(
    "compress",
    "runs/vgg",
    unseen,
    "--limit",
    "bytes=150kB",
    "--test",
    reported,
    "--out",
    "runs/small",
    "--threads",
    "1",
    *few,
)
print(said)
found = json.loads((folder / "runs" / "small" / "report.json").read_text())
figures = {
    f"{step['path']}.{name}": metric["value"]
    for step in found["steps"]
    if step.get("report")
    for name, metric in step["report"]["metrics"].items()
}
assert figures["chosen.cost.bytes"] <= 150_000

# %% [markdown]
# ## 7. Side by side
#
# All of them judged on the same test images, weighed as ONNX files and timed in ONNX Runtime on one thread, one image at a time, in
# turn with the teacher, so that what else runs on the machine slows both; the teacher's own row shows how far that goes.

# %%
compared = {
    "teacher": teacher,
    "pruned, not trained": pruned,
    **{f"Lightning, {way}": student for way, student in students.items()},
    "recipe, float": by_recipe,
    "recipe, int8": int8,
}


def row(name, network):
    in_turn = evaluate.latency(
        baselines={"teacher": teacher}, all_threads=False, runtime="onnxruntime", rounds=5 if FULL else 1
    )
    time = context.apply(in_turn, network).metrics
    cost = context.apply(evaluate.exported(timed=False), network).metrics
    return {
        "network": name,
        "accuracy %": accuracy(network),
        "million multiply-accumulates": size(network)["macs"] / 1e6,
        "kB of its ONNX file": cost["bytes"].value / 1e3,
        "ms an image": time["p50"].value,
        "times as fast as the teacher": time["speedup_vs_teacher_ort"].value,
    }


rows = [row(name, network) for name, network in compared.items()]
rows.append(
    {
        "network": "mapsto compress",
        "accuracy %": figures["chosen.test.accuracy"],
        "million multiply-accumulates": figures["chosen.cost.macs"] / 1e6,
        "kB of its ONNX file": figures["chosen.cost.bytes"] / 1e3,
        "ms an image": figures["package.latency.p50"],
        "times as fast as the teacher": figures["package.latency.speedup_vs_original_ort"],
    }
)
for each in rows:
    print(each["network"])
    print("    " + ", ".join(f"{name} {value:.4g}" for name, value in each.items() if name != "network"))

figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
labels = [each["network"] for each in rows][::-1]
for axis, name in zip(axes, ("accuracy %", "kB of its ONNX file", "times as fast as the teacher"), strict=True):
    bars = axis.barh(labels, [each[name] for each in rows][::-1])
    axis.bar_label(bars, fmt="%.4g", fontsize=7, padding=2)
    axis.margins(x=0.3)
    axis.set_title(name, fontsize=9)
assert rows[-2]["kB of its ONNX file"] < rows[0]["kB of its ONNX file"] / 4

# %% [markdown]
# ## 8. What came out with `FULL = True`
#
# `mapsto bench vgg_example` runs the cells above and writes this table: first the losses by epoch, then the networks side by side. The
# losses of the three trainings are not to be compared with one another.
#
# <!-- table vgg_example -->
# | what | goal | measured | met |
# |---|---|---|---|
# | points that the better distance to the teacher gains over labels alone | ≥ 0 | 0.1 | yes |
# | points that the better one loses beside its teacher | ≤ 3 | 5.16 | **no** |
# | points that the recipe's int8 network loses beside the teacher | ≤ 3 | 3.88 | **no** |
# | the recipe's int8 network: times as fast as the teacher | ≥ 2 | 1.367 | **no** |
# | mapsto compress: points lost beside the teacher | ≤ 2 | 2.38 | **no** |
# | mapsto compress: kB of the ONNX file | ≤ 150 | 145.8 | yes |
# | mapsto compress: times as fast as the teacher | ≥ 2 | 1.457 | **no** |
# | CPU minutes of the whole | ≤ 30 | 22.11 | yes |
#
# | training, epoch | learning rate | train loss | validation loss | validation images, % right |
# |---|---|---|---|---|
# | labels alone, 1 | 0.001 | 1.401 | 1.182 | 60.9 |
# | labels alone, 2 | 0.00065 | 0.9664 | 0.9667 | 67.1 |
# | labels alone, 3 | 0.0004225 | 0.8413 | 0.8822 | 69.55 |
# | labels alone, 4 | 0.0002746 | 0.7898 | 0.8462 | 71 |
# | labels alone, 5 | 0.0001785 | 0.7486 | 0.8246 | 71.4 |
# | labels alone, 6 | 0.000116 | 0.7239 | 0.8251 | 71.7 |
# | labels alone, 7 | 7.542e-05 | 0.7123 | 0.8154 | 71.8 |
# | labels alone, 8 | 4.902e-05 | 0.7021 | 0.813 | 72.15 |
# | Euclidean distance, 1 | 0.001 | 7.275 | 5.331 | 61.15 |
# | Euclidean distance, 2 | 0.00065 | 4.874 | 4.337 | 69 |
# | Euclidean distance, 3 | 0.0004225 | 4.131 | 3.861 | 70.7 |
# | Euclidean distance, 4 | 0.0002746 | 3.898 | 3.667 | 71.7 |
# | Euclidean distance, 5 | 0.0001785 | 3.747 | 3.564 | 71.8 |
# | Euclidean distance, 6 | 0.000116 | 3.658 | 3.516 | 72.05 |
# | Euclidean distance, 7 | 7.542e-05 | 3.635 | 3.482 | 71.75 |
# | Euclidean distance, 8 | 4.902e-05 | 3.59 | 3.477 | 72.1 |
# | cosine distance, 1 | 0.001 | 1.596 | 1.229 | 65.35 |
# | cosine distance, 2 | 0.00065 | 1.061 | 1.044 | 67.7 |
# | cosine distance, 3 | 0.0004225 | 0.9269 | 0.9454 | 70.2 |
# | cosine distance, 4 | 0.0002746 | 0.8748 | 0.9097 | 71.95 |
# | cosine distance, 5 | 0.0001785 | 0.8361 | 0.8866 | 72.5 |
# | cosine distance, 6 | 0.000116 | 0.8085 | 0.8859 | 71.65 |
# | cosine distance, 7 | 7.542e-05 | 0.7972 | 0.8778 | 71.95 |
# | cosine distance, 8 | 4.902e-05 | 0.7877 | 0.8742 | 72.4 |
#
# | VGG | accuracy % | million multiply-accumulates | kB of its ONNX file | ms an image | times as fast as the teacher |
# |---|---|---|---|---|---|
# | teacher | 76.84 | 8.701 | 1,136 | 0.301 | 0.9997 |
# | Lightning, labels alone | 71.58 | 2.171 | 220.8 | 0.2114 | 1.414 |
# | Lightning, Euclidean distance | 71.29 | 2.171 | 220.8 | 0.214 | 1.415 |
# | Lightning, cosine distance | 71.68 | 2.171 | 220.8 | 0.2095 | 1.439 |
# | recipe, int8 | 72.96 | 2.171 | 64.98 | 0.2278 | 1.367 |
# | mapsto compress | 74.46 | 4.332 | 145.8 | 0.2207 | 1.457 |
# | pruned, not trained | 10.42 | 2.171 | 220.8 | 0.1965 | 1.717 |
# | recipe, float | 73.23 | 2.171 | 220.8 | 0.2066 | 1.583 |
#
# Measured 2026-12-01, AMD EPYC (family 25, model 1, 2.4 GHz), 2 cores, torch 2.13.0+cpu, `benchmarks/results/vgg_example.json`.
# <!-- end -->
#
# ## What you have made
#
# - the founding article's example, as it was meant: a smaller VGG, two distances to its teacher, and a table of losses that anyone can repeat;
# - the same by a recipe of four lines and by one command, and a table that says which lost what.
#
# Next: [Distilling a network, step by step](distilling_a_network_step_by_step.ipynb).
