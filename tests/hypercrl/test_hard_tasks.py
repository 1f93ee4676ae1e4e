"""The grid of settings on tasks that are not solved, and what is read of its runs."""

import json
import sys

import pytest
from hard_tasks import HARD, HardCell, cells, main, record, table
from timed_cells import claim, run_of


def test_a_pattern_that_no_cell_fits_is_a_mistake(tmp_path, capsys, monkeypatch):
    words = ["hard_tasks.py", "--out", str(tmp_path / "out"), "--only", "slide/*,slyde/*"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--only 'slyde/*': no cell is named so" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_cell_whose_settings_cannot_be_is_found_before_any_begins(tmp_path, capsys, monkeypatch):
    words = ["hard_tasks.py", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    words += ["--device", "cpu", "--only", "slide/as it is/0,hopper/policy/0"]
    monkeypatch.setattr(sys, "argv", [*words, "protocol.robots=16", "protocol.random_steps=2001"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "hopper/policy/0: protocol.robots=16 robots act at once" in said
    assert not (tmp_path / "work").exists()


def logged(folder, *rows):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines))


def evaluated(steps, task, on, success):
    return {"kind": "eval", "env_steps": steps, "task": task, "on": on, "success": success}


def test_only_what_was_trained_to_its_end_counts(tmp_path):
    cell = HardCell("slide", "5 knots", 1)
    rows = [
        evaluated(20, 1, 1, 0.1),  # untrained
        evaluated(60, 1, 1, 0.8),
        {"kind": "continual_success", "env_steps": 60, "task": 1, "average": 0.8},
        evaluated(100, 2, 2, 0.2),  # in its midst
    ]
    logged(tmp_path, *rows)
    cut = record(cell, tmp_path)
    assert [one["success"] for one in cut["tasks"]] == [0.8]
    assert not cut["ended"]
    assert cut["end"] == []
    rows += [
        evaluated(120, 2, 1, 0.7),
        evaluated(120, 2, 2, 0.9),
        {"kind": "continual_success", "env_steps": 120, "task": 2, "average": 0.8},
    ]
    logged(tmp_path, *rows)
    (tmp_path / "result.json").touch()
    whole = record(cell, tmp_path)
    assert [one["success"] for one in whole["tasks"]] == [0.8, 0.9]
    assert [one["success"] for one in whole["end"]] == [0.7, 0.9]


def test_episodes_in_training_are_counted_task_by_task(tmp_path):
    def episode(task, random, success):
        outcome = {"success": success, "return": 100.0 if random else 3.0 * success}
        return {"kind": "episode", "task": task, "random": random, **outcome}

    rows = [episode(1, True, True), episode(1, False, False), episode(1, False, True)]
    evaluation = {"return": 9.0, "prediction_error": 0.1, **evaluated(60, 1, 1, 1.0)}
    rows += [evaluation, {"kind": "continual_success", "env_steps": 60, "task": 1}]
    rows += [episode(2, False, False)]  # not learned to its end
    logged(tmp_path, *rows)
    one = record(HardCell("door", "as it is", 0), tmp_path)
    assert one["solved"] == {"1": "01", "2": "0"}
    assert one["late"] == {"1": 1.5, "2": 0.0}
    before_they_were_kept = {k: v for k, v in one.items() if k != "solved"}
    found = table([one, {**one, "solved": {"1": "0000"}}, before_they_were_kept])
    assert list(found.columns[-1].cells) == ["0.25, 0.00"]


def test_the_first_seed_of_everything_comes_first():
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names) == sum(len(h.variants) * h.seeds for h in HARD.values())
    first = sum(len(hard.variants) for hard in HARD.values())
    assert all(name.endswith("/0") for name in names[:first])
    assert {cell.sequence for cell in cells("slide/*,push/bursts/3")} == {"slide", "push"}
    assert len(list(cells("slide/*,push/bursts/3"))) == 2 * len(HARD["slide"].variants) + 1


def test_a_folder_of_another_cell_is_not_taken_for_its_result(tmp_path, capsys):
    words = ["env=push", "method=hnet"]
    grid = [run_of(tmp_path, "knobs/gentle/0", words), run_of(tmp_path, "knobs/5 knots/0", words)]
    assert grid[0].folder != grid[1].folder
    claim(grid)
    claim(grid[1:])  # goes on with the second alone, in its own folder
    with pytest.raises(SystemExit, match="2"):
        claim([run_of(tmp_path, "knobs/gentle/0", [*words, "seed=1"])])
    assert "other settings" in capsys.readouterr().err
    (tmp_path / "old").mkdir()  # of nobody knows what
    with pytest.raises(SystemExit, match="2"):
        claim([run_of(tmp_path, "old", words)])
