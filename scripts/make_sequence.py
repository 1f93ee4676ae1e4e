"""Draw a long sequence of pushing tasks: the file `configs/env/pushN.yaml`.

    python scripts/make_sequence.py 20 > configs/env/push20.yaml
    python scripts/make_sequence.py 100 > configs/env/push100.yaml

Every task has densities, a friction, a control frame and a range of starting angles. No two tasks
are alike, and those next to one another differ in their densities. The numbers come from one seed
and are written out: the file is the sequence, and a longer one begins as a shorter one does.
"""

import argparse
import random

SEED = 2026
DENSITIES = (100, 200, 350, 500, 700, 1000)
FRAMES = (0, 0, 0, 45, -45, 90, -90, 135, -135, 180)
FRICTIONS = (1.0, 1.0, 0.7, 0.5, 0.35)
YAWS = (0.05, 0.05, 0.1, 0.2)


def drawn(count: int) -> list[str]:
    """So many tasks, each as a line of YAML."""
    source, lines = random.Random(SEED), []
    seen: set[tuple[object, ...]] = set()
    before: tuple[int, int] | None = None
    while len(lines) < count:
        pair = source.choice(DENSITIES), source.choice(DENSITIES)
        friction, frame = source.choice(FRICTIONS), source.choice(FRAMES)
        flip, yaw = source.random() < 0.25, source.choice(YAWS)
        task = (pair, friction, frame, flip, yaw)
        if task in seen or pair == before:
            continue
        seen.add(task)
        before = pair
        words = [f"task: push, densities: [{pair[0]}, {pair[1]}]"]
        words += [f"friction: {friction}"] if friction != 1.0 else []
        words += [f"frame: {frame}"] if frame else []
        words += ["flip_y: true"] if flip else []
        words += [f"start_yaw: {yaw}"] if yaw != 0.05 else []
        lines.append(f"  - {{{', '.join(words)}}}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int, help="tasks")
    count = parser.parse_args().count
    print(f"# {count} boxes, control frames and starts; made by scripts/make_sequence.py {count}.")
    print(f"name: push{count}\ntasks:")
    print("\n".join(drawn(count)))


if __name__ == "__main__":
    main()
