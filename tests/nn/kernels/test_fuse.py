"""The fused block against PyTorch's own three operations: values, first and second derivatives, and meta-gradients."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy, max_pool2d, relu

from mapsto.errors import DomainError
from mapsto.native import compilation
from mapsto.nn.kernels import compiled as loading
from mapsto.nn.kernels.conv import FastConv
from mapsto.nn.kernels.fuse import FirstConv, FusedNorm, fuse
from mapsto.nn.kernels.memory_layout import channels_last
from mapsto.nn.kernels.norm_relu_pool import norm_relu_pool
from mapsto.nn.networks.conv4 import conv4
from mapsto.nn.networks.resnet12 import resnet12

KERNELS = [False, pytest.param(True, marks=pytest.mark.skipif(not loading.compiled_kernels(), reason="no compiler"))]
SHAPES = [(3, 5, 6, 6), (2, 4, 7, 5), (2, 33, 3, 2), (4, 3, 1, 1), (1, 2, 5, 4), (2, 1, 4, 4)]


def composed(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, pool: int) -> Tensor:
    y = relu(batch_norm(x, None, None, weight, bias, True, 0.0, eps))
    return max_pool2d(y, pool) if pool > 1 else y


def inputs(shape: tuple[int, ...], last: bool) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(sum(shape))
    x = torch.randn(shape, dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, shape[1], dtype=torch.float64)
    weight[::2] = -weight[::2].abs()
    return x.requires_grad_(), weight.clone().requires_grad_(), bias.clone().requires_grad_()


@pytest.mark.parametrize("compiled", KERNELS)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_three_operations_and_their_two_derivatives(shape, pool, last, compiled):
    if min(shape[2:]) < pool:
        pytest.skip("smaller than the window")
    found = []
    for call in (composed, lambda *args: norm_relu_pool(*args, compiled=compiled)):
        leaves = inputs(shape, last)
        y = call(*leaves, 1e-5, pool)
        first = torch.autograd.grad((y - y.detach().cos()).pow(3).sum(), leaves, create_graph=True)
        mixed = sum((g * torch.arange(g.numel()).view(g.shape).cos()).sum() + (g**2).sum() for g in first)
        found.append((y, *first, *torch.autograd.grad(mixed, leaves)))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("compiled", KERNELS)
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 2, 5, 3)])
def test_derivatives_agree_with_finite_differences(shape, pool, compiled):
    leaves = inputs(shape, last=True)

    def call(*leaves: Tensor) -> Tensor:
        return norm_relu_pool(*leaves, 1e-3, pool, compiled=compiled)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("compiled", KERNELS)
def test_float32_with_a_large_mean_keeps_its_precision(compiled):
    torch.manual_seed(0)
    x = 300 + torch.randn(8, 16, 9, 9)
    expected = composed(x.double(), None, None, 1e-5, 2).float()
    torch.testing.assert_close(norm_relu_pool(x, None, None, compiled=compiled), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compiled", KERNELS)
def test_constant_channels_and_nan(compiled):
    x = torch.randn(2, 3, 4, 4)
    x[:, 0] = 5.0
    x[0, 1, 2, 2] = torch.nan
    weight, bias = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.5, 0.0, 0.25])
    torch.testing.assert_close(
        norm_relu_pool(x, weight, bias, compiled=compiled), composed(x, weight, bias, 1e-5, 2), equal_nan=True
    )


@pytest.mark.skipif(not loading.compiled_kernels(), reason="no compiler")
def test_the_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    x = channels_last(torch.randn(9, 7, 11, 11)).requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = norm_relu_pool(x, None, None, compiled=True)
            found.append((y, *torch.autograd.grad(y.cos().sum(), x)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("shape", "pool"), [((2, 3, 4, 4), 3), ((2, 3, 4), 2), ((2, 3, 1, 4), 2), ((1, 3, 1, 1), 1)])
def test_what_cannot_be_computed_is_refused(shape, pool):
    with pytest.raises(DomainError):
        norm_relu_pool(torch.randn(shape), None, None, pool=pool)


def test_under_vmap_and_in_half_precision_it_is_pytorchs_own():
    x = torch.randn(3, 2, 4, 6, 6)
    found = torch.func.vmap(lambda one: norm_relu_pool(one, None, None))(x)
    expected = torch.stack([composed(one, None, None, 1e-5, 2) for one in x])
    torch.testing.assert_close(found, expected)
    half = x[0].to(torch.bfloat16)
    torch.testing.assert_close(norm_relu_pool(half, None, None), composed(half, None, None, 1e-5, 2))


def test_fuse_keeps_names_and_tensors_and_leaves_the_network_alone():
    net = conv4(channels=1, size=28, width=4, classes=5)
    before = repr(net)
    found = fuse(net)
    assert repr(net) == before
    assert list(found.state_dict()) == list(net.state_dict())
    assert [name for name, _ in found.named_parameters()] == [name for name, _ in net.named_parameters()]
    assert all(a is b for a, b in zip(found.parameters(), net.parameters(), strict=True))
    kinds = [type(part) for part in found.modules()]
    assert kinds.count(FusedNorm) == 4
    assert not {nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d} & set(kinds)


def test_fuse_takes_only_what_it_knows():
    def made(*tail: nn.Module) -> list[type]:
        return [type(part) for part in fuse(nn.Sequential(nn.BatchNorm2d(2), *tail))]  # type: ignore[arg-type]

    assert made(nn.ReLU()) == [FusedNorm, nn.Identity]
    assert made(nn.ReLU(), nn.MaxPool2d(3)) == [FusedNorm, nn.Identity, nn.MaxPool2d]
    assert made(nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)) == [FusedNorm, nn.Identity, nn.MaxPool2d]
    assert made(nn.ReLU(), nn.MaxPool2d((2, 2), stride=2)) == [FusedNorm, nn.Identity, nn.Identity]
    assert made(nn.LeakyReLU()) == [nn.BatchNorm2d, nn.LeakyReLU]
    assert made() == [nn.BatchNorm2d]


def test_a_network_without_such_blocks_still_computes_the_same():
    net = resnet12(channels=3, classes=5).train()
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    expected = net(x)
    torch.manual_seed(0)
    torch.testing.assert_close(fuse(net)(x), expected, rtol=1e-3, atol=1e-4)


def meta_gradients(
    net: nn.Module, start: dict[str, Tensor], steps: int, second_order: bool, channels: int, size: int
) -> list[Tensor]:
    torch.manual_seed(1)
    support, query = torch.rand(2, 5, channels, size, size, dtype=torch.float64)
    labels = torch.arange(5)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    point = leaves
    for _ in range(steps):
        loss = cross_entropy(torch.func.functional_call(net, point, (channels_last(support),)), labels)
        found = torch.autograd.grad(loss, list(point.values()), create_graph=second_order)
        point = {name: value - 0.1 * g for (name, value), g in zip(point.items(), found, strict=True)}
    loss = cross_entropy(torch.func.functional_call(net, point, (query,)), labels)
    return [loss, *torch.autograd.grad(loss, list(leaves.values()))]


@pytest.mark.parametrize("compiled", KERNELS)
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("downsampling", ["pool", "stride"])
@pytest.mark.parametrize(("steps", "channels", "size", "width"), [(1, 1, 22, 6), (3, 3, 19, 5), (2, 2, 25, 16)])
def test_meta_gradients_are_those_of_the_plain_network(
    steps, channels, size, width, downsampling, second_order, compiled
):
    torch.manual_seed(0)
    net = conv4(channels=channels, size=size, width=width, classes=5, downsampling=downsampling).double().train()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    fast = fuse(net, compiled=compiled)
    kinds = [type(part) for part in fast.modules()]
    assert (FirstConv in kinds) == (compiled and downsampling == "pool")
    assert (FastConv in kinds) == (compiled and width == 16)
    before = copy.deepcopy(net.state_dict())
    start = dict(net.named_parameters())
    expected = meta_gradients(copy.deepcopy(net), start, steps, second_order, channels, size)
    found = meta_gradients(fast, start, steps, second_order, channels, size)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-8)
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("compiled", KERNELS)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_kept_and_gone_by_as_batch_norm_does(compiled, momentum):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16, momentum=momentum),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16, momentum=momentum),
        nn.ReLU(),
    ).double()
    twin = fuse(copy.deepcopy(net), compiled=compiled, statistics="running")
    for _ in range(3):
        x = torch.randn(4, 1, 24, 24, dtype=torch.float64) * 2 + 1
        found, expected = twin(x), net(x)
        torch.testing.assert_close(found, expected)
        for module, y in ((twin, found), (net, expected)):
            module.zero_grad()
            y.square().sum().backward()
        for ours, theirs in zip(twin.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
    for (name, ours), theirs in zip(twin.named_buffers(), net.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    torch.testing.assert_close(twin.eval()(x), net.eval()(x))
    assert int(twin[1].num_batches_tracked) == 3


compiled_only = pytest.mark.skipif(not loading.compiled_kernels(), reason="no compiler")


def first_block(channels: int, width: int) -> nn.Sequential:
    torch.manual_seed(width)
    block = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
    ).double()
    nn.init.normal_(block[1].weight)
    nn.init.normal_(block[1].bias)
    return block


@compiled_only
@pytest.mark.parametrize(("channels", "width"), [(1, 3), (1, 17), (2, 8), (3, 9)])
@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_the_first_block_equals_its_layers_and_their_two_derivatives(channels, width, size):
    block, found = first_block(channels, width), []
    x = torch.rand(3, channels, *size, dtype=torch.float64)
    for module in (block, fuse(block)):
        leaves = [value.detach().clone().requires_grad_() for value in block.parameters()]
        named = {name: leaf for (name, _), leaf in zip(block.named_parameters(), leaves, strict=True)}
        y = torch.func.functional_call(module, named, (x,))
        first = torch.autograd.grad((y - y.detach().cos()).pow(3).sum(), leaves, create_graph=True)
        mixed = sum((g * torch.arange(g.numel()).view(g.shape).cos()).sum() + (g**2).sum() for g in first)
        found.append((y, *first, *torch.autograd.grad(mixed, leaves)))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@compiled_only
def test_the_first_blocks_derivatives_agree_with_finite_differences():
    block = first_block(1, 2)
    fast, names = fuse(block), [name for name, _ in block.named_parameters()]
    leaves = tuple(value.detach().clone().requires_grad_() for value in block.parameters())
    x = torch.rand(2, 1, 5, 4, dtype=torch.float64)

    def call(*leaves: Tensor) -> Tensor:
        return torch.func.functional_call(fast, dict(zip(names, leaves, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@compiled_only
def test_the_first_convolution_keeps_out_of_the_way():
    block = first_block(1, 4).train()
    fast, x = fuse(block), torch.rand(3, 1, 6, 6, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (expected,), (found,) = (torch.autograd.grad(net(leaf).pow(2).sum(), leaf) for net in (block, fast))
    torch.testing.assert_close(found, expected)
    images = torch.stack([x, x + 1])
    torch.testing.assert_close(torch.func.vmap(fast)(images), torch.stack([fast(one) for one in images]))


@compiled_only
@pytest.mark.parametrize(
    ("shape", "width", "stride", "way"),
    [
        ((9, 16, 10, 13), 32, 1, "_Conv"),
        ((5, 32, 15, 14), 16, 1, "_Conv"),
        ((8, 80, 11, 11), 64, 1, "_Conv"),
        ((3, 16, 7, 6), 32, 1, "_DirectConv"),
        ((30, 16, 1, 2), 48, 1, "_DirectConv"),
        ((3, 32, 7, 6), 16, 2, "_DirectConv"),
        ((7, 48, 14, 11), 64, 2, "_DirectConv"),
        ((2, 1, 9, 9), 16, 2, "_DirectConv"),
        ((20, 3, 12, 13), 80, 1, "_DirectConv"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_the_fast_convolution_equals_pytorchs_and_its_two_derivatives(shape, width, stride, way, last):
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[1], width, 3, stride, padding=1, bias=False).double()
    if last:
        conv = conv.to(memory_format=torch.channels_last)
    found = []
    for module in (conv, FastConv(conv)):
        x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        leaves = (conv.weight,) if shape[1] <= 3 else (x.requires_grad_(), conv.weight)
        y = module(x)
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        found.append((y, *first, *torch.autograd.grad(sum(g.cos().sum() for g in first), leaves)))
    assert type(y.grad_fn).__name__ == f"{way}Backward"
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-9)


@compiled_only
@pytest.mark.parametrize("size", [9, 14])
def test_the_number_of_threads_changes_no_bit_of_the_fast_convolution(size):
    torch.manual_seed(0)
    before, found = torch.get_num_threads(), []
    conv = FastConv(nn.Conv2d(32, 64, 3, 2, padding=1, bias=False))
    x = torch.randn(40, 32, size, size).requires_grad_()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            y = conv(x)
            found.append((y, *torch.autograd.grad(y.cos().sum(), (x, conv.weight))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@compiled_only
def test_images_of_few_channels_that_want_a_gradient_go_by_pytorchs_convolution():
    conv = nn.Conv2d(3, 16, 3, 2, padding=1, bias=False)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(FastConv(conv)(x).sum(), x), torch.autograd.grad(conv(x).sum(), x))


@compiled_only
def test_the_fast_convolution_is_as_precise_as_pytorchs_in_float32():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.randn(20, 64, 14, 14)
    exact = conv.double()(x.double())
    conv.float()
    plain, fast = ((found - exact).abs().max() for found in (conv(x), FastConv(conv)(x)))
    assert fast < 8 * plain


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path))
    monkeypatch.setattr(loading, "_loaded", [])
    return tmp_path


@pytest.mark.parametrize("compiler", ["/nonexistent/c++", "false"])
def test_without_a_compiler_it_works_all_the_same_and_says_so(fresh, monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm_relu_pool(x, None, None), composed(x, None, None, 1e-5, 2))
    assert not loading.compiled_kernels()
    assert compiler in str(compilation.missing())
    assert not list((fresh / "kernels").glob("*")) if (fresh / "kernels").exists() else True


def test_an_unwritable_cache_is_no_error(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("MAPSTO_CACHE", str(fresh / "file"))
    assert not loading.compiled_kernels()
    assert compilation.missing()


def test_a_compiler_that_hangs_is_given_up(fresh, monkeypatch):
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("c++", 300)

    monkeypatch.setattr(compilation.subprocess, "run", hang)
    assert not loading.compiled_kernels()


def compile_in(folder: str, results: multiprocessing.Queue[str]) -> None:
    import os

    os.environ["MAPSTO_CACHE"] = folder
    results.put(str(compilation.library(loading.SOURCES)))


@pytest.mark.slow
@pytest.mark.skipif(not loading.compiled_kernels(), reason="no compiler")
def test_two_processes_may_compile_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=compile_in, args=(str(tmp_path), results)) for _ in range(2)]
    for process in processes:
        process.start()
    places = {Path(results.get(timeout=300)) for _ in processes}
    for process in processes:
        process.join()
    assert len(places) == 1
    place = places.pop()
    assert {path.name for path in (tmp_path / "kernels").iterdir()} == {place.name, place.with_suffix(".sha256").name}


# -- whose library is loaded


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """A cache in which a library was compiled, by a compiler that writes a line; how often it linked."""
    links: list[str] = []

    def run(command: list[str]) -> None:
        if "-shared" in command:
            links.append(command[-1])
            Path(command[command.index("-o") + 1]).write_text(f"library {len(links)}")

    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path))
    monkeypatch.setattr(compilation, "_run", run)
    monkeypatch.setattr(compilation, "_compiler", lambda: ["c++"])
    monkeypatch.setattr(compilation, "_passed_over", [])
    return compilation.library(compilation.SOURCES), links


def harm(place: Path, how: str) -> None:
    digest = place.with_suffix(".sha256")
    if how == "other bytes":
        place.write_text("evil")
    elif how == "other bytes and digest, written by all":
        place.write_text("evil")
        digest.write_text(hashlib.sha256(b"evil").hexdigest())
        place.chmod(0o777)
    elif how == "no digest":
        digest.unlink()
    elif how == "a link":
        kept = place.rename(place.with_name("kept.so"))
        place.symlink_to(kept)
    elif how == "the digest is a link":
        kept = digest.rename(digest.with_name("kept.sha256"))
        digest.symlink_to(kept)


@pytest.mark.parametrize(
    "how", ["other bytes", "other bytes and digest, written by all", "no digest", "a link", "the digest is a link"]
)
def test_a_library_that_others_may_have_written_is_compiled_afresh(compiled, how):
    place, links = compiled
    assert compilation.library(compilation.SOURCES) == place
    assert len(links) == 1
    assert not compilation.passed_over()
    harm(place, how)
    assert compilation.library(compilation.SOURCES) == place
    assert place.read_text() == "library 2"
    assert not place.is_symlink()
    assert "compiled afresh" in compilation.passed_over()[0]
    assert str(place) in compilation.passed_over()[0]
    assert compilation.library(compilation.SOURCES) == place
    assert len(links) == 2


def test_a_folder_of_ours_that_others_may_write_is_closed_to_them(compiled):
    place, links = compiled
    place.parent.chmod(0o777)
    assert compilation.library(compilation.SOURCES) == place
    assert place.parent.stat().st_mode & 0o022 == 0
    assert len(links) == 1


def test_kernels_of_another_user_are_not_loaded(compiled, monkeypatch):
    place, links = compiled
    place.parent.chmod(0o777)
    if os.getuid() == 0:
        os.chown(place.parent, 4242, -1)
    else:
        monkeypatch.setattr(compilation, "_user", lambda: 4242)
        (place.parent.parent / "kernels-4242").symlink_to(place.parent)
        with pytest.raises(RuntimeError, match="MAPSTO_CACHE"):
            compilation.library(compilation.SOURCES)
        return
    own = compilation.library(compilation.SOURCES)
    assert own.parent == place.parent.with_name(f"kernels-{os.getuid()}")
    assert len(links) == 2
    assert "belongs to another user (4242)" in compilation.passed_over()[0]
    assert compilation.library(compilation.SOURCES) == own
    assert len(links) == 2
    os.chown(own.parent, 4242, -1)
    with pytest.raises(RuntimeError, match="set MAPSTO_CACHE to a folder of your own"):
        compilation.library(compilation.SOURCES)
    assert "set MAPSTO_CACHE" in str(compilation.missing())
