"""Trackers: what they hold after a kill and a resumption is what metrics.jsonl holds, each once."""

import importlib
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest

from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.runs import trackers
from hypercrl.runs.trackers import chosen, scalars
from hypercrl.runs.trackers.follower import Follower

TINY = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "protocol.planned_steps=150",
    "protocol.heldout_episodes=1",
    "protocol.final_episodes=1",
    "protocol.checkpoint_every=10",
)

STANDS_STILL = """
import sys, time
from hypercrl.cli import main
from hypercrl.training.trainer import Trainer

act, steps = Trainer._act, iter(range(125))

def act_or_stand_still(self, planned):
    if next(steps, None) is None:
        print("stands still", flush=True)
        time.sleep(600)
    act(self, planned)

Trainer._act = act_or_stand_still
main(sys.argv[1:])
"""
"""The command line, up to half of the way between two checkpoints."""


@pytest.fixture(autouse=True, scope="module")
def _trackio_of_these_tests(tmp_path_factory):
    """Trackio looks once, as it is imported, where its databases are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


@pytest.fixture(autouse=True)
def _project_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKIO_PROJECT", tmp_path.name)


def records_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def points_of(run):
    """Name → its (step, value), as metrics.jsonl has them."""
    points = defaultdict(list)
    for record in records_of(run):
        for name, value in scalars(**record).items():
            points[name].append((record["env_steps"], value))
    return points


def wandb_records(data):
    """Records of a .wandb file: LevelDB's log format, behind a header of seven bytes."""
    block, place, parts = 32768, 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # no header fits: the rest of the block is empty
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def identity_of(run, name):
    return json.loads((run / f"trackers/{name}.json").read_text())["identity"]


def held_by_wandb(run, runs):
    """From the file that `wandb sync` sends."""
    proto = importlib.import_module("wandb.proto.wandb_internal_pb2")
    points = defaultdict(list)
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    assert identity_of(run, "wandb")["id"] in file.name
    assert len(list(run.parent.glob("*/wandb/offline-run-*"))) == runs
    for data in wandb_records(file.read_bytes()):
        record = proto.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
                for item in record.history.item
            }
            step = items.pop("env_steps")
            for name, value in items.items():
                if not name.startswith("_"):
                    points[name].append((step, value))
    return points


def held_by_trackio(run, runs):
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    project = os.environ["TRACKIO_PROJECT"]
    names = storage.get_runs(project)
    assert len(names) == runs
    name = identity_of(run, "trackio")["name"]
    assert name in names
    points = defaultdict(list)
    for log in storage.get_logs(project, name):
        for key, value in log.items():
            if key not in ("step", "timestamp"):
                points[key].append((log["step"], value))
    return points


def held_by_mlflow(run, runs):
    client = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{run.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("hypercrl")
    assert len(client.search_runs([experiment.experiment_id])) == runs
    held = client.get_run(identity_of(run, "mlflow")["run_id"])
    assert held.info.status == "FINISHED"
    assert held.data.params["method.name"] == "finetune"
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(held.info.run_id, name)]
        for name in held.data.metrics
    }


HELD = {"wandb": held_by_wandb, "trackio": held_by_trackio, "mlflow": held_by_mlflow}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.extra(n)) for n in HELD])
def test_a_killed_and_resumed_run_is_one_run_without_doubled_points(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / "run"
    words = [*TINY, f"logger=[tensorboard,{name}]", "run_dir=run"]
    process = subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL, "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = list(itertools.takewhile(lambda line: line != "stands still\n", process.stdout))
    assert process.poll() is None, said
    time.sleep(3)  # trackio writes in a thread, twice a second
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "result.json").exists()
    main(["train", "resume=run"])
    wanted, held = points_of(run), HELD[name](run, runs=1)
    assert json.loads((run / f"trackers/{name}.json").read_text())["sent"] == len(records_of(run))
    assert held.keys() == wanted.keys()
    for key, points in wanted.items():
        assert sorted(held[key]) == sorted(points), key


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.extra(n)) for n in HELD])
def test_a_copy_that_is_resumed_is_a_run_of_its_own(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    main(["train", *TINY, f"logger={name}", "run_dir=run"])
    before = identity_of(tmp_path / "run", name)
    shutil.copytree("run", "copy", symlinks=True)  # of its logs, which wandb may not have yet
    (tmp_path / "copy/result.json").unlink()  # as before its end
    main(["train", "resume=copy"])
    assert identity_of(tmp_path / "run", name) == before
    for run in (tmp_path / "run", tmp_path / "copy"):
        wanted, held = points_of(run), HELD[name](run, runs=2)
        assert held.keys() == wanted.keys()
        for key, points in held.items():
            assert len(points) == len(wanted[key])


class Stub:
    anew = False

    def __init__(self, fails=()):
        self.got, self.fails, self.finished = [], list(fails), None

    def send(self, records):
        if self.fails and self.fails.pop(0):
            raise OSError("the server is away")
        self.got += records

    def close(self, finished):
        self.finished = finished


@pytest.fixture
def stub(monkeypatch):
    tracker = Stub()
    monkeypatch.setattr("hypercrl.runs.trackers.follower.open_tracker", lambda *_: tracker)
    return tracker


def test_what_no_checkpoint_holds_is_not_sent(tmp_path, stub):
    killed = Follower("wandb", tmp_path, {}, [])
    killed.add(1)
    killed.send()
    killed.add("lost")
    resumed = Follower("wandb", tmp_path, {}, [1])
    resumed.add(2)
    resumed.send()
    resumed.close(True)
    assert stub.got == [1, 2]
    assert stub.finished is True


def test_a_kill_before_sending_is_made_up_for(tmp_path, stub):
    Follower("wandb", tmp_path, {}, []).add(1)  # and a checkpoint was written, but nothing sent
    resumed = Follower("wandb", tmp_path, {}, [1])
    resumed.add(2)
    resumed.send()
    assert stub.got == [1, 2]


def test_going_back_further_than_was_sent_doubles_nothing(tmp_path, stub):
    first = Follower("wandb", tmp_path, {}, [])
    for record in (1, 2, 3):
        first.add(record)
    first.send()
    again = Follower("wandb", tmp_path, {}, [1])
    for record in (2, 3, 4):
        again.add(record)
    again.send()
    assert stub.got == [1, 2, 3, 4]


def test_a_tracker_that_begins_anew_gets_all(tmp_path, stub):
    first = Follower("wandb", tmp_path, {}, [])
    first.add(1)
    first.send()
    stub.anew = True
    again = Follower("wandb", tmp_path, {}, [1])
    again.add(2)
    again.send()
    assert stub.got == [1, 1, 2]


@pytest.fixture
def named(monkeypatch):
    """Trackers whose runs are numbered, and what each of these was sent."""
    sent = defaultdict(list)

    class Numbered(Stub):
        def __init__(self, run):
            super().__init__()
            self.got = sent[run.identity.setdefault("id", str(len(sent)))]

    monkeypatch.setattr(
        "hypercrl.runs.trackers.follower.open_tracker", lambda _, run: Numbered(run)
    )
    return sent


def follow(path, kept, *records):
    follower = Follower("wandb", path, {}, kept)
    for record in records:
        follower.add(record)
    follower.send()


def test_a_copied_run_begins_a_run_of_its_own_with_all_records(tmp_path, named, capsys):
    follow(tmp_path / "run", [], 1, 2)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    follow(tmp_path / "copy", [1, 2], "other")
    follow(tmp_path / "run", [1, 2], 3)
    follow(tmp_path / "copy", [1, 2, "other"], "more")
    assert named == {"0": [1, 2, 3], "1": [1, 2, "other", "more"]}
    (said,) = capsys.readouterr().err.splitlines()
    wanted = f"hypercrl: {tmp_path / 'copy'} is a copy of {tmp_path / 'run'}, and begins a run"
    assert said.startswith(wanted)


def test_a_moved_run_goes_on_with_its_own(tmp_path, named, capsys):
    follow(tmp_path / "run", [], 1)
    (tmp_path / "run").rename(tmp_path / "moved")
    follow(tmp_path / "run", [], "another")  # in the same place
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    follow(tmp_path / "link", [1], 2)
    follow(tmp_path / "moved", [1, 2], 3)
    follow(tmp_path / "link", [1, 2, 3], 4)
    assert named == {"0": [1, 2, 3, 4], "1": ["another"]}
    assert not capsys.readouterr().err


def test_a_run_of_an_older_version_goes_on(tmp_path, named):
    follow(tmp_path / "run", [], 1)
    file = tmp_path / "run/trackers/wandb.json"
    stored = json.loads(file.read_text())
    del stored["folder"]
    file.write_text(json.dumps(stored))
    follow(tmp_path / "run", [1], 2)
    assert named == {"0": [1, 2]}


def test_a_tracker_that_fails_leaves_a_gap_and_the_run_goes_on(tmp_path, stub, capsys):
    stub.fails = [True]
    follower = Follower("wandb", tmp_path, {}, [])
    follower.add(1)
    follower.send()
    follower.add(2)
    follower.send()
    assert stub.got == [2]
    said = capsys.readouterr().err
    assert said == (
        "hypercrl: wandb failed (the server is away): 1 records are not there, but in "
        "metrics.jsonl\n"
    )


@pytest.mark.parametrize("there", [False, True])
def test_a_tracker_that_cannot_be_had_leaves_no_run(there, tmp_path, monkeypatch, capsys):
    """As wandb without a key: what it advises was refused then, as the folder was there."""

    def begin(run):
        (run.path / "wandb").mkdir()
        raise OSError("No API key configured.")

    module = SimpleNamespace(begin=begin, OFFLINE="WANDB_MODE=offline hypercrl train ...")
    monkeypatch.setitem(sys.modules, "hypercrl.runs.trackers.wandb", module)
    monkeypatch.setattr("hypercrl.training.run.chosen", list)
    monkeypatch.setattr("hypercrl.training.trainer.chosen_trackers", list)
    run = tmp_path / "runs/mine"
    if there:
        run.mkdir(parents=True)
    words = ["train", *TINY, f"run_dir={run}"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "logger=[tensorboard,wandb]"])
    assert ended.value.code == 2
    assert "logger=wandb: no run there (No API key configured.)." in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == (["runs", "mine"] if there else [])


def test_where_one_tracker_cannot_be_had_the_run_of_another_is_closed(
    tmp_path, monkeypatch, capsys
):
    """It stayed open, as one that is being trained, until the process ended, and then came into
    the folder that had gone away again."""
    run, closed = tmp_path / "runs/mine", []

    class Open:
        anew = False

        def send(self, records):
            assert not records

        def close(self, finished):
            (run / "mlflow").mkdir()  # what it writes at its end
            closed.append(finished)

    def begin(_):
        raise OSError("No API key configured.")

    for name, function in {"mlflow": lambda _: Open(), "wandb": begin}.items():
        module = SimpleNamespace(begin=function, OFFLINE="WANDB_MODE=offline hypercrl train ...")
        monkeypatch.setitem(sys.modules, f"hypercrl.runs.trackers.{name}", module)
    monkeypatch.setattr("hypercrl.training.run.chosen", list)
    monkeypatch.setattr("hypercrl.training.trainer.chosen_trackers", list)
    with pytest.raises(SystemExit) as ended:
        main(["train", *TINY, f"run_dir={run}", "logger=[mlflow,wandb]"])
    assert ended.value.code == 2
    assert "logger=wandb: no run there (No API key configured.)." in capsys.readouterr().err
    assert closed == [False]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("logger", "wanted"),
    [
        ("tensorbord", "Did you mean 'tensorboard'?"),
        ("[tensorboard,wandbb]", "Did you mean 'wandb'?"),
        ("null", "logger is of tensorboard, wandb, trackio, mlflow, not null (logger=[] is none)"),
        ("wandb", 'pip install "hypercrl[wandb]"'),
    ],
)
def test_a_wrong_or_missing_logger_is_one_message(tmp_path, monkeypatch, capsys, logger, wanted):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        main(["train", *TINY, f"logger={logger}", f"run_dir={tmp_path / 'run'}"])
    assert ended.value.code == 2
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.extra("trackio")
def test_trackio_says_once_that_a_run_has_finished_and_when(tmp_path, capfd):
    """The second job of a multirun finished the first one's again, in its midst, and the exit the
    last one's; and it was said before the last task's line."""
    words = ["protocol.num_tasks=1", "protocol.planned_steps=12", "logger=trackio"]
    main(["train", "-m", *TINY, *words, "seed=0,1", f"run_dir={tmp_path / 'runs'}"])
    importlib.import_module("trackio")._cleanup_current_run()  # as at the exit
    said = [
        line.split(" push ")[0].split(":")[0]
        for line in capfd.readouterr().out.splitlines()
        if line.startswith(("task 1/1", "* Run finished", "* Created new run"))
    ]
    assert (
        said
        == [
            "* Created new run",
            "task 1/1",
            "* Run finished. Uploading logs to Trackio (please wait...)",
        ]
        * 2
    )


def test_one_logger_several_or_none():
    assert chosen("tensorboard") == chosen(["tensorboard", "tensorboard"]) == ["tensorboard"]
    assert chosen([]) == []
    with pytest.raises(UserError):
        chosen(["tensorboard", "none"])
