"""The steps of `_steps.py` by PyTorch, on any device: the same whole-number arithmetic as the C++ in `mapsto/native/csrc/images`.

Images are taken together where their step is the same. Each function is given bytes (N, C, H, W) and a step's numbers (N, 7), int64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mapsto.data.augment._steps import ONE, Code, Steps

__all__ = ["by_torch"]


def by_torch(x: Tensor, steps: Steps) -> Tensor:
    """Images (N, C, H, W) of bytes, each after its steps, and blended where they are of several chains."""
    if steps.shares is None:
        return _through(x, steps.table, steps.pool)
    shares = torch.from_numpy(steps.shares).to(x.device, torch.int64)[..., None, None, None]
    sums = ONE // 2 + shares[:, 0] * x
    for chain in range(steps.table.shape[1]):
        sums += shares[:, 1 + chain] * _through(x, steps.table[:, chain], steps.pool)
    return (sums >> 16).to(torch.uint8)


def _step(code: Code, x: Tensor, numbers: Tensor, pool: NDArray[np.int32] | None) -> Tensor:
    """Images after one step, by another tensor."""
    if code in _POOLED:
        return _POOLED[code](x, numbers, torch.as_tensor(pool, device=x.device).flatten())
    return _STEPS[code](x, numbers)


def _through(x: Tensor, table: NDArray[np.int32], pool: NDArray[np.int32] | None) -> Tensor:
    x = x.clone()
    for step in range(table.shape[1]):
        codes = table[:, step, 0]
        for code in np.unique(codes):
            if code == Code.KEEP:
                continue
            taken = codes == code
            numbers = torch.from_numpy(table[:, step, 1:][taken].astype(np.int64)).to(x.device)
            if taken.all():
                x = _step(Code(code), x, numbers, pool)
            else:
                chosen = torch.from_numpy(np.flatnonzero(taken)).to(x.device)
                x[chosen] = _step(Code(code), x[chosen], numbers, pool)
    return x


# ---------------------------------------------------------------------------------------------------------- pointwise


def _blend(other: Tensor, byte: Tensor, factor: Tensor) -> Tensor:
    quarter = ((factor + 2) >> 2).clamp(0, 32767).view(-1, 1, 1, 1)
    part = (2 * (byte - other) * quarter + (1 << 14)) >> 15
    return (other + part).clamp(0, 255).to(torch.uint8)


def _invert(x: Tensor, numbers: Tensor) -> Tensor:
    return 255 - x


def _solarize(x: Tensor, numbers: Tensor) -> Tensor:
    return torch.where(x.long() >= numbers[:, 0].view(-1, 1, 1, 1), 255 - x, x)


def _posterize(x: Tensor, numbers: Tensor) -> Tensor:
    mask = (0xFF00 >> numbers[:, 0].clamp(0, 8)) & 255
    return (x.long() & mask.view(-1, 1, 1, 1)).to(torch.uint8)


def _brightness(x: Tensor, numbers: Tensor) -> Tensor:
    return _blend(torch.zeros((), dtype=torch.int64, device=x.device), x.long(), numbers[:, 0])


def _luma(x: Tensor) -> Tensor:
    red, green, blue = x.long().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + ONE // 2) >> 16


def _contrast(x: Tensor, numbers: Tensor) -> Tensor:
    grey = (_luma(x) if x.shape[1] == 3 else x.long()).flatten(1)
    size = grey.shape[1]
    mean = (2 * grey.sum(1) + size) // (2 * size)
    return _blend(mean.view(-1, 1, 1, 1), x.long(), numbers[:, 0])


def _color(x: Tensor, numbers: Tensor) -> Tensor:
    return _blend(_luma(x), x.long(), numbers[:, 0]) if x.shape[1] == 3 else x


def _hue(x: Tensor, numbers: Tensor) -> Tensor:
    if x.shape[1] != 3:
        return x
    red, green, blue = x.long().unbind(1)
    most, least = x.long().amax(1), x.long().amin(1)
    spread = most - least
    base = torch.where(red == most, 0, torch.where(green == most, 2, 4))
    lead = torch.where(red == most, green - blue, torch.where(green == most, blue - red, red - green))
    fine = 16 * ONE
    reciprocal = torch.where(spread > 0, fine // spread.clamp(min=1), 0)
    turn = (numbers[:, 0] * 16).view(-1, 1, 1)
    angle = (base * fine + lead * reciprocal + turn).remainder(6 * fine)
    sixth, part = angle >> 20, (spread * (angle & (fine - 1)) + fine // 2) >> 20
    rising, falling = least + part, most - part
    order = (
        (most, falling, least, least, rising, most),
        (rising, most, most, falling, least, least),
        (least, least, rising, most, most, falling),
    )
    turned = [torch.stack(channel).gather(0, sixth[None])[0] for channel in order]
    return torch.stack(turned, dim=1).to(torch.uint8)


def _looked_up(x: Tensor, tables: Tensor) -> Tensor:
    return tables.gather(2, x.flatten(2).long()).view_as(x).to(torch.uint8)


def _autocontrast(x: Tensor, numbers: Tensor) -> Tensor:
    low, high = (each[..., None].long() for each in x.flatten(2).aminmax(dim=2))
    values = torch.arange(256, device=x.device)
    stretched = ((values - low).clamp(min=0) * 255 // (high - low).clamp(min=1)).clamp(max=255)
    return _looked_up(x, torch.where(high > low, stretched, values))


def _equalize(x: Tensor, numbers: Tensor) -> Tensor:
    values = torch.arange(256, device=x.device)
    places = x.flatten(2).long()
    counts = torch.zeros(*places.shape[:2], 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, places, torch.ones_like(places))
    last = counts.gather(2, places.amax(2, keepdim=True))
    step = (places.shape[2] - last) // 255
    before = counts.cumsum(2) - counts + step // 2
    spread = (before // step.clamp(min=1)).clamp(max=255)
    return _looked_up(x, torch.where(step > 0, spread, values))


# ---------------------------------------------------------------------------------------------------------- geometric


def _flip(x: Tensor, numbers: Tensor) -> Tensor:
    return x.flip(3)


def _flip_vertically(x: Tensor, numbers: Tensor) -> Tensor:
    return x.flip(2)


def _shift(x: Tensor, numbers: Tensor) -> Tensor:
    rows = mirrored(torch.arange(x.shape[2], device=x.device) + numbers[:, :1], x.shape[2])
    columns = mirrored(torch.arange(x.shape[3], device=x.device) + numbers[:, 1:2], x.shape[3])
    return _read(x, rows[:, :, None], columns[:, None, :])


def mirrored(places: Tensor, size: int) -> Tensor:
    """Places outside 0 to size - 1 reflected at the outermost pixels, as often as it takes."""
    if size == 1:
        return torch.zeros_like(places)
    folded = places.remainder(2 * (size - 1))
    return torch.minimum(folded, 2 * (size - 1) - folded)


def _read(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels at rows and columns, (N, H, W) or what broadcasts to it, all within the image."""
    places = (rows * x.shape[3] + columns).expand(len(x), *x.shape[2:]).reshape(len(x), 1, -1)
    return x.flatten(2).gather(2, places.expand(-1, x.shape[1], -1)).view_as(x)


def _seen(x: Tensor, rows: Tensor, columns: Tensor, fill: Tensor) -> Tensor:
    """As `_read`, where rows and columns may lie outside the image."""
    height, width = x.shape[2:]
    level = fill.view(-1, 1, 1)
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    found = _read(x, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return torch.where((outside & (level >= 0))[:, None], level[:, None].clamp(min=0).to(torch.uint8), found)


def _pixels(share: Tensor, side: int) -> Tensor:
    return (share * side + ONE // 2) >> 16


def _translate(x: Tensor, numbers: Tensor) -> Tensor:
    rows = torch.arange(x.shape[2], device=x.device) + _pixels(numbers[:, :1], x.shape[2])
    columns = torch.arange(x.shape[3], device=x.device) + _pixels(numbers[:, 1:2], x.shape[3])
    return _seen(x, rows[:, :, None], columns[:, None, :], numbers[:, 6])


def _bilinear(x: Tensor, rows: Tensor, columns: Tensor, fill: Tensor) -> Tensor:
    """Pixels at rows and columns in 1/256, (N, H, W)."""
    height, width = x.shape[2:]
    level = fill.view(-1, 1, 1)
    edge = level < 0
    rows = torch.where(edge, rows.clamp(0, (height - 1) * 256), rows.clamp(-256, height * 256))
    columns = torch.where(edge, columns.clamp(0, (width - 1) * 256), columns.clamp(-256, width * 256))
    row, down, column, right = rows >> 8, (rows & 255)[:, None], columns >> 8, (columns & 255)[:, None]
    four = [[_seen(x, row + i, column + j, fill).long() for j in (0, 1)] for i in (0, 1)]
    upper, lower = (left * (256 - right) + beside * right for left, beside in four)
    return ((upper * (256 - down) + lower * down + ONE // 2) >> 16).to(torch.uint8)


def _affine(x: Tensor, numbers: Tensor) -> Tensor:
    height, width = x.shape[2:]
    a, b, c, d, across, down = (each.view(-1, 1, 1) for each in numbers[:, :6].unbind(1))
    i, j = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    row, high, wide = 2 * i - (height - 1), height - 1, width - 1
    columns = ((-a * wide + b * row + wide * ONE) >> 1) + across * width + j * a
    rows = ((-c * wide + d * row + high * ONE) >> 1) + down * height + j * c
    return _bilinear(x, (rows + 128) >> 8, (columns + 128) >> 8, numbers[:, 6])


def _warp(x: Tensor, numbers: Tensor, pool: Tensor) -> Tensor:
    height, width = x.shape[2:]
    places = numbers[:, :1] + torch.arange(2 * height * width, device=x.device)
    down, across = pool.long()[places].view(-1, 2, height, width).unbind(1)
    i, j = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    return _bilinear(x, i * 256 + down, j * 256 + across, torch.full((len(x),), -1, device=x.device))


# ------------------------------------------------------------------------------------------------- filters and boxes


def _sharpness(x: Tensor, numbers: Tensor) -> Tensor:
    height, width = x.shape[2:]
    if height < 3 or width < 3:
        return x
    whole = x.long()
    middle = whole[..., 1:-1, 1:-1]
    sums = 4 * middle
    for i in range(3):
        for j in range(3):
            sums = sums + whole[..., i : i + height - 2, j : j + width - 2]
    changed = x.clone()
    changed[..., 1:-1, 1:-1] = _blend((sums + 6) // 13, middle, numbers[:, 0])
    return changed


def _blur(x: Tensor, numbers: Tensor, pool: Tensor) -> Tensor:
    blurred = torch.empty_like(x)
    for image in range(len(x)):
        start, radius = numbers[image, :2].tolist()
        weights = pool[start : start + radius + 1].long()
        along = (_weighed(x[image].long(), weights, 2) + 128) >> 8
        blurred[image] = ((_weighed(along, weights, 1) + (1 << 19)) >> 20).to(torch.uint8)
    return blurred


def _weighed(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    places = torch.arange(x.shape[axis], device=x.device)
    sums = weights[0] * x
    for k in range(1, len(weights)):
        pair = (x.index_select(axis, mirrored(places + away, x.shape[axis])) for away in (-k, k))
        sums = sums + weights[k] * sum(pair)
    return sums


def _box(x: Tensor, numbers: Tensor) -> Tensor:
    height, width = x.shape[2:]
    top, left, bottom, right = numbers[:, :4].unbind(1)

    def within(low: Tensor, high: Tensor, side: int) -> Tensor:
        place = torch.arange(side, device=x.device)
        ends = [((share * side + ONE // 2 - 1) >> 16).clamp(0, side)[:, None] for share in (low, high)]
        return (place >= ends[0]) & (place < ends[1])

    covered = within(top, bottom, height)[:, :, None] & within(left, right, width)[:, None, :]
    return torch.where(covered[:, None], numbers[:, 6].to(torch.uint8).view(-1, 1, 1, 1), x)


def _grid(x: Tensor, numbers: Tensor) -> Tensor:
    height, width = x.shape[2:]
    cell = (numbers[:, :1] * min(height, width)).clamp(min=1)
    kept = numbers[:, 1:2]

    def painted(side: int, offset: Tensor) -> Tensor:
        middles = (2 * torch.arange(side, device=x.device) + 1) * (ONE // 2)
        within = (middles + ((cell * offset) >> 16)).remainder(cell)
        return within * ONE >= cell * kept

    covered = painted(height, numbers[:, 2:3])[:, :, None] & painted(width, numbers[:, 3:4])[:, None, :]
    return torch.where(covered[:, None], numbers[:, 6].to(torch.uint8).view(-1, 1, 1, 1), x)


_STEPS: dict[Code, Callable[[Tensor, Tensor], Tensor]] = {
    Code.FLIP: _flip,
    Code.FLIP_VERTICALLY: _flip_vertically,
    Code.SHIFT: _shift,
    Code.AFFINE: _affine,
    Code.TRANSLATE: _translate,
    Code.INVERT: _invert,
    Code.SOLARIZE: _solarize,
    Code.POSTERIZE: _posterize,
    Code.BRIGHTNESS: _brightness,
    Code.CONTRAST: _contrast,
    Code.COLOR: _color,
    Code.SHARPNESS: _sharpness,
    Code.AUTOCONTRAST: _autocontrast,
    Code.EQUALIZE: _equalize,
    Code.HUE: _hue,
    Code.BOX: _box,
    Code.GRID: _grid,
}
_POOLED: dict[Code, Callable[[Tensor, Tensor, Tensor], Tensor]] = {Code.BLUR: _blur, Code.WARP: _warp}
