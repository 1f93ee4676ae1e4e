"""The grid runner with real processes: real runs at their smallest, and stubs that die."""

import io
import json
import os
import signal
import sys
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.base.lock import locked
from hypercrl.bench import Cell, Grid, LocalWorkers, Status, run_grid
from hypercrl.bench.cell import Progress
from hypercrl.bench.scheduler import NAMED, _tell_all
from hypercrl.bench.table import progress_table
from hypercrl.cli import main
from hypercrl.runs.run_folder import FAILURE

SMALL = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "protocol.planned_steps=30",
    "protocol.checkpoint_every=10",
)


def test_a_grid_is_every_combination(tmp_path):
    grid = Grid(
        ["env=push", "method=hnet,chunked_hnet", "seed=range(2)", "method.beta=0.1,0.2", *SMALL],
        tmp_path,
    )
    assert [cell.name for cell in grid.cells] == [
        f"push-{method}-{seed}-method.beta={beta}"
        for method in ("hnet", "chunked_hnet")
        for seed in (0, 1)
        for beta in (0.1, 0.2)
    ]
    assert set(grid.fixed) == {
        "preset",
        "dynamics.hidden",
        "protocol.planned_steps",
        "protocol.checkpoint_every",
    }
    assert "dynamics.hidden=[16]" in grid.cells[0].overrides
    assert len({cell.folder for cell in grid.cells}) == 8
    for cell in grid.cells:
        *_, run_dir = OverridesParser.create().parse_overrides(cell.words()[1:])
        assert run_dir.value() == str(cell.folder)


def test_a_setting_that_some_methods_have_is_an_axis_of_theirs(tmp_path):
    words = ["method=hnet,finetune,coreset", "method.beta=0.05,0.5", "method.per_task=20"]
    cells = Grid([*words, "seed=0,1"], tmp_path).cells
    given = {
        cell.name: [word for word in cell.overrides if word.startswith("method.")]
        for cell in cells
        if cell.name.endswith("-0") or "-0-" in cell.name
    }
    assert given == {
        "hnet-0-method.beta=0.05": ["method.beta=0.05"],
        "hnet-0-method.beta=0.5": ["method.beta=0.5"],
        "finetune-0": [],
        "coreset-0": ["method.per_task=20"],
    }
    assert len(cells) == 8


def test_a_pattern_is_of_all_choices_that_fit(tmp_path):
    words = ["preset=smoke", "env=double_integrator", "seed=0", "method=glob(coreset*)"]
    methods = [cell.overrides[-1] for cell in Grid(words, tmp_path).cells]
    assert methods == ["method=coreset", "method=coreset_bytes"]


def test_all_methods(tmp_path):
    names = {cell.name for cell in Grid(["method=all", "seed=0"], tmp_path).cells}
    assert {"hnet-0", "pnn-0", "ftl_task-0"} <= names


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["method=hnet,hnett"], "Did you mean 'hnet'"),
        (["sede=0,1"], "Did you mean 'seed'"),
        (["method=ewc,single", "method.beta=1"], "'method.beta' with method=ewc"),
        (["method=hnet,single", "method.betta=1"], "Did you mean 'method.beta'"),
        (["seed=0", "run_dir=x"], "leave it out"),
        (["seed=0", "++run_dir=x"], "leave it out"),
        (["seed=0", "+note=first"], "no setting 'note'"),
        (["env=push10,push", "protocol.num_tasks=6"], "the sequence push has 5 tasks"),
        (["seed=[0"], "seed"),
        (["method=hnet,ewc", "method.members=3"], "method=ewc trains one network a task"),
        (["protocol.order=[1,2],[1,1]"], "each once at most"),
        (["planner.samples=50,0"], "planner.samples must be at least 1, not 0"),
        (["planner.risk=mean,worst"], "planner.risk=worst needs"),
        (["protocol.robots=1,7"], "must be a multiple of 7"),
    ],
)
def test_a_mistake_in_any_cell_is_found_before_any_runs(tmp_path, words, wanted):
    with pytest.raises(UserError, match=wanted):
        Grid(words, tmp_path)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["seed=0"], "out=FOLDER"),
        (["out=x", "oops"], "cannot read 'oops'; settings are KEY=VALUE"),
        (["out=x", "worker=3"], "Did you mean 'workers'"),
        (["out=x", "workers=0"], "workers must be at least 1"),
        (["out=x", "workers=10919215616"], "workers must be at most 10000, not"),
        (["out=x", "retries=some"], "retries is a number"),
        (["out=x", "cluster=slurm"], "local, ray"),
        (["out=x", "gpus=1"], "cluster=ray"),
        (["out=x", "cluster=ray", "gpus=1.5"], "from 0.0001 to 1"),
        (["out=x", "cluster=ray", "gpus=0.00005"], "from 0.0001 to 1"),
    ],
)
def test_mistakes_on_the_command_line(capsys, monkeypatch, tmp_path, words, wanted):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["bench", *words])
    assert wanted in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_grid_in_the_same_folder_is_refused(tmp_path):
    def claim(folder, *words):
        with Grid(words, tmp_path / folder).claim():
            pass

    claim("grid", "seed=0", "preset=smoke")
    claim("grid", "seed=0,1", "preset=smoke")
    with pytest.raises(UserError, match="preset=smoke"):
        claim("grid", "seed=0", "preset=quick")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    with pytest.raises(UserError, match="not empty"):
        claim("other", "seed=0")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["mine"]


def test_a_grid_that_runs_is_not_run_beside_itself(tmp_path, capsys):
    words = ["method=finetune", "seed=0"]
    with Grid(words, tmp_path / "grid").claim():
        with pytest.raises(SystemExit) as ended:
            main(["bench", *words, f"out={tmp_path / 'grid'}"])
        assert ended.value.code == 2
    assert f"is being written to by process {os.getpid()} on " in capsys.readouterr().err
    assert not (tmp_path / "grid" / "cells").exists()


def test_a_grid_runs_in_a_folder_of_any_name(tmp_path, forked_cells):
    """Names that mean something to Hydra's grammar, a shell or a markup, in a folder above."""
    out = tmp_path / "with space, lr=0.1 (1) jörg #1 R&D 'a' [b] {c}" / "grid"
    words = ["method=finetune", "seed=0", "protocol.num_tasks=1", *SMALL, f"out={out}"]
    main(["bench", *words])
    assert (out / "cells" / "finetune-0" / "result.json").exists()
    assert (out / "report" / "index.html").exists()
    cell = Grid(words[:-1], out).cells[0]
    assert cell.words()[:1] == ["train"]
    (key, read), *_ = (
        (o.key_or_group, o.value())
        for o in OverridesParser.create().parse_overrides(cell.words()[1:])
    )
    assert (key, read) == ("resume", str(cell.folder))


class StubWorkers(LocalWorkers):
    """Runs a Python program instead of hypercrl: {folder} and {attempt} are filled in."""

    def __init__(self, slots, programs):
        super().__init__(slots)
        self.programs, self.attempts, self.most = programs, {}, 0

    def start(self, cell, words, alone=False):
        attempt = self.attempts[cell.name] = self.attempts.get(cell.name, 0) + 1
        program = self.programs[cell.name].format(folder=str(cell.folder), attempt=attempt)
        executable, sys.executable = sys.executable, str(cell.folder) + ".sh"
        os.makedirs(cell.folder, exist_ok=True)
        with open(sys.executable, "w") as file:
            file.write(f"#!{executable}\n{program}\n")
        os.chmod(sys.executable, 0o755)
        try:
            super().start(cell, words, alone)
        finally:
            sys.executable = executable
        self.most = max(self.most, len(self._running))


DONE = "open('{folder}/result.json', 'w').write('{{}}')"
DIES_ONCE = f"import os\nif {{attempt}} == 1: os.kill(os.getpid(), 9)\n{DONE}"
ALWAYS_DIES = "import os; os.kill(os.getpid(), 9)"
DIVERGES = "open('{folder}/config.yaml', 'w'); print('the model diverged'); raise SystemExit(2)"
CRASHES = "raise RuntimeError('a bug')"
ENDS_WITHOUT_RESULT = "pass"


def run_stubs(tmp_path, programs, retries=2, slots=2):
    cells = [Cell(name, (), tmp_path / "cells" / name) for name in programs]
    workers = StubWorkers(slots, programs)
    console = Console(file=io.StringIO(), width=200)
    board = run_grid(cells, workers, retries, console)
    return {p.cell.name: p for p in board}, workers, console.file.getvalue()


def test_a_crash_loses_only_its_cell_and_attempts_are_bounded(tmp_path):
    programs = {
        "fine": DONE,
        "killed_once": DIES_ONCE,
        "killed": ALWAYS_DIES,
        "diverges": DIVERGES,
        "crashes": CRASHES,
        "empty": ENDS_WITHOUT_RESULT,
    }
    board, workers, said = run_stubs(tmp_path, programs)
    assert {n for n, p in board.items() if p.status is Status.DONE} == {"fine", "killed_once"}
    attempts = {"fine": 1, "killed_once": 2, "killed": 3, "diverges": 1, "crashes": 3, "empty": 3}
    assert workers.attempts == attempts
    assert workers.most == 2
    reasons = {name: p.reason for name, p in board.items()}
    assert reasons["killed"] == "killed by signal 9"
    assert reasons["diverges"] == "exit code 2: the model diverged"
    assert "a bug" in reasons["crashes"]
    assert "the model diverged" in (tmp_path / "cells/diverges/failure.txt").read_text()
    # Word is left in runs that were begun, and nowhere else.
    assert [p.parent.name for p in tmp_path.rglob("failure.txt")] == ["diverges"]
    assert "killed_once: to be tried again (killed by signal 9)" in said


def test_what_is_there_is_skipped(tmp_path):
    run_stubs(tmp_path, {"a": DONE, "b": ALWAYS_DIES}, retries=0)
    board, workers, said = run_stubs(tmp_path, {"a": CRASHES, "b": DONE})
    assert workers.attempts == {"b": 1}
    assert all(p.status is Status.DONE for p in board.values())
    assert "1 of 2 cells are there already" in said


def test_workers_die_with_the_one_that_started_them(tmp_path):
    program = f"""
import time
from pathlib import Path
from hypercrl.bench import Cell, LocalWorkers
import sys
sys.path.insert(0, {str(tmp_path)!r})
workers = LocalWorkers(1)
workers.start(Cell("x", (), Path({str(tmp_path)!r}) / "x"), ["train", "preset=paper",
    "device=cpu", "run_dir={tmp_path}/x"])
print(workers._running[0].process.pid, flush=True)
time.sleep(60)
"""
    import subprocess

    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        # An orphan that nobody waits for stays as a zombie in a container without an init.
        with open(f"/proc/{child}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the worker outlived its parent")


def test_gpus_go_round(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    show = "import os\nopen('{folder}/gpu', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    names = [f"c{i}" for i in range(4)]
    workers = StubWorkers(4, dict.fromkeys(names, show + DONE))
    workers.gpus = ["0", "3"]
    cells = [Cell(name, (), tmp_path / name) for name in names]
    run_grid(cells, workers, 0, Console(file=io.StringIO()))
    assert [(c.folder / "gpu").read_text() for c in cells] == ["0", "3", "0", "3"]


FULL = "hypercrl: out of memory on GPU 0: Tried to allocate 2 GiB; end other programs"
SHOW = """
import os, sys, time
with open('{folder}.gpus', 'a') as file:
    file.write(os.environ['CUDA_VISIBLE_DEVICES'] + ' ')
"""
LET_DOWN = f"{SHOW}\nprint({FULL!r}); sys.exit(3)"
LET_DOWN_ONCE = f"{SHOW}\nif {{attempt}} == 1: print({FULL!r}); sys.exit(3)\n{DONE}"
MOMENT = f"{SHOW}\ntime.sleep(0.5)\n{DONE}"


def run_on_gpus(tmp_path, programs, gpus, slots, retries=2):
    """The board, and for each cell the GPUs of its attempts."""
    cells = [Cell(name, (), tmp_path / "cells" / name) for name in programs]

    class Watched(StubWorkers):
        def start(self, cell, words, alone=False):
            super().start(cell, words, alone)
            mine = self._running[-1]
            beside = [attempt for attempt in self._on(mine.gpu) if attempt is not mine]
            assert not beside or not (alone or any(attempt.alone for attempt in beside))

    workers = Watched(slots, programs)
    workers.gpus = gpus
    console = Console(file=io.StringIO(), width=200)
    board = {p.cell.name: p for p in run_grid(cells, workers, retries, console)}
    used = {c.name: c.folder.with_name(f"{c.name}.gpus").read_text().split() for c in cells}
    return board, used, console.file.getvalue()


def test_a_cell_whose_gpu_let_it_down_is_tried_once_more_on_another_one(tmp_path):
    programs = {"once": LET_DOWN_ONCE, "always": LET_DOWN, "fine": MOMENT, "too": MOMENT}
    (tmp_path / "cells" / "always").mkdir(parents=True)
    (tmp_path / "cells" / "always" / "config.yaml").touch()
    board, used, said = run_on_gpus(tmp_path, programs, ["0", "3"], 4, retries=0)
    assert used["once"] == ["0", "3"]
    assert used["always"] == ["3", "0"]
    reason = FULL.removeprefix("hypercrl: ")
    assert [(p.status, p.attempts, p.reason) for p in board.values()] == [
        (Status.DONE, 2, reason),
        (Status.FAILED, 2, reason),
        (Status.DONE, 1, ""),
        (Status.DONE, 1, ""),
    ]
    assert (tmp_path / "cells" / "always" / "failure.txt").read_text() == reason + "\n"
    assert f"once: to be tried again ({reason})" in said
    assert f"always: given up ({reason})" in said


def test_the_only_gpu_is_tried_again_once_nobody_else_is_on_it(tmp_path):
    programs = {"first": LET_DOWN_ONCE, "second": LET_DOWN_ONCE, "fine": MOMENT, "too": MOMENT}
    board, used, _ = run_on_gpus(tmp_path, programs, ["1"], 3, retries=0)
    assert {name: len(gpus) for name, gpus in used.items()} == {
        "first": 2,
        "second": 2,
        "fine": 1,
        "too": 1,
    }
    assert all(p.status is Status.DONE for p in board.values())


def test_a_gpu_that_is_lost_does_not_draw_all_cells_to_it(tmp_path):
    """Cells end at once where the GPU is gone, so that this one always has the most room."""
    lost = f"{SHOW}\nif os.environ['CUDA_VISIBLE_DEVICES'] == '0': print('gone'); sys.exit(3)\n"
    programs = {f"c{i}": f"{lost}time.sleep(0.3)\n{DONE}" for i in range(12)}
    board, used, _ = run_on_gpus(tmp_path, programs, ["0", "1"], 2)
    assert all(p.status is Status.DONE for p in board.values())
    assert sum("0" in gpus for gpus in used.values()) <= 4


FAILING = """
import torch
from pathlib import Path
from hypercrl.methods.finetune import Finetune

ACCELERATOR = getattr(torch, "AcceleratorError", RuntimeError)


class Lost(Finetune):
    def training_step(self, batch):
        if not Path("lost").exists():
            Path("lost").touch()
            raise ACCELERATOR(
                "CUDA error: uncorrectable ECC error encountered\\nSearch for `cudaErrorECC' in "
                "https://docs.nvidia.com\\nCUDA kernel errors might be asynchronously reported"
            )
        return super().training_step(batch)
"""


@pytest.mark.usefixtures("forked_cells")
def test_a_run_whose_gpu_lets_it_down_says_so_and_is_tried_once_more(tmp_path, monkeypatch, capsys):
    """A real run; what CUDA would raise is raised by its method."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)
    words = ('method="failing:Lost"', "seed=0", "protocol.num_tasks=1", *SMALL)
    main(["bench", *words, "out=grid", "retries=0"])
    assert "to be tried again (the GPU failed: CUDA error: uncorrectable ECC error" in (
        capsys.readouterr().out
    )
    folder = Grid(words, tmp_path / "grid").cells[0].folder
    assert (folder / "result.json").exists()
    assert not (folder / FAILURE).exists()
    log = folder.with_name(f"{folder.name}.log").read_text()
    assert "Traceback" not in log
    assert log.count("the GPU") == 1


@pytest.mark.usefixtures("forked_cells")
def test_a_real_grid_with_a_killed_worker_ends_like_one_without(tmp_path, capsys):
    """One of two runs is killed at a checkpoint; the grid goes on with it to the same result."""
    straight, out = tmp_path / "straight", tmp_path / "grid"
    small = ("protocol.num_tasks=1", *SMALL)
    main(["train", "method=finetune", "seed=1", *small, f"run_dir={straight}"])
    words = ["method=finetune", "seed=0,1", *small]
    grid = Grid(words, out)
    with grid.claim():
        pass
    victim = grid.cells[1]

    class Killing(LocalWorkers):
        killed = False

        def finished(self):
            for attempt in self._running:
                checkpoint = attempt.cell.folder / "checkpoints" / "latest.safetensors"
                if attempt.cell is victim and not self.killed and checkpoint.exists():
                    attempt.process.kill()
                    self.killed = True
            return super().finished()

    workers = Killing(2)
    board = run_grid(grid.cells, workers, 2, Console(file=io.StringIO()))
    assert workers.killed
    assert [p.attempts for p in board] == [1, 2]
    assert all(p.status is Status.DONE for p in board)
    got, wanted = (
        json.loads((folder / "result.json").read_text()) for folder in (victim.folder, straight)
    )
    for key in ("scores", "success", "prediction_error", "updates"):
        assert got[key] == wanted[key]
    assert victim.progress() == (1, 90)
    assert "2 done" in progress_table(board, Console()).title
    capsys.readouterr()
    main(["bench", *words, f"out={out}"])
    said = capsys.readouterr().out
    assert "2 of 2 cells are there already" in said
    # A line or two for each task, a few for each method: not a page for each run.
    assert len(said.splitlines()) < 40
    assert (out / "report" / "index.html").exists()
    main(["report", str(out)])  # the grid's folder stands for its runs
    assert capsys.readouterr().out == said.partition("already\n")[2]


@pytest.mark.usefixtures("forked_cells")
def test_what_bench_did_not_make_it_does_not_touch(tmp_path):
    """A cell's folder with files of someone else: the cell fails, the files stay."""
    words = ["method=finetune", "seed=0", *SMALL]
    grid = Grid(words, tmp_path)
    folder = grid.cells[0].folder
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "notes").write_text("kept")
    board = run_grid(grid.cells, LocalWorkers(1), 2, Console(file=io.StringIO()))
    assert [(p.status, p.attempts) for p in board] == [(Status.FAILED, 1)]
    assert "exists already and is left as it is" in board[0].reason
    assert [p.name for p in folder.iterdir()] == ["mine"]
    assert (folder / "mine" / "notes").read_text() == "kept"


def test_no_word_is_left_in_a_run_that_someone_else_goes_on_with(tmp_path):
    cell = Cell("x", (), tmp_path / "x")
    cell.folder.mkdir()
    (cell.folder / "config.yaml").touch()
    with locked(cell.folder):
        cell.fail("it is being written to")
        assert not (cell.folder / FAILURE).exists()
    cell.fail("it diverged")
    assert (cell.folder / FAILURE).read_text() == "it diverged\n"


@pytest.mark.parametrize("last", ["null", "3", "[1]", '{"kind": "eval"}', "[" * 2000])
def test_a_damaged_record_is_no_progress_and_ends_no_grid(tmp_path, last):
    cell = Cell("a", (), tmp_path)
    assert cell.progress() is None
    good = '{"kind": "update", "env_steps": 40, "task": 2}\n'
    (tmp_path / "metrics.jsonl").write_text(3 * good + '{"kind"')
    assert cell.progress() == (2, 40)
    (tmp_path / "metrics.jsonl").write_text(3 * good + last + "\n")
    assert cell.progress() is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', "[" * 100_000, "\xff"])
def test_a_damaged_grid_says_what_to_write(tmp_path, text):
    with Grid(["seed=0", "preset=smoke"], tmp_path).claim():
        pass
    (tmp_path / "grid.json").write_text(text, encoding="latin-1")
    with (
        pytest.raises(UserError, match=r'damaged.*write into it: \{"preset": "smoke"\}'),
        Grid(["seed=0", "preset=smoke"], tmp_path).claim(),
    ):
        pass


def test_an_empty_result_is_no_end(tmp_path):
    cell = Cell("x", (), tmp_path)
    for text, done in (("", False), ("{", False), ("[]", False), ("{}", True)):
        (tmp_path / "result.json").write_text(text)
        assert cell.done is done


def test_a_cell_that_cannot_be_started_costs_no_other(tmp_path):
    (tmp_path / "cells" / "blocked.log").mkdir(parents=True)
    board, workers, said = run_stubs(tmp_path, {"blocked": DONE, "fine": DONE}, slots=1)
    assert board["blocked"].status is Status.FAILED
    assert board["fine"].status is Status.DONE
    assert workers.room(board["fine"].cell)
    assert "blocked: given up (cannot be started: [Errno 21] Is a directory" in said


BREAKS = """
import gymnasium
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv


class Breaks(ReacherEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 10:
            raise RuntimeError("the arm fell off")
        return super().step(action)


gymnasium.register("Breaks-v0", Breaks, max_episode_steps=50)
"""


@pytest.mark.usefixtures("forked_cells")
def test_a_grid_whose_cells_all_fail_is_summed_up(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "breaking_module.py").write_text(BREAKS)
    tasks = 'env.tasks=[{task: gym, id: "breaking_module:Breaks-v0"}]'
    words = ("env=gymnasium_learned", tasks, "protocol.num_tasks=1", *SMALL)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "method=finetune", "seed=0", *words, "out=grid"])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "1 of 1 cells failed" in printed
    assert printed.count("the arm fell off") == 1
    assert "given up" in (tmp_path / "grid" / "report" / "index.html").read_text()


def test_a_report_that_cannot_be_written_hides_no_failed_cell(tmp_path, capsys, monkeypatch):
    """As on a full disk: the page cannot take its place."""
    begun = "open('{folder}/metrics.jsonl', 'w'); open('{folder}/config.yaml', 'w').write("
    said = "'method: finetune\\nenv: push\\npreset: smoke\\nseed: 0'); print('the model diverged')"
    program = f"{begun}{said}; raise SystemExit(2)"
    stubs = StubWorkers(1, {f"finetune-{seed}": program for seed in (0, 1)})
    monkeypatch.setattr("hypercrl.commands.bench.LocalWorkers", lambda *_: stubs)
    out = tmp_path / "grid"
    words = ["method=finetune", "seed=0,1", *SMALL]
    with Grid(words, out).claim():
        (out / "report" / "index.html").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words, f"out={out}"])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "2 of 2 cells failed:\n  finetune-0: exit code 2: the model diverged" in printed
    assert "\n  finetune-1: exit code 2: the model diverged" in printed
    assert "no report was written: [Errno 21] Is a directory" in printed
    assert f"hypercrl report {out}" in printed


@pytest.mark.usefixtures("forked_cells")
def test_a_report_is_of_all_cells_that_ended_there(tmp_path, capsys):
    """A grid of fewer cells wrote its report in the place of the first one's, without the rest."""
    one_task = ("protocol.num_tasks=1", *SMALL)
    for seeds in ("seed=0,1", "seed=2"):
        main(["bench", "method=finetune", seeds, *one_task, f"out={tmp_path}"])
    printed = capsys.readouterr().out
    earlier = "finetune-0, finetune-1"
    assert printed.count("earlier grids") == 1
    assert f"with 2 cells of earlier grids in {tmp_path}: {earlier}" in printed
    assert "3 seeds" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.usefixtures("forked_cells")
def test_a_grid_that_has_ended_shows_its_tables_where_nothing_can_be_written(tmp_path, capsys):
    """As on a disk that is read only; it was "cannot write to". Whoever runs tests may write
    anywhere, so a folder stands in the place of the file to be locked."""
    out = tmp_path / "grid"
    words = ["bench", "method=finetune", "seed=0", "protocol.num_tasks=1", *SMALL, f"out={out}"]
    main(words)
    first = capsys.readouterr().out
    tables = first[first.index("task 1  ") :].rpartition("figures and page")[0]
    assert "finetune" in tables
    (out / ".lock").unlink()
    (out / ".lock").mkdir()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    main(words)
    said = capsys.readouterr().out
    assert f"all cells have ended, and {out} cannot be written to: nothing is written" in said
    assert tables in said
    assert "figures and page" not in said
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "cells/finetune-0/result.json").unlink()
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"hypercrl: cannot write to {out}: " in capsys.readouterr().err


def test_without_a_terminal_a_line_says_what_begins_and_what_goes_on(tmp_path):
    program = "import json, time\nfile = open('{folder}/metrics.jsonl', 'a')\n"
    for task, steps in ((1, 10), (1, 20), (2, 30)):
        record = f"json.dumps(dict(kind='plan', task={task}, env_steps={steps}))"
        program += f"print({record}, file=file, flush=True)\ntime.sleep(1)\n"
    _, _, said = run_stubs(tmp_path, {"a": program + DONE, "b": DONE}, slots=1)
    *lines, last = said.splitlines()
    assert lines[:2] == ["a (1 of 2): task 1, step 0", "a (1 of 2): task 2, step 30"]
    assert lines[2].startswith("a: done after")
    assert lines[3] == "b (2 of 2): task 1, step 0"
    assert last.startswith("b: done after")


def test_without_a_terminal_a_line_now_and_then_is_on_all_that_runs(tmp_path):
    status = [Status.DONE, Status.WAITING, *[Status.RUNNING] * (NAMED + 2)]
    board = [Progress(Cell(f"c{i}", (), tmp_path / f"c{i}"), one) for i, one in enumerate(status)]
    (tmp_path / "c2").mkdir()
    record = {"kind": "plan", "task": 3, "env_steps": 40}
    (tmp_path / "c2/metrics.jsonl").write_text(json.dumps(record) + "\n")
    console = Console(file=io.StringIO(), width=80)
    _tell_all(board, console)
    said = console.file.getvalue()
    assert said.count("\n") == 1
    assert said.startswith(
        f"1 of {len(board)} cells done; running: c2 task 3, step 40; c3 task 1, "
    )
    assert said.endswith(f"; c{NAMED + 1} task 1, step 0; 2 more\n")


def test_a_narrow_table_cuts_no_header(tmp_path):
    name = "push-chunked_hnet-0-method.beta=0.05-memory.width=16"
    board = [Progress(Cell(name, (), tmp_path), Status.FAILED, 3, reason="killed by signal 9")]
    console = Console(file=io.StringIO(), width=80)
    console.print(progress_table(board, console))
    said = console.file.getvalue()
    assert "…" not in said
    for word in ("cell", "status", "attempt", "task", "steps", "seconds", "last", "trouble"):
        assert word in said


def test_a_setting_is_left_to_the_cells_that_it_has_an_effect_on(tmp_path):
    words = ["memory=none,gru", "context.windows=4,8", "seed=0,1"]
    cells = Grid([*words, *SMALL], tmp_path).cells
    given = {cell.name: [w for w in cell.overrides if "windows" in w] for cell in cells}
    assert len(given) == len(cells) == 6  # what would be the same run is there once
    assert given["1-memory=none"] == []
    assert given["1-context.windows=8-memory=gru"] == ["context.windows=8"]
    more = Grid(["memory=none,gru", "context.windows=2,4,8", "seed=0,1", *SMALL], tmp_path).cells
    assert {cell.folder for cell in cells} < {cell.folder for cell in more}
    for words in (["memory=none,gru", "inference.window=4"], ["memory=none", "context.windows=8"]):
        with pytest.raises(UserError, match="has no effect with"):
            Grid([*words, *SMALL], tmp_path)


def test_a_cell_is_named_as_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from hypercrl.methods.si import SI\n")
    monkeypatch.syspath_prepend(tmp_path)
    (cell,) = Grid(["method=mine:SI", "seed=0"], tmp_path / "out").cells
    assert (cell.name, cell.folder.name) == ("mine:SI-0", "mine_SI-0")


def test_what_a_method_of_ones_own_ignores_is_left_to_others(tmp_path, monkeypatch):
    """A group, and what a switch of any value gives an effect, as `only_with` says it."""
    (tmp_path / "idle.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from hypercrl.methods.base import MethodConfig\n"
        "from hypercrl.methods.finetune import Finetune\n"
        "@dataclass\n"
        "class IdleConfig(MethodConfig):\n"
        "    ignores: ClassVar = {'protocol.updates': '/value.kind', 'exploration': ''}\n"
        "class Idle(Finetune):\n"
        "    config: IdleConfig\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["method=idle:Idle", "seed=0", "protocol.updates=3"]
    with pytest.raises(UserError, match=r"with method=idle:Idle and value.kind=none: give value.k"):
        Grid(words, tmp_path / "none")
    (cell,) = Grid([*words, "value.kind=td"], tmp_path / "td").cells
    assert "protocol.updates=3" in cell.overrides
    words = ["method=idle:Idle,single", "seed=0", "exploration.random_std=0.3,0.5"]
    names = [cell.name for cell in Grid(words, tmp_path / "both").cells]
    assert names == [
        "idle:Idle-0",
        "single-0-exploration.random_std=0.3",
        "single-0-exploration.random_std=0.5",
    ]


def test_of_settings_given_at_once_a_cell_has_those_that_have_an_effect_on_it(tmp_path):
    words = ["method=ftl,single", "seed=0", "protocol={updates: 5, robots: 2}"]
    ftl, single = Grid(words, tmp_path / "fixed").cells
    assert (ftl.name, single.name) == ("ftl-0", "single-0")
    assert ftl.overrides == ("method=ftl", "seed=0", "protocol.robots=2")
    assert single.overrides[2] == "protocol={updates:5,robots:2}"
    words[2] = "protocol={updates: 5, robots: 2},{updates: 6, robots: 2},{updates: 6, robots: 4}"
    words += ["planner=icem", "planner.samples=20,30"]
    cells = Grid(words, tmp_path / "swept").cells
    assert len({cell.folder for cell in cells}) == len(cells) == 2 * 2 + 3 * 2
    assert cells[0].name == "ftl-0-planner.samples=20-protocol.robots=2"
