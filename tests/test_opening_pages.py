"""Pages that a script writes say first what was found, and say it when something failed."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def test_every_page_has_a_title_and_words_before_its_first_table():
    for page in RESULTS.glob("*.md"):
        title, *lines = page.read_text(encoding="utf-8").splitlines()
        assert title.startswith("# "), page.name
        first = next(line for line in lines if line.strip())
        assert not first.startswith(("|", "#", "`python", "![")), page.name


def test_a_soak_in_which_something_grew_says_so(tmp_path):
    import soak

    kept = json.loads((RESULTS / "soak.json").read_text())
    about = {key: kept[key] for key in ("command", "commit", "machine")}
    assert soak.write(kept["rows"], about, tmp_path / "held")
    kept["rows"][-1]["files"] += 3
    assert not soak.write(kept["rows"], about, tmp_path / "grew")
    pages = [(tmp_path / f"{name}.md").read_text() for name in ("held", "grew")]
    assert "No more than is allowed." in pages[0]
    assert "Yes: open files." in pages[1]


def test_environments_that_could_not_be_run_are_not_counted():
    from try_gymnasium import page

    first, second = json.loads((RESULTS / "gymnasium.json").read_text())["rows"][:2]
    about = {key: first[key] for key in ("git", "machine", "versions")}
    text = page([first, second, {**about, "name": "Fetch", "message": "no such model"}])
    assert "\n2 of 3 ran" in text
    assert "and 2 of these\npaid" in text
    second["random"]["differ"] = 0.3
    assert "and 1 of these\npaid" in page([first, second])
    assert "| Fetch |  | | | no such model |" in text


@pytest.mark.parametrize(
    ("faults", "said"), [({}, "in 7 executions: none."), ({"a": ["x"]}, "in 7 executions: 1.")]
)
def test_made_up_input_that_was_a_fault_is_counted(tmp_path, monkeypatch, faults, said):
    import fuzz

    monkeypatch.setattr(sys, "argv", ["fuzz.py"])
    row = {"accepted": 0, "refused": 3, "rounds": []}
    board = {"a": {"executions": 3, **row}, "b": {"executions": 4, **row}}
    fuzz.write(board, faults, ["abc"], tmp_path / "fuzz")
    assert said in (tmp_path / "fuzz.md").read_text()


def test_trials_that_lost_something_are_counted(tmp_path):
    import faults

    trials = [
        faults.Trial("SIGKILL", "step 3", outcome)
        for outcome in (faults.SAME, faults.MESSAGE, faults.LOST)
    ]
    about = {"command": "c", "commit": "abc", "machine": "m"}
    faults.write(trials, about, tmp_path / "faults")
    assert "1 of 3 trials lost anything" in (tmp_path / "faults.md").read_text()
    faults.write(trials[:2], about, tmp_path / "faults")
    assert "None of 2 trials lost anything" in (tmp_path / "faults.md").read_text()
