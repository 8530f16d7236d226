# %% [markdown]
# # What is a mapping
#
# Everything that mapsto does is a *mapping*: it takes a value and gives a value. Training maps a network to a trained network, pruning
# maps it to a smaller one, a judge maps it to a report. Mappings compose, and a chain of them is a *recipe*:
#
# $$\text{nothing} \;\mapsto\; \text{network} \;\mapsto\; \text{trained network} \;\mapsto\; \text{smaller network}$$
#
# This page makes one of each, keeps results in a store so that nothing is computed twice, and ends with a mapping of your own in 15
# lines. The data are handwritten digits that come with scikit-learn; all of it takes seconds.

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
# ## 1. Values
#
# A mapping is called like a function. `networks.conv4` maps nothing to a `Network`; the seed decides its first weights. `evaluate.size`
# maps a network to a `Report`.

# %%
make = networks.conv4(data=learn, classes="data", width=16, blocks=2)
network = make(seed=0)
report = evaluate.size()(network)
print("a value: ", type(network).__name__, tuple(network.signature.input_shape(1)), "→", network.signature.classes)
print("another: ", type(report).__name__, {name: str(metric) for name, metric in report.metrics.items()})

# %% [markdown]
# Values are frozen. A mapping never changes what it is given, it gives something new, so you can go back to `network` whenever you
# like.
#
# ## 2. Mappings
#
# The fields of a mapping are all that it is told; nothing is set elsewhere. So a mapping can be printed, compared and written to a
# file, and a field that cannot be is refused at once, with what is allowed.

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
# ## 3. A chain
#
# `>>` puts a mapping behind another. What the first gives must be what the second takes, and that is checked when the chain is written,
# not after an hour of training.

# %%
big = make >> train.supervised(data=learn, epochs=4, batch_size=64, learning_rate=0.05)
small = big >> half >> train.supervised(data=learn, epochs=1, batch_size=64, learning_rate=0.02)
print(len(small.steps), "steps:", " >> ".join(step.name for step in small.steps))
try:
    evaluate.size() >> half
except MapstoError as error:
    print("refused:", error)

# %% [markdown]
# ## 4. A recipe and its store
#
# `execute` runs a chain over a *store*. Each step has a key: its name, version and fields, what it was given, the seed and the
# numerics. A step whose key is in the store is a *hit*, and is not computed. Below, the same recipe runs twice, then with another share
# of the work.

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
# The second run computed nothing. The third knew the network and its training, and began where the recipes part. A run that is killed
# goes on in the same way: what was finished is there.

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
# ## 5. The same recipe as a file
#
# A recipe in Python and one in YAML are the same thing. This is what `mapsto run` reads.

# %%
from mapsto.recipe.reader import parse_recipe
from mapsto.recipe.writer import dump

text = dump(recipe(0.5))
print(text)
again = execute(parse_recipe(text), store=store)
print("every step a hit:", again.reused)
assert again.reused

# %% [markdown]
# ## 6. A mapping of your own
#
# How much noise can the weights bear, as cheap hardware adds it? One class answers: it says what it takes and gives, its fields with
# their meaning, and `apply`. Random numbers come from `ctx`, so that the same seed gives the same result.


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
# That is all. It composes, its result is stored, and an unknown field is refused, as with any other mapping. (Its key holds its name,
# `version` and fields, not its code: after a change of `apply` that gives other results, write `version: ClassVar[int] = 2` into the
# class.)

# %%
steps = big >> Noisy(amount=0.4) >> observe(test=judge)
once, twice = execute(steps, store=store), execute(steps, store=store)
print("once: ", [step.status for step in once.steps], "twice:", [step.status for step in twice.steps])
assert not once.reused
assert twice.reused

# %% [markdown]
# Noise is drawn, so one draw says little. Each point below is the mean of five seeds, on the network and on the one with half of its
# work.

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
# Both bear a little noise, and neither bears much.
#
# ## What you have made
#
# - a recipe of five steps, in Python and as a file, that computes each step once;
# - a mapping of your own, and with it a curve of how much noise a network bears.
#
# `mapsto list` names the other mappings, `mapsto show prune.magnitude` says what each field means. Next: [From zero to a
# learner](from_zero_to_a_learner.ipynb), where a mapping gives a mapping. How yours gets a name in recipes is the end of the path: [A
# package of your own](a_package_of_your_own.ipynb).
