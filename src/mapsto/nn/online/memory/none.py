"""No memory: each mini-batch is trained on and gone, and classes that stop coming are forgotten. What other methods are compared with."""

from __future__ import annotations

from mapsto.nn.online.trained.method import Method

__all__ = ["Nothing"]


class Nothing(Method):
    """Plain training."""
