"""Every engine of the gradient-based learners gives the same outer gradient, in float64 to 1e-9."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mapsto import datasets, meta, networks
from mapsto.context import Context, Numerics
from mapsto.errors import SpecError
from mapsto.kinds import Adaptation
from mapsto.nn.kernels.compiled import compiled_kernels
from mapsto.nn.meta import outer_gradient
from mapsto.nn.meta.adaptation import gradient as inner_loop
from mapsto.nn.meta.outer_gradient import trained
from mapsto.nn.networks.conv4 import conv4

DIGITS = datasets.digits(size=16)
TASKS = datasets.episodes(data=DIGITS, ways=3, shots=2, queries=3)


def gradient(engine: str, method: Any = None, **fields: Any) -> dict[str, torch.Tensor]:
    settings = {"tasks_per_step": 5, "inner_steps": 2, **fields}
    train = (method or meta.maml)(tasks=TASKS, inner_rate=0.1, engine=engine, **settings)
    context = Context(numerics=Numerics(threads=2))
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = networks.conv4(data=DIGITS, width=16)(seed=0)
    learner, _, _ = train.learner(network, context)
    learner.double()
    assert engine in train.engines(learner, context)
    task = train.items(network, context)[0]
    inputs = train._prepared(network, context)(task).double()
    train._loss(learner, inputs, task, 0, engine).backward()
    return {name: parameter.grad for name, parameter in trained(learner).items() if parameter.grad is not None}


@pytest.mark.parametrize("fields", [{}, {"first_order": True}, {"inner_steps": 3}, {"head": "zero"}], ids=str)
@pytest.mark.parametrize("engine", ["threads", "fused", "vmap"])
def test_engines_agree(engine: str, fields: dict[str, Any]) -> None:
    if engine == "fused" and not compiled_kernels():
        pytest.skip("no C++ compiler")
    base, other = gradient("loop", **fields), gradient(engine, **fields)
    assert base.keys() == other.keys()
    for name, expected in base.items():
        assert torch.allclose(other[name], expected, rtol=1e-7, atol=1e-9), name


@pytest.mark.parametrize("engine", ["threads", "fused", "vmap"])
def test_a_head_that_begins_as_the_class_means_is_no_function_of_what_the_inner_steps_move(engine: str) -> None:
    if engine == "fused" and not compiled_kernels():
        pytest.skip("no C++ compiler")
    base, other = gradient("loop", meta.protomaml), gradient(engine, meta.protomaml)
    for name, expected in base.items():
        assert torch.allclose(other[name], expected, rtol=1e-7, atol=1e-9), name


@pytest.mark.parametrize("head", ["learned", "zero", "prototype"])
@pytest.mark.parametrize("batch_norm", ["transductive", "inductive", "none"])
def test_tasks_vectorised_in_use_get_the_scores_of_each_alone(head: str, batch_norm: str) -> None:
    network = conv4(channels=1, size=16, width=8, classes=3 if head == "learned" else None).double().eval()
    support, query = (torch.rand(2, count, 1, 16, 16, dtype=torch.float64) for count in (3, 6))
    labels = torch.stack([torch.randperm(3) for _ in range(2)])
    learner = Adaptation(method="gradient", settings={"steps": 2, "rate": 0.1, "head": head, "batch_norm": batch_norm})
    for whole in (False, True):
        alone = inner_loop._scores(network, support, labels, query, 3, learner, whole=whole)
        together = inner_loop._side_by_side(network, support, labels, query, 3, learner, whole=whole)
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("engine", ["threads", "fused"])
def test_chunks_of_tasks_change_nothing(engine: str) -> None:
    if engine == "fused" and not compiled_kernels():
        pytest.skip("no C++ compiler")
    whole, chunked = gradient(engine), gradient(engine, chunk_size=2)
    assert all(torch.equal(whole[name], chunked[name]) for name in whole)


@pytest.mark.parametrize("engine", ["threads", "fused"])
def test_a_task_alone_gets_all_cores(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "fused" and not compiled_kernels():
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(outer_gradient, "per_task", lambda *_: pytest.fail("a task a core leaves the other cores idle"))
    base, other = (gradient(by, tasks_per_step=1) for by in ("loop", engine))
    for name, expected in base.items():
        assert torch.allclose(other[name], expected, rtol=1e-7, atol=1e-9), name


def test_threads_give_the_same_bits_every_time() -> None:
    first, second = gradient("threads"), gradient("threads")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_engine_that_does_not_fit_is_refused() -> None:
    train = meta.maml(tasks=TASKS, engine="fused", batch_norm="inductive")
    with pytest.raises(SpecError, match="'fused' does not go with"):
        train.open(networks.conv4(data=DIGITS, width=8)(seed=0), None, Context())
