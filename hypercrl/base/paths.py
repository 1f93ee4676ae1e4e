"""Where the shipped configuration lies."""

from pathlib import Path


def configs_dir() -> Path:
    """configs/ inside the package in a wheel, one level up in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
