"""The figure of docs/concepts.md: what writes, what plans and what is held.

python scripts/draw_concepts.py [docs/images/concepts.svg]
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, PALE = "#1f2937", "#6b7280"
BLUE, ORANGE, GREEN, GREY = "#dbe7fb", "#fde7cf", "#dcf1e0", "#f3f4f6"
Point = tuple[float, float]


def box(axes: Axes, centre: Point, size: Point, title: str, text: str, colour: str) -> None:
    """A rounded box with a title and a line below it."""
    (x, y), (width, height) = centre, size
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch(corner, width, height, style, fc=colour, ec=INK, lw=1.1))
    axes.text(x, y + 0.16, title, ha="center", va="center", size=11, weight="bold", color=INK)
    axes.text(x, y - 0.2, text, ha="center", va="center", size=9, color=INK)


def arrow(
    axes: Axes,
    start: Point,
    end: Point,
    text: str = "",
    at: Point = (0, 0),
    training: bool = False,
    bend: float = 0.0,
) -> None:
    """An arrow, dashed where it belongs to training, with words at a point."""
    colour, style = (PALE, (0, (4, 3))) if training else (INK, "solid")
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=13,
            connectionstyle=f"arc3,rad={bend}",
            color=colour,
            linestyle=style,
            lw=1.4,
            shrinkA=0,
            shrinkB=0,
        )
    )
    if text:
        axes.text(*at, text, ha="center", va="center", size=9, color=colour)


def draw(axes: Axes) -> None:
    """Weights are written from the left, plans are made to the right, the robot closes the loop."""
    axes.set_xlim(0, 13.3)
    axes.set_ylim(0.6, 6.3)
    axes.axis("off")
    box(axes, (1.5, 4.9), (2.2, 1.0), "embedding e$_t$", "one a task", BLUE)
    box(axes, (4.7, 4.9), (2.5, 1.0), "hypernetwork", "h(e, θ), one for all", BLUE)
    box(axes, (8.1, 4.9), (2.5, 1.0), "dynamics model", "next observation", ORANGE)
    box(axes, (11.9, 4.9), (2.2, 1.0), "planner", "CEM, iCEM, MPPI", ORANGE)
    box(axes, (11.9, 2.5), (2.2, 1.0), "robot", "task t, its reward", GREEN)
    box(axes, (8.1, 2.5), (2.5, 1.0), "memory encoder", "state of one episode", GREY)
    box(axes, (4.7, 2.5), (2.5, 1.0), "replay", "of task t alone", GREEN)
    box(axes, (1.5, 2.5), (2.2, 1.0), "regulariser", "holds h(e$_1$) … h(e$_{t−1}$)", BLUE)

    arrow(axes, (2.6, 4.9), (3.45, 4.9))
    arrow(axes, (5.95, 4.9), (6.85, 4.9), "weights", (6.4, 5.1))
    arrow(axes, (9.35, 4.75), (10.8, 4.75), "states", (10.07, 4.55))
    arrow(axes, (10.8, 5.1), (9.35, 5.1), "actions", (10.07, 5.3))
    arrow(axes, (11.9, 4.4), (11.9, 3.0), "first action", (12.55, 3.7))
    arrow(axes, (10.8, 2.5), (9.35, 2.5), "transition", (10.07, 2.72))
    arrow(axes, (8.1, 3.0), (8.1, 4.4), "context", (7.6, 3.55))
    arrow(axes, (11.9, 2.0), (4.7, 2.0), "all transitions", (8.3, 0.95), bend=-0.22)
    arrow(axes, (5.4, 3.0), (7.3, 4.4), "loss", (6.1, 3.85), training=True)
    arrow(axes, (8.1, 5.4), (4.7, 5.4), "gradient", (6.4, 6.1), training=True, bend=0.22)
    arrow(axes, (4.3, 5.4), (1.5, 5.4), "", training=True, bend=0.22)
    arrow(axes, (2.2, 3.0), (4.1, 4.4), "β R", (2.9, 3.85), training=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("docs/images/concepts.svg"), help="SVG or PNG"
    )
    file = parser.parse_args().file
    plt.rcParams["svg.hashsalt"] = "concepts"  # the same file every time
    figure, axes = plt.subplots(figsize=(11, 4.75))
    draw(axes)
    date = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, bbox_inches="tight", facecolor="white", dpi=110, metadata=date)


if __name__ == "__main__":
    main()
