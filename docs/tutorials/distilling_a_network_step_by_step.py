# %% [markdown]
# # Distilling a network, step by step
#
# A large network knows more than the classes that it names: it also says how alike they look. *Distillation* trains a small network,
# the *student*, to give the whole answer of a large one, the *teacher* (Hinton, Vinyals and Dean, 2015). First by hand, in twenty lines
# of PyTorch, then by `distill.logits`, at last without a single label.
#
# $$\text{student} \;\mapsto\; \text{student that answers as its teacher does}$$

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import kl_div, log_softmax, softmax

from mapsto import datasets, distill, evaluate, networks, train
from mapsto.nn.network.inference import forward

plt.rcParams["figure.constrained_layout.use"] = True
torch.set_num_threads(1)

everything = datasets.digits(split="train", size=16)
few = datasets.subset(data=everything, per_class=5)
rest = datasets.subset(data=everything, per_class=5, part="rest")
test = datasets.digits(split="test", size=16)
judge = evaluate.accuracy(data=test, pictures=0)


def accuracy(network):
    return judge(network).metrics["accuracy"].value


# %% [markdown]
# ## 1. A teacher and a student
#
# The teacher has learnt from all digits. The student has less than a tenth of its weights, and of the labels it gets five of each
# digit. The other images are there, too, but nobody has labelled them: the usual state of things.

# %%
wide = networks.conv4(data=everything, width=32, blocks=2, classes="data")(seed=0)
teacher = train.supervised(data=everything, epochs=10, batch_size=64, learning_rate=0.05)(wide)
fresh = networks.conv4(data=everything, width=8, blocks=2, classes="data")(seed=1)
parameters = {
    name: evaluate.size()(network).metrics["parameters"].value
    for name, network in (("teacher", teacher), ("student", fresh))
}
print(
    f"teacher: {parameters['teacher']:,} weights, {accuracy(teacher):.1f} %;  student: {parameters['student']:,} weights"
)
assert parameters["student"] < parameters["teacher"] / 4

# %% [markdown]
# ## 2. What a teacher knows
#
# For one image the label says "this is a 3" and nothing else. The teacher's *softmax* says it, too, and divided by a **temperature**
# its scores also say what else it might have been:
#
# $$p_k(T) = \frac{e^{z_k / T}}{\sum_j e^{z_j / T}}$$

# %%
samples, pool = test.open(), rest.open()
scores = forward(teacher.module(), samples.inputs, teacher.signature.preprocessing)
sure = softmax(scores, 1).max(1).values
least = sure.argsort()[:3].tolist()
figure, axes = plt.subplots(2, 3, figsize=(8, 3.6), height_ratios=(1, 1.4))
for column, number in enumerate(least):
    axes[0, column].imshow(samples.inputs[number, 0], cmap="gray")
    axes[0, column].set_axis_off()
    for temperature, shift in ((1, -0.2), (4, 0.2)):
        bars = softmax(scores[number] / temperature, 0)
        axes[1, column].bar(np.arange(10) + shift, bars, width=0.4, label=f"T = {temperature}")
    axes[1, column].set(xticks=range(10), ylim=(0, 0.6), title=f"label: {samples.labels[number]}")
axes[1, 0].set_ylabel("probability")
axes[1, 0].legend(fontsize=7)
figure.suptitle("what the teacher says of the images that it is least sure of")

# %% [markdown]
# ## 3. By hand
#
# The loss compares the softened answers by their Kullback–Leibler divergence; $T^2$ keeps its gradient as large whatever $T$ is. The
# labels of the fifty images may have a say, with weight $1 - \alpha$:
#
# $$\alpha\, T^2\, \mathrm{KL}\big(p^{\text{teacher}}(T)\,\|\,p^{\text{student}}(T)\big) +
# (1 - \alpha)\, \mathrm{CE}(y, p^{\text{student}})$$

# %%
from mapsto.nn.network.preprocess import prepare

TEMPERATURE, EPOCHS = 4.0, 6
preprocessing = fresh.signature.preprocessing


def distilled_by_hand(images):
    """The student after training on images and the teacher's answers to them; no label is read."""
    torch.manual_seed(0)
    student, batches = fresh.module().train(), torch.from_numpy(images)
    wanted = softmax(forward(teacher.module(), images, preprocessing) / TEMPERATURE, 1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(batches)).split(64):
            answers = student(prepare(batches[rows], preprocessing))
            loss = TEMPERATURE**2 * kl_div(log_softmax(answers / TEMPERATURE, 1), wanted[rows], reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return fresh.with_module(student.eval())


by_hand = distilled_by_hand(pool.inputs)
print(f"by hand, no label: {accuracy(by_hand):.1f} %")

# %% [markdown]
# ## 4. By a mapping, and what each way is worth
#
# `distill.logits` is that loss, with a schedule, augmentation, checkpoints and a key in the store. `alpha=1` reads no labels. Beside it
# stand the student that learnt from its fifty labels alone, and the one that was told all labels and had no teacher.

# %%
settings = {"batch_size": 64, "learning_rate": 0.05}
students = {
    "50 labels, no teacher": train.supervised(data=few, epochs=60, **settings)(fresh),
    "teacher, by hand, no label": by_hand,
    "teacher, distill.logits, no label": distill.logits(
        teacher=teacher, data=rest, alpha=1, temperature=TEMPERATURE, epochs=EPOCHS, **settings
    )(fresh),
    "all labels, no teacher": train.supervised(data=everything, epochs=EPOCHS, **settings)(fresh),
}
results = {name: accuracy(network) for name, network in students.items()} | {"the teacher": accuracy(teacher)}
agreement = evaluate.difference(teacher=teacher, data=test)
for name, network in students.items():
    agrees = agreement(network).metrics["agreement"].value
    print(f"{name}: {results[name]:.1f} %, the same answer as the teacher's to {agrees:.1f} %")
figure, axis = plt.subplots(figsize=(6, 2.6))
bars = axis.barh(list(results), list(results.values()), color=["tab:grey", "tab:blue", "tab:blue", "tab:grey", "black"])
axis.bar_label(bars, fmt="%.1f", padding=3)
axis.set(xlabel="accuracy, %", xlim=(min(results.values()) - 10, 104), title="what each way is worth")
axis.invert_yaxis()
assert results["teacher, distill.logits, no label"] > results["50 labels, no teacher"]
assert abs(results["teacher, distill.logits, no label"] - results["teacher, by hand, no label"]) < 5

# %% [markdown]
# An answer of the teacher's does for a label. Where a teacher is there and labels are not, this is how its knowledge is moved.
#
# ## 5. More than answers, and another start
#
# A teacher has more to give than answers. `features` adds the distances between samples, as the teacher's inside sees them;
# `distill.hints` compares features themselves, `distill.decoupled` the right class and the wrong ones each by itself. And the student
# need not be fresh: it can be the teacher, pruned. Two epochs of each, in small steps, since large ones throw a network off that knows
# much already:

# %%
from mapsto import prune

lesson = {"teacher": teacher, "data": rest, "alpha": 1, "temperature": TEMPERATURE, "epochs": 2}
lesson |= {"batch_size": 64, "learning_rate": 0.01}
cut = prune.taylor(data=few, macs=0.15)(teacher)
print(f"the teacher, cut to 15 % of its work: {accuracy(cut):.1f} %")
ends = {
    "fresh, answers": distill.logits(**lesson)(fresh),
    "fresh, answers and distances": distill.logits(features=1.0, **lesson)(fresh),
    "pruned, answers": distill.logits(**lesson)(cut),
}
for name, network in ends.items():
    print(f"{name}: {accuracy(network):.1f} %")
assert accuracy(ends["pruned, answers"]) > accuracy(ends["fresh, answers"])

# %% [markdown]
# A student that begins as a part of its teacher needs the fewest lessons. That holds here; no way is best everywhere, so compare them
# on your task.
#
# ## What you have made
#
# - a training loop by which a student learns from a teacher, without a label;
# - a network with a seventh of the teacher's weights and nearly all of its answers.
#
# `mapsto list distill` names the other losses. Next: [Quantizing by hand](quantizing_by_hand.ipynb), which makes each of the weights
# that are left a quarter as large.
