# %% [markdown]
# # Quantizing by hand
#
# A network's numbers are 32-bit floats. Integers of 8 bits take a quarter of the space, and hardware multiplies them faster.
# *Quantization* maps the one to the other by a **scale** $s$ and a **zero point** $z$:
#
# $$q = \operatorname{clip}\Big(\operatorname{round}\big(\tfrac{x}{s}\big) + z,\; 0,\; 2^b - 1\Big), \qquad \hat{x} = s\,(q - z)$$
#
# This page does it by hand, down to a layer that multiplies nothing but integers. Then `quantize.static` does it for a whole network,
# and we look at which of its operations really run as integers.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from mapsto import datasets, evaluate, export, networks, quantize, train

plt.rcParams["figure.constrained_layout.use"] = True
torch.set_num_threads(1)

learn = datasets.digits(split="train", size=16)
test = datasets.digits(split="test", size=16)
judge = evaluate.accuracy(data=test, pictures=0)


def accuracy(network):
    return judge(network).metrics["accuracy"].value


fresh = networks.conv4(data=learn, width=32, blocks=2, classes="data")(seed=0)
network = train.supervised(data=learn, epochs=5, batch_size=64, learning_rate=0.05)(fresh)
print(f"float: {accuracy(network):.1f} %")

# %% [markdown]
# ## 1. Scale and zero point
#
# The range of the numbers, widened to hold 0, is cut into $2^b - 1$ steps. The scale is the length of a step, the zero point is the
# code of 0, which must be met exactly: padding and ReLU are full of zeros.


# %%
def parameters(x, bits):
    """Scale and zero point for unsigned codes of so many bits."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


def to_codes(x, scale, zero, bits):
    return np.clip(np.round(x / scale) + zero, 0, 2**bits - 1).astype(np.int32)


def to_numbers(codes, scale, zero):
    return scale * (codes - zero)


module = network.module()
weights = module.classifier.weight.detach().numpy()
errors = {}
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6))
for axis, bits in zip(axes, (2, 4, 8), strict=True):
    scale, zero = parameters(weights, bits)
    back = to_numbers(to_codes(weights, scale, zero, bits), scale, zero)
    errors[bits] = np.abs(back - weights).max()
    axis.plot(np.sort(weights.ravel()), np.sort(back.ravel()), drawstyle="steps-mid")
    axis.set(title=f"{bits} bits: {2**bits} values", xlabel="weight", ylabel="weight from its code")
    print(
        f"{bits} bits: scale {scale:.5f}, zero point {zero}, largest error {errors[bits]:.5f}, half a step {scale / 2:.5f}"
    )
    assert errors[bits] <= scale / 2 * 1.01
assert to_numbers(to_codes(np.zeros(1), *parameters(weights, 8), 8), *parameters(weights, 8)) == 0

# %% [markdown]
# No weight is off by more than half a step, and a step halves with each bit.
#
# ## 2. A layer of integers
#
# What a layer does is sums of products. With $x = s_x (q_x - z_x)$ and $w = s_w (q_w - z_w)$ the scales come out of the sum, and what
# is left is integers alone:
#
# $$\sum_i x_i w_i = s_x s_w \sum_i (q_{x,i} - z_x)(q_{w,i} - z_w)$$
#
# Products of 8 bits are added up in 32 bits, and one multiplication for each output brings the scales back. Below, the classifier of
# the network does so. The range of its inputs is read off some samples that are not the test's: that is *calibration*.

# %%
from mapsto.nn.network.inference import embeddings

samples = test.open()
read = {"data": learn.open().take(np.arange(256)).inputs, "test": samples.inputs}
inputs = {name: embeddings(module, x, network.signature.preprocessing).numpy() for name, x in read.items()}
bias = module.classifier.bias.detach().numpy()


def integer_layer(x, bits):
    (s_x, z_x), (s_w, z_w) = parameters(inputs["data"], bits), parameters(weights, bits)
    q_x, q_w = to_codes(x, s_x, z_x, bits), to_codes(weights, s_w, z_w, bits)
    sums = (q_x - z_x) @ (q_w - z_w).T  # int32: no float is multiplied
    assert sums.dtype == np.int32
    return s_x * s_w * sums + bias


exact = inputs["test"] @ weights.T + bias
by_bits = {}
for bits in range(2, 9):
    answers = integer_layer(inputs["test"], bits)
    by_bits[bits] = 100 * (answers.argmax(1) == samples.labels).mean()
    off = np.abs(answers - exact).mean() / exact.std()
    print(f"{bits} bits: {by_bits[bits]:.1f} % right, scores off by {100 * off:.1f} % of their spread")
whole = 100 * (exact.argmax(1) == samples.labels).mean()
assert abs(by_bits[8] - whole) < 1

# %% [markdown]
# ## 3. The range decides
#
# One number far out makes every step longer. A range without the tail clips a few numbers and serves all others better. Least squared
# error finds the best place to clip:

# %%
rng = np.random.default_rng(0)
values = np.concatenate([rng.standard_normal(10_000), [12.0]])  # one activation far out
tops = np.linspace(1, 12, 60)
figure, axis = plt.subplots(figsize=(5, 2.8))
for bits in (3, 4, 8):
    losses = []
    for top in tops:
        scale = 2 * top / (2**bits - 1)
        zero = 2 ** (bits - 1)
        back = to_numbers(to_codes(values, scale, zero, bits), scale, zero)
        losses.append(np.mean((back - values) ** 2))
    axis.plot(tops, losses, label=f"{bits} bits")
    axis.plot(tops[np.argmin(losses)], min(losses), "ko", markersize=4)
    print(f"{bits} bits: best range ±{tops[np.argmin(losses)]:.1f}")
axis.set(xlabel="where the range ends", ylabel="mean squared error", yscale="log", title="dots: the best range")
axis.legend()

# %% [markdown]
# The fewer the bits, the sooner it pays to clip. `quantize.static` has this as `observer: mse`, beside `minmax`, `percentile` and
# `entropy`.
#
# ## 4. The whole network
#
# `quantize.static` folds batch norm into the convolutions, calibrates every activation, gives each output channel of the weights its
# own scale, and simulates the codes in PyTorch exactly, so that `evaluate.*` says what the device will answer.

# %%
int8 = quantize.static(data=learn, samples=256)(network)
by_mapping = {
    bits: accuracy(quantize.static(data=learn, samples=256, bits=bits)(network)) for bits in (2, 3, 4, 5, 6, 8)
}
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(list(by_bits), list(by_bits.values()), "o--", label="by hand, the classifier alone")
axis.plot(list(by_mapping), list(by_mapping.values()), "s-", label="quantize.static, every layer")
axis.axhline(accuracy(network), color="grey", linewidth=1, label="float")
axis.set(xlabel="bits", ylabel="accuracy, %", ylim=(0, 102))
axis.legend(fontsize=8)
print({bits: f"{value:.1f} %" for bits, value in by_mapping.items()})
assert abs(by_mapping[8] - accuracy(network)) < 2
assert by_mapping[2] < by_mapping[8] - 10

# %% [markdown]
# ## 5. What runs as integers
#
# A quantized network is worth something only where the runtime has integer kernels for it. The model in the package says "codes to
# numbers, convolve, numbers to codes"; ONNX Runtime joins these three into one operation when it loads the model. So ask what is left
# after that:

# %%
from mapsto.nn.export.runtimes.onnxruntime import fused_operations

models = {
    name: export.onnx(data=learn)(value).files["model.onnx"].read_bytes()
    for name, value in (("float", network), ("int8", int8))
}
kept = {name: fused_operations(model) for name, model in models.items()}
for name, model in models.items():
    print(f"{name}: {len(model):,} bytes,", dict(kept[name]))
assert kept["int8"]["QLinearConv"] >= 1
assert kept["int8"]["QGemm"] == 1
assert len(models["int8"]) < len(models["float"]) / 2

# %% [markdown]
# `QLinearConv` and `QGemm` are your integer layer of section 2, and the `MaxPool` between them compares codes. One `Conv` is left in
# float, on purpose: an image of one channel does not fill the integer kernels. `mapsto show quantize.static` says how to change that
# (`first`), and a report of `evaluate.latency` says whether it pays on your machine.
#
# ## What you have made
#
# - a quantizer of your own, with a scale and a zero point that meets 0 exactly;
# - a layer that multiplies nothing but integers, and answers as the float layer does;
# - a package a third as large as before, of which you know what runs as integers.
#
# Where 8 bits cost too much: `quantize.aware` trains with the codes in place, `quantize.adaround` learns which way to round, and
# `quantize.mixed` gives each layer its own number of bits. Next: [Twenty photos to a model](twenty_photos_to_a_model.ipynb).
