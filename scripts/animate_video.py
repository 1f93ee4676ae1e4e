"""A video as an animated WebP, which a README shows without a player.

python scripts/animate_video.py videos/push_quick.mp4 docs/images/push_quick.webp --seconds 3.5
"""

import argparse
from pathlib import Path

import imageio.v3 as iio
from PIL import Image


def animate(video: Path, picture: Path, seconds: float, width: int, quality: int) -> None:
    """Write the beginning of the video; its last picture stays for a second."""
    rate = iio.immeta(video)["fps"]
    frames = [Image.fromarray(frame) for frame in iio.imread(video)[: round(seconds * rate)]]
    size = (width, round(width * frames[0].height / frames[0].width))
    first, *others = (frame.resize(size, Image.Resampling.LANCZOS) for frame in frames)
    times = [round(1000 / rate)] * len(others) + [1000]
    first.save(
        picture,
        save_all=True,
        append_images=others,
        duration=times,
        loop=0,
        quality=quality,
        method=6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("picture", type=Path, help="a .webp")
    parser.add_argument("--seconds", type=float, default=3.5, help="of the beginning")
    parser.add_argument("--width", type=int, default=840, help="pixels")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 0 to 100")
    arguments = parser.parse_args()
    animate(**vars(arguments))


if __name__ == "__main__":
    main()
