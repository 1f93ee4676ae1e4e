"""scripts/reproduce.sh: what it lists is there, and what it would run are commands."""

import json
import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hypercrl.bench import RECALL, TRAINING, Grid
from hypercrl.commands.bench import OWN
from hypercrl.config.compose import composed

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "reproduce.sh"


def said(*words: str) -> list[str]:
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_tables_are_pages_and_their_commands_are_sound():
    listed = [line.split()[:2] for line in said()[1:]]
    assert {"paper", "evidence", "sharing"} <= {name for name, _ in listed}
    trained, grids = set(), []
    for name, page in listed:
        path = (ROOT / "docs" / "results" / page.partition("#")[0]).resolve()
        assert path.is_file() or page == "evidence.md", name
        commands = said(name, "--print")
        assert commands, name
        for command in commands:
            program, script, *words = shlex.split(command)
            assert program in ("hypercrl", "python") or command.startswith("git worktree add ")
            if program == "python":
                assert (ROOT / script).is_file(), command
            elif script == "train":
                trained.add(tuple(w for w in words if not re.match("run_dir|seed", w)))
            elif script == "bench":
                grids.append(words)
    for words in trained:
        composed("train", words)
    for words in grids:
        own = {w for w in words if w.partition("=")[0] in OWN}
        suite = RECALL if "suite=recall" in own else TRAINING
        assert Grid([w for w in words if w not in own], Path("runs/none"), suite).cells


def test_every_page_of_results_has_a_table_that_is_made_again():
    listed = {line.split()[1].partition("#")[0] for line in said()[1:]}
    pages = {path.name for path in (ROOT / "docs" / "results").glob("*.md")}
    assert pages <= listed


def test_every_run_of_a_hundred_tasks_is_made_again():
    command = shlex.split(said("many_tasks", "--print")[0])
    patterns = command[command.index("--only") + 1].split(",")
    kept = (ROOT / "docs" / "results" / "evidence").glob("push100*.jsonl")
    lines = [json.loads(line) for path in kept for line in path.read_text().splitlines()[1:]]
    assert lines
    for cell in (line["cell"] for line in lines):
        assert any(fnmatch(cell, pattern) for pattern in patterns), cell


def test_commands_are_of_the_folder_that_is_given():
    """With --print behind it nothing is run, and a folder's name may have spaces."""
    assert shlex.split(said("fuzz", "my out", "--print")[0])[-1] == "my out/fuzz"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no table nothing"),
        (["p.*"], "no table p.*"),
        (["fuzz", "--prnt"], "cannot read --prnt"),
        (["fuzz", "out", "more"], "cannot read more"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: list[str], message: str):
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert message in done.stderr
