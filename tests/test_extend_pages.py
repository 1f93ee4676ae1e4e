"""The pages on things of one's own do what they say, in an empty folder, and are the examples."""

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from hypercrl.cli import main
from hypercrl_envs import make_task

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs/extend").glob("*.md") if path.stem != "README")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)

TINY = {
    "train": (
        "dynamics.hidden=[16]",
        "protocol.random_steps=40",
        "protocol.planned_steps=6",
        "protocol.eval_every=6",
        "protocol.update_every=3",
        "protocol.updates=2",
        "protocol.final_episodes=1",
        "planner.samples=8",
        "planner.elites=2",
        "planner.iterations=1",
    ),
    "recall": ("steps=2", "test_sequences=2"),
}
"""What makes a command shorter than the pages' preset=smoke does."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def write_files(page: Path, folder: Path) -> None:
    """What begins with "# NAME", in XML "<!-- NAME -->", is a file of that name."""
    for language, text in blocks(page):
        if language in ("python", "yaml", "xml"):
            name = re.sub(r"^(# |<!-- )| -->$", "", text.partition("\n")[0])
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def commands(page: Path) -> str:
    return "".join(text for language, text in blocks(page) if language == "bash")


def test_every_example_is_on_a_page_as_it_is():
    shown = {text for page in PAGES for _, text in blocks(page)}
    examples = sorted((ROOT / "examples").glob("own_*"))
    assert len(examples) == 8
    for example in examples:
        assert example.read_text(encoding="utf-8") in shown, example.name


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The current folder, from which modules are imported and later forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_in_an_empty_folder(page, empty_folder, monkeypatch):
    write_files(page, empty_folder)
    monkeypatch.setattr("hypercrl.commands.train.write_report", lambda *_: None)  # takes a second
    for line in commands(page).splitlines():
        program, *words = shlex.split(line)
        if program == "cd":
            monkeypatch.chdir(words[0])
        elif program == "mkdir":
            Path(words[-1]).mkdir()
        elif program == "python":
            exec(compile(Path(words[0]).read_text(), words[0], "exec"), {})
        elif words[0] != "bench":  # processes of their own: from the wheel, below
            assert program == "hypercrl"
            main([*words, *TINY.get(words[0], ())])
    assert Path.cwd() == empty_folder  # where the next page's commands are called


def test_a_mujoco_model_of_ones_own(empty_folder):
    page = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    (code,) = (text for _, text in BLOCK.findall(page) if text.startswith("# my_arm.py"))
    (empty_folder / "my_arm.py").write_text(code, encoding="utf-8")
    (empty_folder / "my_arm.xml").write_text(
        '<mujoco><worldbody><body><joint name="hinge" axis="0 1 0"/><geom size="0.1"/></body>'
        '</worldbody><actuator><motor joint="hinge" ctrlrange="-1 1"/></actuator></mujoco>'
    )
    task = make_task("gym", id="my_arm:MyArm-v0", reward="my_arm:up")
    task.try_out()
    obs, _ = task.reset(seed=0)
    for _ in range(3):
        before, action = torch.as_tensor(obs), torch.full((1,), 0.5)
        obs, reward, *_ = task.step(action.numpy())
        said = task.reward(before, action, torch.as_tensor(obs))
        assert reward == pytest.approx(float(said), rel=1e-6)


@pytest.fixture(scope="module")
def wheel_site(tmp_path_factory):
    """A folder with the built wheel's contents, and nothing else of ours."""
    out = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "-w",
        str(out),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    site = out / "site"
    with zipfile.ZipFile(next(out.glob("hypercrl-*.whl"))) as archive:
        archive.extractall(site)
    return site


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_from_a_wheel(page, wheel_site, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, call in (("python", '"$@"'), ("hypercrl", '-m hypercrl "$@"')):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}\n')
        tool.chmod(0o755)
    folder = tmp_path / "empty"
    folder.mkdir()
    write_files(page, folder)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(wheel_site),
        "OMP_NUM_THREADS": "1",
    }
    whose = "import hypercrl, hypercrl_envs; print(hypercrl.__file__, hypercrl_envs.__file__)"
    script = f"set -eu\npython -c '{whose}'\n{commands(page)}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[0].startswith(str(wheel_site))
    assert done.stdout.split()[1].startswith(str(wheel_site))


@pytest.mark.parametrize("setting", ["width=512", "layers=4", "heads=8"])
def test_the_encoder_says_which_settings_it_has_no_use_for(
    setting, empty_folder, monkeypatch, capsys
):
    """They were taken, changed nothing, and were rows of their own in a report."""
    write_files(ROOT / "docs/extend/encoder.md", empty_folder)
    with pytest.raises(SystemExit) as ended:
        main(["bench", "memory=own_encoder:Means", f"memory.{setting}", "out=grid"])
    assert ended.value.code == 2
    key = setting.partition("=")[0]
    said = f"hypercrl: memory.{key} has no effect with memory=own_encoder:Means: leave it out."
    assert capsys.readouterr().err.strip() == said
