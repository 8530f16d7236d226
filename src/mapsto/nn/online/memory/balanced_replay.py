"""Replay from a memory that holds the classes as evenly as the stream allows, where some come much more often than others.

``L = CE over batch and replayed samples``; the largest classes make room (Chrysakis and Moens, "Online Continual Learning from Imbalanced
Data", 2020).
"""

from __future__ import annotations

from mapsto.nn.online.memory.replay import Replay
from mapsto.nn.online.trained.sample_memory import BalancedReservoir

__all__ = ["BalancedReplay"]


class BalancedReplay(Replay):
    """Replay from a reservoir for each class."""

    policy = BalancedReservoir
