"""Tasks in threads: the order of results, one core each, failures, and the same bits as one after another."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.errors import DomainError
from mapsto.nn.kernels.fuse import fuse
from mapsto.nn.kernels.task_threads import ThreadCopies, per_task
from mapsto.nn.networks.conv4 import conv4

VARIABLE: ContextVar[int] = ContextVar("variable", default=0)


def test_results_come_in_the_order_of_tasks():
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number

    assert per_task(slow_first, 6, 3) == list(range(6))
    assert per_task(slow_first, 0, 2) == []


def test_several_threads_work_on_one_core_each_and_the_setting_comes_back():
    before, seen, met = torch.get_num_threads(), set(), threading.Barrier(2, timeout=10)

    def look(_: int) -> int:
        met.wait()
        seen.add(threading.get_ident())
        return torch.get_num_threads()

    assert per_task(look, 4, 2) == [1] * 4
    assert len(seen) == 2
    assert torch.get_num_threads() == before


def test_grad_mode_and_context_variables_are_the_callers():
    token = VARIABLE.set(7)
    try:
        with torch.no_grad():
            found = per_task(lambda _: (VARIABLE.get(), torch.is_grad_enabled()), 4, 2)
    finally:
        VARIABLE.reset(token)
    assert found == [(7, False)] * 4


def test_the_first_failure_is_raised_and_the_setting_comes_back():
    before = torch.get_num_threads()

    def fail(number: int) -> None:
        raise ValueError(f"task {number}")

    with pytest.raises(ValueError, match="task 0"):
        per_task(fail, 8, 1)
    with pytest.raises(ValueError, match="task"):
        per_task(fail, 8, 2)
    assert torch.get_num_threads() == before
    with pytest.raises(DomainError):
        per_task(fail, 8, 0)


def test_meta_gradients_have_the_same_bits_whatever_the_number_of_threads():
    torch.manual_seed(0)
    net = conv4(channels=1, size=20, width=8, classes=5).train()
    start, own = dict(net.named_parameters()), ThreadCopies(fuse(net))
    support, query, labels = torch.rand(6, 5, 1, 20, 20), torch.rand(6, 5, 1, 20, 20), torch.arange(5)

    def task(number: int) -> tuple[Tensor, ...]:
        leaves = {name: value.detach().requires_grad_() for name, value in start.items()}
        loss = cross_entropy(torch.func.functional_call(own(), leaves, (support[number],)), labels)
        found = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        moved = {name: value - 0.1 * g for (name, value), g in zip(leaves.items(), found, strict=True)}
        loss = cross_entropy(torch.func.functional_call(own(), moved, (query[number],)), labels)
        return torch.autograd.grad(loss, list(leaves.values()))

    one, two, again = per_task(task, 6, 1), per_task(task, 6, 2), per_task(task, 6, 3)
    for a, b, c in zip(one, two, again, strict=True):
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a, b, c, strict=True))
