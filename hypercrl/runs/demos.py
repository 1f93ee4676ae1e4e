"""Trained agents that come with the program, found by their names."""

from pathlib import Path

DEMOS = Path(__file__).resolve().parents[1] / "demos"


def find_run(run: Path) -> Path:
    """Where a run lies: at `run`, or if nothing is there, the demo of that name."""
    return DEMOS / run if not run.exists() and str(run) in demo_names() else run


def is_demo(run: Path) -> bool:
    """Whether a folder that `find_run` named is a demo: it is to be read only."""
    return run.parent == DEMOS


def demo_names() -> list[str]:
    """Of all there are."""
    return sorted(path.parent.name for path in DEMOS.glob("*/config.yaml"))
