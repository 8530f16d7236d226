# %% [markdown]
# # 什么是映射
#
# mapsto 所做的一切都是*映射*：取一个值，给出一个值。训练把网络映射为训练好的网络，剪枝把它映射为更小的网络，评测把它映射为一份报告。映射可以组合，一串映射就是一份*配方*：
#
# $$\text{nothing} \;\mapsto\; \text{network} \;\mapsto\; \text{trained network} \;\mapsto\; \text{smaller network}$$
#
# （无 ↦ 网络 ↦ 训练好的网络 ↦ 更小的网络。）本页把每一种都做一个，把结果保存在存储中，使任何东西都不会算第二遍，最后用 15 行写出你自己的映射。数据是 scikit-learn 自带的手写数字；全部只需几秒。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from mapsto import Context, Mapping, Network, datasets, evaluate, execute, networks, observe, prune, train
from mapsto.errors import MapstoError

plt.rcParams["figure.constrained_layout.use"] = True
torch.set_num_threads(1)

learn = datasets.digits(split="train", size=16)
test = datasets.digits(split="test", size=16)

# %% [markdown]
# ## 1. 值
#
# 映射像函数一样调用。`networks.conv4` 从无到有给出一个网络（`Network`）；种子决定它最初的权重。`evaluate.size` 把网络映射为一份报告（`Report`）。

# %%
make = networks.conv4(data=learn, classes="data", width=16, blocks=2)
network = make(seed=0)
report = evaluate.size()(network)
print("a value: ", type(network).__name__, tuple(network.signature.input_shape(1)), "→", network.signature.classes)
print("another: ", type(report).__name__, {name: str(metric) for name, metric in report.metrics.items()})

# %% [markdown]
# 值是冻结的。映射从不改变给它的东西，而是给出新的值，所以你随时可以回到 `network`。
#
# ## 2. 映射
#
# 映射的字段就是它所知道的全部；没有任何设置藏在别处。因此映射可以打印、比较、写进文件；不可能的字段会立即被拒绝，并说明允许什么。

# %%
half = prune.magnitude(macs=0.5)
print(half)
print("equal fields, equal mapping:", half == prune.magnitude(macs=0.5))

refused = []
for wrong in (lambda: prune.magnitude(macs=5), lambda: prune.magnitude(mac=0.5)):
    try:
        wrong()
    except MapstoError as error:
        refused.append(error)
        print("refused:", error)
assert len(refused) == 2

# %% [markdown]
# ## 3. 链
#
# `>>` 把一个映射接在另一个之后。前一个给出的必须是后一个所取的；这在写下链时就检查，而不是等训练一小时之后。

# %%
big = make >> train.supervised(data=learn, epochs=4, batch_size=64, learning_rate=0.05)
small = big >> half >> train.supervised(data=learn, epochs=1, batch_size=64, learning_rate=0.02)
print(len(small.steps), "steps:", " >> ".join(step.name for step in small.steps))
try:
    evaluate.size() >> half
except MapstoError as error:
    print("refused:", error)

# %% [markdown]
# ## 4. 配方与它的存储
#
# `execute` 在一个*存储*上运行一串映射。每个步骤有一个键：名称、版本和字段，输入，种子和数值设置。键已在存储中的步骤是*命中*，不再计算。下面先把同一份配方运行两次，再换一个运算比例。

# %%
store = Path(tempfile.mkdtemp())  # without `store=` it is the one in your cache folder, and stays
judge = evaluate.accuracy(data=test, pictures=0)


def recipe(share):
    tuned = train.supervised(data=learn, epochs=1, batch_size=64, learning_rate=0.02)
    return big >> prune.magnitude(macs=share) >> tuned >> observe(test=judge)


runs = {
    "first run": execute(recipe(0.5), store=store),
    "the same again": execute(recipe(0.5), store=store),
    "another share": execute(recipe(0.3), store=store),
}
for name, run in runs.items():
    print(f"{name}: {run.seconds:.1f} s")
    for step in run.steps:
        print(f"    {step.status:4} {step.name:18} {step.digest[:8]}")

# %% [markdown]
# 第二次运行什么也没有计算。第三次认得那个网络和它的训练，从两份配方分开之处开始。被杀掉的运行也这样继续：已经完成的都还在。

# %%
figure, axis = plt.subplots(figsize=(7, 2.2))
steps = [step.name for step in runs["first run"].steps]
for row, run in enumerate(runs.values()):
    for column, step in enumerate(run.steps):
        axis.barh(row, 0.94, left=column, height=0.8, color="#c8d3e6" if step.hit else "#1f5aa6")
        axis.text(column + 0.47, row, step.status, ha="center", va="center", color="black" if step.hit else "white")
axis.set(yticks=range(len(runs)), yticklabels=list(runs), title="which steps ran")
axis.set_xticks([column + 0.47 for column in range(len(steps))], steps, fontsize=7)
axis.invert_yaxis()
axis.tick_params(length=0)
for side in axis.spines.values():
    side.set_visible(False)
assert runs["the same again"].reused
assert [step.hit for step in runs["another share"].steps] == [True, True, False, False, False]

# %% [markdown]
# ## 5. 写成文件的同一份配方
#
# 用 Python 写的配方和用 YAML 写的配方是同一回事。`mapsto run` 读取的就是下面这样的文件。

# %%
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump

text = dump(recipe(0.5))
print(text)
again = execute(parse_recipe(text), store=store)
print("every step a hit:", again.reused)
assert again.reused

# %% [markdown]
# ## 6. 你自己的映射
#
# 廉价的硬件会给权重带来噪声，网络能承受多少？一个类就能回答：它说明取什么、给出什么，有哪些字段、各是什么意思，还有 `apply`。随机数取自 `ctx`，所以同样的种子给出同样的结果。


# %%
class Noisy(Mapping[Network, Network]):
    """The network with noise on its weights."""

    amount: float = 0.1
    """Deviation of the noise, as a share of the weights' own deviation."""

    def apply(self, value: Network, ctx: Context) -> Network:
        module = value.module()
        for name, weight in module.named_parameters():
            if weight.ndim > 1:
                drawn = ctx.random(name).standard_normal(weight.shape, dtype="float32")
                with torch.no_grad():
                    weight.add_(self.amount * weight.std() * torch.from_numpy(drawn))
        return value.with_module(module)


# %% [markdown]
# 就是这些。它可以组合，结果会保存，未知的字段会被拒绝，与任何别的映射一样。（键里有它的名称、`version` 和字段，但没有代码：如果改了 `apply`，使结果不同，请在类中写上 `version: ClassVar[int] = 2`。）

# %%
steps = big >> Noisy(amount=0.4) >> observe(test=judge)
once, twice = execute(steps, store=store), execute(steps, store=store)
print("once: ", [step.status for step in once.steps], "twice:", [step.status for step in twice.steps])
assert not once.reused
assert twice.reused

# %% [markdown]
# 噪声是抽取的，只抽一次说明不了什么。下面每个点都是五个种子的均值，一条线是完整的网络，另一条是只剩一半运算的网络。

# %%
amounts = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
figure, axis = plt.subplots(figsize=(5, 3))
for name, path in (("whole", big), ("half of the work", small)):
    network = execute(path, store=store).value()
    drawn = [[Noisy(amount=amount)(network, seed=seed) for seed in range(5)] for amount in amounts]
    values = [sum(judge(each).metrics["accuracy"].value for each in five) / 5 for five in drawn]
    axis.plot(amounts, values, "o-", label=name)
    print(name + ":", ", ".join(f"{value:.1f} %" for value in values))
    assert values[0] > 90
    assert values[-1] < values[0] - 10
axis.set(xlabel="noise, as a share of the weights' deviation", ylabel="accuracy, %", ylim=(0, 102))
axis.legend()

# %% [markdown]
# 两者都能承受一点噪声，噪声多了都不行。
#
# ## 你做出了什么
#
# - 一份五个步骤的配方，既是 Python 也是文件，每个步骤只算一次；
# - 你自己的一个映射，以及用它得到的曲线：网络能承受多少噪声。
#
# `mapsto list` 列出其他映射，`mapsto show prune.magnitude` 说明每个字段的含义。下一步：[从零到学习器](from_zero_to_a_learner_zh_CN.ipynb)，在那里，映射给出的还是映射。怎样让你的映射在配方中有名字，是这条路的终点：
# [你自己的软件包](a_package_of_your_own.ipynb)（英文）。
