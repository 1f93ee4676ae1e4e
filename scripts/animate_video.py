"""Videos side by side as an animated WebP, which a README shows without a player.

python scripts/animate_video.py videos/push_quick.mp4 docs/images/push_quick.webp --seconds 3.5
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

GAP = 12
"""Pixels of white between two videos."""


def animate(
    videos: Sequence[Path], picture: Path, seconds: float, hold: float, width: int, quality: int
) -> None:
    """Write the beginning of the videos, which are alike in length and height; the last picture
    stays for `hold` seconds."""
    rate = iio.immeta(videos[0])["fps"]
    films = [iio.imread(video)[: round(seconds * rate)] for video in videos]
    if len({film.shape[:2] for film in films}) > 1:
        sys.exit("animate_video: the videos are not alike in their length and height.")
    frames = [Image.fromarray(beside(each)) for each in zip(*films, strict=True)]
    size = (width, round(width * frames[0].height / frames[0].width))
    first, *others = (frame.resize(size, Image.Resampling.LANCZOS) for frame in frames)
    times = [round(1000 / rate)] * len(others) + [round(1000 * hold)]
    first.save(
        picture,
        save_all=True,
        append_images=others,
        duration=times,
        loop=0,
        quality=quality,
        method=6,
    )


def beside(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames [height, width, 3] in a row."""
    gap = np.full((frames[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for frame in frames for part in (gap, frame)][1:], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("picture", type=Path, help="a .webp")
    parser.add_argument("--seconds", type=float, default=3.5, help="of the beginning")
    parser.add_argument("--hold", type=float, default=1.0, help="seconds of the last picture")
    parser.add_argument("--width", type=int, default=840, help="pixels")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 0 to 100")
    arguments = parser.parse_args()
    animate(**vars(arguments))


if __name__ == "__main__":
    main()
