"""How the program is called, and the override strings it builds and reads."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir
from hypercrl.cli import main
from hypercrl.config.overrides import in_shell, keys_of, override

TINY = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "protocol.num_tasks=1",
    "protocol.random_steps=12",
    "protocol.planned_steps=6",
    "protocol.update_every=3",
    "protocol.updates=2",
    "protocol.final_episodes=1",
)

NAMES = (
    *("plain", "with space", " edge ", "lr=0.1", "a,b", "copy (1)", "jörg", "c#1", "R&D", "a:b"),
    *("a'b", 'a"b', "a\\", 'a\\"b', "a\\\\'b", "a\\,b", "[1]", "{a: 1}", "~/x", "$x", "*?", "a%b"),
    *("null", "true", "1e5", "07", "", "runs/a b/c=1"),
)


@pytest.mark.parametrize("name", NAMES)
def test_an_override_is_read_as_what_was_written(name):
    words = [override("run_dir", name), *shlex.split(in_shell("run_dir", name))]
    read = OverridesParser.create().parse_overrides(words)
    assert [(o.key_or_group, o.value()) for o in read] == [("run_dir", name)] * 2


def test_what_needs_no_quotes_gets_none():
    assert override("resume", Path("/a/b-1_c.d")) == "resume=/a/b-1_c.d"


def test_a_reference_in_a_name_is_refused():
    with pytest.raises(UserError, match="reference to a setting"):
        override("run_dir", "a${seed}")


def test_keys_that_are_given():
    words = ["a.b=1", "+c=2", "~d", "e={f: 1}", "g=1,2"]
    assert keys_of(words) == {"a.b", "c", "d", "e", "e.f", "g"}


@pytest.mark.parametrize("module", ["hypercrl", "hypercrl.cli"])
def test_the_modules_run_the_program(module):
    called = [sys.executable, "-m", module, "tasks", "nothing"]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no sequence 'nothing'" in done.stderr


def test_quoted_folders_and_where_the_report_is(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", *TINY, 'run_dir="lr=0.1, [b] jörg"'])
    run = tmp_path / "lr=0.1, [b] jörg"
    page = run / "report" / "index.html"
    assert page.exists()
    said = capsys.readouterr().out
    assert f"figures and page: {page.relative_to(tmp_path)}" in said
    assert "→ lr=0.1, [b] jörg" in said
    with pytest.raises(SystemExit):
        main(["train", *TINY, 'run_dir="lr=0.1, [b] jörg"'])
    # The command that the message names is one that can be typed.
    command = capsys.readouterr().err.strip().rpartition("with: ")[2]
    with pytest.raises(SystemExit):
        main(shlex.split(command)[1:])
    assert "has ended" in capsys.readouterr().err


def test_a_multirun_leaves_nothing_but_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["train", "-m", *TINY, "seed=0,1", "run_dir=runs"])
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["0", "1", "multirun.yaml"]
    before = sorted(tmp_path.rglob("*"))
    main(["play", "-m", "run=runs/0", "episodes=1", "seed=0,1"])
    assert capsys.readouterr().out.count("episode 1") == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_titles_of_sequences_are_whole_lines(capsys):
    main(["tasks"])
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("env=")]
    assert len(titles) == len(list((configs_dir() / "env").glob("*.yaml")))
    (walkers,) = (title for title in titles if title.startswith("env=walkers "))
    assert walkers.endswith("They show how far they have come, of which the reward is a function.")


def test_a_narrow_list_of_tasks_folds_values_and_no_header(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["tasks", "gymnasium"])
    said = capsys.readouterr().out
    assert "…" not in said
    for header in ("#", "task", "id", "reward", "distance", "solved_within"):
        assert f" {header} " in said
