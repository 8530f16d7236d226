"""Maps compared in pairs: the compiled kernel against PyTorch's own operations, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import group_norm, max_pool2d

from mapsto.nn.kernels.compiled import compiled_kernels
from mapsto.nn.kernels.conv import fast_conv
from mapsto.nn.kernels.pair_norm_pool import pair_norm_relu_pool

needs_kernels = pytest.mark.skipif(not compiled_kernels(), reason="there is no C++ compiler")


def plainly(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """One pair after another, as the definition says."""
    rows = []
    for a, b in zip(first, second, strict=True):
        pairs = [[max_pool2d(group_norm((k + q)[None], 1, weight, bias, eps).relu(), 2)[0] for k in a] for q in b]
        rows.append(torch.stack([torch.stack(row) for row in pairs]))
    return torch.stack(rows)


def drawn(seed: int, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def gradients(found: Tensor, of: list[Tensor]) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
    return torch.autograd.grad((found * weights).sum(), of)


@needs_kernels
@settings(deadline=None, max_examples=40)
@given(
    tasks=st.integers(1, 3),
    ways=st.integers(1, 4),
    queries=st.integers(1, 10),
    channels=st.integers(1, 20),
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    seed=st.integers(0, 999),
)
def test_values_and_gradients(
    tasks: int, ways: int, queries: int, channels: int, height: int, width: int, seed: int
) -> None:
    maps = (channels, height, width)
    tensors = drawn(seed, (tasks, ways, *maps), (tasks, queries, *maps), (channels,), (channels,))
    expected, found = plainly(*tensors, 1e-5), pair_norm_relu_pool(*tensors, 1e-5, compiled=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients(found, tensors), gradients(expected, tensors), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(pair_norm_relu_pool(*tensors, 1e-5, compiled=False), expected, rtol=1e-9, atol=1e-9)


@needs_kernels
def test_a_large_mean_costs_no_precision() -> None:
    first, second, weight, bias = drawn(0, (1, 3, 8, 5, 5), (1, 4, 8, 5, 5), (8,), (8,), dtype=torch.float32)
    far = first + 1000.0
    exact = plainly(far.double(), second.double(), weight.double(), bias.double(), 1e-5)
    found = pair_norm_relu_pool(far, second, weight, bias, compiled=True)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-3)  # a float of 1000 is exact to 3e-5


@needs_kernels
def test_threads_change_nothing() -> None:
    tensors = drawn(1, (2, 5, 16, 7, 7), (2, 9, 16, 7, 7), (16,), (16,), dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found = pair_norm_relu_pool(*tensors, compiled=True)
            results.append((found, *gradients(found, tensors)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("maps", [(3, 1, 1), (3, 1, 4), (3, 5, 1)])
def test_a_side_of_one_is_left(maps: tuple[int, int, int]) -> None:
    first, second = drawn(2, (1, 2, *maps), (1, 3, *maps))
    found = pair_norm_relu_pool(first, second, torch.ones(3).double(), torch.zeros(3).double())
    assert found.shape == (1, 3, 2, 3, max(maps[1] // 2, 1), max(maps[2] // 2, 1))


def test_it_may_be_vectorised() -> None:
    first, second, weight, bias = drawn(3, (4, 1, 2, 3, 4, 4), (4, 1, 2, 3, 4, 4), (3,), (3,))
    each = torch.stack([pair_norm_relu_pool(a, b, weight, bias) for a, b in zip(first, second, strict=True)])
    together = torch.func.vmap(lambda a, b: pair_norm_relu_pool(a, b, weight, bias))(first, second)
    torch.testing.assert_close(together, each)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 9),
    inputs=st.sampled_from([16, 32, 80]),
    outputs=st.sampled_from([16, 48, 64, 144]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    stride=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_convolutions_of_small_maps(
    n: int, inputs: int, outputs: int, height: int, width: int, stride: int, seed: int
) -> None:
    tensors = drawn(seed, (n, inputs, height, width), (outputs, inputs, 3, 3))
    expected = torch.nn.functional.conv2d(*tensors, stride=stride, padding=1)
    found = fast_conv(*tensors, stride)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients(found, tensors), gradients(expected, tensors), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 16), (16, 5), (64, 8)])
def test_other_channels_are_pytorchs(inputs: int, outputs: int) -> None:
    tensors = drawn(4, (2, inputs, 6, 6), (outputs, inputs, 3, 3))
    torch.testing.assert_close(fast_conv(*tensors), torch.nn.functional.conv2d(*tensors, padding=1))
