# %% [markdown]
# # 用 Lightning 压缩一个 VGG：最初的例子，改正并运行
#
# mapsto 源于一篇文章，文中唯一完整的例子是：取一个为任务训练好的 VGG，做一个更小的副本，再训练副本，使它的回答与原网络一致。设教师 $M_0$ 的参数为
# $\theta$，学生网络 $M_1$ 的参数为 $\theta'$：
#
# $$\theta \;\mapsto\; \theta', \qquad \min_{\theta'} D\big(M_0(x; \theta),\, M_1(x; \theta')\big)$$
#
# 其中距离 $D$ 可以是欧氏距离、余弦距离或别的距离。想法是对的，随文印出的代码却跑不起来。本页让它在 CIFAR-10 上用 CPU 真正运行两次：一次由读者围绕 mapsto
# 的网络手写 PyTorch Lightning 训练，一次写成四行的配方。
#
# | 文章印出的 | 错在哪里 | 本页的做法 |
# |---|---|---|
# | 网络：一个 VGG 和一个压缩的 VGG | 两个类都是空的：没有任何层，无可训练，也无可加载 | `networks.vgg`，经过训练（第 1 节） |
# | 压缩后的网络 | 什么也没有剪：没有选择通道，也没有去掉通道 | `prune.taylor`，只留四分之一的运算（第 2 节） |
# | 训练的一步 | 用一个从未定义的名字，把网络又套在网络自己的回答上，即用了两次 | 每批只调用一次（第 3 节） |
# | 损失 | 只有与标签的交叉熵；整个想法的核心，即教师，没有参与 | 交叉熵加上与教师的距离，两种距离都试（第 3 节） |
# | 训练 | 把模块当成训练器来调用 | `lightning.Trainer.fit`（第 4 节） |
# | 它要加载的检查点 | 没有任何代码写出过它们 | `ModelCheckpoint` 写出，下面的单元格读回（第 4 节） |
# | 一张损失表：ImageNet 上五个轮次 | 由上可知，它不可能出自这段代码，因此谁也无法重现 | 由本页按种子得到的表（第 4 节和第 7 节） |
#
# 文章对优化器的说法保留不变：Adam，从 0.001 开始，逐步降低。你需要附加项 `lightning`，以及放在 `MAPSTO_DATA` 所指文件夹中的 CIFAR-10。

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
# ## 1. 数据，以及与任务相关的教师
#
# 20,000 张训练图像，2,000 张留出的图像用来观察训练，10,000 张测试图像不参与任何决定，只用来报告（不设 `FULL` 时各取一小部分）。教师是一个窄的 VGG-11：六个带批归一化的卷积层。
# `execute` 把训练的结果保存在存储中，键由决定结果的一切组成：再运行一次本页，或在中断之后继续，没有哪一步会算两遍。

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
# ## 2. 真正更小的副本
#
# `prune.taylor` 问每个通道：去掉它，损失会改变多少？然后一直去掉通道，直到只剩四分之一的乘加运算。副本从教师留下的权重开始；在训练之前，它答得很差。

# %%
cut = prune.taylor(macs=0.25, data=learn)
pruned = execute(vgg >> cut, numerics=one_thread).value()
for name, network in (("teacher", teacher), ("pruned copy", pruned)):
    print(f"{name}: {size(network)['macs'] / 1e6:.2f} million multiply-accumulates, {accuracy(network):.1f} %")
widths = [part.out_channels for part in pruned.module().modules() if isinstance(part, torch.nn.Conv2d)]
print("channels of its convolutions:", widths)
assert size(pruned)["macs"] < 0.26 * size(teacher)["macs"]

# %% [markdown]
# ## 3. 模块：一次调用，两种损失
#
# mapsto 的 `Network` 给出普通的 `torch.nn.Module`，所以你自己的训练可以任意使用它。文章漏掉的三件事决定它能否成功：学生网络要处于训练模式（mapsto 给出的模块处于评估模式，而
# Lightning 不改动各部分的模式）；教师要处于评估模式，也不要梯度（Lightning 会提醒有些部分处于评估模式，那就是教师的）；两者看到的是经过同样变化的同样图像。`labels alone`（只用标签）就是文章的代码假如能运行时所做的。


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
# ## 4. Trainer、逐轮的表，以及真实存在的检查点
#
# 模块是*交给* `Trainer` 的。一个回调写出表格；表中的行也存入检查点，所以中断的训练会带着它们继续。Lightning 的文件不知道自己由什么得来：改了损失之后，请删掉那个文件夹
# （mapsto 的存储则会得到另一个键）。要在 Lightning 的训练*过程中*剪枝，用回调 `mapsto.interop.lightning.ApplyMapping`。


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
# 三种损失由不同的项相加，尺度不同，因此可比的是准确率。从文件读回的是最好的那一轮；`pruned.with_module` 由它得到一个 `Network`，mapsto 的一切都接受它。

# %%
figure, (axes, *_) = plt.subplots(1, len(WAYS), figsize=(9, 2.8), squeeze=False)
for axis, (way, rows) in zip(axes, tables.items(), strict=True):
    numbers = [row["epoch"] for row in rows]
    axis.plot(numbers, [row["train_loss"] for row in rows], "o-", label="train")
    axis.plot(numbers, [row["val_loss"] for row in rows], "s--", label="validation")
    axis.set(title=way, xlabel="epoch", ylabel="loss", xticks=numbers)
axes[0].legend()

# %% [markdown]
# ## 5. 同样的事，四行配方
#
# 剪枝，跟着教师训练，用 8 位代替 32 位，为设备打包。每一行是一个会被保存的步骤；第一行就是上面的剪枝，不会再算。

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
# ## 6. 一条命令
#
# 用户会这样输入。教师的配方写进一个文件（由 `dump` 写出，存储知道它已经运行过）。`mapsto compress` 得到 5,000 张教师没有学过的照片，剪到二分之一、四分之一和八分之一的运算，
# 各有蒸馏和不蒸馏两种，再量化为 8 位，最后导出足够小的网络中最准确的一个。测试图像只用来报告。
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
# ## 7. 放在一起比较
#
# 所有网络都用同样的测试图像评判，按 ONNX 文件计大小，在 ONNX Runtime 中用一个线程、一次一张图像计时，与教师轮流进行，因此机器上别的负担对两者的影响相同；教师自己的一行显示还剩多少误差。

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
# ## 8. 设 `FULL = True` 得到的结果
#
# `mapsto bench vgg_example` 运行上面的单元格并写出下面的表：先是逐轮的损失，再是各网络的比较。三种训练的损失彼此不可比。
#
# <!-- table vgg_example -->
# | 内容 | 目标 | 实测 | 达成 |
# |---|---|---|---|
# | 较好的距离比只用标签高出的百分点 | ≥ 0 | 0.1 | 是 |
# | 较好的距离比教师低的百分点 | ≤ 3 | 5.16 | **否** |
# | 配方的 int8 网络比教师低的百分点 | ≤ 3 | 3.88 | **否** |
# | 配方的 int8 网络：是教师的多少倍快 | ≥ 2 | 1.367 | **否** |
# | mapsto compress：比教师低的百分点 | ≤ 2 | 2.38 | **否** |
# | mapsto compress：ONNX 文件，kB | ≤ 150 | 145.8 | 是 |
# | mapsto compress：是教师的多少倍快 | ≥ 2 | 1.457 | **否** |
# | 总共的 CPU 分钟数 | ≤ 30 | 22.11 | 是 |
#
# | 训练，轮次 | 学习率 | 训练损失 | 验证损失 | 验证图像，% 正确 |
# |---|---|---|---|---|
# | 只用标签，1 | 0.001 | 1.401 | 1.182 | 60.9 |
# | 只用标签，2 | 0.00065 | 0.9664 | 0.9667 | 67.1 |
# | 只用标签，3 | 0.0004225 | 0.8413 | 0.8822 | 69.55 |
# | 只用标签，4 | 0.0002746 | 0.7898 | 0.8462 | 71 |
# | 只用标签，5 | 0.0001785 | 0.7486 | 0.8246 | 71.4 |
# | 只用标签，6 | 0.000116 | 0.7239 | 0.8251 | 71.7 |
# | 只用标签，7 | 7.542e-05 | 0.7123 | 0.8154 | 71.8 |
# | 只用标签，8 | 4.902e-05 | 0.7021 | 0.813 | 72.15 |
# | 欧氏距离，1 | 0.001 | 7.275 | 5.331 | 61.15 |
# | 欧氏距离，2 | 0.00065 | 4.874 | 4.337 | 69 |
# | 欧氏距离，3 | 0.0004225 | 4.131 | 3.861 | 70.7 |
# | 欧氏距离，4 | 0.0002746 | 3.898 | 3.667 | 71.7 |
# | 欧氏距离，5 | 0.0001785 | 3.747 | 3.564 | 71.8 |
# | 欧氏距离，6 | 0.000116 | 3.658 | 3.516 | 72.05 |
# | 欧氏距离，7 | 7.542e-05 | 3.635 | 3.482 | 71.75 |
# | 欧氏距离，8 | 4.902e-05 | 3.59 | 3.477 | 72.1 |
# | 余弦距离，1 | 0.001 | 1.596 | 1.229 | 65.35 |
# | 余弦距离，2 | 0.00065 | 1.061 | 1.044 | 67.7 |
# | 余弦距离，3 | 0.0004225 | 0.9269 | 0.9454 | 70.2 |
# | 余弦距离，4 | 0.0002746 | 0.8748 | 0.9097 | 71.95 |
# | 余弦距离，5 | 0.0001785 | 0.8361 | 0.8866 | 72.5 |
# | 余弦距离，6 | 0.000116 | 0.8085 | 0.8859 | 71.65 |
# | 余弦距离，7 | 7.542e-05 | 0.7972 | 0.8778 | 71.95 |
# | 余弦距离，8 | 4.902e-05 | 0.7877 | 0.8742 | 72.4 |
#
# | VGG | 准确率 % | 百万次乘加运算 | ONNX 文件，kB | 每张图像毫秒数 | 是教师的多少倍快 |
# |---|---|---|---|---|---|
# | 教师 | 76.84 | 8.701 | 1,136 | 0.301 | 0.9997 |
# | Lightning，只用标签 | 71.58 | 2.171 | 220.8 | 0.2114 | 1.414 |
# | Lightning，欧氏距离 | 71.29 | 2.171 | 220.8 | 0.214 | 1.415 |
# | Lightning，余弦距离 | 71.68 | 2.171 | 220.8 | 0.2095 | 1.439 |
# | 配方，int8 | 72.96 | 2.171 | 64.98 | 0.2278 | 1.367 |
# | mapsto compress | 74.46 | 4.332 | 145.8 | 0.2207 | 1.457 |
# | 剪枝后，未训练 | 10.42 | 2.171 | 220.8 | 0.1965 | 1.717 |
# | 配方，浮点 | 73.23 | 2.171 | 220.8 | 0.2066 | 1.583 |
#
# Measured 2026-12-01, AMD EPYC (family 25, model 1, 2.4 GHz), 2 cores, torch 2.13.0+cpu, `benchmarks/results/vgg_example.json`.
# <!-- end -->
#
# ## 你做出了什么
#
# - 最初那篇文章的例子，照它本来的意思：一个更小的 VGG，两种与教师的距离，以及一张谁都能重现的损失表；
# - 用四行配方和一条命令做的同样的事，以及一张说明各自损失多少的表。
#
# 下一步：[一步一步蒸馏网络](distilling_a_network_step_by_step.ipynb)（英文）。
