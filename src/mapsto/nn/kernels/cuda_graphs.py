"""A function of tensors on a CUDA device, recorded once as a CUDA graph and then replayed: its kernels come without their launches.

Adapting to a task of a few images is hundreds of kernels of some microseconds each, and Python needs longer to launch one than the
device to run it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

__all__ = ["Recorded", "Recordings"]

_WARM_UPS = 2
_KEPT = 2


class Recorded:
    """One recording.

    Parameters
    ----------
    function
        Tensors → tensors, without a result that depends on the CPU (`Tensor.item`, a branch on a value). Whatever else it reads has to
        stay where it is in memory; it is read anew at each replay.
    inputs
        An example: shapes, dtypes and device are those of all that come.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries take their workspaces, which may not happen in a recording
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = list(function(*self._inputs))

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """What the function gives for these inputs, in memory of its own."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return [output.clone() for output in self._outputs]


class Recordings:
    """The latest recordings, each by what it was made for: a step's tasks in whole chunks, and the chunk that is left over."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Recorded] = {}

    def __call__(
        self, key: Hashable, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """What `function` gives for `inputs`, recorded at the first call with this key and these shapes."""
        whole = (key, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs))
        if whole not in self._known:
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[whole] = Recorded(function, inputs)
        return self._known[whole](*inputs)
