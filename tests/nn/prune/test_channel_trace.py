"""Channels are followed through single operations; where they cannot be, the reason says what and where."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mapsto.errors import DomainError
from mapsto.nn.edits.channels import VALUES, Channels, Kept
from mapsto.nn.prune.channel_trace import follow
from mapsto.nn.prune.dependency_groups import channels_edit, find_groups


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Layers this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Between(nn.Module):
    """Two convolutions with anything between them, and the mean of what comes out."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], read: int = 8, **parts: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(read, 3, 1)
        self.between = between
        for name, part in parts.items():
            self.add_module(name, part)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.register_buffer("order", torch.tensor([3, 7, 0, 1, 6, 2, 5, 4]), persistent=False)
        self.register_buffer("some", torch.tensor([5, 1, 2, 1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x))).mean((2, 3))


def filled(x: Tensor) -> Tensor:
    buffer = torch.zeros_like(x)
    buffer[:, :] = x
    return buffer.mul_(2).add_(1)


FOLLOWED: dict[str, tuple[nn.Module, list[int]]] = {
    "elementwise": (Between(lambda _, x: F.hardswish(F.gelu(x) * x.sigmoid() + 1)), [8]),
    "in place": (Between(lambda _, x: x.relu_().mul_(2).clamp_(max=3)), [8]),
    "a buffer as wide": (Between(lambda _, x: filled(x)), [8]),
    "a parameter": (Between(lambda m, x: x * m.scale), [8]),
    "prelu": (Between(lambda m, x: m.act(x), act=nn.PReLU(8)), [8]),
    "instance norm": (Between(lambda m, x: m.norm(x).relu(), norm=nn.InstanceNorm2d(8, affine=True)), [8]),
    "group norm": (Between(lambda m, x: m.norm(x), norm=nn.GroupNorm(4, 8)), [4]),
    "pooling": (Between(lambda _, x: F.avg_pool2d(F.max_pool2d(x, 2), 2)), [8]),
    "resizing": (Between(lambda _, x: F.interpolate(x, scale_factor=2, mode="bilinear")), [8]),
    "reflection": (Between(lambda _, x: F.pad(x, (1, 1, 1, 1), mode="reflect")), [8]),
    "gate": (Between(lambda _, x: x * x.mean((2, 3), keepdim=True).softmax(0)), [8]),
    "norm of positions": (Between(lambda _, x: x / x.square().sum((2, 3), keepdim=True).sqrt()), [8]),
    "softmax of positions": (Between(lambda _, x: x.flatten(2).softmax(-1).unflatten(2, x.shape[2:])), [8]),
    "flip": (Between(lambda _, x: x.flip(1)), [8]),
    "permute": (Between(lambda _, x: x.permute(0, 2, 3, 1).contiguous().movedim(-1, 1)), [8]),
    "concatenation": (Between(lambda _, x: torch.cat([x, x.tanh()], 1), read=16), [8]),
    "repetition": (Between(lambda _, x: x.repeat(1, 2, 1, 1), read=16), [8]),
    "stack": (Between(lambda _, x: torch.stack([x, x.tanh()]).sum(0)), [8]),
    "shuffle": (Between(lambda _, x: x.unflatten(1, (2, x.shape[1] // 2)).transpose(1, 2).flatten(1, 2)), [4]),
    "shuffle by torch": (Between(lambda _, x: F.channel_shuffle(x, 2)), [4]),
    "chunks": (Between(lambda _, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1].sigmoid(), read=4), [4]),
    "gated linear unit": (Between(lambda _, x: F.glu(x, 1), read=4), [4]),
    "every second": (Between(lambda _, x: x[:, ::2], read=4), [4]),
    "pixel shuffle": (Between(lambda _, x: F.pixel_shuffle(x, 2), read=2), [2]),
    "an order": (Between(lambda m, x: x[:, m.order]), [8]),
    "some of them": (Between(lambda m, x: torch.cat([x.index_select(1, m.some), x], 1), read=12), [8]),
    "matrix": (
        Between(
            lambda m, x: torch.einsum("nchw,cd->ndhw", x, m.last.weight[:, :, 0, 0].t() @ m.last.weight[:, :, 0, 0])
        ),
        [],
    ),
    "grouped": (Between(lambda m, x: m.conv(x), conv=nn.Conv2d(8, 16, 3, 2, groups=4), read=16), [4]),
    "transposed": (Between(lambda m, x: m.conv(x), conv=nn.ConvTranspose2d(8, 6, 2, 2), read=6), [8, 6]),
    "transposed, grouped": (Between(lambda m, x: m.conv(x), conv=nn.ConvTranspose2d(8, 12, 2, groups=4), read=12), [4]),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_followed(name: str) -> None:
    """The trial in double precision has passed for these groups; half of the channels are dropped here to see that it runs."""
    module, counts = FOLLOWED[name]
    torch.manual_seed(0)
    x = torch.randn(2, 2, 8, 8)
    found = find_groups(module, x)
    assert [group.channels for group in found.groups] == counts, found.whole
    kept = {group.name: np.arange(group.channels) % 2 == 0 for group in found.groups}
    pruned = channels_edit(module, found.groups, kept).apply(copy.deepcopy(module))
    assert pruned(x).shape == module(x).shape


NOT_FOLLOWED: dict[str, tuple[nn.Module, str]] = {
    "layer norm": (
        Between(lambda m, x: m.norm(x.movedim(1, -1)).movedim(-1, 1), norm=nn.LayerNorm(8)),
        "taken together: native_layer_norm in 'norm'",
    ),
    "one group": (Between(lambda m, x: m.norm(x), norm=nn.GroupNorm(1, 8)), "taken together: native_group_norm in 'norm'"),
    "softmax": (Between(lambda _, x: x.softmax(1)), "taken together: _softmax in the network"),
    "a sum": (Between(lambda _, x: x * x.sum(1, keepdim=True)), "taken together: sum"),
    "a fixed slice": (Between(lambda _, x: x[:, 1:4], read=3), "fixed places among its channels are picked: slice"),
    "a slice of half": (Between(lambda _, x: x[:, :4], read=4), "slicing its channels changes more"),
    "fixed indices": (Between(lambda _, x: x[:, [2, 0, 1]], read=3), "fixed places among its channels are picked: index"),
    "unequal parts": (Between(lambda _, x: x.split([3, 5], 1)[1], read=5), "fixed places"),
    "a constant": (Between(lambda _, x: x + torch.arange(8.0).view(8, 1, 1)), "meet numbers that stay: add"),
    "a buffer of its own size": (Between(lambda _, x: torch.zeros(x.shape, dtype=x.dtype).copy_(x)), "meet numbers that stay: copy"),
    "zeros": (Between(lambda _, x: F.pad(x, (0, 0, 0, 0, 1, 1)), read=10), "padded=True lets them go: constant_pad_nd"),
    "a product": (Between(lambda _, x: torch.einsum("nchw,ndhw->ncd", x, x)[..., None], read=8), "product of two activations: bmm"),
    "an unknown operation": (
        Between(lambda _, x: x.cumsum(2).unfold(2, 2, 2).mean(-1)),
        "no rule follows its channels: unfold",
    ),
    "computed weights": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 8, 1)), nn.Flatten()),
        "part of another operation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_not_followed(name: str) -> None:
    module, reason = NOT_FOLLOWED[name]
    found = find_groups(module, torch.zeros(2, 2, 8, 8))
    assert found.groups == ()
    assert reason in found.whole["first" if isinstance(module, Between) else "0"]


def test_a_module_that_does_not_run_says_so() -> None:
    with pytest.raises(DomainError, match=r"does not run in double precision on an example: RuntimeError"):
        find_groups(Between(lambda _, x: x[:, :3]), torch.zeros(2, 2, 8, 8))


def test_the_running_module_is_known_again_after_it() -> None:
    """Channels are named by the module that runs; hooks are gone afterwards."""
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Softmax(-1), nn.Linear(3, 2)), nn.Softmax(-1)).double()
    flow = follow(module, torch.ones(1, 2, dtype=torch.float64))
    assert sorted(flow.reasons.values())[0].endswith("_softmax in '1.0'")
    assert any(reason.endswith("_softmax in '2'") for reason in flow.reasons.values())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_indices_are_renumbered() -> None:
    module = Between(lambda m, x: x[:, m.order])
    edit = Channels(kept=(Kept(of=8, indices="0-2,6", at=(("order", VALUES),)),))
    assert edit.follow("order", torch.ones(8)).shape == (8,)  # pyright: ignore
    edit.apply(module)
    assert module.order.tolist() == [0, 1, 3, 2], "of 3 7 0 1 6 2 5 4 stay 0 1 6 2, which is now 3"
    with pytest.raises(DomainError, match="no list of indices below 8"):
        Channels(kept=(Kept(of=8, indices="0", at=(("scale", VALUES),)),)).apply(module)
