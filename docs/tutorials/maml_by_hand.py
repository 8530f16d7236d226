# %% [markdown]
# # MAML by hand
#
# *Model-agnostic meta-learning* looks for first weights from which a few steps of gradient descent on a few examples lead far (Finn,
# Abbeel and Levine, 2017). It is two loops. The **inner loop** adapts to one task; the **outer loop** changes the first weights so that
# the adapted ones do well on *other* samples of that task:
#
# $$\theta_t = \theta - \alpha\, \nabla_\theta L_t^{\text{support}}(\theta), \qquad
# \theta \leftarrow \theta - \beta\, \nabla_\theta \sum_t L_t^{\text{query}}(\theta_t)$$
#
# This page writes both in 40 lines of PyTorch, on the paper's first problem: a sine wave from ten of its points. Then `meta.maml` does
# the same, to much the same error.

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
# ## 1. A task
#
# A task is a wave $y = A \sin(x + \varphi)$ with its own height $A$ and phase $\varphi$: ten points to learn from (*support*), others
# to be judged on (*query*). Ten points do not tell a network what lies between them, unless it knows already what waves look like.

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
# ## 2. The inner loop
#
# One step of gradient descent, written as a function from parameters to parameters. Nothing is overwritten, so gradients can flow
# through it: `create_graph=True` keeps what the outer loop needs to differentiate a gradient, a second derivative.

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
# ## 3. The outer loop
#
# For each task adapt by one step, then ask how well the adapted network does on the query points. The mean over ten tasks is an
# ordinary loss of the *first* weights, and Adam lowers it.


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
# ## 4. Did it learn to learn?
#
# Judge it on 100 waves that it has never met, after 0 to 10 inner steps, beside two others: the weights as they were drawn, and weights
# trained on the points of all waves at once, without an inner loop. The latter have learnt the mean of all waves.


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
# The same ten points, the same steps of the same size: only the first weights differ. Here is what they make of one new wave:

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
# ## 5. The same by `meta.maml`
#
# One mapping: the same network, tasks, rates and number of steps. It takes all tasks of a step at once (`engine="vmap"`), is stored,
# goes on after a kill, and gives a `Network` that knows how it is adapted, so that everything else in mapsto can take it.

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
# Both leave the plain training far behind after a single step. What comes out of the mapping is a *learner*: a network that carries its
# inner loop with it. So any judge can put it to the test without being told how it adapts.

# %%
report = evaluate.episodes(tasks=datasets.sinusoids(shots=POINTS, queries=50, seed=1), episodes=100)(learner)
print({name: str(metric) for name, metric in report.metrics.items()})

# %% [markdown]
# ## What you have made
#
# - MAML in 40 lines of PyTorch, with second derivatives, that learns a wave from ten points;
# - the same as a mapping, whose result can be stored, pruned, quantized and judged.
#
# Change one field and you have another paper: `first_order=True` leaves the second derivatives out, `meta.metasgd` learns a rate for
# each weight, `meta.reptile` needs no query points; `mapsto list meta` names them all. The bill is the same for each: two loops. Next:
# [Pruning a network, step by step](pruning_a_network_step_by_step.ipynb).
