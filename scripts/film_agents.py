"""One episode of every task of a sequence, played by the agent that has learned them all.

    python scripts/evidence.py run --only 'push/hnet/0' --agents push/hnet/0 --out OUT
    python scripts/film_agents.py OUT/*.tar.gz --out videos [--size 240] [--play tasks=[1,5,9]]

Each archive, of a run or of an agent alone, becomes NAME.mp4 with all of its tasks side by side,
or those that are named, by `hypercrl play`. One that is there already is left as it is.
For scripts: film_scripted.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from make_demo import unpacked

from hypercrl.base.errors import UserError
from hypercrl.cli import main as hypercrl


def film(archive: Path, out: Path, size: int, settings: Sequence[str]) -> Path:
    """Play the one run of an archive; returns the video.

    Args:
        archive: a .tar.gz with a run's folder in it.
        out: folder of the video.
        size: pixels of a task's picture.
        settings: more of `hypercrl play`.
    """
    video = out / f"{archive.name.removesuffix('.tar.gz')}.mp4"
    if video.exists():
        return video
    with unpacked(archive) as run:
        words = (f"run={run}", "tiled=true", "episodes=1", f"size={size}")
        hypercrl(["play", *words, *settings, f"video={video.resolve()}"])
    return video


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archives", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("videos"))
    parser.add_argument("--size", type=int, default=240, help="pixels of a task's picture")
    parser.add_argument("--play", nargs="+", default=[], help="settings of hypercrl play")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        for archive in arguments.archives:
            print(film(archive, arguments.out, arguments.size, arguments.play))
    except UserError as error:
        sys.exit(f"film_agents: {error}")


if __name__ == "__main__":
    main()
