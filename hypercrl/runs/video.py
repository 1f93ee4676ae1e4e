"""mp4 files, written whole or not at all."""

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import imageio.v2 as imageio
import matplotlib
import numpy as np
from imageio_ffmpeg import count_frames_and_secs
from PIL import Image, ImageDraw, ImageFont

from hypercrl.base.errors import UserError, unwritable

# Pillow's own font has no superscripts; matplotlib ships one that has.
_FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
GREEN = (46, 190, 92)
"""Of what is solved."""


class VideoWriter:
    """Collects frames into an H.264 file; the file appears when the last frame is in.

    Args:
        path: ends in .mp4.
        fps: frames per second; one per control step makes the video run in real time.

    Raises:
        UserError: nothing can be written there; or not all could be, as on a full disk, and nothing
            is left of it.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self._partial = path.with_name(f".{path.stem}.partial.mp4")
        self._frames = 0

    def __enter__(self) -> "VideoWriter":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._writer = imageio.get_writer(
            self._partial, format="FFMPEG", fps=self.fps, codec="libx264", macro_block_size=2
        )
        return self

    def add(self, frame: np.ndarray) -> None:
        """Append a frame [height, width, 3], uint8; H.264 has even sizes: others get an edge."""
        height, width, _ = frame.shape
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        try:
            self._writer.append_data(even)
        except OSError as error:  # ffmpeg has ended
            raise self._torn() from error
        self._frames += 1

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            self._writer.close()
            if error is None:
                self._check_whole()
                os.replace(self._partial, self.path)
        except OSError as refused:
            raise unwritable(self.path, refused) from refused
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _check_whole(self) -> None:
        """Count the frames: nobody asks ffmpeg whether it could write all that it was given."""
        try:
            counted, _ = count_frames_and_secs(self._partial)
            whole = (counted or 0) >= self._frames
        except RuntimeError:  # it is no video
            whole = False
        if not whole:
            raise self._torn()

    def _torn(self) -> UserError:
        return UserError(
            f"{self.path} could not be written whole, and nothing is left of it: is there room on "
            "the disk?"
        )


def caption(frame: np.ndarray, text: str, short: str) -> np.ndarray:
    """The frame with a text on a dark strip along its upper edge, on as many lines as it takes.

    What tasks are about is mostly further down. Where the strip would hide more than a third of the
    picture, it has `short` on it.
    """
    height, width = frame.shape[:2]
    size = max(11, width // 32)
    font = _font(size)
    lines = _lines(text, font, width - 2 * size)
    if _strip(lines, size) > height / 3:
        lines = [short]
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, 0, width, _strip(lines, size)), fill=(20, 24, 32, 200))
    for number, line in enumerate(lines):
        draw.text((size, size * (0.4 + 1.25 * number)), line, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def _strip(lines: Sequence[str], size: int) -> int:
    """Height in pixels of so many lines in letters of that size, with room around them."""
    return round(size * (1.25 * len(lines) + 0.75))


def framed(frame: np.ndarray) -> np.ndarray:
    """The frame with a green edge."""
    image = Image.fromarray(frame)
    height, width = frame.shape[:2]
    edge = max(2, width // 48)
    ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), outline=GREEN, width=edge)
    return np.asarray(image)


def headed(frame: np.ndarray, title: str, solved: int, of: int) -> np.ndarray:
    """The frame below a dark strip with the title at the left, and how many of how many are solved
    at the right of it, or below it where it is too long; as high whatever their number."""
    width = frame.shape[1]
    size = max(11, width // 24)
    lines = _lines(title, _font(size), width - size)
    longest = f"{title}  {of} of {of} solved"
    beside = len(lines) == 1 and _font(size).getlength(longest) < width - size
    count = f"{solved} of {of} solved"
    lines = lines if beside else [*lines, count]
    height = _strip(lines, size) // 2 * 2  # of even height, as films are
    strip = Image.new("RGB", (width, height), (20, 24, 32))
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        place = size // 2, size * (0.4 + 1.25 * number)
        draw.text(place, line, fill=(255, 255, 255), font=_font(size))
    if beside:
        place = width - size // 2, size * 0.4
        draw.text(place, count, fill=(255, 255, 255), font=_font(size), anchor="ra")
    return np.concatenate([np.asarray(strip), frame])


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FONT, size)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Words side by side as far as they fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def tile(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames of one size [height, width, 3] row by row: up to three in a row, or about a square.

    Empty places are black.
    """
    columns = len(frames) if len(frames) <= 3 else math.ceil(math.sqrt(len(frames)))
    blank = np.zeros_like(frames[0])
    rows = [list(frames[i : i + columns]) for i in range(0, len(frames), columns)]
    rows[-1] += [blank] * (columns - len(rows[-1]))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
