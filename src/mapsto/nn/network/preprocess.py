"""From raw samples to a network's input, as its signature says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mapsto.errors import DataError
from mapsto.kinds import Preprocessing
from mapsto_runtime.preprocessing.arrays import require_ids
from mapsto_runtime.preprocessing.images import covering, middle

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["prepare", "whole"]


def prepare(
    inputs: NDArray[Any] | Tensor, preprocessing: Preprocessing, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Raw samples as a float batch.

    Parameters
    ----------
    inputs
        Images: uint8 of shape (N, C, H, W), C 1 or 3; texts: token ids (N, L); anything else: numbers of shape (N, ...).
    preprocessing
        Channels, size, mean and standard deviation; grey becomes colour by repetition, colour grey by Rec. 601 luma; another
        size is resized bilinearly with antialiasing; with ``fit="crop"`` the image is scaled until it covers `scaled_size` and the middle
        is cut out.

    Returns
    -------
    Tensor
        float32, shape (N, channels, height, width): ``(x / 255 - mean) / std``; with ``kind="none"`` the input as
        float32, or as int64 where the network takes integers; of texts without the padding that none of the batch needs.

    Raises
    ------
    DataError
        The batch is not (N, C, H, W) although the signature wants images, or holds fractions where it wants integers, or ids that
        the network does not have.

    >>> import numpy as np
    >>> white = np.full((1, 1, 2, 2), 255, np.uint8)
    >>> prepare(white, Preprocessing(channels=1, size=(2, 2), mean=(0.5,), std=(0.5,))).mean().item()
    1.0
    """
    batch = torch.as_tensor(inputs if isinstance(inputs, Tensor) else np.asarray(inputs), device=device)
    if preprocessing.kind != "image":
        if preprocessing.kind == "text":
            batch = _without_padding(batch, preprocessing.padding)
        if preprocessing.ids:
            require_ids(batch.numpy(force=True), preprocessing.ids, "the data")
        if preprocessing.integers:
            return whole(batch)
        return batch if batch.is_floating_point() else batch.float()
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise DataError(f"expected images of shape (N, 1 or 3, H, W), got {tuple(batch.shape)}")
    batch = batch.float().div(255) if batch.dtype == torch.uint8 else batch
    if batch.shape[1] != preprocessing.channels:
        if preprocessing.channels == 1:
            batch = (batch * batch.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)
        else:
            batch = batch.expand(-1, preprocessing.channels, -1, -1)
    crops = preprocessing.fit == "crop"
    scaled = covering(batch.shape[2:], preprocessing.scaled_size) if crops else tuple(preprocessing.size)
    if tuple(batch.shape[2:]) != scaled:
        batch = torch.nn.functional.interpolate(
            batch, size=scaled, mode="bilinear", antialias=True, align_corners=False
        )
    if crops:
        batch = batch[..., *middle(scaled, preprocessing.size)]
    mean = batch.new_tensor(preprocessing.mean).view(1, -1, 1, 1)
    std = batch.new_tensor(preprocessing.std).view(1, -1, 1, 1)
    return (batch - mean) / std


def _without_padding(batch: Tensor, padding: int) -> Tensor:
    """Token ids (..., L) without what is padding at the end of every text; one token stays."""
    used = (batch != padding).reshape(-1, batch.shape[-1]).any(0).nonzero()
    return batch[..., : int(used[-1]) + 1 if len(used) else 1]


def whole(batch: Tensor) -> Tensor:
    """A batch of whole numbers as int64. Raises `DataError` where it holds others.

    >>> whole(torch.tensor([[3.0, 1.0]]))
    tensor([[3, 1]])
    """
    numbers = batch.long()
    if batch.is_floating_point() and not bool((numbers == batch).all()):
        raise DataError(
            "the network takes whole numbers, such as token ids, and these are fractions",
            hint="give the ids themselves",
        )
    return numbers
