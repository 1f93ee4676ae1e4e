"""The order of the rooms: imports go downward, and nowhere in a circle.

Imports inside functions count as well: they hide a circle, they do not open it.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "hypercrl": ROOT / "hypercrl",
    "hypercrl_envs": ROOT / "envs/hypercrl_envs",
    "hypercrl_kernels": ROOT / "kernels/hypercrl_kernels",
}
FLOORS = (
    ("__main__", "cli", "commands"),
    ("api",),
    ("bench", "report", "training"),
    ("runs",),
    ("config",),
    ("agent",),
    ("methods",),
    ("dynamics",),
    ("memory",),
    ("planning", "replay"),
    ("base", "metrics"),
)
"""Rooms of hypercrl, the top floor first; those of one floor do not know one another."""


def modules(package: str) -> dict[str, Path]:
    folder = PACKAGES[package]
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in folder.rglob("*.py")
    }


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules among `known` that a file imports, and packages of ours that it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in known or name.split(".")[0] in PACKAGES}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_go_downward():
    known = modules("hypercrl")
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    assert {room(module) for module in known} - {""} == set(floor), "a room without a floor"
    upward = [
        f"{module} imports {other}"
        for module, path in known.items()
        for other in imports(path, known)
        if other in known and room(module) and room(other) != room(module)
        and floor[room(other)] <= floor[room(module)]
        and floor[room(module)] != 0
    ]  # fmt: skip
    assert upward == []


@pytest.mark.parametrize("package", ["hypercrl_envs", "hypercrl_kernels"])
def test_tasks_and_kernels_know_nobody(package):
    known = modules(package)
    others = {name for path in known.values() for name in imports(path, known)} - set(known)
    assert others <= {package}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_in_a_circle(package):
    """A package's own __init__ only gathers what it exports, and is left out."""
    known = {m: p for m, p in modules(package).items() if p.name != "__init__.py"}
    graph = {module: imports(path, known) & known.keys() for module, path in known.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
