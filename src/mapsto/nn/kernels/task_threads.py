"""Independent tasks in threads, each of which computes on one core: for many small operations, better than many cores for one.

A task of few images is a long row of short operations, and each of them that is split over the cores waits for the slowest.
Tasks need nothing from each other, so whole tasks are handed out instead.
"""

from __future__ import annotations

import copy
import ctypes
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from mapsto.errors import DomainError
from mapsto.nn.kernels.malloc import keep_pages

__all__ = ["ThreadCopies", "per_task"]

_ARENA_MAX = -8

R = TypeVar("R")


def per_task(function: Callable[[int], R], tasks: int, threads: int) -> list[R]:
    """The results of ``function(0)`` … ``function(tasks - 1)``, in that order, found in several threads.

    Each thread takes the next task that nobody has, and computes on one core (`torch.set_num_threads`). A result depends
    on its task alone, not on which thread found it or how many there are; so whatever is summed over tasks has to be
    returned by `function` and summed by the caller, never accumulated into something shared (`torch.autograd.grad`, not
    `Tensor.backward`). Context variables and grad mode are those of the caller.

    Parameters
    ----------
    function
        Number of the task → result; called from several threads at once. It draws no random numbers from PyTorch's global
        generator: which task gets which would be chance. A module whose parameters it replaces for a call
        (`torch.func.functional_call`) has to be the thread's own: see `ThreadCopies`.
    tasks
        How many.
    threads
        At least 1; with 1 the calling thread does it all, on one core too.

    Raises
    ------
    DomainError
        There is not one thread.
    Exception
        What `function` raised, for the first task that failed; the tasks that nobody had are then left.

    >>> per_task(lambda number: number**2, 5, 2)
    [0, 1, 4, 9, 16]
    """
    if threads < 1:
        raise DomainError(f"{threads} threads can do nothing", where="per_task", hint="at least 1")
    threads = min(threads, tasks)
    keep_pages()
    _one_arena()
    results: dict[int, R] = {}
    failures: dict[int, BaseException] = {}
    lock, following = threading.Lock(), iter(range(tasks))
    grad = torch.is_grad_enabled()

    def work() -> None:
        torch.set_num_threads(1)
        with torch.set_grad_enabled(grad):
            while not failures:
                with lock:
                    number = next(following, None)
                if number is None:
                    return
                try:
                    results[number] = function(number)
                except BaseException as error:
                    failures[number] = error

    with _one_core():
        helpers = [threading.Thread(target=copy_context().run, args=(work,), daemon=True) for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        work()
        for helper in helpers:
            helper.join()
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in range(tasks)]


class ThreadCopies:
    """A module for each thread that asks: copies that share its tensors, whose parameters can be replaced at once.

    >>> own = ThreadCopies(nn.Linear(1, 1))
    >>> own() is own(), own() is own.module, own().weight is own.module.weight
    (True, False, True)
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._local = threading.local()

    def __call__(self) -> nn.Module:
        found: nn.Module | None = getattr(self._local, "module", None)
        if found is None:
            tensors = [*self.module.parameters(), *self.module.buffers()]
            found = copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors})
            self._local.module = found
        return found


@cache
def _one_arena() -> bool:
    """Let glibc serve new threads from the memory of the first, as each would otherwise map and unmap pages of its own."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, 1))
    except (AttributeError, OSError, TypeError):
        return False


@contextmanager
def _one_core() -> Generator[None]:
    """Within the block this thread computes on one core, and afterwards on as many as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
