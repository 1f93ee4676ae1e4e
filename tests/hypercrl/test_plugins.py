"""Methods, planners, memories and tasks of others, and settings in files beside the user."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hypercrl import load
from hypercrl.base.errors import UserError
from hypercrl.bench import Cell, Grid
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.sources import config_folder, own_folders
from hypercrl.methods import METHODS
from hypercrl.runs.needs import check_needs, write_needs
from hypercrl_envs import make_task, plugins
from hypercrl_envs.plugins import installed

ROOT = Path(__file__).parents[2]
TINY = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "protocol.random_steps=40",
    "protocol.planned_steps=6",
    "protocol.eval_every=6",
    "protocol.update_every=3",
    "protocol.updates=2",
    "protocol.final_episodes=1",
    "protocol.checkpoint_every=5",
    "planner.samples=8",
    "planner.elites=2",
)
CHOSEN = ("method=l2", "planner=momentum", "memory=means", "env=reach")
WINDOWS = ("context.burn_in=4", "context.horizon=4")
MODULES = {
    "l2": "own_method",
    "momentum": "own_planner",
    "means": "own_encoder",
    "reach": "own_task",
}
POINTS = """
[hypercrl.methods]
l2 = arm_extras.l2:Windowed

[hypercrl.planners]
momentum = arm_extras.momentum:Momentum

[hypercrl.memories]
means = arm_extras.means:Means

[hypercrl.tasks]
reach = arm_extras.reach:Reach
"""
WINDOWED = """
class Windowed(L2):
    conditionings = ("input",)
"""


def install(folder, points=POINTS, package="arm-extras", version="1.2"):
    """Have pip install a package into a folder: the examples, under names of its own."""
    module = package.replace("-", "_")
    files = {f"{module}/__init__.py": ""}
    for name, example in MODULES.items():
        files[f"{module}/{name}.py"] = (ROOT / f"examples/{example}.py").read_text()
    files[f"{module}/l2.py"] += WINDOWED
    info = f"{module}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = points
    digests = {name: hashlib.sha256(text.encode()).digest() for name, text in files.items()}
    encoded = {n: base64.urlsafe_b64encode(d).decode().rstrip("=") for n, d in digests.items()}
    lines = [f"{name},sha256={encoded[name]},{len(files[name].encode())}\n" for name in files]
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder.parent / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("arm_extras") / "site")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what is imported from beside the tests is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("arm_extras", "mine")):
            del sys.modules[name]


@pytest.fixture
def plugged(here, site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    return here


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


def forget(monkeypatch, folder):
    """As in a process that never had that folder among the installed packages."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    for name in [name for name in sys.modules if name.startswith("arm_extras")]:
        monkeypatch.delitem(sys.modules, name)


def weights(run):
    tensors = safetensors.torch.load_file(run / "checkpoints/latest.safetensors")
    return {name: x for name, x in tensors.items() if x.dtype == torch.float32}


def hypercrl(folder, *words, path=()):
    """A process of its own, with these folders among the installed packages."""
    folders = (*path, ROOT, ROOT / "envs", ROOT / "kernels")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-m", "hypercrl", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_what_pip_installed_is_found(plugged):
    assert {name: points[0].value for name, points in installed("methods").items()} == {
        "l2": "arm_extras.l2:Windowed"
    }
    found, settings = METHODS["l2"]
    assert (found.__name__, settings.__name__) == ("Windowed", "L2Config")
    assert make_task("reach", direction=90).caption == "reach 0.1 m at 90°"
    assert "l2" not in METHODS
    assert "l2" not in list(METHODS)


def test_packages_are_looked_through_once_for_all_kinds(plugged, monkeypatch):
    looked = []
    monkeypatch.setattr(plugins, "entry_points", lambda: looked.append(1) or entry_points())
    plugins._offers.cache_clear()
    found = {kind: installed(kind) for kind in plugins.KINDS}
    assert all(found.values())
    assert len(looked) == 1


def test_a_package_that_comes_into_a_folder_is_found_and_one_that_goes_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    assert "late" not in installed("methods")
    info = tmp_path / "late-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[hypercrl.methods]\nlate = late:Late\n")
    assert "late" in installed("methods")
    shutil.rmtree(info)
    assert "late" not in installed("methods")


def test_all_four_kinds_train_resume_and_play(plugged, site, train_and_stop, capsys, monkeypatch):
    words = (*CHOSEN, "method.strength=3", "memory.spans=[2,4]", "env.tasks.0.direction=30")
    main(["train", *TINY, *WINDOWS, *words, "run_dir=whole"])
    config = (plugged / "whole/config.yaml").read_text()
    for line in ("strength: 3.0", "direction: 30", "momentum: 0.1", "name: reach"):
        assert line in config
    result = json.loads((plugged / "whole/result.json").read_text())
    assert (result["method"], result["memory"]) == ("l2", "means")

    needs = json.loads((plugged / "whole/needs.json").read_text())
    assert {(n["setting"], n["name"], n["module"]) for n in needs} == {
        ("method", "l2", "arm_extras.l2"),
        ("planner", "momentum", "arm_extras.momentum"),
        ("memory", "means", "arm_extras.means"),
        ("env.tasks.0.task", "reach", "arm_extras.reach"),
    }
    assert {(n["package"], n["version"], n["folder"]) for n in needs} == {
        ("arm-extras", "1.2", None)
    }

    train_and_stop(*TINY, *WINDOWS, *words, "run_dir=killed", after=43)
    main(["train", "resume=killed"])
    whole, resumed = weights(plugged / "whole"), weights(plugged / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    capsys.readouterr()
    main(["play", "run=whole", "episodes=1"])
    assert "reach 0.1 m at 30°" in capsys.readouterr().out

    # Elsewhere, in a process that never had it.
    elsewhere = plugged / "elsewhere"
    elsewhere.mkdir()
    (plugged / "killed/result.json").unlink()
    done = hypercrl(elsewhere, "train", "resume=../killed")
    assert done.returncode == 2
    forget(monkeypatch, site)
    for said in (done.stderr, refused(capsys, "play", "run=whole")):
        assert said.count("hypercrl: ") == 1
        assert "Traceback" not in said
        for need in needs:
            told = f"{need['setting']}={need['name']}: module {need['module']}, package arm-extras"
            assert f"{told} 1.2" in said
    main(["report", "whole"])


def test_another_version_is_told(here, tmp_path, monkeypatch):
    need = {"setting": "method", "name": "l2", "module": "arm_extras.l2", "folder": None}
    (tmp_path / "needs.json").write_text(
        json.dumps([{**need, "package": "arm-extras", "version": "1.2"}])
    )
    monkeypatch.syspath_prepend(str(install(tmp_path / "newer" / "site", version="1.3")))
    with pytest.warns(UserWarning, match=r"begun with arm-extras 1\.2; here it is 1\.3"):
        check_needs(tmp_path)


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '[{"name": "x"}]', "null"])
def test_a_damaged_list_of_needs_is_one_message(tmp_path, text):
    (tmp_path / "needs.json").write_text(text)
    if text == "{}":
        check_needs(tmp_path)  # needs nothing
        return
    with pytest.raises(UserError, match="is damaged"):
        check_needs(tmp_path)


MINE = """
from dataclasses import dataclass
from hypercrl.base.settings import choice, number
from hypercrl.methods import Method, MethodConfig
from hypercrl.methods.gradient import SharedMethod

@dataclass
class MineConfig(MethodConfig):
    decay: float = number(0.1, least=0)
    kind: str = choice("soft", "soft", "hard")

class Mine(SharedMethod):
    config: MineConfig

@dataclass
class EvenConfig(MethodConfig):
    width: int = 2

    def __post_init__(self):
        if self.width % 2:
            raise ValueError("width is to be even")

class Even(SharedMethod):
    config: EvenConfig

class Undecorated(MethodConfig):
    decay: float = 0.1

class Plain(SharedMethod):
    config: Undecorated

class Stranger(SharedMethod):
    config: dict

class Unresolved(SharedMethod):
    config: "Nowhere"

class Half(Method):
    config: MineConfig

class Usual(SharedMethod):
    pass

@dataclass
class OddConfig(MethodConfig):
    what: set = None

class Odd(SharedMethod):
    config: OddConfig
"""


@pytest.fixture
def mine(here):
    (here / "mine.py").write_text(MINE)
    (here / "mine_broken.py").write_text("import nothing_of_that_name\n")
    return here


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["method=mine:Mine", "method.decya=1"], "'method.decya'. Did you mean 'method.decay'"),
        (["method=mine:Mine", "+method.decya=1"], "Did you mean 'method.decay'"),
        (["method=mine:Mine", "method.decay=-1"], "method.decay must be at least 0"),
        (["method=mine:Mine", "method.decay=much"], "method.decay is a number, such as"),
        (["method=mine:Mine", "method.kind=firm"], "method.kind is one of soft, hard"),
        (["method=mine:Nine"], "method 'mine:Nine': mine has no 'Nine'"),
        (["method=mine_broken:X"], "'nothing_of_that_name' (mine_broken.py, line 1)"),
        (["method=nowhere.mine:X"], "method 'nowhere.mine:X': there is no module 'nowhere': write"),
        (["method=mine:"], 'write "package.module:name"'),
        (["method=mine:MineConfig"], "no class that inherits from Method"),
        (["method=mine:Half"], "Half lacks _add_task, _new_optimisers, _weights, training_step"),
        (["method=mine:Plain"], "write @dataclass above Undecorated"),
        (["method=mine:Stranger"], "a dataclass that inherits from MethodConfig"),
        (["method=mine:Unresolved"], "annotate `config`"),
        (["method=mine:Odd"], "OddConfig"),
        (["method=mine:Even", "method.width=3"], "its settings cannot be: width is to be even"),
        (["planner=mine:Mine"], "no class that inherits from Planner"),
        (["memory=mine:Mine"], "no class that inherits from MemoryEncoder"),
        (["env=mine:Mine"], "no class that inherits from Task"),
        (["method=minee"], "there is no method=minee"),
    ],
)  # fmt: skip
def test_mistakes_get_one_message(mine, capsys, words, wanted):
    said = refused(capsys, "train", *TINY, *words, "run_dir=run")
    assert wanted in said
    assert said.count("hypercrl: ") == 1
    assert not (mine / "run").exists()


def write_idle(here: Path, ignores: str) -> None:
    """A module with a method that ignores these."""
    (here / "mine_idle.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from hypercrl.methods import MethodConfig\n"
        "from hypercrl.methods.finetune import Finetune\n"
        "@dataclass\n"
        "class IdleConfig(MethodConfig):\n"
        f"    ignores: ClassVar = {ignores}\n"
        "class Idle(Finetune):\n"
        "    config: IdleConfig\n"
    )


@pytest.mark.parametrize(
    ("ignores", "wanted"),
    [
        ("{'dynamics.hiden': ''}", "names 'dynamics.hiden': no such setting. Did you mean 'dyna"),
        ("{'planner.elits': ''}", "names 'planner.elits': no such setting. Did you mean 'plan"),
        ("{'protocol.updates': 'valeu.kind=td'}", "names 'valeu.kind': no such setting. Did you"),
        ("['dynamics.hidden']", "is a mapping from settings to what gives them an effect"),
        ("{'dynamics.hidden': None}", "is a mapping from settings to what gives them an effect"),
    ],
)
def test_what_a_method_ignores_has_to_be_a_setting(here, capsys, ignores, wanted):
    write_idle(here, ignores)
    said = refused(capsys, "train", "method=mine_idle:Idle", f"run_dir={here / 'r'}")
    assert f"method=mine_idle:Idle: `ignores` of IdleConfig {wanted}" in said
    assert not (here / "r").exists()


def test_settings_of_choices_that_are_not_made_may_be_ignored(here, monkeypatch):
    """With CEM there is no planner.temperature, nor memory.width without a memory."""
    monkeypatch.syspath_prepend(here)
    idle = "{'planner.temperature': '/memory|context.always', 'memory.width': '', 'env': ''}"
    write_idle(here, idle)
    assert composed("train", ["method=mine_idle:Idle", "seed=1"]).seed == 1


def test_settings_of_another_class_of_ones_own_may_be_ignored_whether_it_is_chosen_or_not(
    here, monkeypatch
):
    monkeypatch.syspath_prepend(here)
    write_idle(here, "{'planner.knobs': '', 'protocol.updates': 'planner.knobs=3|4'}")
    with (here / "mine_idle.py").open("a") as module:
        module.write(
            "from hypercrl.planning.cem import CEM, CEMConfig\n"
            "@dataclass\n"
            "class KnobsConfig(CEMConfig):\n"
            "    knobs: int = 1\n"
            "class Knobs(CEM):\n"
            "    config: KnobsConfig\n"
        )
    idle = "method=mine_idle:Idle"
    assert composed("train", [idle, "planner=icem", "seed=1"]).seed == 1
    mine = [idle, "planner=mine_idle:Knobs"]
    assert composed("train", mine).planner.knobs == 1
    with pytest.raises(UserError, match=r"planner.knobs has no effect with method=mine_idle:Idle"):
        composed("train", [*mine, "planner.knobs=3"])
    with pytest.raises(UserError, match=r"give planner.knobs=3 or 4 beside it"):
        composed("train", [idle, "protocol.updates=5"])


def test_a_method_without_settings_of_its_own_has_the_usual_ones(mine):
    main(["train", *TINY, "method=mine:Usual", "env=slide", "run_dir=run"])
    assert "learning_rate: 0.001" in (mine / "run/config.yaml").read_text()
    needs = json.loads((mine / "run/needs.json").read_text())
    assert [(n["module"], n["package"], n["folder"]) for n in needs] == [("mine", None, str(mine))]


def test_a_method_is_tried_as_a_run_begins_or_is_resumed_and_not_where_it_is_looked_at(
    here, monkeypatch
):
    (here / "mine_own.py").write_text((ROOT / "examples/own_method.py").read_text())
    tried = []
    monkeypatch.setattr("hypercrl.methods.try_out", lambda *_: tried.append(1))
    main(["train", *TINY, "method=mine_own:L2", "run_dir=run"])
    assert tried == [1]
    main(["play", "run=run", "episodes=1"])
    load("run")
    assert tried == [1]
    (here / "run" / "result.json").unlink()
    main(["train", "resume=run"])
    assert tried == [1, 1]


def test_what_is_shipped_needs_nothing(here):
    main(["train", *TINY, "method=finetune", "env=inverted_pendulum", "run_dir=run"])
    assert not (here / "run/needs.json").exists()


def test_functions_and_registered_environments_are_needs_too(plugged):
    tasks = [
        {"task": "gym", "id": "arm_extras:Arm-v0", "reward": "arm_extras.l2:L2"},
        {"task": "gym", "id": "Hopper-v5", "reward": "hypercrl_envs.gym_rewards:hopper"},
        {"task": "arm_extras.reach:Reach", "direction": 90},
    ]
    shipped = {"method": "hnet", "memory": "none", "planner": "cem"}
    config = {group: {"name": name} for group, name in shipped.items()}
    write_needs(plugged, {**config, "env": {"tasks": tasks}})
    needs = json.loads((plugged / "needs.json").read_text())
    assert [(n["setting"], n["module"], n["version"]) for n in needs] == [
        ("env.tasks.0.id", "arm_extras", "1.2"),
        ("env.tasks.0.reward", "arm_extras.l2", "1.2"),
        ("env.tasks.2.task", "arm_extras.reach", "1.2"),
    ]


def test_a_name_in_two_packages_is_refused(plugged, capsys, monkeypatch):
    points = "[hypercrl.methods]\nl2 = more_extras.l2:L2\nhnet = more_extras.l2:L2\n"
    other = install(plugged / "more" / "site", points, package="more-extras", version="0.5")
    monkeypatch.syspath_prepend(str(other))
    said = refused(capsys, "train", *TINY, "method=l2", "run_dir=run")
    assert "arm_extras.l2:Windowed of arm-extras 1.2" in said
    assert "more_extras.l2:L2 of more-extras 0.5" in said
    # And one that the program has: its own is not taken in silence, nor the other.
    assert "method=hnet is" in refused(capsys, "train", *TINY, "method=hnet", "run_dir=run")


def test_choices_and_tasks_list_what_is_installed(plugged, capsys):
    assert "momentum" in refused(capsys, "train", "planner=nothing").partition("Choices")[2]
    main(["tasks", "reach", "arm_extras.reach:Reach"])
    shown = capsys.readouterr().out
    assert "env=reach" in shown
    assert "env=arm_extras.reach:Reach" in shown
    assert "reach" in refused(capsys, "tasks", "nothing").partition("Sequences")[2]


# Settings in files of the user's.


def write(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


SOFT = "defaults: [hnet]\nbeta: 0.125\n"
FRICTIONS = "# Two tables.\ntasks:\n  - {task: slide, friction: 0.1}\n  - {task: slide}\n"


@pytest.fixture(params=["beside", "named"])
def settings(request, here):
    """A folder of settings, and the words with which a command sees it."""
    folder = here / ("configs" if request.param == "beside" else "elsewhere/settings")
    write(folder, "method/soft.yaml", SOFT)
    write(folder, "env/frictions.yaml", FRICTIONS)
    write(folder, "train.yaml", "nonsense: 1\n")  # of some other program
    write(folder, "hydra/job_logging/none.yaml", "nonsense: 1\n")
    words = [] if request.param == "beside" else ["--config-dir", "elsewhere/settings"]
    return folder, words


def test_every_command_sees_files_beside_the_user(settings, here, capsys):
    folder, flag = settings
    chosen = ["method=soft", "env=frictions"]
    main(["train", *flag, *TINY, *chosen, "run_dir=run"])
    config = (here / "run/config.yaml").read_text()
    assert "beta: 0.125" in config
    assert "name: frictions" in config
    capsys.readouterr()
    main([*flag, "tasks", "frictions"])
    assert "Two tables." in " ".join(capsys.readouterr().out.split())
    with config_folder(folder):
        (cell,) = Grid(chosen, here / "grid").cells
    assert cell.name == "frictions-soft"


def test_a_cell_is_started_with_the_named_folder(here, tmp_path):
    cell = Cell("x", ("env=mine",), tmp_path / "x")
    before = cell.words()
    with config_folder(tmp_path):
        assert cell.words() == ["train", f"--config-dir={tmp_path}", *before[1:]]
    assert own_folders() == []


def test_a_preset_of_ones_own_has_its_files_name_and_is_of_all_settings(here):
    """As has what is tuned for it; nothing says so in the files."""
    write(here / "configs", "preset/tiny.yaml", "defaults: [smoke]\nprotocol: {num_tasks: 1}\n")
    write(here / "configs", "tuned/tiny_push.yaml", "planner: {samples: 16}\n")
    write(here / "configs", "recall/short.yaml", "defaults: [smoke]\nsteps: 3\n")
    smoke, tiny = (composed("train", [f"preset={name}", "env=push"]) for name in ("smoke", "tiny"))
    assert (smoke.preset, tiny.preset) == ("smoke", "tiny")
    assert (tiny.protocol.num_tasks, tiny.planner.samples) == (1, 16)
    assert tiny.planner.horizon == smoke.planner.horizon
    recall = composed("recall", ["recall=short", "memory=gru"])
    assert (recall.preset, recall.steps) == ("short", 3)


@pytest.mark.parametrize(
    ("defaults", "updates"),
    [
        ("[smoke, _self_]", 7),
        ("[_self_, smoke]", 20),  # whose own settings win
        ("[_self_, smoke, override /method: ewc]", 20),
        ("[_self_, between]", 20),
    ],
)
def test_and_so_it_has_wherever_it_stands_among_what_it_takes_from(here, defaults, updates):
    """It was called what the last one was, `smoke`, by whose name its runs were compared."""
    write(here / "configs", "preset/between.yaml", "defaults: [_self_, smoke]\n")
    own = "protocol: {updates: 7}\nplanner: {std: 0.25}\n"
    write(here / "configs", "preset/tiny.yaml", f"defaults: {defaults}\n{own}")
    found = composed("train", ["preset=tiny"])
    assert (found.preset, found.protocol.updates, found.planner.std) == ("tiny", updates, 0.25)
    write(here / "configs", "preset/tiny.yaml", f"defaults: {defaults}\n{own}preset: said\n")
    assert composed("train", ["preset=tiny"]).preset == "said"


def test_a_sequence_of_ones_own_has_its_files_name_likewise(here):
    write(here / "configs", "env/mine.yaml", "defaults: [_self_, push]\n")
    mine, push = (composed("train", [f"env={name}"]) for name in ("mine", "push"))
    assert (mine.env.name, mine.env.tasks) == ("mine", push.env.tasks)


def test_files_that_cannot_be(here, capsys):
    write(here / "configs", "env/push.yaml", FRICTIONS)
    write(here / "configs", "env/torn.yaml", "tasks: [\n")
    write(here / "configs", "env/list.yaml", "- 1\n")
    write(here / "configs", "env/latin.yaml", "")
    (here / "configs/env/latin.yaml").write_bytes(b"name: \xff\n")
    write(here / "configs", "method/odd.yaml", "defaults: [hnet]\nbetta: 1\n")
    write(here / "other", "env/list.yaml", "- 1\n")
    train = ("train", *TINY, "run_dir=run")
    assert "is in two files" in refused(capsys, *train, "env=push")
    assert "torn.yaml cannot be read" in refused(capsys, *train, "env=torn")
    assert "latin.yaml cannot be read" in refused(capsys, *train, "env=latin")
    assert "KEY: VALUE" in refused(capsys, *train, "env=list")
    assert "is in two files" in refused(capsys, *train, "env=list", "--config-dir=other")
    assert "env=push is in two files" in refused(capsys, "tasks")
    (here / "configs/env/push.yaml").unlink()
    said = refused(capsys, *train, "method=odd")
    assert "method/odd: there is no setting 'method.betta'. Did you mean 'method.beta'" in said
    write(here / "configs", "method/much.yaml", "defaults: [hnet]\nbeta: much\n")
    said = refused(capsys, *train, "method=much")
    assert "method/much: method.beta is a number, such as method.beta=0.05, not 'much'." in said
    assert "no such folder" in refused(capsys, *train, "--config-dir", "gone")


NO_TASKS = ["name: x\n", "tasks: []\n", "tasks: [push]\n", "tasks: [{a: 1}]\n"]
NO_LIST = ["tasks: 3\n", "tasks:\n", "tasks: {task: push}\n"]


@pytest.mark.parametrize("text", [*NO_TASKS, *NO_LIST, "tasks: [{task: push, 1: 2}]\n"])
def test_a_sequence_without_tasks_is_one_message(here, capsys, text):
    write(here / "configs", "env/empty.yaml", text)
    assert "empty.yaml is to have `tasks:`" in refused(capsys, "tasks", "empty")
    if text in NO_LIST:
        assert "empty.yaml is to have `tasks:`" in refused(capsys, "train", *TINY, "env=empty")


def test_tasks_lists_whatever_a_file_says(here, capsys):
    write(
        here / "configs", "env/odd.yaml", "# [/]\ntasks: [{task: 5}, {task: 'a[/]', b: '[red]'}]\n"
    )
    write(here / "configs", "env/more.yaml", "defaults: [push]\npad: true\n")
    (here / "configs/env/latin.yaml").write_bytes(b"# caf\xe9\ntasks: [{task: push}]\n")
    main(["tasks", "odd", "more"])
    shown = capsys.readouterr().out
    for text in ("env=odd  [/]", "│ 5 ", "│ a[/] ", "│ [red] ", "│ [100, 500] "):
        assert text in shown
    assert "latin.yaml cannot be read" in refused(capsys, "tasks", "latin")


def test_names_and_captions_are_no_markup(here, capsys):
    write(
        here / "configs",
        "env/odd.yaml",
        "name: a[/]b\ntasks: [{task: complex_ode, coefficients: [5]}]\n",
    )
    main(["train", *TINY, "env=odd", "run_dir='[red]'"])
    assert "on a[/]b (1 task)," in capsys.readouterr().out
    main(["play", "run='[red]'", "episodes=1"])
    main(["report", "[red]"])
    assert "figures and page: [red]/report/index.html" in capsys.readouterr().out


def test_the_shipped_folder_beside_the_user_is_no_second_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert own_folders() == []


def test_a_grid_runs_what_is_plugged_in(plugged, site, monkeypatch):
    """Cells are processes that find the package, the module beside the user and the folder."""
    here = plugged
    (here / "mine.py").write_text(MINE)
    write(here / "settings", "env/frictions.yaml", FRICTIONS)
    folders = (site, ROOT, ROOT / "envs", ROOT / "kernels")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    words = ("bench", "--config-dir", "settings", *TINY, "env=frictions", "workers=1", "out=grid")
    main([*words, "method=mine:Mine", "planner=momentum"])
    run = here / "grid/cells/frictions-mine_Mine"
    assert (run / "result.json").exists()
    needs = json.loads((run / "needs.json").read_text())
    assert [n["module"] for n in needs] == ["mine", "arm_extras.momentum"]


@pytest.mark.slow
def test_a_grid_on_ray_runs_what_is_plugged_in(here, site):
    pytest.importorskip("ray")
    (here / "mine.py").write_text(MINE)
    write(here / "settings", "env/frictions.yaml", FRICTIONS)
    words = ("bench", "--config-dir", "settings", *TINY, "env=frictions", "cluster=ray", "out=grid")
    ray = Path(sys.modules["ray"].__file__).parents[1]
    done = hypercrl(here, *words, "method=mine:Mine,l2", path=[site, ray])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((here / "grid/cells").glob("*/result.json"))) == 2
