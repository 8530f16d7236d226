"""Convolutions as products of matrices: the same numbers, twice differentiable, and vectorised over tasks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import conv2d, cross_entropy

from mapsto.nn.kernels.task_conv import convolve, task_convolutions
from mapsto.nn.meta.batch_norm import recording, task_norms

SIDES = st.integers(1, 3)


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(SIDES, SIDES),
    stride=st.tuples(SIDES, SIDES),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    image=st.tuples(st.integers(4, 8), st.integers(4, 8)),
)
def test_it_is_pytorchs_convolution_with_its_gradients(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], image: tuple[int, int]
) -> None:
    padding = (min(padding[0], kernel[0] - 1), min(padding[1], kernel[1] - 1))
    x = torch.rand(2, 3, *image, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 3, *kernel, dtype=torch.float64, requires_grad=True)
    found, expected = convolve(x, weight, stride, padding), conv2d(x, weight, stride=stride, padding=padding)
    torch.testing.assert_close(found, expected)
    g = torch.rand_like(expected, requires_grad=True)
    ours, theirs = (torch.autograd.grad(y, (x, weight), g, create_graph=True) for y in (found, expected))
    torch.testing.assert_close(ours, theirs)
    v = [torch.rand_like(part) for part in theirs]
    for ours_twice, theirs_twice in zip(
        torch.autograd.grad(ours, (x, weight, g), v), torch.autograd.grad(theirs, (x, weight, g), v), strict=True
    ):
        torch.testing.assert_close(ours_twice, theirs_twice)


@pytest.mark.parametrize("stride", [1, 2])
def test_second_order_gradients_over_tasks_are_those_of_grouped_convolutions(stride: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(1)
    ).double()
    point = {name: value.detach().requires_grad_() for name, value in net.named_parameters()}
    images, labels = torch.rand(3, 5, 1, 8, 8, dtype=torch.float64), torch.randint(4, (3, 5))

    def loss(at: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with recording():
            return cross_entropy(functional_call(net, at, (x,)), y)

    def task(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        moved = {name: point[name] - 0.1 * part for name, part in grad(loss)(point, x, y).items()}
        return loss(moved, x, y)

    def found() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(vmap(task)(images, labels).sum(), list(point.values()))

    with task_norms(net):
        expected = found()
        with task_convolutions(net):
            torch.testing.assert_close(found(), expected)
    assert type(net[0]) is nn.Conv2d


def test_convolutions_that_are_more_than_products_stay_as_they_are() -> None:
    kinds = [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(4, 4, 1, padding=1),
    ]
    plain = nn.Conv2d(4, 4, 3)
    net = nn.Sequential(*kinds, plain)
    with task_convolutions(net):
        assert all(type(part) is nn.Conv2d for part in kinds)
        assert type(plain) is not nn.Conv2d
    assert type(plain) is nn.Conv2d
