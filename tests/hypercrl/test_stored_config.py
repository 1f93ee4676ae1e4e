"""A run's configuration as a stranger may have written it: what is read, refused, and trusted."""

import importlib
import inspect
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
import yaml
from test_command_line import TINY, message

from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir
from hypercrl.cli import main
from hypercrl.config.stored import parse_stored, read_stored, signed
from hypercrl.report import load_run
from hypercrl_envs.task_functions import is_own

OWN = 'env:\n  tasks:\n  - reward: own_rewards:paid\nrun_dir: "a:b"\n'


def written(folder, text):
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_this_user_began_needs_no_trust(tmp_path):
    path = written(tmp_path, signed(OWN))
    assert read_stored(path, trust=False)["run_dir"] == "a:b"
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert read_stored(path.rename(moved / "config.yaml"), trust=False)


def test_what_names_no_code_needs_no_trust(tmp_path):
    text = 'env:\n  tasks:\n  - task: push\nrun_dir: "a:b"\ndevice: cuda:1\nresume: "c:d"\n'
    assert read_stored(written(tmp_path, text), trust=False)


@pytest.mark.parametrize("sequence", ["walkers", "gymnasium", "gymnasium_learned"])
def test_functions_of_the_program_need_no_trust(tmp_path, sequence):
    text = (configs_dir() / "env" / f"{sequence}.yaml").read_text(encoding="utf-8")
    assert ":" in "".join(str(value) for value in yaml.safe_load(text)["tasks"][0].values())
    assert read_stored(written(tmp_path, text), trust=False)


@pytest.mark.parametrize("module", ["gym_rewards", "terminations"])
def test_nothing_but_functions_of_tensors_may_be_named(module):
    found = importlib.import_module(f"hypercrl_envs.{module}")
    for name in vars(found):
        function = getattr(found, name)
        public = inspect.isfunction(function) and function.__module__ == found.__name__
        assert public or not is_own(f"{found.__name__}:{name}")
    for name in found.__all__:
        hints = get_type_hints(getattr(found, name))
        assert set(hints.values()) == {torch.Tensor}
        assert is_own(f"{found.__name__}:{name}")


@pytest.mark.parametrize(
    "text",
    [
        "env: {tasks: [{reward: 'hypercrl_envs.terminations:torch'}]}\n",
        "env: {tasks: [{reward: 'hypercrl_envs.gym_rewards:_forward'}]}\n",
        "env: {tasks: [{reward: 'hypercrl_envs.gym_rewards:terminations.torch'}]}\n",
        "env: {tasks: [{reward: 'hypercrl_envs.plugins:imported'}]}\n",
        "env: {tasks: [{reward: 'hypercrl.base.files:write_atomically'}]}\n",
        "env: {tasks: [{id: 'hypercrl_envs.gym_rewards:Hopper-v5'}]}\n",
        "env: {tasks: [{reward: 'hypercrl_envs.terminations:hopper', id: 'mine:Hopper-v5'}]}\n",
        OWN,  # of old, or of another program
        signed(OWN).replace("paid", "other"),
        signed(OWN)[:-10] + "0" * 9 + "\n",
        signed(OWN) + "method:\n  name: pkg.mod:Class\n",
        "# signature: \n" + OWN,
        signed("seed: 0\n") + OWN,
        "env:\n- {'module:Name': 1}\n",
        "method: 'odd-name :x'\n",
    ],
)
def test_a_strangers_code_needs_trust(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=r"not as hypercrl wrote it for you.* give trust=true"):
        read_stored(path, trust=False)
    assert read_stored(path, trust=True)
    assert parse_stored(path)[0]  # to be looked at


def test_another_users_signature_is_a_strangers(tmp_path, monkeypatch):
    path = written(tmp_path, signed(OWN))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    for _ in range(2):  # the second time with a key of its own
        with pytest.raises(UserError, match="trust=true"):
            read_stored(path, trust=False)
        assert signed(OWN) != path.read_text()
    key = tmp_path / "another" / "hypercrl" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [p.name for p in key.parent.iterdir()] == ["key"]


def test_where_no_key_can_be_kept_nothing_is_signed_and_nothing_breaks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/proc")
    assert signed(OWN) == OWN
    with pytest.raises(UserError, match="trust=true"):
        read_stored(written(tmp_path, OWN), trust=False)


def test_keys_made_at_the_same_time_are_one(tmp_path):
    program = "import sys\nfrom hypercrl.config.stored import signed\nprint(signed('x: 1\\n'))"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
        for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in processes}) == 1


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB.encode(), "it has an alias"),
        (b"seed: &one 1\n", "it has an alias"),
        (b"seed: !!python/object/apply:os.getcwd []\n", "it has the tag"),
        (b"seed: !!int 3\n", "it has the tag"),
        (b"seed: ${oc.env:HOME}\n", "it refers to other values"),
        (b"env: {tasks: [{id: '${seed}'}]}\n", "it refers to other values"),
        (b"a: " + b"[" * 100_000, "nest"),
        (b"a: " + b"[" * 40 + b"]" * 40, "nested more than 32 deep"),
        (b"a: 1\n" * 300_000, "more than 1048576 bytes"),
        (b"a: 1\na: 2\n", "found duplicate key"),
        (b"a: [1\n", "expected ',' or ']'"),
        (b"\xff\xfe\xff", "can't decode|invalid|unacceptable"),
        (b"- 1\n", "not a mapping"),
        (b"", "it is empty"),
        (b"3", "not a mapping"),
        (b"a: 1\n---\nb: 2\n", "not a mapping"),
        (b"? [a]\n: 1\n", "damaged"),
    ],
)
def test_what_this_program_never_writes_is_refused_at_once(tmp_path, content, reason):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes(content)
    (run / "metrics.jsonl").touch()
    began = time.monotonic()
    for read in (lambda p: read_stored(p / "config.yaml", trust=True), load_run):
        with pytest.raises(UserError, match=reason):
            read(run)
    assert time.monotonic() - began < 20


def test_a_strangers_code_is_imported_only_when_told(tmp_path, capsys, monkeypatch):
    """The code is ours, and leaves a file where it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("strange_rewards.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\n"
        "def paid(obs, action, next_obs):\n    return -next_obs.square().sum(-1)\n"
    )
    task = '{task: gym, id: Reacher-v5, reward: "strange_rewards:paid"}'
    main(["train", *TINY, f"env.tasks=[{task}]", "run_dir=run"])
    sys.modules.pop("strange_rewards")
    Path("imported").unlink()
    Path("run/result.json").unlink()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # now it is someone else
    export = ["export", "run=run", "format=torch_export", "part=dynamics", "out=model.pt2"]
    for words in (["train", "resume=run"], ["play", "run=run", "episodes=1"], export):
        assert "'strange_rewards:paid'" in message(capsys, *words)
        assert not Path("imported").exists()
    main(["report", "run"])
    assert not Path("imported").exists()
    main(["play", "run=run", "episodes=1", "trust=true"])
    assert Path("imported").exists()
    main([*export, "trust=true"])
    assert Path("model.pt2").exists()
    main(["train", "resume=run", "trust=true"])
    assert Path("run/result.json").exists()
