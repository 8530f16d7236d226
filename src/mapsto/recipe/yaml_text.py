"""YAML as text to plain values, each with its place, within bounds that no honest document meets."""

from __future__ import annotations

from typing import Any, cast

import yaml

from mapsto.errors import SpecError

__all__ = ["LONGEST", "Place", "position", "read_yaml"]


LONGEST = 4 << 20
"""Most bytes of a document's text; a longer file, such as a device or a video, is no recipe."""
_LARGEST = 100_000
"""Nodes of a document with its aliases written out: a few lines of aliases can stand for more than any memory holds."""
_DEEPEST = 100
Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe, plain YAML that is not nested deeply: PyYAML's time grows with the square of the open brackets."""

    depth = 0

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's own name
        self._check(self.flow_level, self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._check(self.depth, self.peek_event().start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    @staticmethod
    def _check(depth: int, mark: Any) -> None:
        if depth > _DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)


def read_yaml(text: str, *, where: str) -> tuple[Any, Any]:
    """A document's nodes and its plain values. Raises `SpecError` with line and column for what is not safe, plain YAML."""
    if len(text) > LONGEST:
        raise SpecError(f"longer than {LONGEST >> 20} MiB", where=where, hint="give a recipe's YAML file")
    try:
        loader = _Loader(text)
        try:
            root: Any = loader.get_single_node()
            _measured(root, where)
            return root, None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError(f"not valid YAML: {problem}", where=place) from error
    except (ValueError, TypeError, RecursionError, LookupError, AttributeError, OverflowError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SpecError(f"not valid YAML: {problem}", where=where) from error


def position(root: Any, place: Place) -> tuple[int, int]:
    r"""Line and column, from 1, of a path in a document's nodes, or of the nearest part of it that exists.

    >>> root, _ = read_yaml("data:\n  train: {digits: {size: 9}}", where="recipe")
    >>> position(root, ("data", "train", "digits", "size")), position(root, ("data", "test"))
    ((2, 20), (1, 1))
    """
    node = root
    mark = node.start_mark if node is not None else None
    for part in place:
        child = None
        if isinstance(node, yaml.MappingNode):
            for key, value in cast("list[tuple[Any, Any]]", node.value):
                if key.value == str(part):
                    mark, child = key.start_mark, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
            mark = child.start_mark
        if child is None:
            break
        node = child
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _measured(root: Any, where: str) -> None:
    """Refuse a document that is larger with its aliases written out than any recipe, or that holds itself."""
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if id(node) not in sizes:
            parts: list[Any] = []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in cast("list[tuple[Any, Any]]", node.value) for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            sizes[id(node)] = _LARGEST + 1  # what an alias to a node that is not finished counts
            total = 1 + sum(size(part, depth + 1) for part in parts)
            if depth > _DEEPEST or total > _LARGEST:
                mark = node.start_mark
                raise SpecError(
                    "nested too deeply, or aliases (*name) repeat too much of it",
                    where=f"{where}:{mark.line + 1}:{mark.column + 1}",
                    hint="write it without aliases",
                )
            sizes[id(node)] = total
        return sizes[id(node)]

    if root is not None:
        size(root, 0)
