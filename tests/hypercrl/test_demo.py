"""The agent that comes with the program, and folders that hold an agent alone, as it is one."""

import hashlib
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from tiny_runs import MEMORY, SETTINGS

import hypercrl
from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.config.stored import read_stored
from hypercrl.runs.demos import DEMOS, demo_names
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.open_run import open_run
from scripts.make_demo import main as make_demo_as_a_script
from scripts.make_demo import make_demo

DEMO = "push_demo"
MOST_BYTES = 3_000_000


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def beside_nothing(tmp_path, monkeypatch):
    """In an empty folder; what comes with the program stays as it is."""
    monkeypatch.chdir(tmp_path)
    before = contents(DEMOS)
    yield
    assert contents(DEMOS) == before


@pytest.fixture(params=["hnet", "memory", "packnet", "inferred"])
def trained(request, short_episodes, tmp_path):
    more = {
        "hnet": {},
        "memory": MEMORY,
        "packnet": {"method": "packnet"},
        "inferred": {"task_id": "inferred"},
    }
    hypercrl.train(**{**SETTINGS, **more[request.param]}, run_dir=tmp_path / "full")
    return tmp_path / "full"


def refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in error
    return error


def test_the_demo_is_small_and_names_no_code():
    assert demo_names() == [DEMO]
    assert sum(path.stat().st_size for path in DEMOS.rglob("*") if path.is_file()) <= MOST_BYTES
    assert not list(DEMOS.rglob(".*"))
    # Nothing that would need trust, of which there is none on the machine of another user.
    config = read_stored(DEMOS / DEMO / "config.yaml", trust=False)
    assert ":" not in json.dumps(config, separators=("", ""))


def test_the_demo_is_a_run_of_the_evidence():
    from evidence_grid import EvidenceCell
    from evidence_records import FOLDER, packed, read_lines

    header, *records = read_lines(FOLDER / "push_small.jsonl")
    seed = read_stored(DEMOS / DEMO / "config.yaml", trust=False)["seed"]
    cell = EvidenceCell("push_small", "hnet", seed)
    (kept,) = (record for record in records if record["cell"] == cell.name)
    shipped = packed(cell, DEMOS / DEMO, kept["git"])
    assert shipped == {**kept, "settings": {**header["settings"], **kept["settings"]}}
    assert shipped["success"][-1] == [1.0, 1.0, 1.0]


def test_the_demo_plays_all_its_tasks_to_success_and_films_them(tmp_path, capsys):
    main(["play", f"run={DEMO}", "size=64"])
    *lines, said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/3:", "2/3:", "3/3:"]
    assert all(re.search(r"episode 1: .* in 60 steps, success", line) for line in lines)
    assert said == f"video: {DEMO}.mp4"
    film = imageio.imread(tmp_path / f"{DEMO}.mp4")
    assert film.shape == (60, 64, 3 * 64, 3)
    assert (film[0] != film[-1]).any()


def test_the_demo_is_played_as_asked(short_episodes, tmp_path, capsys):
    main(["play", f"run={DEMO}", "video=null", "episodes=2", "task=2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["2/3:", "2/3:"]
    assert not list(tmp_path.iterdir())


def test_a_second_video_leaves_the_first_as_it_is(short_episodes, tmp_path, capsys):
    (tmp_path / f"{DEMO}.mp4").write_bytes(b"of yesterday")
    main(["play", f"run={DEMO}", "size=64", "task=1"])
    assert capsys.readouterr().out.splitlines()[-1] == f"video: {DEMO}_2.mp4"
    assert (tmp_path / f"{DEMO}.mp4").read_bytes() == b"of yesterday"
    assert (tmp_path / f"{DEMO}_2.mp4").stat().st_size


def test_the_demo_is_loaded_by_name():
    agent = hypercrl.load(DEMO, task=3)
    assert "500 | 100" in agent.caption
    assert repr(agent) == f"TrainedAgent(task=3, caption={agent.caption!r})"
    env = agent.make_env()
    obs, _ = env.reset(seed=0)
    info, over = {}, False
    while not over:
        obs, _, terminated, truncated, info = env.step(agent.act(obs))
        over = terminated or truncated
    assert info["success"]


def test_a_folder_of_that_name_wins(tmp_path):
    shutil.copytree(DEMOS / DEMO, tmp_path / DEMO)
    file = tmp_path / DEMO / "config.yaml"
    file.write_text(file.read_text().replace("- 100\n    - 500", "- 120\n    - 500"))
    assert "120" in hypercrl.load(DEMO, task=2).caption
    shutil.rmtree(tmp_path / DEMO)
    (tmp_path / DEMO).mkdir()
    with pytest.raises(UserError, match="There is no run"):
        hypercrl.load(DEMO)


def test_other_names_are_no_demos():
    for name in ("nothing", ".", f"./elsewhere/{DEMO}", "../demos/push_demo", ""):
        with pytest.raises(UserError, match=f"There is no run at .*{DEMO} comes with hypercrl"):
            RunFolder.open(type(DEMOS)(name))


def test_the_demo_cannot_be_trained_on(capsys):
    assert "comes with hypercrl" in refused(["train", f"resume={DEMO}"], capsys)


def test_the_demo_is_reported_on_beside_the_user(tmp_path, capsys):
    main(["report", DEMO])
    assert "after task 3     1.00" in capsys.readouterr().out
    assert (tmp_path / "runs/report/index.html").is_file()


def test_an_agent_alone_acts_as_the_run_it_was_made_of_bit_for_bit(trained, tmp_path):
    size = make_demo(trained, tmp_path / "slim")
    files = sorted(p for p in (tmp_path / "slim").rglob("*") if p.is_file())
    names = ["latest.safetensors", "config.yaml", "metrics.jsonl", "result.json"]
    assert [path.name for path in files] == names
    assert size == sum(path.stat().st_size for path in files)
    assert "full" not in (tmp_path / "slim/config.yaml").read_text()
    agents = [hypercrl.load(path, task=2, seed=3) for path in (trained, tmp_path / "slim")]
    env = agents[0].make_env()
    obs, _ = env.reset(seed=0)
    for _ in range(12):
        full, slim = (agent.act(obs) for agent in agents)
        np.testing.assert_array_equal(full, slim)
        next_obs, *_ = env.step(full)
        for agent in agents:
            agent.observe(obs, full, next_obs)
        obs = next_obs
    methods = [open_run(path, "cpu").method for path in (trained, tmp_path / "slim")]
    full, slim = (method.state_dict() for method in methods)
    assert full.keys() == slim.keys()
    assert all(torch.equal(full[name], slim[name]) for name in full)


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python is older than 3.11.4")
def test_an_agent_that_came_back_as_an_archive_becomes_a_demo(tmp_path, monkeypatch):
    with tarfile.open("agent.tar.gz", "w:gz") as tar:
        tar.add(DEMOS / DEMO, "push_small_hnet_0")
    monkeypatch.setattr(sys, "argv", ["make_demo.py", "agent.tar.gz", "mine"])
    make_demo_as_a_script()
    mine, shipped = contents(tmp_path / "mine"), contents(DEMOS / DEMO)
    assert mine.keys() == shipped.keys()
    written = {path for path in mine if mine[path] == shipped[path]}
    assert written >= {Path("result.json"), Path("metrics.jsonl")}  # others are written anew
    agents = [hypercrl.load(name, task=3, seed=0) for name in (tmp_path / "mine", DEMO)]
    obs, _ = agents[0].make_env().reset(seed=0)
    mine_acts, shipped_acts = (agent.act(obs) for agent in agents)
    np.testing.assert_array_equal(mine_acts, shipped_acts)
    with tarfile.open("agent.tar.gz", "w:gz"):
        pass
    with pytest.raises(SystemExit, match="is to hold one run, and holds 0"):
        make_demo_as_a_script()


def test_what_cannot_be_looked_at_is_not_unpacked(monkeypatch):
    """By a Python from before 3.11.4."""
    with tarfile.open("agent.tar.gz", "w:gz") as tar:
        tar.add(DEMOS / DEMO, "agent")
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(sys, "argv", ["make_demo.py", "agent.tar.gz", "mine"])
    with pytest.raises(SystemExit, match=r"Unpack agent\.tar\.gz yourself"):
        make_demo_as_a_script()


@pytest.mark.parametrize("trained", ["hnet"], indirect=True)
def test_an_agent_alone_is_not_trained_on_and_has_no_replay(trained, tmp_path, capsys):
    slim = tmp_path / "slim"
    make_demo(trained, slim)
    whole, alone = (RunFolder(path).load_checkpoint(LATEST) for path in (trained, slim))
    assert set(whole) > set(alone) == {"method", "labels"}
    assert not any(alone["method"]["optimisers"])
    assert "has ended" in refused(["train", f"resume={slim}"], capsys)
    words = ["export", f"run={slim}", "source=replay", f"out={tmp_path / 'set'}"]
    assert "without its replay" in refused(words, capsys)
    main(["report", str(slim)])
    (slim / "result.json").unlink()
    assert "holds an agent to play and load" in refused(["train", f"resume={slim}"], capsys)
    with pytest.raises(UserError, match="has not ended"):
        make_demo(slim, tmp_path / "slimmer")
    with pytest.raises(UserError, match="exists already"):
        make_demo(trained, slim)
