# %% [markdown]
# # 从零到学习器
#
# 分类器把图像映射为类。*学习器*把**任务**，也就是几个带标签的样本，映射为分类器。本页用 mapsto 自带的数据一步一步做出一个学习器：在由字体绘制的字符上学习，在手写体上测试。
#
# $$\text{support set} \;\mapsto\; \text{model}, \qquad \text{model}: \text{image} \mapsto \text{class}$$
#
# （支持集 ↦ 模型，模型：图像 ↦ 类。）

# %%
import matplotlib.pyplot as plt
import numpy as np

from mapsto import adapt, datasets, evaluate, export, meta, networks, prune, quantize

plt.rcParams["figure.constrained_layout.use"] = True

characters = datasets.glyphs(split="train", per_class=20, characters=600)
handwriting = datasets.digits()

# %% [markdown]
# ## 1. 任务
#
# 一个*情景*（episode）抽取若干类（**类数**，way），每类几张带标签的图像（**样本数**，shot；它们组成*支持集*），以及同样这些类中需要识别的其他图像（*查询集*）。同一个编号在任何地方都给出同一个情景。

# %%
tasks = datasets.episodes(data=handwriting, ways=5, shots=1, queries=3)
episode = tasks.open()[0]


def show_episode(episode, title):
    ways, queries = len(episode.classes), len(episode.query_labels) // len(episode.classes)
    figure, axes = plt.subplots(1 + queries, ways, figsize=(ways, 1 + queries))
    for way in range(ways):
        images = [episode.support[way], *episode.query[way * queries : (way + 1) * queries]]
        for row, image in enumerate(images):
            axes[row, way].imshow(image[0], cmap="gray")
            axes[row, way].set_axis_off()
    axes[0, 0].set_title("support", loc="left", fontsize=8)
    axes[1, 0].set_title("query", loc="left", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


show_episode(episode, "a 5-way 1-shot task")

# %% [markdown]
# ## 2. 从任务到模型的最简单的映射
#
# 取每类支持图像的均值，离哪个均值最近就是哪一类。直接用像素，或用一个从未训练过的网络的特征，结果比瞎猜（20 %）好，但谈不上好。

# %%
test = datasets.episodes(data=handwriting, ways=5, shots=1, queries=15)
judge = evaluate.episodes(tasks=test, episodes=200)
untrained = networks.conv4(data=characters, width=32)(seed=0)
before = judge(untrained).metrics["accuracy"]
print("never trained:", before)

# %% [markdown]
# ## 3. 正是为此学习特征
#
# “取均值，比距离”里没有可训练的东西，但特征可以训练，使它行之有效。抽一个任务，用支持集预测它的查询，沿着损失的梯度走：这就是*学会学习*。这样得到的是原型网络（prototypical networks）。

# %%
train_tasks = datasets.episodes(data=characters, ways=20, shots=1, queries=3)
training = meta.protonet(tasks=train_tasks, steps=150, tasks_per_step=1, leave_one_out=True, learning_rate=3e-3)
learner = training(untrained)
after = judge(learner).metrics["accuracy"]
print("trained on printed characters, tested on handwriting:", after)
assert after.value > before.value + 5

# %% [markdown]
# 它从没见过手写数字，甚至根本没见过数字：它学到的是*怎样比较*，而这可以迁移。下面用前两个主成分画出特征把数字放在哪里，训练前和训练后：


# %%
def plane(network):
    from mapsto.nn.network.inference import embeddings

    samples = handwriting.open().take(np.arange(500))
    features = embeddings(network.module(), samples.inputs, network.signature.preprocessing).numpy()
    features = features - features.mean(0)
    return features @ np.linalg.svd(features, full_matrices=False)[2][:2].T, samples.labels


figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for axis, network, title in zip(axes, (untrained, learner), ("never trained", "trained on characters"), strict=True):
    points, labels = plane(network)
    axis.scatter(*points.T, c=labels, cmap="tab10", s=6)
    axis.set(title=title, xticks=[], yticks=[])

# %% [markdown]
# ## 4. 更多样本，更多类
#
# 同一个学习器适用于任意的样本数和类数，不必为每一种情况另外训练；下面的曲线给出每类一个到十个样本时的准确率。

# %%
report = evaluate.episodes(tasks=test, episodes=100, ways=(5, 10), shots=(1, 2, 5, 10))(learner)
curve = report.series["accuracy by shots"]
figure, axis = plt.subplots(figsize=(5, 3))
for name, values in curve.ys.items():
    axis.plot(curve.x, values, "o-", label=name)
axis.set(xlabel="labelled images of each class", ylabel="accuracy, %")
axis.legend()

# %% [markdown]
# ## 5. 从任务到模型的另一种映射：梯度步
#
# 均值是使用支持集的一种方式，几步梯度下降是另一种：MAML 寻找这样的初始权重，从它们出发，几步就能走得很远。经典的例子是由十个点得到一条正弦波：走之前网络只知道“某条波”，走之后知道“就是这条”。

# %%
waves = datasets.sinusoids(shots=10, queries=50)
maml = meta.maml(
    tasks=waves,
    steps=600,
    tasks_per_step=10,
    learning_rate=5e-3,
    inner_steps=1,
    test_steps=5,
    inner_rate=0.02,
    engine="vmap",
)
wave_learner = maml(networks.mlp()(seed=0))

# %%
import torch

from mapsto.nn.meta.adaptation.gradient import path_scores

wave = datasets.sinusoids(shots=10, queries=300).open()[10_000]  # more queries than in training, for a smooth line
order = np.argsort(wave.query[:, 0])
given = [torch.as_tensor(part, dtype=torch.float32)[None] for part in (wave.support, wave.support_labels, wave.query)]
how = wave_learner.adaptation
curves = path_scores(wave_learner.module(), *given, 1, how)[:, 0, :, 0].numpy()
figure, axis = plt.subplots(figsize=(6, 3))
axis.plot(wave.query[order, 0], wave.query_labels[order, 0], "k", label="the wave")
axis.plot(wave.support[:, 0], wave.support_labels[:, 0], "k^", label="ten points of it")
for step, style in ((0, ":"), (1, "--"), (5, "-")):
    axis.plot(wave.query[order, 0], curves[step][order], style, label=f"inner steps: {step}")
axis.set(xlabel="x", ylabel="y", title="a wave that was never seen")
axis.legend(fontsize=7)
errors = ((curves - wave.query_labels[:, 0]) ** 2).mean(1)
print("mean squared error after 0, 1, 5 steps:", errors[[0, 1, 5]].round(2))
assert errors[5] < errors[0] / 2

# %% [markdown]
# ## 6. 批归一化是一种选择
#
# 图像很少时，用哪些统计量来归一化就很重要。如果查询之间互相归一化（*直推式*），它们会互相帮助；而一次只看到一张图像的服务做不到（*归纳式*）。报告两者都给，免得日后有人吃惊。

# %%
both = evaluate.episodes(tasks=test, episodes=100, batch_norm="both")(learner).metrics
print("transductive:", both["transductive"], "  inductive:", both["inductive"])

# %% [markdown]
# ## 7. 小巧而独立
#
# 学习器也是网络：可以剪枝、量化，之后仍然会学习。用每类五个样本让它适配十个数字，再把结果导出。

# %%
small = (prune.magnitude(parameters=0.5) >> quantize.static(data=characters, samples=128))(learner)
five = datasets.subset(data=handwriting, per_class=5)
rest = datasets.subset(data=handwriting, per_class=5, part="rest")
reader = adapt.learner(data=five)(small)
print("half the parameters, int8, ten digits:", evaluate.accuracy(data=rest)(reader).metrics["accuracy"])
package = export.onnx(data=five)(reader)
print(sorted(name for name in package.files if "/" not in name))

# %% [markdown]
# ## 你做出了什么
#
# - 一个从没见过数字的学习器，凭每类五个样本就能认十个数字；
# - 大小减半、用 int8 的同一个学习器，以及它学到的东西的部署包。
#
# `mapsto run meta_protonet` 以完整的规模做第 3 节的事，`mapsto adapt RUN FOLDER` 让它适配你自己的图像文件夹，`mapsto list meta` 列出从任务到模型的其他方式。下一步：[手写 MAML](maml_by_hand_zh_CN.ipynb)。
