"""How the program is called, and the override strings it builds and reads."""

import errno
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gymnasium
import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hypercrl.base.errors import GPUUnavailable, UserError
from hypercrl.cli import main
from hypercrl.commands.train import learned_note
from hypercrl.config.compose import composed, one_by_one
from hypercrl.config.ignored import check_used
from hypercrl.config.options import options_first
from hypercrl.config.overrides import _parsed, in_shell, keys_of, override
from hypercrl_envs import TaskFault, TaskSequence

TINY = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "protocol.num_tasks=1",
    "protocol.random_steps=12",
    "protocol.planned_steps=6",
    "protocol.update_every=3",
    "protocol.updates=2",
    "protocol.final_episodes=1",
)

NAMES = (
    *("plain", "with space", " edge ", "lr=0.1", "a,b", "copy (1)", "jörg", "c#1", "R&D", "a:b"),
    *("a'b", 'a"b', "a\\", 'a\\"b', "a\\\\'b", "a\\,b", "[1]", "{a: 1}", "~/x", "$x", "*?", "a%b"),
    *("null", "true", "1e5", "07", "", "runs/a b/c=1"),
)


@pytest.mark.parametrize("name", NAMES)
def test_an_override_is_read_as_what_was_written(name):
    words = [override("run_dir", name), *shlex.split(in_shell("run_dir", name))]
    read = OverridesParser.create().parse_overrides(words)
    assert [(o.key_or_group, o.value()) for o in read] == [("run_dir", name)] * 2


def test_what_needs_no_quotes_gets_none():
    assert override("resume", Path("/a/b-1_c.d")) == "resume=/a/b-1_c.d"


def test_a_reference_in_a_name_is_refused():
    with pytest.raises(UserError, match="reference to a setting"):
        override("run_dir", "a${seed}")


def test_keys_that_are_given():
    words = ["a.b=1", "+c=2", "~d", "e={f: 1}", "g=1,2"]
    assert keys_of(words) == {"a.b", "c", "d", "e", "e.f", "g"}


@pytest.mark.parametrize("module", ["hypercrl", "hypercrl.cli"])
def test_the_modules_run_the_program(module):
    called = [sys.executable, "-m", module, "tasks", "nothing"]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no sequence 'nothing'" in done.stderr


def test_quoted_folders_and_where_the_report_is(
    tmp_path, capsys, monkeypatch, with_report, short_episodes
):
    monkeypatch.chdir(tmp_path)
    main(["train", *TINY, 'run_dir="lr=0.1, [b] jörg"'])
    run = tmp_path / "lr=0.1, [b] jörg"
    page = run / "report" / "index.html"
    assert page.exists()
    said = capsys.readouterr().out
    assert f"figures and page: {page.relative_to(tmp_path)}" in said
    assert "→ lr=0.1, [b] jörg" in said
    (run / "result.json").unlink()
    with pytest.raises(SystemExit):
        main(["train", *TINY, 'run_dir="lr=0.1, [b] jörg"'])
    # The command that the message names is one that can be typed.
    command = capsys.readouterr().err.strip().rpartition("with: ")[2]
    main(shlex.split(command)[1:])
    assert (run / "result.json").exists()


def test_a_multirun_leaves_nothing_but_runs(tmp_path, capsys, monkeypatch, short_episodes):
    monkeypatch.chdir(tmp_path)
    main(["train", "-m", *TINY, "seed=0,1", "run_dir=runs"])
    assert capsys.readouterr().out.splitlines()[-1] == "compare: hypercrl report runs"
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["0", "1", "multirun.yaml"]
    before = sorted(tmp_path.rglob("*"))
    main(["play", "-m", "run=runs/0", "episodes=1", "seed=0,1"])
    assert capsys.readouterr().out.count("episode 1") == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_are_composed_once_unless_a_file_of_the_users_may_say_the_mode(
    tmp_path, monkeypatch
):
    def composed_in_all(words):
        """How often, for a command that is refused as soon as its settings are there."""
        count, compose = [], Hydra.compose_config
        with monkeypatch.context() as patch:
            patch.setattr(
                Hydra, "compose_config", lambda *a, **k: count.append(1) or compose(*a, **k)
            )
            with pytest.raises(SystemExit):
                main(["play", *words])
        return len(count)

    monkeypatch.chdir(tmp_path)
    assert composed_in_all(["episodes=1"]) == 1
    assert composed_in_all(["hydra.mode=RUN"]) == 2
    (tmp_path / "configs").mkdir()
    assert composed_in_all(["episodes=1"]) == 2


def test_a_word_is_read_once_by_us_and_once_by_hydra(monkeypatch):
    words = [*TINY, "seed=36", "run_dir=${env.name}"]
    read, read_as_ever = Counter(), OverridesParser.parse_rule
    _parsed.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            OverridesParser,
            "parse_rule",
            lambda self, word, rule: read.update([word]) or read_as_ever(self, word, rule),
        )
        composed("train", words)
    assert {word: read[word] for word in words} == dict.fromkeys(words, 2)


def test_a_run_folder_is_not_made_up_to_see_what_the_method_ignores():
    made = []
    OmegaConf.register_new_resolver("counted", lambda: str(made.append(1)), replace=True)
    config = composed("train", ["run_dir=${counted:}"])
    made.clear()
    check_used([(config, ["seed=1", "protocol.updates=5"])])
    assert not made


def message(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    line = printed.strip().splitlines()[-1]
    assert line.startswith("hypercrl: ")
    return line


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("memory=null", "memory is the name of one choice, not null. Choices: based, "),
        ("memory=[8,8]", "not [8,8]. Choices: based, "),
        ("env=1", "env is the name of one choice, not 1. Choices: cartpole"),
        ("planner=1e3", "planner is the name of one choice, not 1e3. Choices: cem, icem, mppi"),
        (
            "preset=true",
            "preset is the name of one choice, not true. Choices: paper, quick, ",
        ),
        ("hydra/launcher=null", "hydra/launcher is the name of one choice"),
        ("env.tasks=[1]", "task 1: a task is a mapping such as {task: push"),
        ("env.tasks=[{1: push}]", "task 1: a task is a mapping such as {task: push"),
        (
            "env.tasks=[{task: workbench, goal: puck, at: 3}]",
            "the puck can be brought to places from",
        ),
        ("env.tasks=[{task: gym, id: Reacher-v5, reward: 5}]", "5 names no function"),
        ("env.tasks=[{task: gym, id: Reacher-v5, options: 5}]", "options are a mapping"),
        ("planner.std=inf", "planner.std must be a finite number, not inf."),
        ("planner.std=1e400", "planner.std must be a finite number, not inf."),
        ("exploration.planned_std=nan", "exploration.planned_std must be a finite number"),
        (
            "memory=hopfield memory.updates=100000000",
            "memory.updates must be at most 100, not 10",
        ),
        ("memory=gru memory.width=1 memory.layers=1000000", "memory.layers must be at most 100,"),
        ("planner.iterations=100000000", "planner.iterations must be at most 1000, not 100000000."),
        ("protocol.heldout_episodes=100000000", "protocol.heldout_episodes must be at most 10000"),
        (
            "method=ewc method.fisher_samples=100000000",
            "fisher_samples must be at most 1e+06",
        ),
        (
            "planner=icem planner.noise_beta=3000",
            "planner.noise_beta must be at most 100, not 3000",
        ),
        ("planner.samples=1000000000000", "planner.samples must be at most 1e+09, not 10000000000"),
        (f"seed={10**400}", f"seed must be at most {2**63 - 1}, not a number of 401 digits."),
    ],
)
def test_a_value_of_the_wrong_kind_gets_one_message(word, says, tmp_path, capsys):
    words = [word] if word.startswith("env") else word.split()
    assert says in message(capsys, "train", *TINY, f"run_dir={tmp_path / 'run'}", *words)
    assert not list(tmp_path.iterdir())


OTHER_KINDS = {
    "seed=a": "seed is a whole number, such as seed=0, not 'a'.",
    "seed=1.5": "seed is a whole number, such as seed=0, not 1.5.",
    "seed=null": "seed is a whole number, such as seed=0, not null.",
    "seed.x=3": "there is no setting 'seed.x'. Did you mean 'seed'?",
    "threads=a": "threads is a whole number or null, such as threads=1, not 'a'.",
    "dynamics.hidden=16": "dynamics.hidden is a list of whole numbers, such as "
    "dynamics.hidden=[200,200], not 16.",
    "dynamics.hidden=[8,b]": "dynamics.hidden[1] is a whole number, such as dynamics.hidden[1]=200",
    "dynamics.hidden={a:1}": "such as dynamics.hidden=[200,200], not {a:1}.",
    "dynamics.hidden.5=3": "dynamics.hidden has no entry 5; they count from 0: give the whole list",
    "dynamics.probabilistic=x": "dynamics.probabilistic is true or false, not 'x'.",
    "dynamics=5": "dynamics is a group of settings, such as dynamics.hidden=[200,200], not 5.",
    "dynamics=[1]": "dynamics is a group of settings, such as dynamics.hidden=[200,200], not [1].",
    "protocol.order=[a]": "protocol.order[0] is a whole number, such as protocol.order[0]=1, not",
    "protocol={updates:x}": "protocol.updates is a whole number, such as protocol.updates=",
    "replay.datasets=5": "is a list of texts, of which some may be null, such as "
    "replay.datasets=[NAME,OTHER], not 5.",
    "replay.datasets=null": "[NAME,OTHER], not null; replay.datasets=[] is none.",
    "replay={datasets: null}": "[NAME,OTHER], not null; replay.datasets=[] is none.",
    "dynamics.hidden=null": "such as dynamics.hidden=[200,200], not null.",
    "env.tasks=5": "env.tasks is a list, not 5.",
    "run_dir=[1]": "run_dir is a text or null, such as run_dir=NAME, not [1].",
    "task_id=[1]": "task_id is one of given, inferred, not [1].",
    "planner.std=x": "planner.std is a number, such as planner.std=",
    "~dynamics.hidden": "dynamics.hidden cannot be taken away.",
    "logger={a:1}": "logger is a list, such as logger=['tensorboard'], not {a:1}.",
}


@pytest.mark.parametrize("word", OTHER_KINDS)
def test_what_is_wanted_instead_of_a_value_of_another_kind(word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert OTHER_KINDS[word] in message(capsys, "train", *TINY, word)
    with pytest.raises(UserError) as caught:
        composed("train", [*TINY, word])
    assert OTHER_KINDS[word] in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_and_so_in_a_file_of_ones_own_and_with_settings_of_another_choice(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "configs/method").mkdir(parents=True)
    (tmp_path / "configs/method/mine.yaml").write_text("defaults: [hnet]\nbeta: x\n")
    monkeypatch.chdir(tmp_path)
    says = "method/mine: method.beta is a number, such as method.beta=0.05, not 'x'."
    assert says in message(capsys, "train", "method=mine")
    says = "memory.patterns is a whole number, such as memory.patterns=32, not 'x'."
    assert says in message(capsys, "train", "memory=hopfield", "memory.patterns=x")
    assert "seed=a: seed is a whole" in message(capsys, "train", "-m", "seed=1,a")


@pytest.mark.parametrize(
    "word", ["method.name=ewc", "method={name: coreset_bytes}", "planner.name=icem"]
)
def test_a_name_is_not_given_without_its_settings(word, tmp_path, capsys, monkeypatch):
    """Of another kind they ended in a traceback, of the same kind in a run under a wrong name."""
    monkeypatch.chdir(tmp_path)
    assert ".name goes with a choice, which brings" in message(capsys, "train", *TINY, word)
    with pytest.raises(UserError, match=r"give (method|planner)=\w+ instead"):
        composed("train", [*TINY, word])
    assert not list(tmp_path.iterdir())


def test_nor_by_a_file_of_ones_own(tmp_path, capsys, monkeypatch):
    (tmp_path / "configs/method").mkdir(parents=True)
    mine = tmp_path / "configs/method/mine.yaml"
    monkeypatch.chdir(tmp_path)
    for text in ("defaults: [hnet]\nname: ewc\n", "name: ewc\nlearning_rate: 0.01\n"):
        mine.write_text(text)
        assert "begin the file with defaults: [ewc]" in message(capsys, "train", "method=mine")
    mine.write_text("defaults: [ewc]\nname: online_ewc\n")
    assert composed("train", ["method=mine"]).method.name == "online_ewc"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train run_dir=", "run_dir= is empty; it is: folder of the run; left out, a dated one"),
        ("train resume=", "resume= is empty; it is: folder of a run to go on with;"),
        ("play run=", "run= is empty; it is: the run's folder."),
        ("play run=push_demo video=", "video= is empty; it is: file to write, .mp4;"),
        ("export run= out=x", "run= is empty; it is: the run's folder."),
        ("export run=push_demo out=", "out= is empty; it is: what to write, not there yet"),
        ("recall memory=gru run_dir=", "run_dir= is empty; it is: folder for the result."),
    ],
)
def test_an_empty_name_of_a_place_is_none(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in message(capsys, *words.split())
    assert not list(tmp_path.iterdir())


def test_what_is_asked_too_little_is_said_and_shown_on_stderr_and_is_a_mistake(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cases: dict[tuple[str, ...], str] = {
        ("bench",): "bench needs out=FOLDER",
        ("bench", "seed=1"): "bench needs out=FOLDER",
        ("bench", "seed=1", "out="): "bench needs out=FOLDER",
        ("report",): "report needs at least one run folder.",
        ("report", ""): "the name of a run's folder is empty.",
        ("report", "push_demo", "out="): "out= is empty.",
    }
    for words, says in cases.items():
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert not printed.out
        assert printed.err.startswith(f"hypercrl: {says}")
        assert f"\n\nusage: hypercrl {words[0]} " in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train --foo", "there is no option --foo; settings are KEY=VALUE, without dashes. See: "),
        ("train seed=1 --seed=2", "there is no option --seed=2; settings are KEY=VALUE, without"),
        ("train --help --foo", "there is no option --foo; settings are KEY=VALUE, without dashes"),
        ("play -x run=DIR", "without dashes. See: hypercrl play --help"),
        ("train --cfg=all_of_it", "argument --cfg/-c: invalid choice: 'all_of_it' (choose from"),
        ("train --cfg", "argument --cfg/-c: expected one argument. See: hypercrl train --help"),
        ("bench out=grid --seed=1", "there is no option --seed=1; settings are KEY=VALUE, without"),
        ("train foo seed=1", "cannot read 'foo'; settings are KEY=VALUE."),
        (
            "train -m hydra/launcher=submitit_slurm seed=0,1",
            "needs a package more: pip install hydra-submitit-launcher",
        ),
        ("train -m hydra/sweeper=ax seed=0,1", "there is no hydra/sweeper=ax."),
        ("train -m hydra/sweeper=ax seed=0,1", "Others come with plugins of Hydra's, which are to"),
    ],
)
def test_options_that_there_are_not_get_one_message(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hypercrl: {says}") or (line.startswith("hypercrl:") and says in line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train env push", "cannot read 'env'; settings are KEY=VALUE. Did you mean env=push?"),
        ("train env", "Did you mean env=NAME?"),
        ("train hnet seed=1", "Did you mean method=hnet?"),
        ("train smoke", "Did you mean preset=smoke?"),
        ("recall long", "cannot read 'long'; settings are KEY=VALUE."),
        ("play runs/smoke", "Did you mean run=runs/smoke?"),
        ("export runs/smoke task=1", "Did you mean run=runs/smoke?"),
        ("train runs/smoke", "Did you mean resume=runs/smoke?"),
        ("bench out=grid method hnet", "Did you mean method=hnet?"),
        ("report run=runs/smoke", "report takes folders as they are: hypercrl report runs/smoke"),
        ("tasks env=push", "tasks takes sequences as they are: hypercrl tasks push"),
    ],
)
def test_a_word_that_is_no_setting_is_said_to_be_meant_as_one(
    words, says, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("runs/smoke").mkdir(parents=True)
    assert says in message(capsys, *words.split())


def test_options_stand_anywhere_among_the_settings(capsys):
    main(["train", "seed=3", "--cfg", "job", "planner={samples: 40}"])
    said = capsys.readouterr().out
    assert "seed: 3" in said
    assert "samples: 40" in said
    ordered = options_first("train", ["seed=0,1", "-m", "run_dir=x"])
    assert ordered == ["-m", "seed=0,1", "run_dir=x"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "exploration.burst_steps=5",
            "burst_steps has no effect with exploration.burst_share=0.0:",
        ),
        (
            "planner.interpolation=cubic",
            "has no effect with planner.knots=null: give planner.knots ",
        ),
        (
            "method.members=2 planner.risk_alpha=0.2",
            "with planner.risk=mean: give planner.risk=cvar",
        ),
        (
            "'planner={risk_beta: 2}'",
            "planner.risk_beta has no effect with planner.risk=mean: give",
        ),
        (
            "memory=hopfield memory.form=layer memory.window=5",
            "memory.window has no effect with mem",
        ),
        (
            "memory=hopfield memory.patterns=5",
            "give memory.form=layer or both beside it, or leave it",
        ),
        (
            "memory=titans_mal memory.chunk=4",
            "has no effect with memory.inner=linear: give memory.in",
        ),
        (
            "inference.window=50",
            "inference.window has no effect with task_id=given: give task_id=inferred beside it, "
            "or leave it out.",
        ),
        (
            "context.windows=8",
            "context.windows has no effect with memory=none and context.always=false: give memory "
            "or context.always beside it, or leave it out.",
        ),
        (
            "memory=gru protocol.batch_size=9",
            "protocol.batch_size has no effect with memory=gru: give memory=none beside it",
        ),
        (
            "context.always=true protocol.batch_size=9",
            "with context.always=true: give context.always=false beside it",
        ),
        (
            "memory=gru context.into=hypernetwork context.stride=2",
            "context.stride has no effect with context.into=hypernetwork: give context.into=input",
        ),
        ("memory=gru context.distil=5", "with context.protect=freeze: give context.protect=distil"),
        ("method=hnet method.beta=0 method.targets=kept", "with method.beta=0.0: give method.b"),
        ("'context={always: false, stride: 2}'", "context.stride has no effect with memory=none"),
        ("memory.width=8", "memory.width has no effect with memory=none: leave it out."),
        ("memory=gru memory.heads=1", "memory.heads has no effect with memory=gru: leave it out."),
        ("method=ftl method.clip_norm=1", "method.clip_norm has no effect with method=ftl: leave"),
        ("method=ftl dynamics.hidden=[8]", "dynamics.hidden has no effect with method=ftl: l"),
        ("method=ftl_task 'dynamics={hidden: [8]}'", ".hidden has no effect with method=ftl_task"),
        (
            "method=ftl protocol.first_updates=5",
            "protocol.first_updates has no effect with method=ftl and value.kind=none: give "
            "value.kind=td beside it, or leave it out.",
        ),
        ("method=ftl protocol.batch_size=5", "protocol.batch_size has no effect with method=ftl"),
        ("method=ewc method.decay=0.5", "with method=ewc: give method=online_ewc beside it"),
        ("method=multitask method.selection=herding", "with method.per_task=null and method.capac"),
        (
            "method=packnet method.retrain_updates=0 method.retrain_batch=9",
            "retrain_updates=0: giv",
        ),
        ("method=hnet method.chunk_embedding_size=5", "with method.chunk_size=null: give method.c"),
        (
            "method=coreset_bytes method.capacity=5",
            "with method.equal_bytes=true: give method.equal_bytes=false",
        ),
        (
            "planner.dynamics=simulator",
            "method has no effect with planner.dynamics=simulator: give planner.dynamics=model",
        ),
        ("checkpoint=after_task_1", "checkpoint has no effect with resume=null: give resume besi"),
        ("protocol.blur=5", "protocol.blur=5 has no effect on one task"),
        ("protocol.num_tasks=null protocol.order=[2] protocol.blur=5", "has no effect on one task"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(words, says, tmp_path, capsys):
    tiny = [word for word in TINY if "ftl" not in words or word != "protocol.updates=2"]
    given = [*tiny, *shlex.split(words)]
    assert says in message(capsys, "train", *given, f"run_dir={tmp_path / 'run'}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["coreset", "agem", "hnet_replay"])
def test_a_memory_without_room_for_every_task_is_refused(method, tmp_path, capsys):
    words = [f"method={method}", "method.capacity=1", "protocol.num_tasks=2"]
    said = message(capsys, "train", *TINY, *words, f"run_dir={tmp_path / 'run'}")
    assert "has no room for a transition of each of 2 tasks; give 2 or more" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["coreset", "agem", "hnet_replay"])
def test_nor_one_without_room_for_every_task_that_may_be_inferred(method, tmp_path, capsys):
    words = ["task_id=inferred", f"method={method}", "method.capacity=9"]
    said = message(capsys, "train", *TINY, *words, f"run_dir={tmp_path / 'run'}")
    assert "has no room for a transition of each of 10 tasks that may be inferred" in said
    assert "give 10 or more, or null for no limit, or inference.max_tasks=9." in said
    assert not list(tmp_path.iterdir())
    with one_by_one() as compose:
        compose("train", [*TINY, *words, "inference.max_tasks=9"])
        with pytest.raises(UserError, match="each of 9 tasks that may be inferred"):
            compose("train", [*TINY, *words[:2], "method.capacity=8", "inference.max_tasks=9"])


@pytest.mark.parametrize(
    "words",
    [
        ("exploration.burst_share=0.2", "exploration.burst_steps=5"),
        ("planner.knots=2", "planner.interpolation=cubic"),
        ("planner.risk=cvar", "planner.risk_alpha=0.2"),
        ("memory=hopfield", "memory.form=both", "memory.window=5", "memory.patterns=5"),
        ("protocol.num_tasks=2", "protocol.blur=5"),
        ("task_id=inferred", "inference.window=5"),
        ("memory=gru", "context.windows=8"),
        ("memory=gru", "context.stride=2"),
        ("protocol.batch_size=9",),
        ("context.always=true", "context.windows=8"),
        ("context.always=false",),
        ("method=online_ewc", "method.decay=0.5"),
        ("method=chunked_hnet", "method.chunk_embedding_size=5"),
        ("method=coreset_bytes", "method.equal_bytes=false", "method.capacity=5"),
        ("method=coreset", "method.selection=herding"),
        ("method=coreset_bytes", "method.selection=herding"),
        ("method=multitask", "method.capacity=5", "method.selection=herding"),
        ("method=ftl", "value.kind=td", "protocol.batch_size=9", "protocol.first_updates=3"),
    ],
)
def test_a_setting_that_has_an_effect_is_taken(words):
    composed("train", [*TINY, *words])


@pytest.mark.parametrize(
    "word",
    [
        "protocol.updates=7",
        "protocol={final_episodes: 1, robots: 2}",
        "simulators=2",
        "logger=[]",
        "planner.watch=true",
        "planner.precision=ieee",
    ],
)
def test_what_is_of_learning_is_refused_beside_the_oracle(word, tmp_path, capsys):
    oracle = ("planner.dynamics=simulator", f"run_dir={tmp_path / 'run'}", word)
    says = message(capsys, "train", *oracle)
    assert "has no effect with planner.dynamics=simulator: give planner.dynamics=model" in says
    assert not list(tmp_path.iterdir())


def test_the_oracle_is_told_its_tasks_and_episodes():
    of_tasks = ("protocol.num_tasks=2", "protocol.order=[2,1]", "protocol={final_episodes: 3}")
    composed("train", ["planner.dynamics=simulator", *of_tasks])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("workers=nan", "workers is a whole number, not 'nan'."),
        ("workers=1.5", "workers is a whole number, not '1.5'."),
        ("retries=1e400", "retries is a whole number"),
        ("memory=none,3", "memory is the name of one choice, not none,3."),
    ],
)
def test_and_so_in_a_grid(word, says, tmp_path, capsys):
    assert says in message(capsys, "bench", f"out={tmp_path / 'grid'}", "seed=0", word)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_gets_one_message(tmp_path, capsys):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", "/proc/run", tmp_path / ("x" * 300)):
        assert message(capsys, "train", *TINY, f"run_dir={folder}")
        assert message(capsys, "bench", "seed=0", f"out={folder}")
        assert message(capsys, "recall", "preset=smoke", "memory=gru", f"run_dir={folder}")


def test_so_does_the_folder_of_a_multirun_before_the_first_job(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hypercrl.commands.train.train", None)  # it does not come to that
    (tmp_path / "file").touch()
    good = f"run_dir={tmp_path / 'good'}"
    for folder in (tmp_path / "file" / "runs", "/proc/runs", tmp_path / ("x" * 300)):
        for words in ([f"run_dir={folder}"], [good, f"hydra.sweep.dir={folder}"]):
            said = message(capsys, "train", "-m", *TINY, "seed=0,1", *words)
            assert said.startswith(f"hypercrl: cannot write to {folder}: ")
            assert re.search(r"\. (A file is|Name a place|Give a shorter)", said)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_the_system_refuses_a_job_is_told_once_and_without_hydras_words(
    tmp_path, capsys, monkeypatch
):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "/there")

    monkeypatch.setattr("hypercrl.commands.train.train", refused)
    told = "/there: Permission denied. Name another folder, or change who may write there."
    words = "train", *TINY, f"run_dir={tmp_path / 'runs'}"
    assert message(capsys, *words) == f"hypercrl: {told}"
    with pytest.raises(SystemExit):
        main([*words[:1], "-m", *words[1:], "seed=0,1"])
    assert capsys.readouterr().err == f"hypercrl: job 0: {told}\njob 1: {told}\n"


@pytest.mark.parametrize("there", [False, True])
def test_a_mistake_that_jobs_alone_find_leaves_no_folder(there, tmp_path, capsys):
    """What a job takes from Hydra is known as it begins, when Hydra has made the folder."""
    folder = tmp_path / "runs/today/sweep"
    if there:
        folder.mkdir(parents=True)
    words = "seed=${hydra:job.num}", "protocol.updates=-3,-4", f"run_dir={folder}"
    with pytest.raises(SystemExit):
        main(["train", "-m", *TINY, *words])
    assert "hypercrl: job 0: protocol.updates must be at least 1" in capsys.readouterr().err
    left = [folder.parent.parent, folder.parent, folder] if there else []
    assert sorted(tmp_path.rglob("*")) == left


@pytest.mark.parametrize("ends", ["returns", "interrupted"])
def test_a_sweeps_file_stays_where_a_job_has_run_in_another_folder(
    ends, tmp_path, capsys, monkeypatch
):
    jobs = iter(range(2))

    def train(_):
        if next(jobs):
            raise UserError("refused")
        if ends == "interrupted":
            raise KeyboardInterrupt

    monkeypatch.setattr("hypercrl.commands.train.train", train)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "-m", *TINY, "seed=0,1", "run_dir=runs", "hydra.sweep.dir=sweep"])
    assert [path.name for path in Path("sweep").iterdir()] == ["multirun.yaml"]


def test_what_is_taken_away_is_of_the_folder_in_which_the_command_began(
    tmp_path, capsys, monkeypatch
):
    """A task, or a method of somebody else's, may go elsewhere in a job."""
    (tmp_path / "there/runs").mkdir(parents=True)
    theirs = tmp_path / "there/runs/multirun.yaml"
    theirs.write_text("precious")

    def refused(_):
        monkeypatch.chdir(tmp_path / "there")
        raise UserError("refused")

    monkeypatch.setattr("hypercrl.commands.train.train", refused)
    monkeypatch.chdir(tmp_path)
    assert "refused" in message(capsys, "train", "-m", *TINY, "seed=0", "run_dir=runs")
    assert theirs.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_link_in_the_place_of_a_multiruns_file_stays(tmp_path, capsys, monkeypatch):
    def refused(_):
        raise UserError("refused")

    monkeypatch.setattr("hypercrl.commands.train.train", refused)
    (tmp_path / "runs").mkdir()
    link = tmp_path / "runs/multirun.yaml"
    link.symlink_to(tmp_path / "kept.yaml")
    with pytest.raises(SystemExit):
        main(["train", "-m", *TINY, "seed=0,1", f"run_dir={link.parent}"])
    assert link.is_symlink()
    assert (tmp_path / "kept.yaml").exists()


@pytest.fixture
def elsewhere(monkeypatch):
    """Jobs run in another process; what comes, one entry a launch."""

    def launch(here, jobs, initial_job_idx):
        reads, writes = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writes, pickle.dumps(here(jobs, initial_job_idx)[0]._return_value))
            os._exit(0)
        os.close(writes)
        with open(reads, "rb") as pipe:
            value = pickle.load(pipe)
        os.waitpid(child, 0)
        return [JobReturn(jobs[0], status=JobStatus.FAILED, _return_value=value)]

    made, called = Plugins.instantiate_launcher, []

    def instantiate_launcher(self, *words, **settings):
        launcher = made(self, *words, **settings)
        here = launcher.launch
        launcher.launch = lambda *args, **more: called.append(1) or launch(here, *args, **more)
        return launcher

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate_launcher)
    return called


def test_a_mistake_in_a_launchers_other_process_is_told(tmp_path, capsys, elsewhere):
    """What a job noted there was lost with that process, and nobody told."""
    words = "seed=${hydra:job.num}", "protocol.updates=-1", f"run_dir={tmp_path / 'runs'}"
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *TINY, *words])
    assert ended.value.code == 2
    assert elsewhere
    assert "hypercrl: job 0: protocol.updates must be at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (KeyError("a programming error"), 1, "    raise fault\nKeyError: 'a programming error'\n"),
        (MemoryError(), 1, "\nhypercrl: out of memory: "),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 3, "\nhypercrl: "),
    ],
)
def test_so_is_a_fault_as_what_it_is(fault, code, says, tmp_path, capsys, elsewhere, monkeypatch):
    """They were mistakes in the settings, that could not be read, and had no traceback."""

    def train(config):
        raise fault

    monkeypatch.setattr("hypercrl.commands.train.train", train)
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *TINY, "seed=0,1", f"run_dir={tmp_path / 'runs'}"])
    assert ended.value.code == code
    assert elsewhere
    said = capsys.readouterr().err
    assert says in f"\n{said}"
    assert "settings" not in said


def test_a_launcher_that_fails_is_told_as_that(tmp_path, capsys, monkeypatch):
    """Such as one whose process was killed."""
    made = Plugins.instantiate_launcher

    def instantiate_launcher(self, hydra_context, task_function, config):
        launcher = made(self, hydra_context, task_function, config)

        def launch(*words, **more):
            raise RuntimeError("a worker was terminated")

        launcher.launch = launch
        config.hydra.launcher._target_ = "another.Launcher"
        return launcher

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate_launcher)
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *TINY, "seed=0,1", f"run_dir={tmp_path / 'runs'}"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "hydra/launcher=basic could not run its jobs; those that had begun go on with" in said
    assert said.endswith("It says: a worker was terminated\n")


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["-m", "hydra.sweeper.params={seed: '1,2'}"], "-m seed=1,2"),
        (["hydra.sweeper.params={seed: '1,2'}"], "-m seed=1,2"),
        (["-m", "+hydra.sweeper.params={a: '1,2', b: '3'}"], "-m a=1,2 b=3"),
        (["-m", "++hydra.sweeper.params.seed='range(0,2)'"], "-m 'seed=range(0,2)'"),
        (["-m", "hydra.sweeper.params.seed=1,2", "run_dir=x"], "-m seed=1,2"),
    ],
)
def test_parameters_that_hydras_own_sweeper_does_not_take(
    words, instead, tmp_path, capsys, monkeypatch
):
    """They were 'NoneType' object has no attribute 'get'."""
    monkeypatch.chdir(tmp_path)
    said = message(capsys, "train", *TINY, *words)
    assert said.strip().endswith(f"values of a setting as they are: hypercrl train {instead}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=range(1,5,0)", "a range whose step is 0 does not get anywhere"),
        ("seed=range(5,1)", "there is nothing in this range"),
        ("seed=range(1,5,-1)", "there is nothing in this range"),
        ("seed=range(0.5,0.1,0.1)", "there is nothing in this range"),
        ("method.learning_rate=interval(0.1,1)", "an interval is for hydra/sweeper=optuna"),
        ("method=glob(zz*)", "no choice of a group is so called"),
        ("seed=glob(*)", "no choice of a group is so called"),
    ],
)
def test_several_values_that_are_none_are_told_with_their_setting(word, said, tmp_path, capsys):
    for command in (["train", "-m", f"run_dir={tmp_path / 'x'}"], ["bench", f"out={tmp_path}/x"]):
        assert f"hypercrl: {word}: {said}" in message(capsys, *command, "preset=smoke", word)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    # Not in hypercrl.report too: who first imports the command after that has it for good.
    monkeypatch.setattr("hypercrl.commands.report.write_report", full)
    assert "Make room, then go on" in message(capsys, "report", str(tmp_path))


def raised_from(error, cause):
    error.__cause__ = cause
    return error


FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of "
    "which 1.06 GiB is free. Including non-PyTorch memory, this process has 9 GiB memory in use."
)
ACCELERATOR = getattr(torch, "AcceleratorError", RuntimeError)
HOW_TO_DEBUG = "\nSearch for `cudaErrorX' in https://docs.nvidia.com\nCUDA kernel errors might be …"
ENDS = {
    "memory": (MemoryError(), 1, "out of memory: end other programs, or"),
    "torch's memory": (
        RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: you tried …"),
        *(1, "out of memory: end other programs, or"),
    ),
    "a GPU's memory": (
        *(FULL, 3),
        "out of memory on the GPU: Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
        "139.81 GiB of which 1.06 GiB is free; end other programs, or",
    ),
    "in a reward": (
        raised_from(UserError("told"), raised_from(TaskFault("the reward raised"), FULL)),
        *(3, "out of memory on the GPU: Tried to allocate 2.00 GiB."),
    ),
    "a full context": (
        ACCELERATOR("CUDA error: out of memory" + HOW_TO_DEBUG),
        *(3, "out of memory on the GPU: CUDA error: out of memory; end other"),
    ),
    "cuBLAS": (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        *(3, "out of memory on the GPU: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"),
    ),
    "Triton": (RuntimeError("Triton Error [CUDA]: out of memory"), 3, "out of memory on the GPU"),
    "taken": (
        ACCELERATOR("CUDA error: CUDA-capable device(s) is/are busy or unavailable" + HOW_TO_DEBUG),
        3,
        "the GPU failed: CUDA error: CUDA-capable device(s) is/are busy or unavailable; the system",
    ),
    "ECC": (
        ACCELERATOR("CUDA error: uncorrectable ECC error encountered" + HOW_TO_DEBUG),
        *(3, "the GPU failed: CUDA error: uncorrectable ECC error encountered; the system's log"),
    ),
    "gone": (GPUUnavailable("torch sees no GPU"), 3, "torch sees no GPU"),
    "a mistake": (UserError("no such task"), 2, "no such task"),
}


@pytest.mark.parametrize("name", ENDS)
def test_memory_that_runs_out_and_lost_gpus_are_no_mistakes_but_one_message(
    name, capsys, monkeypatch
):
    error, code, wanted = ENDS[name]

    def ends(*_):
        raise error

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("hypercrl.commands.tasks.run", ends)
    with pytest.raises(SystemExit) as ended:
        main(["tasks"])
    assert ended.value.code == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"hypercrl: {wanted}")


@pytest.mark.parametrize("name", ["memory", "torch's memory", "Triton"])
def test_no_account_of_hydras_stands_beside_that_message(name, tmp_path, capsys, monkeypatch):
    error, code, wanted = ENDS[name]

    def ends(*_):
        raise error

    monkeypatch.setattr("hypercrl.training.run.build", ends)
    with pytest.raises(SystemExit) as ended:
        main(["train", *TINY, f"run_dir={tmp_path / 'run'}"])
    assert ended.value.code == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"hypercrl: {wanted}")


def test_memory_of_a_gpu_that_runs_out_in_a_reward_is_no_fault_of_the_task(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reward_that_asks_for_more.py").write_text(
        f"import torch\ndef reward(obs, action, after):\n"
        f"    raise torch.OutOfMemoryError({str(FULL)!r})\n"
    )
    reward = '"reward_that_asks_for_more:reward"'
    tasks = f"env.tasks=[{{task: gym, id: Reacher-v5, reward: {reward}}}]"
    with pytest.raises(SystemExit) as ended:
        main(["train", "env=gymnasium", *TINY, tasks, "run_dir=run"])
    assert ended.value.code == 3
    assert "hypercrl: out of memory on " in capsys.readouterr().err


def test_a_mistake_in_what_ran_on_a_gpu_keeps_its_traceback(capsys, monkeypatch):
    def ends(*_):
        raise ACCELERATOR("CUDA error: an illegal memory access was encountered" + HOW_TO_DEBUG)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr("hypercrl.commands.tasks.run", ends)
    with pytest.raises(SystemExit) as ended:
        main(["tasks"])
    assert ended.value.code == 3
    *trace, said = capsys.readouterr().err.splitlines()
    assert trace[0].startswith("Traceback")
    assert said.startswith("hypercrl: GPU 3 failed: CUDA error: an illegal memory access")


def test_other_errors_are_bugs_and_are_raised(monkeypatch):
    def ends(*_):
        raise RuntimeError("no CUDA in what was to be done")

    monkeypatch.setattr("hypercrl.commands.tasks.run", ends)
    with pytest.raises(RuntimeError, match="what was to be done"):
        main(["tasks"])


def test_a_group_takes_settings_of_its_own_at_once(capsys):
    main(["train", "--cfg=job", "planner={samples: 40}"])
    assert "samples: 40" in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 200])
def test_titles_of_sequences_wrap_between_words_at_the_width(width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    main(["tasks", "walkers", "frame_hidden_told"])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= width for line in lines)
    titles = [line for line in lines if line and line[0] not in "┏┃┡│├└"]
    assert len(titles) == {60: 5, 80: 5, 200: 2}[width]
    assert " ".join(title.rstrip() for title in titles) == (
        "env=walkers  Gymnasium's one-legged and two-legged walkers, whose episodes end as they "
        "fall. They show how far they have come, of which the reward is a function. "
        "env=frame_hidden_told  frame_hidden with frame and densities in the observation: the "
        "reference without a memory."
    )


def test_a_narrow_list_of_tasks_cuts_neither_names_nor_values(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["tasks", "gymnasium"])
    said = capsys.readouterr().out
    assert "…" not in said
    for name in ("id", "reward", "distance", "solved_within"):
        assert said.count(f"│ {name}: ") == 2
    for value in ("Reacher-v5", "hypercrl_envs.gym_rewards:pusher_distance"):
        assert f": {value} " in said


def test_what_is_learned_of_a_task_is_said(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    reacher = {"task": "gym", "id": "Reacher-v5"}
    never = {"termination": "hypercrl_envs.terminations:never"}
    reward = {"reward": "hypercrl_envs.gym_rewards:reacher"}
    ends = never | {"options": {"reward_dist_weight": 2}}
    told = {"task": "push"}
    sequence = TaskSequence([reacher, reacher | ends, reacher | reward, told], "mine", pad=True)
    first, second = sequence.captions[:2]
    said = learned_note(sequence) or ""
    assert said.startswith(f"reward and ends of {first} are learned; reward of {second} is learned")
    assert learned_note(TaskSequence([told, reacher | reward | never], "told", pad=True)) is None
    many = [reacher | {"options": {"reward_dist_weight": weight}} for weight in range(1, 6)]
    assert ", 2 more are learned, from" in (learned_note(TaskSequence(many, "many")) or "")
    main(["tasks", "gymnasium_learned", "gymnasium"])
    assert capsys.readouterr().out.count("(learned): reward ") == 2


def test_a_parameter_that_a_sequence_leaves_out_is_added_by_a_plus(tmp_path, capsys):
    word = "env.tasks.1.frame=90"
    says = message(capsys, "train", *TINY, "env=push", word, f"run_dir={tmp_path / 'run'}")
    assert "task 2 of the sequence is given no frame" in says
    assert "add it, +env.tasks.1.frame=…" in says
    assert composed("train", [*TINY, "env=push", f"+{word}"]).env.tasks[1].frame == 90


def test_tasks_of_many_parameters_are_listed_one_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs/env").mkdir(parents=True)
    tasks = [{"task": "gym", "id": "Hopper-v5", "reward": "m:r" * 18, "options": {"a b": [True]}}]
    (tmp_path / "configs/env/mine.yaml").write_text(json.dumps({"tasks": tasks}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    main(["tasks", "mine", "push"])
    shown = capsys.readouterr().out
    for line in ("id: Hopper-v5", "reward: " + "m:r" * 18, 'options: {"a b": [true]}'):
        assert f"│ {line} " in shown
    assert "┃ densities  ┃" in shown
    assert max(map(len, shown.splitlines())) <= 80


REFUSED_JOBS = {
    "no such choice": (["method=finetune,finetun"], "there is no method=finetun"),
    "a value": (["protocol.updates=2,-3"], "protocol.updates=-3: protocol.updates"),
    "a setting of another choice": (
        ["method=hnet,finetune", "method.beta=1"],
        "method=finetune: there is no 'method.beta' with method=finetune, only with method=hnet|",
    ),
    "settings that cannot be together": (
        ["protocol.robots=1,7"],
        "protocol.robots=7: protocol.robots=7 robots act at once",
    ),
    "a task that there is not": (
        ["seed=0,1", "env.tasks=[{task: reach}]"],
        "hypercrl: sequence 'push', task 1: unknown task: 'reach'",
    ),
    "a tracker that there is not": (
        ["logger=[],[nobody]", "seed=0,1"],
        "hypercrl: logger=[nobody]: logger is of tensorboard, wandb, trackio, mlflow, not 'nobody'",
    ),
    "a setting that is ignored": (
        ["memory=none,gru", "context.windows=8"],
        "memory=none: context.windows has no effect",
    ),
}


@pytest.mark.parametrize(("words", "said"), REFUSED_JOBS.values(), ids=REFUSED_JOBS)
def test_a_multirun_with_a_mistake_in_any_job_starts_none(tmp_path, capsys, words, said):
    line = message(capsys, "train", "-m", *TINY, *words, f"run_dir={tmp_path}/runs/sweep")
    assert said in line
    assert "Did you mean 'method.beta'" not in line
    assert not (tmp_path / "runs").exists()


def test_a_pattern_takes_choices_and_no_schemas(monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr("hypercrl.commands.train.train", lambda c: taken.append(c.method.name))
    main(["train", "-m", "method=glob(hnet_*)", "preset=smoke", f"run_dir={tmp_path / 'runs'}"])
    assert taken == ["hnet_fisher", "hnet_replay", "hnet_si"]


def test_a_job_may_take_a_value_from_hydra(monkeypatch, tmp_path):
    """It is known only in the job: seed=${hydra:job.num} was refused before the first one."""
    seeds = []
    monkeypatch.setattr("hypercrl.commands.train.train", lambda c: seeds.append(c.seed))
    words = ["method=single,finetune", "seed=${hydra:job.num}", f"run_dir={tmp_path / 'runs'}"]
    main(["train", "-m", *TINY, *words])
    assert seeds == [0, 1]


@pytest.fixture
def refers_to_hydra(tmp_path, monkeypatch):
    """Files of one's own that refer to what Hydra knows in a job: of a method, of a sequence."""
    for group in ("method", "env"):
        (tmp_path / "configs" / group).mkdir(parents=True)
    (tmp_path / "configs/method/mine.yaml").write_text(
        "defaults: [finetune]\nlearning_rate: 1e-${hydra:job.num}\n"
    )
    (tmp_path / "configs/env/ours.yaml").write_text(
        "name: ours_${hydra:job.num}\ntasks: [{task: push}]\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("refers_to_hydra")
def test_a_file_of_ones_own_may_take_a_value_from_hydra(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(
        "hypercrl.commands.train.train",
        lambda c: given.append((c.method.learning_rate, c.env.name)),
    )
    main(["train", "-m", *TINY, "method=mine", "env=ours", "seed=4,5", "run_dir=runs"])
    assert given == [(1.0, "ours_0"), (0.1, "ours_1")]
    main(["tasks", "ours"])
    assert "push" in capsys.readouterr().out


@pytest.mark.usefixtures("refers_to_hydra")
def test_where_there_is_no_job_of_hydras_a_reference_to_it_is_refused(capsys):
    main(["train", "--cfg=hydra"])  # which is none either
    capsys.readouterr()
    told = "env.name: a reference ${hydra:…} is known only in a job that hypercrl train begins"
    assert told in message(capsys, "bench", *TINY, "env=ours", "seed=0", "out=grid")
    with pytest.raises(UserError, match=re.escape(told)):
        composed("train", [*TINY, "env=ours"])
    alone = message(capsys, "train", *TINY, "method=mine", "run_dir=run")
    assert "method.learning_rate is a number, such as method.learning_rate=0.5, not" in alone
    assert [path.name for path in Path().iterdir()] == ["configs"]


@pytest.mark.parametrize("word", ["dynamics.hidden=[[8]]", "replay.datasets=[[a]]"])
def test_a_list_within_a_list_of_single_values_is_refused(word, tmp_path, capsys):
    key = word.partition("=")[0]
    said = message(capsys, "train", *TINY, word, f"run_dir={tmp_path / 'run'}")
    assert f"{key} is a list of single values" in said
    assert not list(tmp_path.iterdir())


def test_a_multirun_whose_runs_cannot_begin_is_refused_once_and_leaves_no_folder(tmp_path, capsys):
    (tmp_path / "jobs_rewards.py").write_text(
        "def wrong(obs, action, next_obs):\n    return obs\n"  # a row each is wanted
    )
    words = ["env.tasks=[{task: gym, id: Pendulum-v1, reward: 'jobs_rewards:wrong'}]", "seed=0,1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(SystemExit):
            main(["train", "-m", *TINY, *words, "run_dir=runs"])
    said = capsys.readouterr().err
    assert said.startswith("hypercrl: ")
    assert said.count("jobs_rewards") == 1
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.glob("[!_]*")] == ["jobs_rewards.py"]


def test_a_sequence_without_tasks_has_none(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs/env").mkdir(parents=True)
    (tmp_path / "configs/env/empty.yaml").write_text("tasks: []\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", *TINY, "env=empty"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "hypercrl: the sequence empty has no tasks.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["method=hnet", "method.strength=3"],
            "there is no 'method.strength' with method=hnet, only with method=ewc|online_ewc|si. "
            "See: hypercrl train method=hnet --help",
        ),
        (
            ["planner.noise_beta=2"],
            "'planner.noise_beta' with planner=cem, only with planner=icem.",
        ),
        (["densities=3"], "a task of the sequence push, and is given by env.tasks.0.densities=, c"),
        (["env.engine=bullet"], "is given by +env.tasks.0.engine=, counted from 0."),
        (["env=ours", "gear=3"], "is given by env.tasks.1.options.gear=, counted from 0."),
        (["env=ours", "slope=3"], "is given by +env.tasks.0.options.slope=, with the task's numb"),
        (["planner=shooting"], "there is no planner=shooting. For what is in shooting.py: "),
        (["planner=shooting"], ".py: planner=shooting:Shoot. Choices: cem, "),
        (["planner=shooting:shoot"], "shooting has no 'shoot' (did you mean 'Shoot'?): write "),
        (
            ["env=ours", "env.tasks.1.options.gear=2", "+env.tasks.1.options.gaer=2"],
            "it takes no option 'gaer', did you mean 'gear'? Cart takes: gear, max_episode_steps",
        ),
        (
            ["env=ours", "env.tasks.1.options.gear=-1"],
            "it raised TypeError: a gear is positive (carts_of_ours.py, line 6)",
        ),
    ],
)
def test_what_is_in_another_place_is_said_to_be_there(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shooting.py").write_text("class Shoot:\n    pass\n")
    Path("carts_of_ours.py").write_text(CARTS)
    Path("configs/env").mkdir(parents=True)
    cart = 'task: gym, id: "carts_of_ours:OurCart-v0"'
    tasks = f"  - {{{cart}}}\n  - {{{cart}, options: {{gear: 2}}}}\n"
    Path("configs/env/ours.yaml").write_text(f"name: ours\ntasks:\n{tasks}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("shooting", "carts_of_ours"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delitem(gymnasium.registry, "OurCart-v0", raising=False)
    assert said in message(capsys, "train", *TINY, "protocol.num_tasks=2", *words, "run_dir=x")
    assert not Path("x").exists()


CARTS = """\
import gymnasium
class Cart(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-1, 1)
    def __init__(self, gear=1):
        if gear < 0:
            raise TypeError("a gear is positive")
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype("float32"), {}
    def step(self, action):
        return self.np_random.uniform(-1, 1, 2).astype("float32"), 0.0, False, False, {}
gymnasium.register("OurCart-v0", Cart, max_episode_steps=50)
"""


def test_a_folder_of_runs_is_told_from_a_run(tmp_path, capsys):
    run = tmp_path / "grid/cells/hnet-0"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    said = message(capsys, "play", f"run={tmp_path / 'grid'}")
    assert f"is no run, but has 1 run below it: name one, such as {run}." in said
