"""Every relative link in the documents leads to a file in the repository, and to a heading; every
table is one."""

import re
import runpy
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def listed(*patterns: str) -> list[str]:
    """Files of the repository: tracked, or new and not ignored. Without git there is no telling."""
    if shutil.which("git") is None:
        return []
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [name for name in found.stdout.splitlines() if (ROOT / name).is_file()]


@cache
def known() -> frozenset[Path]:
    files = {ROOT / name for name in listed()}
    return frozenset(files | {folder for path in files for folder in path.parents})


def prose(path: Path) -> str:
    """The text without blocks and spans of code, in which brackets are no links."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "`", text)


@cache
def anchors(path: Path) -> frozenset[str]:
    """The fragments that GitHub makes of the headings of a document."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[name] = found.get(name, 0) + 1
    return frozenset(
        f"{name}-{number}" if number else name
        for name, times in found.items()
        for number in range(times)
    )


def broken(path: Path) -> list[str]:
    bad = []
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        there = target in known() or target == path
        there = there and (not fragment or fragment in anchors(target))
        bad += [] if there else [link]
    return bad


@pytest.mark.parametrize("document", listed("*.md"))
def test_links_resolve(document):
    assert broken(ROOT / document) == []


def test_a_wrong_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Some heading\n[a](#some-heading) [b](#other) [c](gone.md) `[d](code.md)`\n")
    assert broken(page) == ["#other", "gone.md"]


def torn(path: Path) -> list[str]:
    """First lines of what looks like a table and is shown as plain lines, and rows of other cells
    than their header has. A pipe without a backslash parts cells in code, too."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    bad = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.M):
        header, *rows = block.splitlines()
        if not rows or not re.fullmatch(r"(\|\s*:?-+:?\s*)+\|\s*", rows[0]):
            bad.append(header)
            continue
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in (header, *rows)]
        bad += [row for row, n in zip((header, *rows), cells, strict=True) if n != cells[1]]
    return bad


@pytest.mark.parametrize("document", listed("*.md"))
def test_tables_are_whole(document):
    assert torn(ROOT / document) == []


def test_a_torn_table_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("| a | b |\n|---|---|\n| 1 | `x\\|y` |\n| 2 |\n\n| 3 | 4 |\n| 5 | 6 |\n")
    assert torn(page) == ["| 2 |", "| 3 | 4 |"]


def test_the_map_shows_every_room():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    floors = runpy.run_path(str(ROOT / "tests/test_house.py"))["FLOORS"]
    for height, rooms in enumerate(reversed(floors), start=1):
        for room in rooms:
            rows = [row for row in page.splitlines() if f"](hypercrl/{room}" in row]
            assert any(row.startswith(f"| {height} |") for row in rows), room
