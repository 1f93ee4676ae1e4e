"""The evidence's grid, its pieces, and what is kept of them; with runs at their smallest."""

import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import evidence
import numpy as np
import pytest

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import from_json
from hypercrl.bench.workers import Attempt

TINY = (
    "preset=smoke",
    "dynamics.hidden=[16]",
    "protocol.random_steps=24",
    "protocol.planned_steps=12",
    "protocol.update_every=12",
    "protocol.prediction_horizon=3",
    "planner.samples=8",
    "planner.elites=2",
    "planner.horizon=3",
)


@pytest.fixture
def grid(monkeypatch):
    """A grid of one sequence of two tasks, of which two methods learn."""
    import evidence_grid
    import evidence_records

    column = evidence_grid.Sequence("push", TINY, tasks=2, seeds=2, seconds=20.0)
    monkeypatch.setattr(evidence_grid, "COMMON", ("logger=[]", "protocol.final_episodes=1"))
    monkeypatch.setitem(evidence_grid.SEQUENCES, "push", column)
    monkeypatch.setattr(evidence_grid, "STAGES", ((("push",), ("single", "finetune")),))
    caches = (evidence_records._config, evidence_records.wanted)
    for cached in caches:
        cached.cache_clear()
    yield evidence_records
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def call(monkeypatch, tmp_path):
    """The script on words, its folders in `tmp_path`."""

    def call(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["evidence.py", "--kept", str(tmp_path / "kept"), *words])
        evidence.main()

    return call


def test_cells_of_a_sequence_differ_in_the_methods_settings_alone():
    import evidence_grid
    from evidence_records import own, shared, wanted

    of_push = {method: wanted("push", method) for method in evidence_grid.METHODS}
    for method, settings in of_push.items():
        assert shared(settings) == shared(of_push["hnet"]), method
        assert own(settings)["method.name"] == method
    for name, column in evidence_grid.SEQUENCES.items():
        words = [evidence_grid.EvidenceCell(name, m, 0).words() for m in column.methods]
        others = [[w for w in each if not w.startswith("method")] for each in words]
        assert all(each == others[0] for each in others), name
        settings = wanted(name, column.methods[0])
        tasks = settings["protocol.num_tasks"] or len(settings["env.tasks"])
        assert min(tasks, len(settings["env.tasks"])) == column.tasks
        for steps in ("random_steps", "planned_steps"):
            assert settings[f"protocol.{steps}"] % settings["protocol.robots"] == 0


def test_every_cell_of_the_grid_is_there_once():
    import evidence_grid

    names = [cell.name for cell in evidence_grid.cells()]
    columns = evidence_grid.SEQUENCES.values()
    assert len(set(names)) == len(names) == sum(len(c.methods) * c.seeds for c in columns)
    assert names[0] == "door/hnet/0"
    some = [cell.name for cell in evidence_grid.cells("push/hnet/*")]
    assert some == [f"push/hnet/{seed}" for seed in range(5)]


def test_pieces_are_kept_and_not_run_again(grid, call, tmp_path, capfd, forked_cells):
    out, work = str(tmp_path / "out"), str(tmp_path / "work")
    run = ("run", "--out", out, "--work", work, "--device", "cpu", "--seconds", "120")
    call(*run, "--only", "push/*/0", "--commit", "abc", "--agents", "push/single/0")
    lines = (tmp_path / "out" / "evidence.jsonl").read_text().splitlines()
    assert {json.loads(line)["cell"] for line in lines} == {"push/single/0", "push/finetune/0"}
    assert (tmp_path / "out" / "push_single_0.tar.gz").stat().st_size > 1000
    call("take", str(tmp_path / "out" / "evidence.jsonl"))
    kept = tmp_path / "kept" / "push.jsonl"
    header, *cells = map(json.loads, kept.read_text().splitlines())
    assert header["settings"]["protocol.random_steps"] == 24
    assert all(len(line) < 2000 for line in kept.read_text().splitlines()[1:])
    for cell in cells:
        result = from_json((tmp_path / "work" / cell["cell"] / "result.json").read_bytes())
        assert cell["git"] == "abc"
        assert len(cell["plasticity"]["network_dormant"]) == 2
        for name in ("success", "scores", "prediction_error"):
            np.testing.assert_allclose(grid.matrix(cell, name), result[name], rtol=1e-3)
        assert cell["memory_bytes"] == result["memory_bytes"]
        assert set(cell["settings"]) == {k for k in cell["settings"] if k.startswith("method.")}
    before = kept.read_bytes()
    call("take", str(tmp_path / "out" / "evidence.jsonl"))
    assert kept.read_bytes() == before
    same_from_a_bench(tmp_path / "work" / "push" / "single" / "0", tmp_path)
    capfd.readouterr()
    call(*run, "--only", "push/*/0")
    assert "2 cells are kept, 0 to do" in capfd.readouterr().out
    call("status")
    assert "push               2 of 4" in capfd.readouterr().out


def same_from_a_bench(run: Path, folder: Path) -> None:
    """A cell of scripts/bench_sharing.py's grid is packed alike."""
    from bench_sharing import keep_evidence
    from evidence_records import read_lines

    bench = SimpleNamespace(out=folder / "bench", results=lambda: {"push-single-0": {}})
    shutil.copytree(run, bench.out / "cells" / "push-single-0")
    keep_evidence(cast(Any, bench), folder / "kept.jsonl")
    (record,) = read_lines(folder / "kept.jsonl")
    (other,) = (
        r for r in read_lines(folder / "out" / "evidence.jsonl") if r["cell"] == record["cell"]
    )
    assert {**record, "git": "abc"} == other


def test_what_would_not_end_is_not_begun(tmp_path):
    from evidence_grid import EvidenceCell

    from hypercrl.bench import Cell
    from hypercrl.bench.mps import Service

    cell = Cell("push20/hnet/0", (), tmp_path / "cell")
    cells = {cell.name: EvidenceCell("push20", "hnet", 0)}
    margin, usual = evidence.MARGIN, evidence.Usual([{"cell": "push20/single/3", "seconds": 70.0}])
    needed = evidence.STARTING + margin * 70.0

    def workers(slots: int, seconds: float, unfinished: bool = False):
        deadline = time.monotonic() + seconds
        return evidence.TimedWorkers(
            slots, [], Service(), cells, usual, deadline, lambda _: None, unfinished
        )

    assert workers(1, needed + 10).room(cell)
    late = workers(1, needed - 10)
    assert not late.room(cell)
    with pytest.raises(evidence.TimeIsUp):
        late.finished()
    assert workers(1, needed - 10, unfinished=True).room(cell)
    busy = workers(2 * cells[cell.name].column.threads - 1, needed + 10)
    busy._running = [Attempt(cell, cast(Any, None), 0, False)]
    assert not busy.room(cell)
    cell.folder.mkdir()
    (cell.folder / "config.yaml").touch()  # it goes on from where it was
    assert workers(1, needed - 10).room(cell)


def test_of_a_cell_that_ended_before_its_folder_was_there_it_is_told_why(tmp_path):
    from hypercrl.bench import Cell

    refused, waits = (Cell(f"push/{name}/0", (), tmp_path / name) for name in ("hnet", "ewc"))
    refused.log.write_text("hypercrl: method.beta must be a number\n", "utf-8")
    arguments = SimpleNamespace(out=tmp_path, commit=None, agents="")
    keep = evidence.Keeper(arguments, {}, evidence.Usual([]))
    keep.failed(refused)
    keep.failed(waits)
    told = (tmp_path / "failed.txt").read_text("utf-8")
    assert told.startswith("push/hnet/0: hypercrl: method.beta must be a number\n")
    assert "ewc" not in told


def record_of(grid, name="push/single/0", **changes):
    sequence, method, _ = name.split("/")
    rows = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    record = {"cell": name, "settings": {**grid.wanted(sequence, method), **changes}}
    return record | {"success": rows, "scores": rows, "prediction_error": rows, "seconds": 1.0}


@pytest.mark.parametrize("setting", ["protocol.random_steps", "method.learning_rate", "gone"])
def test_other_settings_are_refused(grid, tmp_path, setting):
    said = grid.take([record_of(grid, **{setting: 7})], tmp_path)
    assert said == {"push/single/0": f"refused: other settings ({setting})"}
    assert not grid.kept(tmp_path)


def test_a_setting_that_is_new_has_its_old_meaning(grid, tmp_path):
    record = record_of(grid)
    del record["settings"]["planner.samples"]
    assert grid.take([record], tmp_path) == {"push/single/0": "taken"}
    assert set(grid.kept(tmp_path)) == {"push/single/0"}


def test_a_setting_without_effect_may_have_changed(grid, tmp_path):
    """The tasks are given, so how they would be inferred was not part of what was measured."""
    record = record_of(grid, **{"inference.alarm": 7.0})
    assert grid.take([record], tmp_path) == {"push/single/0": "taken"}
    assert set(grid.kept(tmp_path)) == {"push/single/0"}


def test_what_the_repository_keeps_is_of_the_settings_now():
    """A default that changes what was measured would leave every kept file unread."""
    import evidence_records

    for file in sorted(evidence_records.FOLDER.glob("*.jsonl")):
        header, first = map(json.loads, file.read_text("utf-8").splitlines()[:2])
        cell = evidence_records.cell_of(first)
        assert not evidence_records.differing(header["settings"], cell), file.name


def test_kept_of_another_protocol_is_not_mixed_with_what_is_new(grid, tmp_path):
    grid.take([record_of(grid)], tmp_path)
    file = tmp_path / "push.jsonl"
    file.write_text(file.read_text().replace('"protocol.updates": 20', '"protocol.updates": 21'))
    with pytest.raises(UserError, match=r"protocol\.updates"):
        grid.kept(tmp_path)


def test_a_line_cut_short_is_left_out(grid, tmp_path):
    file = tmp_path / "evidence.jsonl"
    file.write_text('{"cell": "push/single/0"}\n{"cell": "pu')
    assert grid.read_lines(file) == [{"cell": "push/single/0"}]
    file.write_text('{"cell": "pu\n{"cell": "push/single/0"}\n')
    with pytest.raises(UserError, match="cannot be read"):
        grid.read_lines(file)


def test_rows_of_which_little_was_measured_are_short_and_come_back(grid):
    row = [None] * 20
    row[3] = 0.123456
    assert grid._row(row, 4) == {"4": 0.1235}
    matrix = grid.matrix({"success": [{}, {"1": 0.5}, [1.0, None]]}, "success")
    np.testing.assert_array_equal(matrix, [[np.nan, np.nan], [0.5, np.nan], [1.0, np.nan]])


def kept_record(name, success, errors=None, **more):
    """As `packed` makes them, of matrices."""
    from evidence_records import wanted

    sequence, method, _ = name.split("/")
    tasks = len(success[0])
    record = {"cell": name, "settings": wanted(sequence, method), "success": success}
    record |= {"scores": [[40 * v for v in row] for row in success], "seconds_by": {}}
    record |= {"prediction_error": errors or success, "memory_bytes": [1024] * tasks}
    record |= {"training_seconds": [1.0] * tasks, "seconds": 60.0, "git": "abc"}
    record |= dict.fromkeys(("plans", "updates", "env_steps"), 7) | {"extra_updates": 0}
    record |= {"parameters": 3, "plan_milliseconds": None, "update_milliseconds": 0.1}
    return record | {"machine": "a GPU; a CPU", "prediction_horizon": 10, **more}


def learned(tasks, late=1.0):
    """Success of one who learns every task, and does the first one `late` at the end."""
    rows = [[1.0] * stage + [0.0] * (tasks - stage) for stage in range(tasks + 1)]
    rows[-1][0] = late
    return rows


def test_the_page_says_what_is_done_and_compares(tmp_path, monkeypatch):
    import evidence_page

    monkeypatch.setattr(evidence_page, "FIRST", ("hnet", "single"))
    records = {
        name: kept_record(name, learned(5, late))
        for method, late in (("hnet", 1.0), ("single", 1.0), ("finetune", 0.2))
        for name in (f"push/{method}/{seed}" for seed in range(3))
    }
    for method in ("multitask", "coreset_bytes"):  # one seed, and no worse than any
        name = f"push/{method}/0"
        records[name] = kept_record(name, learned(5), extra_updates=9)
    name = "push_2000/hnet/0"
    records[name] = kept_record(name, learned(5, 0.7))
    for method in ("hnet", "finetune"):  # of which there is no comparison with all
        name = f"complex_ode/{method}/0"
        records[name] = kept_record(name, learned(4, 0.0))
    for folder in ("images", "results"):
        (tmp_path / folder).mkdir()
    page = evidence_page.write_page(records, tmp_path).read_text()
    assert "14 of " in page
    assert "| push | 3/5 | 1/5 |" in page
    short = page.partition("## In short")[2].partition("## push")[0]
    cells = {
        line.split("|")[1].strip(): line.split("|")[2:5]
        for line in short.partition("what it keeps")[0].splitlines()
        if "|" in line
    }
    assert cells["hnet"] == [" **1.00** ", " 0.00 on push ", " 1.0 KiB "]
    assert cells["finetune"] == [" 0.84 ", " 0.16 on push ", " 1.0 KiB "]
    assert cells["multitask"] == [" (**1.00**) ", " — ", " 1.0 KiB "]
    assert "Of fewer methods, and below only: complex_ode." in short
    of_push = page.partition("## push\n")[2].partition("## complex_ode")[0]
    lines = [line.split("|") for line in of_push.splitlines() if "|" in line]
    rows = {line[1].strip(): line for line in reversed(lines)}
    assert rows["finetune"][3:10] == [
        " 0.20 1.00 1.00 1.00 1.00 ",
        " 0.84 [0.84, 0.84] ",
        " 1.00 [1.00, 1.00] ",
        " 0.84 ± 0.00 ",
        " 0.20 ± 0.00 ",
        " 0 of 15 ",
        " 0.00 ± 0.00 ",
    ]
    assert rows["finetune"][-2] == " 0.60 [0.60, 0.60] "  # one task of five is always won
    assert "| hnet | push_2000 | 1 | 0.70 | 0.94 |" in of_push
    assert "`push_2000`: `protocol.updates=2000`" in of_push
    assert "## push_2000" not in page
    assert "more of hnet" not in of_push
    assert "and 9 more of multitask, and 9 more of coreset_bytes." in of_push
    assert "coreset_bytes is multitask here, run for run" in of_push
    targets = page.partition("## Targets")[2]
    assert "| push | 3 | 1.00 | 1.00 | 0.00 | 0.00 | — | 0.00 |" in targets
    assert evidence_page._held(-0.04, -0.03, sign=-1) == "**0.04**"
    assert evidence_page._held(0.9478, 0.95) == "**0.9478**"  # not "0.95", which were no less
    assert evidence_page._held(-0.034, -0.03, sign=-1) == "**0.0340**"
    for figure in ("push_costs", "overview"):
        assert (tmp_path / "images" / f"evidence_{figure}.png").stat().st_size > 1000


def test_of_a_sample_of_old_tasks_success_on_all_is_reckoned():
    """The newest task, which is always evaluated, counts as one of all that are learned."""
    from evidence_figures import on_seen

    nan = np.nan
    seen = on_seen(np.array([[nan] * 3, [1, 0, nan], [0.5, 1, 0], [0, nan, 1]]))
    np.testing.assert_allclose(seen, [1.0, 0.75, 1 / 3])


def test_long_curves_are_drawn_by_tenths():
    from evidence_figures import tenths

    stages, means = tenths(np.arange(100.0)[None])
    np.testing.assert_allclose(stages, 5.5 + 10 * np.arange(10))
    np.testing.assert_allclose(means, [4.5 + 10 * np.arange(10)])
    stages, means = tenths(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(stages, [1, 2])
    np.testing.assert_array_equal(means, [[1.0, 2.0]])


def test_of_many_tasks_variants_with_three_seeds_stand_beside_the_methods(tmp_path):
    import evidence_capacity
    import evidence_page

    more = {"plasticity": {evidence_capacity.RANK: [float(j) for j in range(100)]}}
    names = [f"push100/hnet/{seed}" for seed in range(3)]
    names += [f"push100_width100_kept_beta0.5/hnet/{seed}" for seed in range(3)]
    names += ["push100_kept/hnet/0", "push100_single/single/0"]
    errors = [[1.0] * 100] * 101
    records = {n: kept_record(n, learned(100, 0.5 * ("width" in n)), errors, **more) for n in names}
    del records["push100_single/single/0"]["plasticity"]
    by = {n.split("/")[0]: [] for n in names}
    for name, record in records.items():
        by[name.split("/")[0]].append(record)
    benchmarks = {name: evidence_page.benchmark_of(name, mine) for name, mine in by.items()}
    wide = "hnet, width 100, targets kept, β 0.5"
    assert list(evidence_page.with_variants("push100", benchmarks).methods) == ["hnet", wide]
    labelled = evidence_capacity.by_label("push100", by)
    assert list(labelled) == ["hnet", "hnet, targets kept", wide, "single"]
    page = tmp_path / "many_tasks.md"
    page.write_text(f"before\n{evidence_capacity.BEGIN}old\n{evidence_capacity.END} after\n")
    evidence_capacity.write_table(page, labelled)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(" after\n")
    assert "old" not in text
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in text.splitlines()[4:-2]}
    assert rows[wide][:3] == [" 3 ", " 0.99 [0.99, 0.99] ", " 0.98 1.00 1.00 1.00 "]
    assert rows["single"][:2] == [" 1 ", " 0.99 "]
    assert rows["hnet"][7] == " 99 of 50 "
    assert rows[wide][7] == " 99 of 100 "
    page.write_text("no marks")
    with pytest.raises(UserError, match="has no <!-- made by"):
        evidence_capacity.write_table(page, labelled)
    (*_, last) = evidence_capacity.capacity(labelled).axes[1].get_lines()
    assert last.get_ydata()[0] == pytest.approx(0.95)


def test_what_was_never_learned_is_not_called_forgotten():
    from evidence_page import _not_learned

    forgot, never = np.array(learned(3, late=0.0)), np.array(learned(3))
    never[2:, 1] = 0.4
    assert _not_learned(np.stack([forgot, never])) == "1 of 6"


def test_errors_are_compared_with_those_just_after_learning():
    from evidence_figures import error_against_learned

    nan = np.nan
    errors = [[9, 9, 9], [0.1, 9, 9], [0.2, 0.3, 9], [nan, 0.6, 0.5]]
    np.testing.assert_allclose(error_against_learned(np.array(errors)), [1.0, 2.0, 2.0])
    errors[3][0] = 0.8  # eight times as large, and twice: four times in the geometric mean
    np.testing.assert_allclose(error_against_learned(np.array(errors)), [1.0, 2.0, 4.0])


def test_what_twenty_tasks_do_is_told(tmp_path):
    import evidence_page
    from evidence_long import learned_late, used

    tasks = 20
    alone, slow = learned(tasks), learned(tasks)
    for task in range(15, 20):
        slow[task + 1][task] = 0.6  # the last quarter is learned less well
    errors = [[1.0] * tasks for _ in range(tasks + 1)]
    twice = [[2.0] * tasks for _ in range(tasks + 1)]
    costs = {"memory_bytes": [1024 * j for j in range(1, 21)]}
    costs |= {"training_seconds": [2.0] * 15 + [3.0] * 5}
    logged = {"network_dormant": [0.1 * j for j in range(20)]}
    logged["network_effective_rank"] = [float(j) for j in range(20)]
    records = [
        kept_record("push20/hnet/0", slow, twice, **costs, plasticity=logged),
        kept_record("push20/single/0", alone, errors),
    ]
    benchmark = evidence_page.benchmark_of("push20", records)
    found = learned_late(benchmark)
    late = ["+0.00", "+0.00", "+0.00", "-0.40", "2.00 2.00 2.00 2.00", "1.00"]
    assert found[2][0] == ["hnet", *late, "1.0 KiB", "1.50"]
    of_networks = used(records)
    assert of_networks is not None
    assert of_networks[2] == [
        ["hnet", "push20", "network", "1", "0.00 1.00 1.90", "0.00 10.0 19.0"]
    ]
    assert used(records[1:]) is None
    text, _, (alone,) = learned_late(evidence_page.benchmark_of("push20", records[:1]))
    assert "single" not in text
    assert alone[1:6] == ["1.00", "1.00", "1.00", "0.60", "2.00 2.00 2.00 2.00"]


def test_errors_are_means_that_one_which_diverged_does_not_rule():
    errors = np.array([[[9.0, 9.0], [0.1, 9.0], [0.4, 1000.0]], [[9.0, 9.0], [0.2, 9], [0.2, 0.1]]])
    from evidence_long import geometric_mean, grown

    assert geometric_mean(errors[:, -1]) == pytest.approx(
        statistics.geometric_mean(errors[:, -1].ravel())
    )
    assert grown(errors) == "2.00"  # four times, and as it was
    assert grown(errors[:0]) == grown(errors[:, :2, :1]) == "—"


def test_of_methods_without_seeds_enough_none_is_the_best(tmp_path):
    import evidence_page

    late = {"hnet": 0.0, "single": 0.5, "ewc": 1.0}
    seeds = {"hnet": 3, "single": 3, "ewc": 1}
    records = {
        name: kept_record(name, learned(5, late[method]))
        for method in late
        for name in (f"door5/{method}/{seed}" for seed in range(seeds[method]))
    }
    for folder in ("images", "results"):
        (tmp_path / folder).mkdir()
    page = evidence_page.write_page(records, tmp_path).read_text()
    assert "| hnet | 0.80 | 0.10 on door5 |" in page
    assert "| single | **0.90** | 0.00 on door5 |" in page
    assert "| ewc | (**1.00**) | — |" in page


def test_runs_are_told_apart_by_all_that_was_measured():
    import evidence_page

    def said(success):
        names = ("push/multitask/0", "push/coreset_bytes/0", "push/coreset_bytes/1")
        records = [kept_record(names[0], learned(5)), kept_record(names[1], success)]
        records.append(kept_record(names[2], learned(5, 0.3)))  # a seed that is not there of both
        return evidence_page._same(evidence_page.benchmark_of("push", records))

    assert said(learned(5)).startswith("coreset_bytes is multitask here")
    assert said(learned(5, 0.9)) == ""


def test_intervals_of_means_are_over_whole_runs():
    """Two runs that fail and one that does not: tasks drawn one by one would be less far apart."""
    import evidence_page

    final = np.repeat([[0.0], [0.0], [1.0]], 50, 1)
    assert evidence_page._over_runs(final) == "0.33 [0.00, 1.00]"


def test_variants_of_a_sequence_stand_beside_it_by_method():
    import evidence_page
    from evidence_long import variants

    names = ("push20/hnet/0", "push20_order1/finetune/0", "push20_width5/hnet/0")
    records = {name: kept_record(name, learned(20)) for name in names}
    benchmarks = {
        name.split("/")[0]: evidence_page.benchmark_of(name.split("/")[0], [record])
        for name, record in records.items()
    }
    found = variants("push20", benchmarks)
    assert found is not None
    rows = [row[:3] for row in found[2]]
    assert rows == [
        ["hnet", "push20", "1"],
        ["hnet", "push20_width5", "1"],
        ["finetune", "push20_order1", "1"],
    ]


def test_orders_are_permutations_and_inversions_are_of_900_steps():
    import evidence_grid
    from evidence_records import wanted

    orders = [wanted(f"push20_order{n}", "hnet")["protocol.order"] for n in range(1, 5)]
    assert all(sorted(order) == list(range(1, 21)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert wanted("push20_width5", "hnet")["method.hidden"] == [5, 5]
    inverted = [
        name for name, s in evidence_grid.SEQUENCES.items() if s.methods == ("hnet", "finetune")
    ]
    for name in ("double_integrator", "complex_ode", "cartpole"):
        assert name in inverted
        settings = wanted(name, "finetune")
        assert settings["protocol.random_steps"] + settings["protocol.planned_steps"] == 900
