"""A graph of ONNX that is written node by node: each gives the name of its output, for the next ones to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Nodes"]


class Nodes:
    """Nodes and constants; the names of both begin with `prefix`, so that they meet none of another graph's."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """A constant's name."""
        from onnx import numpy_helper

        name = f"{self._prefix}constant{len(self.constants)}"
        self.constants.append(
            numpy_helper.from_array(np.ascontiguousarray(value, dtype=kind).reshape(np.shape(value)), name)
        )
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """The name of a node's one output."""
        from onnx import helper

        name = output or f"{self._prefix}{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def several(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """The names of a node's outputs."""
        from onnx import helper

        name = f"{self._prefix}{operator.lower()}{len(self.nodes)}"
        names = [f"{name}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=f"node_{name}", **attributes))
        return names

    def trees(self, source: str, targets: int, attributes: Mapping[str, Sequence[Any] | NDArray[Any]]) -> str:
        """A ``TreeEnsembleRegressor`` with long lists as attributes, which are not looked at one by one."""
        from onnx import AttributeProto

        name = self.add("TreeEnsembleRegressor", source, domain="ai.onnx.ml", n_targets=targets)
        node = self.nodes[-1]
        for title, values in attributes.items():
            part = node.attribute.add(name=title)
            if isinstance(values, np.ndarray) and values.dtype.kind == "f":
                part.type = AttributeProto.FLOATS
                part.floats.extend(values.tolist())
            elif isinstance(values, np.ndarray):
                part.type = AttributeProto.INTS
                part.ints.extend(values.tolist())
            else:
                part.type = AttributeProto.STRINGS
                part.strings.extend(values)
        return name
