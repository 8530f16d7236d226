"""What a camera writes into a picture beside its pixels, where it was taken above all, is in nothing that is made of it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mapsto.cli.evaluate.judge import _thumbnail
from mapsto_runtime.preprocessing.image_files import read_picture

SECRET = "seen at 48.8584 N"
ORIENTATION, GPS, DESCRIPTION, PROCESSING = 0x0112, 0x8825, 0x010E, 0x001B


def pixels(number: int) -> np.ndarray:
    values = np.zeros((32, 32, 3), np.uint8)
    values[:16, :, number % 2 * 2] = 200  # the upper half, red or blue
    return values + np.random.default_rng(number).integers(0, 50, values.shape).astype(np.uint8)


def with_metadata(folder: Path, number: int) -> Path:
    """A JPEG that lies on its side, or a PNG, with what names a place in all that such a file may hold."""
    folder.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[DESCRIPTION] = SECRET
    exif.get_ifd(GPS)[PROCESSING] = SECRET.encode()
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{SECRET}</x:xmpmeta>".encode()
    image = Image.fromarray(pixels(number))
    if number % 4 < 2:
        exif[ORIENTATION] = 6
        path = folder / f"{number}.jpg"
        image.rotate(90).save(
            path, exif=exif, xmp=xmp, comment=SECRET, icc_profile=SECRET.encode(), quality=95, subsampling=0
        )
    else:
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", SECRET)
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        path = folder / f"{number}.png"
        image.save(path, exif=exif, pnginfo=text)
    assert path.read_bytes().count(SECRET.encode()) >= 3
    return path


def holds_secret(content: bytes) -> bool:
    """Whether a file holds it, as it is or within pictures of a page."""
    inner = (base64.b64decode(found) for found in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content))
    return any(SECRET.encode() in part or b"eXIf" in part or b"tEXt" in part for part in (content, *inner))


@pytest.mark.parametrize("number", [0, 2])
def test_pictures_of_reports_hold_pixels_alone_and_stand_upright(tmp_path: Path, number: int) -> None:
    path = with_metadata(tmp_path, number)
    content = _thumbnail(path)
    assert content is not None
    assert not holds_secret(content)
    assert not any(kind in content for kind in (b"iCCP", b"iTXt", b"zTXt"))
    (tmp_path / "shown.png").write_bytes(content)
    for each in (path, tmp_path / "shown.png"):
        seen = read_picture(each, each.name, size=(32, 32), channels=3).pixels.astype(int)
        assert abs(seen - pixels(number).transpose(2, 0, 1)).mean() < 8, "as it was taken, whatever its file says"
