"""Streams that are made of one other: what they do not change is that one's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property

from mapsto.kinds import ColumnType, Stream, Task

__all__ = ["Derived"]


class Derived(Stream):
    """Task, end and columns of the stream that `source` gives; its fields tell it apart."""

    @abstractmethod
    def source(self) -> Stream:
        """The other stream. Raises `SpecError` where the fields do not fit it."""

    @property
    def task(self) -> Task:
        return self._inner.task

    @property
    def bounded(self) -> bool:
        return self._inner.bounded

    def identity(self) -> str:
        from mapsto.data.io.fingerprint import fingerprint_of

        return fingerprint_of(self)

    def fingerprint(self) -> str:
        return self.identity()

    def columns(self) -> Mapping[str, ColumnType]:
        return self._inner.columns()

    @cached_property
    def _inner(self) -> Stream:
        return self.source()
