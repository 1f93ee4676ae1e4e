import csv
import io
import json
import math
import re
import shutil
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.report import group, load_run, write_report
from hypercrl.report.comparison import comparison_tables
from hypercrl.report.curves import learning_curves
from hypercrl.report.formats import decimals, duration, fixed, significant, size, spread
from hypercrl.report.glossary import DEFINITIONS
from hypercrl.report.heat_maps import heat_maps
from hypercrl.report.page import run_status
from hypercrl.report.recall import write_recall
from hypercrl.report.run_tables import matrix_tables, metrics_table
from hypercrl.report.style import looks, to_png
from hypercrl.report.table import MISSING
from hypercrl.report.trade_offs import trade_offs
from hypercrl.runs.checkpoint import save_checkpoint
from hypercrl.runs.position import Position
from hypercrl.training.evaluation import Score
from hypercrl.training.result import of_matrices

SUCCESS = [[0.0, 0.0], [0.87, 0.11], [0.31, 0.93]]
SCORES = [[-90.0, -80.0], [-10.0, -70.0], [-40.0, -20.0]]
ERROR = [[0.2, 0.3], [0.00412, 0.25], [0.0371, 0.00533]]


def write_run(
    path: Path,
    method: str = "hnet",
    seed: int = 0,
    success=SUCCESS,
    scores=SCORES,
    prediction_error=ERROR,
    *,
    tasks: list[str] | None = None,
    steps: int = 1000,
    every: int = 250,
    finished: bool = True,
    beta: float = 0.05,
    **more,
) -> Path:
    """A run folder as the trainer leaves it; curves move between the rows of the matrices.

    `more` is said by its result too.
    """
    path.mkdir(parents=True)
    matrices = {"success": success, "return": scores, "prediction_error": prediction_error}
    n = len(success[0])
    lines = []
    for i in range(n):
        for step in range(every, steps + 1, every):
            now = {"env_steps": i * steps + step, "task": i + 1}
            lines.append(
                {"kind": "episode", **now, "return": -50.0, "success": 0.0, "random": i < 1}
            )
            lines.append({"kind": "update", **now, "loss": 0.1, "milliseconds": 5.0})
            lines.append({"kind": "plan", **now, "milliseconds": 12.0})
            for j in range(n):
                ends = {k: (m[i][j], m[i + 1][j]) for k, m in matrices.items()}
                values = {
                    k: None if None in (a, b) else a + (b - a) * step / steps
                    for k, (a, b) in ends.items()
                }
                lines.append({"kind": "eval", **now, "on": j + 1, **values})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "config.yaml").write_text(
        f"method:\n  name: {method}\n  beta: {beta}\nenv:\n  name: push\npreset: quick\n"
        f"seed: {seed}\ndevice: cpu\n"
    )
    result = {
        "schema": 1,
        "method": method,
        "env": "push",
        "preset": "quick",
        "seed": seed,
        "device": "cpu",
        "tasks": tasks or [f"density {j + 1}" for j in range(n)],
        "scores": scores,
        "success": success,
        "prediction_error": prediction_error,
        "prediction_horizon": 10,
        "seconds": 400.0,
        "seconds_by": {"plan": 240.0, "update": 120.0, "evaluation": 40.0},
        "plans": 4000,
        "plan_milliseconds": 12.3,
        "updates": 20000,
        "update_milliseconds": 4.56,
        "env_steps": n * steps,
        "extra_updates": 7,
        "training_seconds": [60.0] * n,
        "memory_bytes": [9 * 2**20 + 40 * j for j in range(n)],
        "parameters": 2288410,
        "git": "0123abc",
        "machine": "a machine",
        "versions": {"torch": "2.6"},
        **more,
    }
    if finished:
        (path / "result.json").write_text(json.dumps(result))
    return path


@pytest.fixture
def words_alone(monkeypatch):
    """Figures are made and not drawn, which is most of a report's time."""
    monkeypatch.setattr("hypercrl.report.to_png", lambda _: b"")


def report(paths, out) -> tuple[str, str]:
    """What the terminal and the page show."""
    console = Console(file=io.StringIO(), width=120)
    page = write_report(paths, out, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue(), page.read_text(encoding="utf-8")


def rows_of(table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


@pytest.mark.usefixtures("words_alone")
def test_a_hand_computed_matrix_reaches_terminal_and_page(tmp_path):
    terminal, page = report([write_run(tmp_path / "run")], tmp_path / "out")
    for text in (terminal, page):
        for number in ("0.87", "0.31", "0.93", "-40.0", "0.00412", "0.0371", "10-step error"):
            assert number in text
        # Average success (0.31 + 0.93) / 2 and forgetting 0.87 − 0.31.
        assert "0.62" in text
        assert "0.56" in text
        assert "12.3 ms" in text
        assert "4.56 ms" in text
        assert "density 2" in text
        assert "9.0 MiB" in text


def test_tables_place_every_cell(tmp_path):
    run = load_run(write_run(tmp_path / "run"))
    (benchmark,) = group([run])
    assert run.result is not None
    success, scores, error = matrix_tables(benchmark, run.result)
    assert success.header == ("", "task 1", "task 2")
    assert rows_of(success) == {
        "untrained": ["0.00", "0.00"],
        "after task 1": ["0.87", "0.11"],
        "after task 2": ["0.31", "0.93"],
    }
    assert [[cell.emphasis for cell in row[1:]] for row in success.rows] == [
        ["faint", "faint"],
        ["strong", "faint"],
        ["plain", "strong"],
    ]
    assert rows_of(scores)["after task 1"] == ["-10.0", "-70.0"]
    assert rows_of(error)["after task 2"] == ["0.0371", "0.00533"]
    metrics = rows_of(metrics_table(benchmark, run.result))
    assert metrics["Success"] == ["0.62", "0.56", "0.56", "0.28", "0.11"]
    assert metrics["Return"] == ["-30.0", "30.0", "30.0", "15.0", "10.0"]


@pytest.mark.usefixtures("words_alone")
def test_comparison_over_seeds_with_normalised_return(tmp_path):
    single = [[-100.0, -80.0], [-20.0, -80.0], [-20.0, -20.0]]
    paths = [write_run(tmp_path / "single", "single", scores=single)]
    for seed, end in enumerate((0.3, 0.4, 0.5)):
        success = [[0.0, 0.0], [1.0, 0.0], [end, 1.0]]
        scores = [[-100.0, -80.0], [-20.0, -80.0], [-60.0, -20.0]]
        paths.append(write_run(tmp_path / f"hnet{seed}", "hnet", seed, success, scores))
    (benchmark,) = group([load_run(path) for path in paths])
    success, returns, others, model = comparison_tables(benchmark)
    # At the quarters: hnet's means are 0.625 on both tasks; single's are 0.54375 and 0.6225.
    assert f"{((0.625 - 0.54375) / 0.45625 + (0.625 - 0.6225) / 0.3775) / 2:.2f}" == "0.09"
    assert rows_of(others)["hnet"] == ["0.60 ± 0.10", "0.30 ± 0.05", "0.09"]
    row = rows_of(success)["hnet"]
    assert success.header[:4] == ("method", "seeds", "at the end ↑", "IQM [95 %]")
    assert row[:2] == ["3", "0.70 ± 0.05"]
    # The middle four of 0.3, 0.4, 0.5, 1, 1, 1 when one is cut at each end.
    assert row[2].startswith("0.72 [")
    assert row[3] == "0.60 ± 0.10"
    assert rows_of(success)["single"][2] == "—", "one seed has no interval"
    assert returns.title == "Normalised return"
    # Task 1 ends half-way between untrained and single, task 2 at single's level.
    assert rows_of(returns)["hnet"][1] == "0.75 ± 0.00"
    row = rows_of(model)["hnet"]
    assert row[2:] == ["12.3", "4.56", "120", "20\u202f007", "9.0 MiB"]
    assert len(benchmark.notes) == 2
    assert all("took 7 updates of its own" in note for note in benchmark.notes)
    terminal, page = report(paths, tmp_path / "out")
    assert "0.70 ± 0.05" in terminal
    assert "0.70 ± 0.05" in page


def test_memories_side_by_side(tmp_path):
    """Error, success, state and time of a step: one row for each memory."""
    gru = {"memory": "gru", "memory_state_bytes": 640, "memory_step_milliseconds": 0.0512}
    runs = [("none", 0, 0.038, 0.2, {}), ("a", 0, 0.0245, 0.4, gru), ("b", 1, 0.0215, 0.6, gru)]
    paths = [
        write_run(
            tmp_path / name,
            seed=seed,
            success=[[0.0], [success]],
            scores=[[-9.0], [-1.0]],
            prediction_error=[[1.0], [error]],
            **more,
        )
        for name, seed, error, success, more in runs
    ]
    (benchmark,) = group([load_run(path) for path in paths])
    (table,) = [t for t in comparison_tables(benchmark) if t.title == "Memory of an episode"]
    assert rows_of(table) == {
        "hnet": ["1", "0.0380", "0.20", "—", "—"],
        "hnet + gru": ["2", "0.0230 ± 0.0021", "0.50 ± 0.14", "640 B", "0.0512"],
    }


def test_no_normalised_return_without_a_scale(tmp_path):
    flat = np.full((3, 2), -5.0).tolist()
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", "single", scores=flat)]
    (benchmark,) = group([load_run(path) for path in paths])
    assert benchmark.normalise is None
    assert "task 1 cannot be normalised" in benchmark.notes[0]
    assert comparison_tables(benchmark)[1].title == "Return"
    (alone,) = group([load_run(paths[0])])
    assert "no finished run of method single" in alone.notes[0]


def test_a_failed_cell_is_shown_as_failed(tmp_path):
    success = [[0.0, 0.0], [0.9, 0.0], [None, 0.9]]
    terminal, page = report([write_run(tmp_path / "run", success=success)], tmp_path / "out")
    assert "failed" in terminal
    assert '<td class="bad">failed</td>' in page
    assert "seed 0 has failed cells" in terminal
    assert "—" in terminal, "its average is undefined, not the mean of the rest"


def test_an_error_that_is_missing_is_no_failure(tmp_path):
    """Such as that of a model without training, which may come to no finite number."""
    errors = [[None, None], [0.25, 0.5], [0.3, 0.2]]
    terminal, page = report(
        [write_run(tmp_path / "run", prediction_error=errors)], tmp_path / "out"
    )
    assert "failed" not in terminal
    assert ">failed<" not in page
    (benchmark,) = group([load_run(tmp_path / "run")])
    (table,) = (t for t in matrix_tables(benchmark, benchmark.runs[0].result) if "error" in t.title)
    assert rows_of(table)["untrained"] == ["—", "—"]
    said = " ".join(terminal.split())
    assert "seed 0 has prediction errors that are missing (—): no held-out episode was" in said
    assert "10-step error" in said


def test_a_seed_that_was_given_up_is_not_averaged_away(tmp_path):
    paths = [write_run(tmp_path / f"{seed}", seed=seed) for seed in range(4)]
    paths.append(write_run(tmp_path / "gone", seed=4, finished=False))
    (benchmark,) = group([load_run(path) for path in paths])
    assert rows_of(comparison_tables(benchmark)[0])["hnet"][:2] == ["4", "0.62 ± 0.00"]
    assert any("seed 4 has not finished" in note for note in benchmark.notes)
    (paths[-1] / "failure.txt").write_text("exit code 2: the model diverged\n")
    terminal, _ = report(paths, tmp_path / "out")
    (benchmark,) = group([load_run(path) for path in paths])
    assert rows_of(comparison_tables(benchmark)[0])["hnet"][:3] == ["5", "—", "—"]
    assert "seed 4 was given up (exit code 2: the model diverged)" in " ".join(terminal.split())
    assert "given up: exit code 2" in terminal


def test_a_method_all_of_whose_seeds_were_given_up(tmp_path):
    path = write_run(tmp_path / "a", finished=False)
    (path / "failure.txt").write_text("killed by signal 9\n")
    terminal, _ = report([path, write_run(tmp_path / "b", "single")], tmp_path / "out")
    assert "given up: killed by signal 9" in terminal


def test_auc_forward_transfer_of_known_curves(tmp_path):
    """On its own training each curve of success is a straight line between two matrix rows."""
    success = [[0.0, 0.0], [0.8, 0.2], [0.8, 0.8]]
    alone = [[0.0, 0.0], [0.8, 0.0], [0.8, 0.8]]
    paths = [
        write_run(tmp_path / "a", success=success),
        write_run(tmp_path / "s", "single", success=alone),
    ]
    (benchmark,) = group([load_run(path) for path in paths])
    # Task 2 at its beginning and every quarter: 0.2 → 0.8 has AUC 0.5, 0 → 0.8 has AUC 0.4.
    assert benchmark.auc_forward_transfer("hnet") == pytest.approx((0.5 - 0.4) / (1 - 0.4))
    assert benchmark.auc_forward_transfer("single") == 0
    # At the quarters alone task 1 has 0.5 twice, task 2 has means 0.575 and 0.5.
    transfer = benchmark.continual_world_forward_transfer("hnet")
    assert transfer == pytest.approx((0 + (0.575 - 0.5) / (1 - 0.5)) / 2)
    assert benchmark.continual_world_forward_transfer("single") == 0
    assert rows_of(comparison_tables(benchmark)[0])["hnet"][-1] == "0.17"
    # What the agent of task 1 happens to do in task 2 is nothing of the agent of task 2.
    lucky = write_run(tmp_path / "l", "single", success=[[0.0, 0.0], [0.8, 0.6], [0.8, 0.8]])
    (benchmark,) = group([load_run(path) for path in (paths[0], lucky)])
    curve = [0.0, 0.65, 0.7, 0.75, 0.8]
    area = sum(a + b for a, b in pairwise(curve)) / 8
    assert benchmark.auc_forward_transfer("hnet") == pytest.approx((0.5 - area) / (1 - area))
    assert benchmark.auc_forward_transfer("single") == 0
    (alone,) = group([load_run(paths[0])])
    assert math.isnan(alone.auc_forward_transfer("hnet"))
    failed = write_run(tmp_path / "f", seed=1, finished=False)
    (failed / "failure.txt").write_text("killed by signal 9\n")
    (benchmark,) = group([load_run(path) for path in [*paths, failed]])
    assert math.isnan(benchmark.auc_forward_transfer("hnet")), "nor is it averaged away"
    assert math.isnan(benchmark.continual_world_forward_transfer("hnet"))


OLD_RESULTS = [
    path
    for path in sorted((Path(__file__).parents[2] / "docs/results").rglob("*.json"))
    if '"schema": 1' in path.read_text(encoding="utf-8")
]


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_word_is_cut_short_on_a_narrow_terminal(tmp_path, width):
    paths = [
        write_run(tmp_path / f"{method}-{seed}", method=method, seed=seed, memory="gated_deltanet")
        for method in ("single", "chunked_hnet")
        for seed in range(3)
    ]
    written = io.StringIO()
    write_report(paths, tmp_path / "out", Console(file=written, width=width))
    said = written.getvalue()
    assert "…" not in said
    words = {word for table in comparison_tables(group([load_run(p) for p in paths])[0])
             for text in (*table.header, *(cell.text for row in table.rows for cell in row))
             for word in text.split()}  # fmt: skip
    assert words <= set(said.split())


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize("method", ["hnet", "own_method:Everything"])
def test_numbers_stay_in_one_piece_on_80_columns(tmp_path, method):
    """Names give way: numbers were broken over three lines."""
    memory = {"memory": "own_memory:LeakyTrace", "memory_state_bytes": 12345}
    memory["memory_step_milliseconds"] = 0.0512
    paths = [
        write_run(tmp_path / f"{seed}{len(more)}", method, seed, **more)
        for seed in range(2)
        for more in ({}, memory)
    ]
    for path, planner in zip(paths, ("cem", "own_search:Momentum") * 2, strict=True):
        with (path / "config.yaml").open("a") as file:
            file.write(f"planner: {{name: '{planner}'}}\n")
    written = io.StringIO()
    write_report(paths, tmp_path / "out", Console(file=written, width=80), each_run=False)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    said = "\n".join(lines)
    for table in comparison_tables(group([load_run(path) for path in paths])[0]):
        for row in table.rows:
            for cell in row[1:]:
                assert cell.text in said
    assert "".join(said.split()).count("own_memory:LeakyTrace") >= 5, "each row has its name"


@pytest.mark.usefixtures("words_alone")
def test_a_wide_table_is_in_parts_on_80_columns_and_whole_where_there_is_room(tmp_path):
    """Of three seeds `0.62 [0.62, 0.62]` stood on three lines, and `1 234 574` updates on two."""
    costs = {"memory_bytes": [1234567890] * 2, "updates": 1234567}
    paths = [
        write_run(tmp_path / f"{method}{seed}", method, seed, **costs)
        for method in ("hnet", "coreset_bytes")
        for seed in range(3)
    ]

    def written(width):
        console = Console(file=io.StringIO(), width=width)
        write_report(paths, tmp_path / "out", console, each_run=False)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().splitlines()

    lines = written(80)
    assert max(map(len, lines)) <= 80
    for table in comparison_tables(group([load_run(path) for path in paths])[0]):
        for row in table.rows:
            for cell in row[1:]:
                name = row[0].text
                assert any(line.startswith(name) and cell.text in line for line in lines), cell
    titles = [line.strip() for line in lines if "cost" in line]
    assert titles == ["Model and cost", "Model and cost, continued"]
    assert not any("continued" in line for line in written(120))


def test_a_folder_of_runs_stands_for_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        write_run(tmp_path / f"grid/cells/hnet-{seed}", seed=seed)
    (tmp_path / "grid/cells/hnet-2").mkdir()
    (tmp_path / "grid/cells/hnet-2/config.yaml").touch()  # killed as it was made
    main(["report", "grid"])
    said = capsys.readouterr().out
    assert "seed 0" not in said  # only what is put side by side
    assert said.endswith("figures and page: grid/report/index.html\n")
    page = (tmp_path / "grid/report/index.html").read_text()
    assert "hnet, seed 0" in page
    assert "hnet, seed 1" in page
    main(["report", "grid", "grid/cells/hnet-0", "out=again"])  # a run given twice counts once
    assert (tmp_path / "again/index.html").read_text() == page


@pytest.mark.parametrize("place", ["file/out", "/proc/out"])
@pytest.mark.parametrize("kind", ["training", "recall"])
def test_a_place_that_cannot_be_written_to_is_said_before_the_tables(
    tmp_path, monkeypatch, capsys, place, kind
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if kind == "training":
        write_run(tmp_path / "run")
    else:
        (tmp_path / "run/cells/gla").mkdir(parents=True)
        (tmp_path / "run/cells/gla/result.json").write_text(json.dumps(RECALL))
    with pytest.raises(SystemExit) as ended:
        main(["report", "run", f"out={place}"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"hypercrl: cannot write to {place}: ")
    assert line.endswith(" out=FOLDER names another place.")


RECALL = {
    **{"label": "gla", "width": 16, "pairs": 8, "steps": 2, "state_bytes": 64, "seconds": 1},
    **{"parameters": 10, "recall": {"8": 0.5, "4": 1.0}, "chance": 0.0625},
}


def test_a_folder_of_recall_results_gets_their_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid/cells/gla").mkdir(parents=True)
    (tmp_path / "grid/cells/gla/result.json").write_text(json.dumps(RECALL))
    main(["report", "grid"])
    assert capsys.readouterr().out.endswith("figures and page: grid/report/recall.png\n")


def test_results_of_old_are_read(tmp_path):
    """Those that the figures of the docs come from, written before later keys."""
    assert len(OLD_RESULTS) > 20
    for number, old in enumerate(OLD_RESULTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.yaml").write_text("{}\n")
        (folder / "metrics.jsonl").touch()
        shutil.copy(old, folder / "result.json")
        run = load_run(folder)
        written = json.loads(old.read_text(encoding="utf-8"))
        assert run.result is not None
        np.testing.assert_array_equal(run.result.success, np.array(written["success"], float))
        (benchmark,) = group([run])
        table = rows_of(metrics_table(benchmark, run.result))
        for column, name in (
            (0, "average_performance"),
            (1, "forgetting"),
            (4, "forward_transfer"),
        ):
            said = written[f"success_{name}"]
            assert table["Success"][column] == ("—" if said is None else f"{said:z.2f}"), old


@pytest.mark.usefixtures("words_alone")
def test_the_glossary_of_the_documentation_is_that_of_the_report(tmp_path):
    written = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")
    _, page = report([write_run(tmp_path / "a")], tmp_path / "out")
    keys = of_matrices({field.name: SUCCESS for field in fields(Score)})
    for name, key, *rest in DEFINITIONS:
        cells = (name, key if key == "–" else f"`{key}`", *rest)
        assert "| " + " | ".join(cells) + " |" in written
        assert key == "–" or {key, f"success_{key}"} <= keys.keys()
        assert name in page


@pytest.mark.usefixtures("words_alone")
def test_tables_as_files(tmp_path):
    report([write_run(tmp_path / "a_b", "hnet_si")], tmp_path / "out")
    rows = list(csv.reader((tmp_path / "out" / "push-quick.csv").open()))
    assert rows[0][:4] == ["table", "method", "seeds", "at the end ↑"]
    assert rows[1][:4] == ["Success", "hnet_si", "1", "0.62"]
    markdown = (tmp_path / "out" / "push-quick.md").read_text()
    assert "### Success\n\n| method | seeds | at the end ↑ |" in markdown
    assert "| --- | ---: | ---: |" in markdown
    assert "| hnet_si | 1 | 0.62 |" in markdown
    latex = (tmp_path / "out" / "push-quick.tex").read_text()
    assert r"hnet\_si & 1 & 0.62 &" in latex
    assert r"at the end $\uparrow$" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 4


def test_one_task(tmp_path):
    run = write_run(
        tmp_path / "run", success=[[0], [1]], scores=[[0], [5]], prediction_error=[[1], [0.1]]
    )
    terminal, _ = report([run], tmp_path / "out")
    assert "after task 1" in terminal


def test_a_run_in_progress_shows_its_curves(tmp_path):
    path = write_run(tmp_path / "run", finished=False)
    run = load_run(path)
    assert run.result is None
    assert run.evaluations("success", on=1)[1000] == 0.87
    assert run.spans == [(0, 1000), (1000, 2000)]
    terminal, page = report([path], tmp_path / "out")
    assert "not finished: task 2" in terminal
    assert "task 1  task 1" not in terminal, "captions that are numbers say nothing"
    assert "not finished: task 2" in page
    assert (tmp_path / "out" / "push-quick-curves.png").exists()
    assert not (tmp_path / "out" / "push-quick-matrix.png").exists()


def test_a_run_that_has_only_just_begun(tmp_path):
    path = write_run(tmp_path / "run", finished=False)
    (path / "metrics.jsonl").write_text("")
    terminal, _ = report([path], tmp_path / "out")
    assert "nothing recorded yet" in terminal


@pytest.mark.parametrize(
    ("position", "says"),
    [
        ((1, 400, 0, 1400), "saved after 1400 environment steps, in training of task 2; recorded"),
        ((1, 1000, 3, 2001), "saved after 2001 environment steps, in training of task 2"),
        ((1, 0, 0, 2000), "saved after 2000 environment steps, after task 1"),
        (None, "task 2, step 2\u202f000"),
    ],
)
def test_a_run_that_has_not_ended_says_where_it_goes_on(tmp_path, position, says):
    path = write_run(tmp_path / "run", finished=False)
    checkpoint = path / "checkpoints/latest.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"\xff" * 50)  # damaged, where there is no position
    if position is not None:
        save_checkpoint(checkpoint, {"position": asdict(Position(*position)), "a": np.zeros(3)})
    assert run_status(load_run(path)).startswith(f"not finished: {says}")


@pytest.mark.parametrize("rest", [b'{"kind": "eval", "env_st', b'{"kind": "eval"', b"{\xe2\x82"])
def test_a_line_cut_short_at_the_end_is_left_out(tmp_path, rest):
    path = write_run(tmp_path / "run")
    whole = load_run(path)
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(rest)
    assert load_run(path).events == whole.events


def test_a_damaged_line_elsewhere_is_named(tmp_path):
    path = write_run(tmp_path / "run")
    text = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text("{oops\n" + text)
    with pytest.raises(UserError, match=r"Line 1 of .*metrics\.jsonl is damaged"):
        load_run(path)


def test_missing_and_foreign_folders(tmp_path):
    with pytest.raises(UserError, match="There is no run at"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        load_run(tmp_path)
    path = write_run(tmp_path / "run")
    (path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        load_run(path)
    with pytest.raises(UserError, match="Nothing to report"):
        write_report([], tmp_path / "out", Console(file=io.StringIO()))
    with pytest.raises(UserError, match="is a file"):
        write_report([path], path / "config.yaml", Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"success": [[1.0]]}, "is damaged"),
        ({"tasks": ["only one"]}, "is damaged"),
        ({"plans": "many"}, "is damaged"),
    ],
)
def test_a_foreign_result_is_refused(tmp_path, change, message):
    path = write_run(tmp_path / "run")
    file = path / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load_run(path)
    file.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_run(path)


def test_other_tasks_under_the_same_name_are_not_compared(tmp_path):
    a = write_run(tmp_path / "a")
    b = write_run(tmp_path / "b", seed=1, tasks=["other", "tasks"])
    c = write_run(tmp_path / "c", seed=2, prediction_horizon=5)
    d = write_run(tmp_path / "d", seed=3)
    found = group([load_run(path) for path in (a, b, c, d)])
    assert [[run.seed for run in own.runs] for own in found] == [[0, 3], [1], [2]]
    assert [own.title.rpartition(" · ")[2] for own in found] == [f"sequence {n}" for n in (1, 2, 3)]
    assert found[1].tasks == ("other", "tasks")


def test_a_grid_over_orders_is_a_section_for_each(tmp_path):
    """With it a grid was trained to its end, and no report of it could be written."""

    def written(order, seed, **more):
        path = write_run(tmp_path / f"{order}{seed}", seed=seed, **more)
        with (path / "config.yaml").open("a") as file:
            file.write(f"protocol: {{order: {order}, num_tasks: 2, prediction_horizon: 10}}\n")
        return path

    there, back = ["first", "second"], ["second", "first"]
    paths = [
        written([1, 2], 0, tasks=there),
        written([2, 1], 0, tasks=back),
        written([1, 2], 1, finished=False),
        written([2, 1], 1, tasks=back),
    ]
    found = group([load_run(path) for path in paths])
    assert [own.title for own in found] == [
        "push · quick · order=[1, 2]",
        "push · quick · order=[2, 1]",
    ]
    assert [[run.seed for run in own.runs] for own in found] == [[0, 1], [0, 1]]
    page = write_report(paths, tmp_path / "out", Console(file=io.StringIO(), width=100))
    assert "push · quick · order=[2, 1]" in page.read_text()
    names = {path.stem for path in (tmp_path / "out").glob("*.csv")}
    both = {"push-quick-order-1-2", "push-quick-order-2-1"}
    assert names == both | {f"{name}-tidy" for name in both}


def test_every_number_is_a_row_of_the_tidy_table(tmp_path):
    paths = [write_run(tmp_path / f"{seed}", seed=seed) for seed in range(2)]
    report([*paths, write_run(tmp_path / "c", "si", finished=False)], tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/push-quick-tidy.csv").open()))
    for seed, path in enumerate(paths):
        written = json.loads((path / "result.json").read_text())
        own = [row for row in rows if row["run"] == str(path)]
        assert {row["seed"] for row in own} == {str(seed)}
        named = {"return": "scores", "success": "success", "prediction_error": "prediction_error"}
        for measure, key in named.items():
            found = {
                (int(r["stage"]), int(r["task"])): float(r["value"] or "nan")
                for r in own
                if r["measure"] == measure
            }
            truth = np.array(written[key], dtype=float)
            assert len(found) == truth.size
            for (stage, task), value in found.items():
                np.testing.assert_equal(value, truth[stage, task - 1])
        kept = [float(row["value"]) for row in own if row["measure"] == "memory_bytes"]
        assert kept == written["memory_bytes"]
    assert {row["run"] for row in rows} == set(map(str, paths))


def test_methods_that_coincide_are_all_to_be_seen(tmp_path):
    """Of methods that succeed alike only the one drawn last was to be seen."""
    names = ["single", "hnet", "si"]
    paths = [write_run(tmp_path / name, name) for name in names]
    (benchmark,) = group([load_run(path) for path in paths])
    for figure in (learning_curves(benchmark), trade_offs(benchmark)):
        pixels = Image.open(io.BytesIO(to_png(figure))).convert("RGB")
        axes = figure.axes[0].get_window_extent()
        box = (
            int(axes.x0),
            int(pixels.height - axes.y1),
            int(axes.x1),
            int(pixels.height - axes.y0),
        )
        inside = np.asarray(pixels.crop(box)).reshape(-1, 3)
        for name, look in looks(names).items():
            colour = np.round(255 * np.array(to_rgb(look.colour)))
            assert (np.abs(inside - colour).max(1) <= 2).sum() > 20, name


@pytest.mark.usefixtures("words_alone")
def test_a_seed_counts_once_however_often_it_is_there(tmp_path):
    """Three copies of one run had an interval of width 0, as if they were three seeds."""
    first = write_run(tmp_path / "a")
    other = write_run(tmp_path / "b", seed=1, success=np.ones((3, 2)).tolist())
    copies = [tmp_path / "a2", tmp_path / "a3"]
    for copy in copies:
        shutil.copytree(first, copy)
    for number, path in enumerate((first, *copies)):
        with (path / "config.yaml").open("a") as file:  # says nothing about what was learned
            file.write(
                f"run_dir: {path}\nthreads: {number}\nlogger: {{kind: wandb, n: {number}}}\n"
            )
    (benchmark,) = group([load_run(path) for path in (first, *copies, other)])
    assert [run.path for run in benchmark.runs] == [first, other]
    assert [run.path for run in benchmark.repeats] == copies
    row = rows_of(comparison_tables(benchmark)[0])["hnet"]
    assert row[:2] == ["2", f"{(0.62 + 1) / 2:.2f} ± {(1 - 0.62) / math.sqrt(2):.2f}"]
    note = (
        f"hnet: seed 0 is there 3 times with the same settings and counts once, by {first}; left "
        f"out: {copies[0]}, {copies[1]}."
    )
    assert note in benchmark.notes
    _, page = report([first, *copies, other], tmp_path / "out")
    assert note in page
    assert "2 seeds" in page
    assert f"- {note}\n" in (tmp_path / "out/push-quick.md").read_text()
    assert f"% Note: {note}\n" in (tmp_path / "out/push-quick.tex").read_text()
    rows = list(csv.reader((tmp_path / "out/push-quick.csv").open()))
    assert ["Notes", note] in rows


def test_of_one_seed_the_run_that_came_furthest_counts(tmp_path):
    paths = [write_run(tmp_path / name, finished=name == "c") for name in "abc"]
    (paths[1] / "failure.txt").write_text("killed by signal 9\n")
    for given, counts in ((paths, "c"), (paths[:2], "b"), (paths[:1], "a")):
        (benchmark,) = group([load_run(path) for path in given])
        assert [run.path.name for run in benchmark.runs] == [counts]


def test_one_seed_with_settings_that_differ_is_no_repeat(tmp_path):
    """Where one is of a version that did not know them, they are in one row all the same."""
    paths = [write_run(tmp_path / name) for name in "abc"]
    for path, knots in zip(paths, (4, 8), strict=False):
        with (path / "config.yaml").open("a") as file:
            file.write(f"planner: {{knots: {knots}}}\n")
    (benchmark,) = group([load_run(path) for path in paths])
    assert [run.path.name for run in benchmark.runs] == ["a", "b"]
    assert any("seed 0 is there more than once, with other set" in n for n in benchmark.notes)
    assert any("its runs differ in planner.knots" in note for note in benchmark.notes)


def test_a_note_of_several_lines_stays_a_comment(tmp_path):
    path = write_run(tmp_path / "a", finished=False)
    (path / "failure.txt").write_text("exit code 1: first\n\\input{second}\n")
    report([path, write_run(tmp_path / "b", seed=1)], tmp_path / "out")
    latex = (tmp_path / "out/push-quick.tex").read_text()
    assert "(exit code 1: first \\input{second})" in latex
    assert not any(line.startswith("\\input") for line in latex.splitlines())


def test_a_copied_result_of_recall_counts_once(tmp_path):
    record = RECALL | {"seed": 0}
    other = record | {"seed": 1, "recall": {"8": 0.7, "4": 1.0}}
    paths = []
    for name, said in (("a", record), ("a2", record | {"seconds": 2}), ("b", other)):
        paths.append(tmp_path / name / "result.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(json.dumps(said))
    console = Console(file=io.StringIO(), width=300)
    write_recall(paths, tmp_path / "out", console)
    rows = list(csv.reader((tmp_path / "out/recall.csv").open()))
    assert rows[1][5] == f"0.60 ± {0.2 / math.sqrt(2):.2f}"
    assert rows[-1] == ["Notes", f"{tmp_path}/a2 has the result of {tmp_path}/a, and is left out."]
    assert isinstance(console.file, io.StringIO)
    assert rows[-1][1] in console.file.getvalue()


@pytest.mark.usefixtures("words_alone")
def test_runs_with_other_settings_are_rows_of_their_own(tmp_path):
    paths = [
        write_run(tmp_path / f"{method}{beta}{seed}", method, seed, success=success, beta=beta)
        for method in ("hnet", "single")
        for beta, success in ((0.05, SUCCESS), (0.5, np.ones((3, 2)).tolist()))
        for seed in (0, 1)
    ]
    for number, path in enumerate(paths):
        with (path / "config.yaml").open("a") as file:  # neither tells methods apart
            file.write(f"threads: {number}\nsimulators: {number}\n")
    (benchmark,) = group([load_run(path) for path in paths])
    assert {name: len(runs) for name, runs in benchmark.methods.items()} == {
        f"{method}, beta={beta}": 2 for method in ("hnet", "single") for beta in (0.05, 0.5)
    }
    rows = rows_of(comparison_tables(benchmark)[0])
    assert rows["hnet, beta=0.05"][:2] == ["2", "0.62 ± 0.00"]
    assert rows["hnet, beta=0.5"][:2] == ["2", "1.00 ± 0.00"]
    said = "What is relative to single is so to the mean of single, beta=0.05; single, beta=0.5."
    assert said in benchmark.notes
    assert not any("differ" in note or "not the same" in note for note in benchmark.notes)
    terminal, page = report(paths, tmp_path / "out")
    for text in (terminal, page):
        assert "hnet, beta=0.5" in text


@pytest.mark.usefixtures("words_alone")
def test_what_was_chosen_is_named_as_one_chooses_it(tmp_path):
    """It was "name=cem": of what?"""
    chosen = {"a": ("cem", "push"), "b": ("own_planner:Momentum", "push"), "c": ("cem", "slide")}
    paths = [write_run(tmp_path / name) for name in chosen]
    single = write_run(tmp_path / "s", "single")
    for path, (planner, task) in zip(
        [*paths, single], [*chosen.values(), ("cem", "push")], strict=True
    ):
        text = (path / "config.yaml").read_text()
        tasks = f"  name: push\n  tasks: [{{name: {task}}}, {{name: door}}]\n"
        text = text.replace("  name: push\n", tasks)
        (path / "config.yaml").write_text(f"{text}planner: {{name: '{planner}'}}\n")
    (benchmark,) = group([load_run(path) for path in (*paths, single)])
    names = [
        "hnet, env.tasks.0=push, planner=cem",
        "hnet, env.tasks.0=push, planner=own_planner:Momentum",
        "hnet, env.tasks.0=slide, planner=cem",
    ]
    assert list(benchmark.methods) == [*names, "single"]
    said = "planner is not the same for all methods: cem and own_planner:Momentum of hnet, cem of"
    assert any(note.startswith(said) for note in benchmark.notes)
    report(paths[:2], tmp_path / "out")
    for extension in ("csv", "md"):
        text = (tmp_path / f"out/push-quick.{extension}").read_text()
        assert "hnet, planner=own_planner:Momentum" in text
        assert "name=" not in text


def test_long_names_beside_heat_maps_stay_beside_their_rows(tmp_path):
    paths = [write_run(tmp_path / f"{n}", beta=0.05 + n) for n in range(3)]
    for number, path in enumerate(paths):
        with (path / "config.yaml").open("a") as file:
            file.write(f"planner: {{samples: {100 + number}, horizon: {number}, std: {number}}}\n")
    (benchmark,) = group([load_run(path) for path in paths])
    _beside_their_rows(benchmark)


@pytest.mark.parametrize(
    "names",
    [
        ("own_planner:Momentum", "cem"),
        ("some_package.planners_of_mine:MomentumWithWarmStart", "another_package.planners:WWWWWWW"),
    ],
)
def test_names_of_own_parts_stay_beside_their_rows(tmp_path, names):
    """They have no space at which to break."""
    paths = [write_run(tmp_path / f"{n}") for n in range(3)]
    for path, name in zip(paths, (*names, "mppi"), strict=True):
        with (path / "config.yaml").open("a") as file:
            file.write(f"planner: {{name: '{name}'}}\n")
    (benchmark,) = group([load_run(path) for path in paths])
    _beside_their_rows(benchmark)


def _beside_their_rows(benchmark):
    figure = heat_maps(benchmark)
    FigureCanvasAgg(figure).draw()
    boxes = [axes.yaxis.label.get_window_extent() for axes in figure.axes if axes.get_ylabel()]
    assert len(boxes) == 3
    for box, below in pairwise(boxes):
        assert box.y0 > below.y1
    assert boxes[0].y1 <= figure.bbox.y1
    assert boxes[-1].y0 >= 0
    assert all(box.x0 >= 0 for box in boxes)


def test_a_setting_that_an_older_run_does_not_know_is_noted(tmp_path):
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", seed=1)]
    with (paths[0] / "config.yaml").open("a") as file:
        file.write("planner: {knots: null}\n")
    (benchmark,) = group([load_run(path) for path in paths])
    assert list(benchmark.methods) == ["hnet"]
    said = "hnet: its runs differ in planner.knots, and are averaged as if they were seeds."
    assert said in benchmark.notes


def test_methods_that_were_not_given_the_same_are_noted(tmp_path):
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", "single", beta=0.5)]
    for path, samples in zip(paths, (100, 200), strict=True):
        with (path / "config.yaml").open("a") as file:
            file.write(f"planner: {{samples: {samples}}}\n")
    (benchmark,) = group([load_run(path) for path in paths])
    said = "planner.samples is not the same for all methods: 100 of hnet, 200 of single."
    assert said in benchmark.notes
    assert not any("method.beta" in note for note in benchmark.notes)


def test_text_of_the_user_is_escaped(tmp_path):
    path = write_run(tmp_path / "run", tasks=["<script>alert(1)</script>", "[bold]b[/bold]"])
    with (path / "config.yaml").open("a") as file:
        file.write("note: '</pre><img src=x>'\n")
    terminal, page = report([path], tmp_path / "out")
    assert "<script>" not in page
    assert "<img src=x>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "[bold]b[/bold]" in terminal


def test_the_page_needs_no_other_file(tmp_path):
    _, page = report([write_run(tmp_path / "run")], tmp_path / "out")
    assert "http" not in page
    assert page.count("data:image/png;base64,") == 4


def test_figures_are_pictures_and_not_blank(tmp_path):
    report([write_run(tmp_path / "run")], tmp_path / "out")
    names = {f"push-quick-{kind}.png" for kind in ("curves", "error", "matrix", "costs")}
    tables = {"push-quick.csv", "push-quick-tidy.csv", "push-quick.md", "push-quick.tex"}
    others = {"index.html", *tables}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | others
    for name in names:
        with Image.open(tmp_path / "out" / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([[0.3, None], [0.1, None], [0.2, None]], "Task 2: no distance"),
        ([[None] * 2] * 3, "Task 1, 2: no distance"),
        ([[0.3, None], [None, 0.2], [0.1, 0.2]], None),  # not evaluated is not without
    ],
)
def test_success_that_cannot_be_is_noted(tmp_path, distances, said):
    write_run(tmp_path / "run", success=[[0.0, 0.0]] * 3, goal_distance=distances)
    (benchmark,) = group([load_run(tmp_path / "run")])
    found = [note for note in benchmark.notes if "no distance" in note]
    assert len(found) == (said is not None)
    assert all(said in note for note in found)


NOTHING = {"success": [[0.0, 0.0]] * 3, "goal_distance": [[None] * 2] * 3}
"""Of tasks without a distance."""


@pytest.mark.usefixtures("words_alone")
@pytest.mark.parametrize(
    ("methods", "leads"),
    [
        (["hnet"], '<b>-30.0</b>\n<span class="small">return at the end<br>30.0 forgotten'),
        # (-40 + 90) / 80 and (-20 + 80) / 60, where the untrained agent has -90 and -80.
        (["hnet", "single"], '<b>0.81</b>\n<span class="small">normalised return at the end'),
    ],
)
def test_where_nothing_counts_as_success_the_return_leads(tmp_path, methods, leads):
    runs = [write_run(tmp_path / name, method=name, **NOTHING) for name in methods]
    terminal, page = report(runs, tmp_path / "out")
    assert leads in page
    headings = r"<caption>Success|Success and its|success at the end|<th>success"
    assert not re.search(headings, page)
    assert "eturn and its costs" in page
    assert "nothing counts as success; look at the return" in page
    assert "Success" not in terminal
    (benchmark,) = group([load_run(run) for run in runs])
    titles = [axes.get_title("left") for axes in heat_maps(benchmark).axes]
    assert titles[:2] == [benchmark.return_name.capitalize(), "10-step error"]
    assert (
        trade_offs(benchmark).axes[0].get_ylabel() == f"{benchmark.return_name} at the end (mean)"
    )
    (point,) = [
        line for line in trade_offs(benchmark).axes[0].get_lines() if line.get_label() == "hnet"
    ]
    assert point.get_ydata() == pytest.approx([-30.0 if len(methods) == 1 else 0.8125])


@pytest.mark.parametrize(
    "told",
    [
        {"goal_distance": [[0.3, None], [0.1, None], [0.2, None]], "success": [[0.0, 0.0]] * 3},
        {"goal_distance": [[None] * 2] * 3},  # the tasks say themselves what succeeds
    ],
)
def test_where_anything_may_count_as_success_that_leads(tmp_path, told):
    (benchmark,) = group([load_run(write_run(tmp_path / "run", **told))])
    assert benchmark.outcome_name == "success"
    assert comparison_tables(benchmark)[0].title == "Success"


MIXED: dict[str, Any] = {
    "success": [[0.0, 0.0, 0.2], [0.8, 0.0, 0.4], [0.6, 0.0, 0.5], [0.5, 0.0, 1.0]],
    "goal_distance": [[0.3, None, 0.3]] * 4,
    "scores": [[-90.0, 1.0, -80.0], [-40.0, 2.0, -70.0], [-60.0, 5.0, -60.0], [-50.0, 4.0, -20.0]],
    "prediction_error": [[0.1] * 3] * 4,
    "tasks": ["push 100", "pendulum", "push 500"],
    "memory_bytes": [1024] * 3,
    "training_seconds": [1.0] * 3,
}
"""Of three tasks, the second without a distance. By hand: 0.75 at the end of the other two, of the
first 0.3 forgotten (over two tasks 0.15), and of the last 0.5 - 0.2 there before its training."""


@pytest.mark.usefixtures("words_alone")
def test_a_task_in_which_nothing_counts_as_success_has_no_part_in_a_mean_of_it(tmp_path):
    runs = [write_run(tmp_path / f"{seed}", seed=seed, **MIXED) for seed in range(3)]
    terminal, page = report(runs, tmp_path / "out")
    assert '<b>0.75</b>\n<span class="small">success at the end<br>0.30 forgotten' in page
    (benchmark,) = group([load_run(run) for run in runs])
    assert benchmark.succeeds.tolist() == [True, False, True]
    success, *_, others, _ = comparison_tables(benchmark)
    assert [cell.text for cell in success.rows[0][:6]] == [
        *("hnet", "3", "0.75 ± 0.00", "0.75 [0.75, 0.75]", "0.30 ± 0.00", "0.30 ± 0.00")
    ]
    assert [cell.text for cell in others.rows[0][:3]] == ["hnet", "0.30 ± 0.00", "0.15 ± 0.00"]
    (result, *_) = benchmark.results("hnet")
    of_run = metrics_table(benchmark, result).rows
    assert [cell.text for cell in of_run[0]] == ["Success", "0.75", "0.30", "0.30", "0.15", "0.30"]
    assert of_run[1][1].text == "-22.0"  # the return is that of all
    assert [row[2] for row in matrix_tables(benchmark, result)[0].rows] == [MISSING] * 4
    heights = [np.ravel(line.get_ydata()) for line in trade_offs(benchmark).axes[0].get_lines()]
    assert [each.tolist() for each in heights] == [[0.75, 0.75], [0.75]]
    texts = [text.get_text() for text in heat_maps(benchmark).axes[0].texts]
    assert texts[1::3] == ["—"] * 4
    assert "Task 2: no distance" in terminal


def test_a_task_that_failed_is_not_taken_for_one_in_which_nothing_succeeds(tmp_path):
    names = ("success", "goal_distance", "scores")
    failed: dict[str, Any] = dict.fromkeys(names, [[0.0, None]] * 3)
    (benchmark,) = group([load_run(write_run(tmp_path / "run", **failed))])
    assert benchmark.succeeds.all()


@pytest.mark.usefixtures("words_alone")
def test_a_long_name_stays_on_its_card(tmp_path):
    """Broken at its joints, and a part that is too long for a line anywhere."""
    _, page = report([write_run(tmp_path / "run", "own_method:<Mine>")], tmp_path / "out")
    assert '<span class="name">own_method:<wbr>&lt;Mine&gt;</span>' in page
    assert re.search(r"body \{[^}]*overflow-wrap: anywhere", page)


@pytest.mark.usefixtures("words_alone")
def test_on_a_telephone_tables_and_figures_scroll_at_their_size(tmp_path):
    _, page = report([write_run(tmp_path / "run")], tmp_path / "out")
    assert page.count("<img ") == 4
    assert page.count('<div class="scroll"><img ') == 4
    assert page.count('<div class="scroll"><table') == page.count("<table")
    narrow = re.search(r"@media screen and \(max-width: 720px\) \{(.*?)\n  \}", page, re.DOTALL)
    assert narrow
    assert "figure img { max-width: none; }" in narrow[1]


def test_two_seeds_have_no_interval_beside_their_costs(tmp_path):
    def bars(seeds):
        runs = [load_run(write_run(tmp_path / f"{seeds}-{n}", seed=n)) for n in range(seeds)]
        left, _ = trade_offs(group(runs)[0]).axes
        return [line for line in left.get_lines() if np.size(line.get_xdata()) == 2]

    assert not bars(2)
    assert len(bars(3)) == 1


@pytest.mark.parametrize("letters", [6, 12, 16, 20, 28, 36])
def test_the_costs_legend_is_as_wide_as_the_figure_at_most(tmp_path, letters):
    names = [
        f"single-with-more-updates-of-larger-batches{n}"[-letters:].replace("-", "w")
        for n in range(7)
    ]
    runs = [load_run(write_run(tmp_path / name, method=name)) for name in names]
    figure = trade_offs(group(runs)[0])
    to_png(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize("spread", [1.0, 1.02, 2, 7, 1e3, 1e7])
def test_ticks_of_costs_do_not_crowd(tmp_path, spread):
    """At least two on each axis, and no label touches another one."""
    runs = [
        load_run(
            write_run(
                tmp_path / f"{method}-{seed}",
                method=method,
                seed=seed,
                memory_bytes=[round(3000 * factor)] * 2,
                training_seconds=[0.7 * factor] * 2,
            )
        )
        for method, factor in (("single", 1.0), ("hnet", spread**0.5), ("coreset", spread))
        for seed in range(2)
    ]
    figure = trade_offs(group(runs)[0])
    to_png(figure)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    boxes = []
    for axes in figure.axes:
        low, high = axes.get_xlim()
        labels = [
            label
            for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if low <= tick <= high and label.get_text()
        ]
        assert len(labels) >= (2 if spread > 1.5 else 1)
        assert len(labels) <= 6
        boxes += [label.get_window_extent(canvas.get_renderer()) for label in labels]
    boxes.sort(key=lambda box: box.x0)
    assert all(a.x1 + 4 < b.x0 for a, b in pairwise(boxes))


def test_a_second_report_replaces_the_first_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    report([write_run(tmp_path / "a", "hnet")], out)
    _, page = report([write_run(tmp_path / "b", "finetune")], out)
    assert "finetune" in page
    assert "hnet" not in page
    assert (out / "notes.txt").read_text() == "mine"
    assert len(list(out.iterdir())) == 10


def test_numbers_as_text():
    assert fixed(-0.001) == "0.00"
    assert fixed(math.nan) == "—"
    assert fixed(math.inf) == "inf"
    assert fixed(float(np.mean([0.275, 0.275, 0.25, 0.025, 0.2]))) == fixed(0.205)
    assert fixed(math.nextafter(0.205, 1)) == fixed(math.nextafter(0.205, 0))
    assert [significant(v) for v in (0.0041249, 12.34, 1234.5, 0.0)] == [
        "0.00412",
        "12.3",
        "1230",
        "0.00",
    ]
    assert significant(math.inf) == "inf"
    assert decimals([-152.0, 3.0]) == 0
    assert decimals([0.98, math.nan]) == 3
    assert spread([0.5]) == "0.50"
    assert spread([]) == "—"
    assert duration(3725) == "1 h 02 min"
    assert size(2048) == "2.0 KiB"
