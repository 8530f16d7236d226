# %% [markdown]
# # From zero to a learner
#
# A classifier maps an image to a class. A *learner* maps a **task** – a few labelled examples – to a classifier. This page builds one
# up, step by step, on data that come with mapsto: characters drawn from fonts to learn on, handwriting to be tested on.
#
# $$\text{support set} \;\mapsto\; \text{model}, \qquad \text{model}: \text{image} \mapsto \text{class}$$

# %%
import matplotlib.pyplot as plt
import numpy as np

from mapsto import adapt, datasets, evaluate, export, meta, networks, prune, quantize

plt.rcParams["figure.constrained_layout.use"] = True

characters = datasets.glyphs(split="train", per_class=20, characters=600)
handwriting = datasets.digits()

# %% [markdown]
# ## 1. A task
#
# An *episode* draws some classes (**ways**), a few labelled images of each (**shots**: the *support* set), and other images of the same
# classes to be recognised (the *query* set). The same number gives the same episode, anywhere.

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
# ## 2. The simplest map from a task to a model
#
# Take the mean of each class's support images: the nearest mean wins. On raw pixels, or on the features of a network that was never
# trained, this is better than chance (20 %) and not good.

# %%
test = datasets.episodes(data=handwriting, ways=5, shots=1, queries=15)
judge = evaluate.episodes(tasks=test, episodes=200)
untrained = networks.conv4(data=characters, width=32)(seed=0)
before = judge(untrained).metrics["accuracy"]
print("never trained:", before)

# %% [markdown]
# ## 3. Learn the features for just that
#
# Nothing in "take the means, compare distances" is fixed: the features can be trained so that it works. Draw a task, predict its
# queries from its support set, and follow the gradient of the loss – *learning to learn*. These are prototypical networks.

# %%
train_tasks = datasets.episodes(data=characters, ways=20, shots=1, queries=3)
training = meta.protonet(tasks=train_tasks, steps=150, tasks_per_step=1, leave_one_out=True, learning_rate=3e-3)
learner = training(untrained)
after = judge(learner).metrics["accuracy"]
print("trained on printed characters, tested on handwriting:", after)
assert after.value > before.value + 5

# %% [markdown]
# It never saw a handwritten digit, nor a digit at all: what it learnt is *how to compare*, and that carries over. Where the features
# put the digits, by their first two principal components, before and after:


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
# ## 4. More examples, more classes
#
# One learner serves any number of shots and ways.

# %%
report = evaluate.episodes(tasks=test, episodes=100, ways=(5, 10), shots=(1, 2, 5, 10))(learner)
curve = report.series["accuracy by shots"]
figure, axis = plt.subplots(figsize=(5, 3))
for name, values in curve.ys.items():
    axis.plot(curve.x, values, "o-", label=name)
axis.set(xlabel="labelled images of each class", ylabel="accuracy, %")
axis.legend()

# %% [markdown]
# ## 5. Another map from a task to a model: gradient steps
#
# Means are one way to use a support set. A few steps of gradient descent are another: MAML looks for first weights from which they lead
# far. The classic example is a sine wave from ten of its points: before the steps the network knows "some wave", after them, this one.

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
# ## 6. Batch norm is a choice
#
# With few images it matters which statistics normalise them. If queries are normalised among themselves (*transductive*) they help each
# other; a service that sees one image at a time cannot do that (*inductive*). Reports give both, so nobody is surprised later.

# %%
both = evaluate.episodes(tasks=test, episodes=100, batch_norm="both")(learner).metrics
print("transductive:", both["transductive"], "  inductive:", both["inductive"])

# %% [markdown]
# ## 7. Small, and on its own
#
# A learner is a network like any other: prune it, quantize it, and it still learns. Adapt it to ten digits from five examples of each,
# and export what comes out.

# %%
small = (prune.magnitude(parameters=0.5) >> quantize.static(data=characters, samples=128))(learner)
five = datasets.subset(data=handwriting, per_class=5)
rest = datasets.subset(data=handwriting, per_class=5, part="rest")
reader = adapt.learner(data=five)(small)
print("half the parameters, int8, ten digits:", evaluate.accuracy(data=rest)(reader).metrics["accuracy"])
package = export.onnx(data=five)(reader)
print(sorted(name for name in package.files if "/" not in name))

# %% [markdown]
# ## What you have made
#
# - a learner that has never seen a digit, and reads ten of them from five examples of each;
# - the same one at half its size in int8, and a package of what it has learnt.
#
# `mapsto run meta_protonet` does the whole of section 3 at full length, `mapsto adapt RUN FOLDER` adapts it to a folder of your own
# images, and `mapsto list meta` names the other ways from a task to a model. Next: [MAML by hand](maml_by_hand.ipynb).
