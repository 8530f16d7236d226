# %% [markdown]
# # Pruning a network, step by step
#
# A trained network computes more than it needs. *Pruning* maps it to a smaller one: whole channels go, the layers become narrower, and
# what is left is an ordinary network that runs faster anywhere. On this page a small VGG that reads handwritten digits is taken apart:
# what belongs together, what can go, how to recover, and what distillation and quantization add.
#
# $$\text{network} \;\mapsto\; \text{smaller network}$$

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from mapsto import datasets, distill, evaluate, networks, prune, quantize, train

plt.rcParams["figure.constrained_layout.use"] = True

learn = datasets.digits(split="train", size=16)
test = datasets.digits(split="test", size=16)
judge = evaluate.accuracy(data=test, pictures=0)


def accuracy(network):
    return judge(network).metrics["accuracy"].value


def size(network):
    return {name: metric.value for name, metric in evaluate.size()(network).metrics.items()}


fresh = networks.vgg(plan=((16,), (32, 32), (64, 64)), data=learn, classes="data")(seed=0)
big = train.supervised(data=learn, epochs=6, batch_size=64)(fresh)
whole = size(big)
print(
    f"{accuracy(big):.1f} % with {whole['macs'] / 1e6:.2f} million multiply-accumulates in {whole['bytes'] / 1e3:.0f} kB"
)

# %% [markdown]
# ## 1. What belongs together: groups
#
# A channel that a convolution makes is scaled by the batch norm behind it and read by the next layer. If it goes, it must go from all of
# them at once. Such a *group* is the unit of pruning; mapsto finds the groups by tracing, tries each of them, and names what has to
# stay whole.

# %%
from mapsto.nn.prune.dependency_groups import find_groups

found = find_groups(big.module(), torch.zeros(big.signature.input_shape(2)))
for group in found.groups:
    print(f"{group.name}: {group.channels} channels through")
    print("   ", ", ".join(f"{member.name} ({member.role})" for member in group.members))
for path, reason in found.whole.items():
    print(f"{path} stays whole: {reason}")

# %% [markdown]
# ## 2. What can go: importance
#
# A *criterion* gives each channel a number. The plainest is the size of its weights; `prune.taylor` asks how much the loss would change
# without it, to first order. They do not agree, which is why it pays to try them. Below, each line is one criterion, nothing is trained
# after the cut, and a random choice is the yardstick.

# %%
from mapsto.context import Context

taylor = prune.taylor(data=learn, macs=0.5)
module, context = big.module(), Context()
scores = {
    "size of the weights": prune.magnitude(macs=0.5).importance(big, context)(big.module(), found.groups),
    "change of the loss": taylor.importance(big, context)(big.module(), found.groups),
}
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
for axis, (name, values) in zip(axes, scores.items(), strict=True):
    for group in found.groups:
        axis.plot(np.linspace(0, 1, group.channels), np.sort(values[group.name]), label=group.name)
    axis.set(title=name, xlabel="channels of the layer, sorted", ylabel="importance")
axes[1].legend(fontsize=6)

# %%
shares = (1.0, 0.8, 0.6, 0.4)
criteria = {
    "random": lambda share: prune.random(macs=share),
    "magnitude": lambda share: prune.magnitude(macs=share),
    "taylor": lambda share: prune.taylor(data=learn, macs=share),
}
curves = {
    name: [accuracy(big) if share == 1 else accuracy(criterion(share)(big)) for share in shares]
    for name, criterion in criteria.items()
}
figure, axis = plt.subplots(figsize=(5, 3))
for name, values in curves.items():
    axis.plot([100 * share for share in shares], values, "o-", label=name)
    print(f"{name}: " + ", ".join(f"{value:.1f}" for value in values))
axis.set(xlabel="multiply-accumulates that are left, %", ylabel="accuracy, %", title="cut, and not trained afterwards")
axis.invert_xaxis()
axis.legend()
assert np.mean(curves["taylor"]) > np.mean(curves["random"]) + 5

# %% [markdown]
# Averaged over the cuts, `taylor` keeps more than chance does. Yet no criterion is free: without training, the
# accuracy falls as channels go.
#
# ## 3. Where it hurts: sensitivity
#
# Layers differ. `evaluate.sensitivity` prunes one layer at a time and leaves the others whole.

# %%
report = evaluate.sensitivity(data=learn, samples=300, criterion=taylor)(big)
series = report.series["drop by share pruned"]
figure, axis = plt.subplots(figsize=(5, 3))
for layer, drops in series.ys.items():
    axis.plot(series.x, drops, "o-", label=layer)
axis.set(xlabel=series.x_name, ylabel=series.y_name)
axis.legend(fontsize=7)
worst = {layer: drops[-1] for layer, drops in series.ys.items()}
print("points lost at three quarters:", {layer: round(drop, 1) for layer, drop in worst.items()})
assert max(worst.values()) > min(worst.values()) + 10

# %% [markdown]
# The same share costs one layer far more than another. A budget for the whole network leaves the choice to the numbers, and what each layer
# keeps of its channels tells where they went:

# %%
pruned = prune.taylor(data=learn, macs=0.15)(big)
before = {group.name: group.channels for group in found.groups}
after = {
    group.name: group.channels
    for group in find_groups(pruned.module(), torch.zeros(pruned.signature.input_shape(2))).groups
}
figure, axis = plt.subplots(figsize=(5, 2.6))
axis.bar(before.keys(), before.values(), color="lightgrey", label="before")
axis.bar(after.keys(), after.values(), label="after")
axis.set(ylabel="channels", title="15 % of the work is left")
axis.tick_params(axis="x", labelsize=8)
axis.legend()
cut = accuracy(pruned)
print(f"{whole['macs'] / size(pruned)['macs']:.1f} times fewer multiply-accumulates, {cut:.1f} %")
assert cut < accuracy(big) - 10

# %% [markdown]
# ## 4. Recover: by least squares, and by training
#
# What went is partly a mixture of what is left. `prune.reconstruct` goes from layer to layer and solves for the weights with which the
# small network computes what the big one did: no labels, no training, a second.

# %%
mended = prune.reconstruct(teacher=big, data=learn)(pruned)
print(f"cut {cut:.1f}, mended {accuracy(mended):.1f} %")
assert accuracy(mended) > cut + 10

# %% [markdown]
# A short training brings the rest back: what is left was part of a good solution.

# %%
settings = {"data": learn, "batch_size": 64, "learning_rate": 0.05}
tuned = train.supervised(epochs=4, **settings)(pruned)
print(f"big {accuracy(big):.1f}, cut {cut:.1f}, trained again {accuracy(tuned):.1f} %")
assert accuracy(tuned) > cut + 10

# %% [markdown]
# ## 5. At once or little by little
#
# The four epochs can also be spread: prune a little, train, prune again. *Iterative* pruning takes the same share of what is left each
# time, *gradual* pruning much at first and little at the end. All three bars below stand for four epochs and end at the same cost.

# %%
budget = prune.taylor(data=learn, macs=0.15)
rounds = {
    "at once": prune.gradual(criterion=budget, train=train.supervised(epochs=4, **settings), rounds=1),
    "iterative": prune.gradual(
        criterion=budget, train=train.supervised(epochs=2, **settings), rounds=2, pace="geometric"
    ),
    "gradual": prune.gradual(criterion=budget, train=train.supervised(epochs=2, **settings), rounds=2, pace="cubic"),
}
results = {name: accuracy(mapping(big)) for name, mapping in rounds.items()}
print({name: round(value, 1) for name, value in results.items()})
figure, axis = plt.subplots(figsize=(4, 2.6))
bars = axis.barh(list(results), list(results.values()))
axis.bar_label(bars, fmt="%.1f", padding=2)
axis.set(xlabel="accuracy, %", xlim=(min(results.values()) - 3, 100), title="four epochs, three ways")
assert min(results.values()) > cut + 10

# %% [markdown]
# Each of them is far above the cut alone. Which one is best depends on how long each round may recover; with test images as few as here, a
# difference of a point or two is within chance.
#
# ## 6. A teacher instead of labels
#
# The big network knows more than the labels say: which wrong digit is nearly right. `distill.logits` teaches that, and with `alpha=1` it
# looks at no label at all: any images of the right kind will do.

# %%
taught = distill.logits(teacher=big, epochs=4, alpha=1, **settings)(pruned)
like = evaluate.difference(teacher=big, data=test)
for name, network in (("labels", tuned), ("teacher", taught)):
    agreement = like(network).metrics["agreement"].value
    print(f"taught by {name}: {accuracy(network):.1f} %, says what the big one says on {agreement:.1f} % of the images")
assert accuracy(taught) > cut + 10

# %% [markdown]
# Without a single label the network recovers as well: it is far above the cut.
#
# ## 7. Fewer bits
#
# Pruning takes away numbers, quantization makes each of them smaller. The two go together.

# %%
int8 = quantize.static(data=learn, samples=256)(taught)
print(f"float: {accuracy(taught):.1f} % in {size(taught)['bytes'] / 1e3:.1f} kB")
print(f"int8:  {accuracy(int8):.1f} % in {size(int8)['bytes'] / 1e3:.1f} kB")
assert size(int8)["bytes"] < size(taught)["bytes"] / 2
assert abs(accuracy(int8) - accuracy(taught)) < 3

# %% [markdown]
# Less than half the bytes, for at most a few images more or less.
#
# ## 8. The frontier
#
# How small should it be? That is for you to say, and a picture helps: for each share of the work prune, distil and quantize, and see what
# it costs.

# %%
points = {"float": [(whole["bytes"], accuracy(big))], "int8": []}
for share in (0.5, 0.25, 0.05):
    small = (prune.taylor(data=learn, macs=share) >> distill.logits(teacher=big, epochs=3, **settings))(big)
    for name, network in (("float", small), ("int8", quantize.static(data=learn, samples=256)(small))):
        points[name].append((size(network)["bytes"], accuracy(network)))
figure, axis = plt.subplots(figsize=(5, 3))
for name, pairs in points.items():
    kilobytes, percent = zip(*((each / 1e3, value) for each, value in sorted(pairs)), strict=True)
    axis.plot(kilobytes, percent, "o-", label=name)
    print(f"{name}: " + ", ".join(f"{y:.1f} % in {x:.1f} kB" for x, y in zip(kilobytes, percent, strict=True)))
axis.set(xscale="log", xlabel="kB", ylabel="accuracy, %", title="up and left is better")
axis.legend()
assert max(each for each, _ in points["int8"]) < whole["bytes"] / 4

# %% [markdown]
# Every int8 network is less than a quarter of the first in bytes.
#
# ## What you have made
#
# - an account of a network: what belongs together in it, what can go, and where it hurts;
# - a frontier of smaller networks, each with its accuracy, to choose from.
#
# `mapsto compress RUN --data DATA --limit latency=0.5ms` draws this frontier for a network of yours and exports the most accurate one
# within the target, `mapsto run compress_resnet_cifar` does it for a trained ResNet, and `mapsto list prune` names the other criteria.
# Next: [Compressing a VGG with Lightning](compressing_a_vgg_with_lightning.ipynb), or, without its data,
# [Distilling a network, step by step](distilling_a_network_step_by_step.ipynb).
