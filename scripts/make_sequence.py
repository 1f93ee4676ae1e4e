"""Draw a long sequence of pushing tasks: the file `configs/env/pushN.yaml`.

    python scripts/make_sequence.py 20 > configs/env/push20.yaml
    python scripts/make_sequence.py 100 > configs/env/push100.yaml

Every task has densities, a control frame and a range of starting angles of its own, and two in
three surfaces of another friction. No two tasks are alike, and those next to one another differ in
densities. The numbers come from one seed and are written out: the file is the sequence.
"""

import argparse
import random

SEED = 2026
DENSITIES = (100, 200, 350, 500, 700, 1000)
FRAMES = (0, 0, 0, 45, -45, 90, -90, 135, -135, 180)
YAWS = (0.0, 0.1, 0.2, 0.35)


def drawn(count: int) -> list[str]:
    """So many tasks, each as a line of YAML; a longer sequence begins as a shorter one does."""
    source, lines = random.Random(SEED), []
    seen: set[tuple[object, ...]] = set()
    before: tuple[int, int] | None = None
    while len(lines) < count:
        pair = source.choice(DENSITIES), source.choice(DENSITIES)
        frame, flip = source.choice(FRAMES), source.random() < 0.25
        yaw = source.choice(YAWS)
        task = (pair, frame, flip, yaw)
        if task in seen or pair == before:
            continue
        seen.add(task)
        before = pair
        words = [f"task: push, densities: [{pair[0]}, {pair[1]}]"]
        words += [f"frame: {frame}"] if frame else []
        words += ["flip_y: true"] if flip else []
        words += [f"start_yaw: {yaw}"]
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
