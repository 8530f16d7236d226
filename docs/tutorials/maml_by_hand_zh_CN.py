# %% [markdown]
# # 手写 MAML
#
# *与模型无关的元学习*（MAML）寻找这样的初始权重：从它们出发，在几个样本上做几步梯度下降就能走得很远（Finn、Abbeel 和 Levine，2017）。它由两个循环组成。**内循环**适配一个任务；**外循环**改变初始权重，使适配后的权重在这个任务的*其他*样本上表现好：
#
# $$\theta_t = \theta - \alpha\, \nabla_\theta L_t^{\text{support}}(\theta), \qquad
# \theta \leftarrow \theta - \beta\, \nabla_\theta \sum_t L_t^{\text{query}}(\theta_t)$$
#
# 本页用 40 行 PyTorch 写出这两个循环，解的是论文的第一个问题：由十个点得到一条正弦波。然后 `meta.maml` 做同样的事，误差也差不多。

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from mapsto import datasets, evaluate, meta, networks

plt.rcParams["figure.constrained_layout.use"] = True
torch.set_num_threads(1)

ALPHA, BETA, STEPS, TASKS, POINTS = 0.02, 5e-3, 800, 10, 10

# %% [markdown]
# ## 1. 任务
#
# 一个任务是一条波 $y = A \sin(x + \varphi)$，有自己的振幅 $A$ 和相位 $\varphi$：十个点用来学习（*支持集*），其他的点用来评判（*查询集*）。十个点并没有告诉网络点与点之间是什么，除非它已经知道波长什么样。

# %%
waves = datasets.sinusoids(shots=POINTS, queries=100)
episodes = waves.open()


def batch(numbers):
    """Tasks of these numbers: support x and y, query x and y, each (tasks, points, 1)."""
    drawn = [episodes[number] for number in numbers]
    parts = ("support", "support_labels", "query", "query_labels")
    return [torch.tensor(np.stack([getattr(each, part) for each in drawn]), dtype=torch.float32) for part in parts]


figure, axis = plt.subplots(figsize=(6, 2.6))
for number, color in zip(range(3), ("tab:blue", "tab:orange", "tab:green"), strict=True):
    support_x, support_y, query_x, query_y = (part[0, :, 0] for part in batch([number]))
    order = query_x.argsort()
    axis.plot(query_x[order], query_y[order], color=color)
    axis.plot(support_x, support_y, "^", color=color)
axis.set(xlabel="x", ylabel="y", title="three tasks: the points that are given, and the wave behind them")

# %% [markdown]
# ## 2. 内循环
#
# 梯度下降的一步，写成从参数到参数的函数。没有任何东西被覆盖，所以梯度可以流过它：`create_graph=True` 保留外循环对梯度再求导（即二阶导数）所需要的东西。

# %%
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))


def predict(parameters, x, module=network):
    return functional_call(module, parameters, (x,))


def inner_step(parameters, x, y, module=network):
    loss = mse_loss(predict(parameters, x, module), y)
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    moved = zip(parameters.items(), gradients, strict=True)
    return {name: value - ALPHA * gradient for (name, value), gradient in moved}


# %% [markdown]
# ## 3. 外循环
#
# 对每个任务走一步适配，然后问：适配后的网络在查询点上表现如何？十个任务的均值就是*初始*权重的一个普通的损失，由 Adam 去降低它。


# %%
def outer_loss(parameters, tasks):
    losses = []
    for support_x, support_y, query_x, query_y in zip(*tasks, strict=True):
        adapted = inner_step(parameters, support_x, support_y)
        losses.append(mse_loss(predict(adapted, query_x), query_y))
    return torch.stack(losses).mean()


def trained(loss_of):
    """Parameters that Adam has trained on a loss of (parameters, tasks), and the loss of each step."""
    parameters = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    adam = torch.optim.Adam(parameters.values(), lr=BETA)
    losses = []
    for step in range(STEPS):
        loss = loss_of(parameters, batch(range(step * TASKS, (step + 1) * TASKS)))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return parameters, losses


by_hand, losses = trained(outer_loss)
smooth = np.convolve(losses, np.ones(50) / 50, mode="valid")
figure, axis = plt.subplots(figsize=(5, 2.8))
axis.plot(losses, color="lightgrey", label="each step")
axis.plot(np.arange(49, STEPS), smooth, label="mean of 50 steps")
axis.set(xlabel="outer step", ylabel="squared error of queries", yscale="log")
axis.legend()
print(f"squared error of queries after one inner step: {smooth[0]:.2f} at first, {smooth[-1]:.2f} at the end")
assert smooth[-1] < smooth[0] / 2

# %% [markdown]
# ## 4. 它学会学习了吗？
#
# 用 100 条它从没遇到过的波来评判，走 0 到 10 个内循环步，旁边放上另外两种权重：刚抽取的权重，以及不用内循环、直接在所有波的点上一起训练的权重。后者学到的是所有波的均值。


# %%
def plain_loss(parameters, tasks):
    _, _, x, y = tasks
    return mse_loss(predict(parameters, x), y)


def errors_by_step(parameters, module=network, steps=10):
    """Mean squared error of the queries of unseen waves after 0, 1, … inner steps."""
    found = np.zeros(steps + 1)
    for support_x, support_y, query_x, query_y in zip(*unseen, strict=True):
        moved = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
        for step in range(steps + 1):
            found[step] += mse_loss(predict(moved, query_x, module), query_y).item()
            moved = inner_step(moved, support_x, support_y, module)
            moved = {name: value.detach().requires_grad_() for name, value in moved.items()}
    return found / len(unseen[0])


unseen = batch(range(1_000_000, 1_000_100))
on_all, _ = trained(plain_loss)
errors = {
    "as drawn": errors_by_step(dict(network.named_parameters())),
    "trained on all waves at once": errors_by_step(on_all),
    "MAML by hand": errors_by_step(by_hand),
}

# %% [markdown]
# 同样的十个点，同样大小的同样几步：不同的只有初始权重。对于一条新的波，它们得出的结果如下：

# %%
support_x, support_y, query_x, query_y = (part[2] for part in unseen)
order = query_x[:, 0].argsort()
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for axis, (name, start) in zip(
    axes, {"trained on all waves at once": on_all, "MAML by hand": by_hand}.items(), strict=True
):
    axis.plot(query_x[order], query_y[order], "k", label="the wave")
    axis.plot(support_x, support_y, "k^", label="ten points of it")
    moved = start
    for step in range(11):
        if step in (0, 1, 10):
            style = {0: ":", 1: "--", 10: "-"}[step]
            axis.plot(query_x[order], predict(moved, query_x).detach()[order], style, label=f"inner steps: {step}")
        moved = inner_step(moved, support_x, support_y)
    axis.set(title=name, xlabel="x")
axes[0].set_ylabel("y")
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)

# %% [markdown]
# ## 5. 用 `meta.maml` 做同样的事
#
# 只要一个映射：同样的网络、任务、学习率和步数。它一次计算一步中的所有任务（`engine="vmap"`），结果会保存，被杀掉之后接着走，给出的 `Network` 知道自己怎样适配，所以 mapsto 中的其他一切都能接受它。

# %%
maml = meta.maml(
    tasks=waves,
    steps=STEPS,
    tasks_per_step=TASKS,
    learning_rate=BETA,
    inner_steps=1,
    inner_rate=ALPHA,
    engine="vmap",
)
learner = maml(networks.mlp(widths=(40, 40))(seed=0))
module = learner.module()
errors["meta.maml"] = errors_by_step(dict(module.named_parameters()), module)

figure, axis = plt.subplots(figsize=(5, 3))
for (name, values), style in zip(errors.items(), (":", "-.", "-", "--"), strict=True):
    axis.plot(values, style, label=name)
    print(f"{name}: " + ", ".join(f"{values[step]:.2f} after {step}" for step in (0, 1, 10)))
axis.set(xlabel="inner steps on ten points of a new wave", ylabel="squared error", ylim=(0, None))
axis.legend(fontsize=7, loc="upper right", bbox_to_anchor=(1, 0.9))
assert errors["MAML by hand"][1] < errors["trained on all waves at once"][1] / 1.5
assert 0.6 < errors["meta.maml"][1] / errors["MAML by hand"][1] < 1.6

# %% [markdown]
# 走一步之后，两者就把普通的训练远远抛在后面。映射给出的是一个*学习器*：带着自己内循环的网络。所以任何评测都能检验它，而不必另外告诉它怎样适配。

# %%
report = evaluate.episodes(tasks=datasets.sinusoids(shots=POINTS, queries=50, seed=1), episodes=100)(learner)
print({name: str(metric) for name, metric in report.metrics.items()})

# %% [markdown]
# ## 你做出了什么
#
# - 40 行 PyTorch 写成的 MAML，带二阶导数，由十个点学会一条波；
# - 写成一个映射的同一件事，结果可以保存、剪枝、量化和评测。
#
# 改一个字段就是另一篇论文：`first_order=True` 去掉二阶导数，`meta.metasgd` 为每个权重学一个学习率，`meta.reptile` 不需要查询点；`mapsto list meta` 列出全部。代价都一样：两个循环。下一步：
# [一步一步给网络剪枝](pruning_a_network_step_by_step.ipynb)（英文），以及中文的[用 Lightning 压缩一个 VGG](compressing_a_vgg_with_lightning_zh_CN.ipynb)。
