"""What every drift detector is: it takes the numbers of a stream one by one, and says where they are no longer as before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["Detector"]


class Detector:
    """A detector; its state is flat, and `restore` of another's `state` goes on as that one would."""

    name: ClassVar[str]
    of_errors: ClassVar[bool] = False
    """Whether it is for errors alone, and not for any number."""
    warning: bool = False
    """Whether it is close to a drift, of those that say so."""
    change: float = 0.0
    """By how much the mean changed at the last drift: above 0 where it rose."""

    @abstractmethod
    def update(self, value: float) -> bool:
        """Take a finite number; whether there is a drift. What came before it is then forgotten, as far as it is out of date."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Numbers and arrays that all later answers depend on, besides the settings."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `LookupError` or `ValueError` where it is none."""
