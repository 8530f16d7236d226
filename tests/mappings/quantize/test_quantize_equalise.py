"""`quantize.equalise` and `quantize.correct_bias`: the output stays, the ranges meet, the mean error goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.nets import Blobs, Plain, Residual, images, network
from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mappings.networks.mlp import Mlp
from mapsto.mappings.quantize.correct_bias import CorrectBias
from mapsto.mappings.quantize.equalise import Equalise
from mapsto.mappings.quantize.static import Static
from mapsto.nn.quantize.adaround import captured

pytestmark = pytest.mark.usefixtures("trusted")


@pytest.mark.parametrize("kind", [Plain, Residual])
def test_the_output_stays_and_batch_norm_goes(kind):
    source = network(kind)
    even = Equalise()(source)
    x = images(16)
    torch.testing.assert_close(even.module()(x), source.module()(x), rtol=1e-3, atol=1e-4)
    assert not [name for name in even.tensors if "running_mean" in name]


def test_two_layers_by_hand():
    source = Mlp(inputs=5, classes=3, widths=(7,))()
    names = [name for name in source.tensors if name.endswith("weight")]
    first, second = (source.tensors[name].double().numpy() for name in names)
    bias = source.tensors[names[0].replace("weight", "bias")].double().numpy()
    scale = np.sqrt(np.abs(first).max(1) / np.abs(second).max(0))
    even = Equalise()(source)
    np.testing.assert_allclose(even.tensors[names[0]], first / scale[:, None], rtol=1e-5)
    np.testing.assert_allclose(even.tensors[names[1]], second * scale, rtol=1e-5)
    np.testing.assert_allclose(even.tensors[names[0].replace("weight", "bias")], bias / scale, rtol=1e-5, atol=1e-8)


class Depthwise(nn.Module):
    """A separable block, and a map flattened channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.three, self.head = nn.Conv2d(6, 4, 1), nn.Linear(4 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.three(torch.relu(self.two(torch.relu(self.one(x))))))
        return self.head(torch.flatten(torch.max_pool2d(x, 4), 1))


def test_depthwise_and_flattened_layers_are_seen_through():
    torch.manual_seed(0)
    module = Depthwise().eval()
    with torch.no_grad():
        module.one.weight.mul_(torch.logspace(-2, 1, 6).view(-1, 1, 1, 1))
    source = Network.from_module(module, torch.randn(2, 1, 16, 16))
    even = Equalise(sweeps=50)(source)
    x = images(8)
    torch.testing.assert_close(even.module()(x), module(x), rtol=1e-3, atol=1e-4)
    t = even.tensors
    ranges = [
        (t["one.weight"].abs().amax((1, 2, 3)), t["two.weight"].abs().amax((1, 2, 3))),
        (t["two.weight"].abs().amax((1, 2, 3)), t["three.weight"].abs().amax((0, 2, 3))),
        (t["three.weight"].abs().amax((1, 2, 3)), t["head.weight"].view(3, 4, 16).abs().amax((0, 2))),
    ]
    for own, read in ranges:
        torch.testing.assert_close(own, read, rtol=0.02, atol=1e-6)


def test_uneven_channels_lose_less_once_evened_out():
    source = network(Plain)
    module = source.module()
    factor = torch.logspace(-1.5, 1.5, 12)
    with torch.no_grad():
        module.features[5].weight.div_(factor)
        module.features[5].bias.div_(factor)
        module.features[7].weight.mul_(factor.view(1, -1, 1, 1))
    uneven = source.with_module(module)
    x = images(200, 5)
    errors = []
    for value in (uneven, Equalise()(uneven)):
        small = Static(data=Blobs(), samples=200)(value)
        errors.append(float((small.module()(x) - uneven.module()(x)).square().mean().detach()))
    assert errors[1] < 0.5 * errors[0]


def test_where_there_are_no_two_layers_it_says_so():
    with pytest.raises(DomainError, match="no two layers with only a rectifier"):
        Equalise()(Mlp(inputs=5, classes=3, widths=())())


def test_a_layer_that_is_skipped_stays():
    source = network(Plain)
    folded = Equalise(skip=("classifier",))(source).tensors
    assert torch.equal(folded["classifier.weight"], source.tensors["classifier.weight"])


# --------------------------------------------------------------------------------------------------------- bias correction


def test_the_mean_of_each_channel_comes_back():
    source = network(Plain)
    small = Static(data=Blobs(), samples=200, bits=4)(source)
    better = CorrectBias(data=Blobs(), samples=200)(small)
    assert better.edits == small.edits
    changed = [name for name in small.tensors if not torch.equal(small.tensors[name], better.tensors[name])]
    assert changed
    assert all(name.endswith("bias") for name in changed)


def test_the_correction_of_a_layer_by_hand():
    source = network(Plain)
    small = Static(data=Blobs(), samples=64, bits=4)(source)
    better = CorrectBias(data=Blobs(count=64), samples=64)(small)
    quantizer = next(q for q in small.edits[-1].quantizers if q.path == "classifier" and q.function == "weight")
    weight = small.tensors["classifier.weight"].double().numpy()
    scale = np.array(quantizer.scale)[:, None]
    rounded = np.clip(np.rint(weight / scale), quantizer.quant_min, quantizer.quant_max) * scale
    samples = Blobs(count=64).open()
    pixels = torch.as_tensor(samples.inputs).float().div(255).sub(0.5).div(0.25)
    x = captured(small.module(), pixels, ["classifier"])["classifier"].double().numpy()
    expected = small.tensors["classifier.bias"].double().numpy() - ((rounded - weight) @ x.T).mean(1)
    np.testing.assert_allclose(better.tensors["classifier.bias"], expected, atol=1e-5)
