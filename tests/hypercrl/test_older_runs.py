"""Runs whose settings were legal when they were begun, and would be refused of a new one."""

import json
import shutil

import pytest
from omegaconf import OmegaConf
from test_command_line import TINY, message

import hypercrl
from hypercrl.base.settings import check
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.schema import LARGEST_SEED
from hypercrl.runs.demos import DEMOS

SMALL = (*TINY, "protocol.num_tasks=2", "method=coreset", "method.capacity=300")
OLD = {
    "capacity: 300": "capacity: 1",  # once more tasks than rows left some without any
    "trial_error: 0.02": "trial_error: 0.5",  # of a rule by rank
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    main(["train", *SMALL, f"run_dir={run}"])
    return run


def changed(trained, tmp_path, texts):
    """The run as if it had been begun with others of its settings."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = (run / "config.yaml").read_text()
    for text, other in texts.items():
        assert config.count(text) == 1
        config = config.replace(text, other)
    (run / "config.yaml").write_text(config)
    return run


@pytest.mark.parametrize("setting", OLD)
def test_it_is_opened_and_gone_on_with(setting, trained, tmp_path, capsys):
    run = changed(trained, tmp_path, {setting: OLD[setting]})
    with pytest.warns(UserWarning, match=r"would not be begun now: .*(capacity=1|at most 0\.3)"):
        agent = hypercrl.load(run, task=2)
    env = agent.make_env()
    assert agent.act(env.reset(seed=0)[0]).shape == (2,)
    with pytest.warns(UserWarning, match="would not be begun now"):
        main(["play", f"run={run}", "task=1", "episodes=1"])
    (run / "result.json").unlink()
    with pytest.warns(UserWarning, match="would not be begun now"):
        main(["train", f"resume={run}"])
    scores = [json.loads((r / "result.json").read_text())["scores"] for r in (trained, run)]
    assert scores[0] == scores[1]
    main(["report", str(run)])
    capsys.readouterr()


def test_what_is_allowed_of_a_new_one_is_of_one_that_has_begun():
    """A limit above a thousand million had been lost."""
    config = OmegaConf.to_object(composed("train", [f"seed={LARGEST_SEED}"]))
    check(config)
    check(config, begun=True)


def test_and_is_refused_of_a_new_one(tmp_path, capsys):
    for words in (["method.capacity=1"], ["task_id=inferred", "inference.trial_error=0.5"]):
        message(capsys, "train", *SMALL, *words, f"run_dir={tmp_path / 'run'}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "other", "says"),
    [
        (
            "beta: 0.05\n",
            "beta: 0.05\n  hearings: 3\n",
            "config.yaml has 'method.hearings=3', a setting that this version of the program does "
            "not have. Use the version that the run was begun with; or delete it there",
        ),
        ("preset: quick\n", "preset: quick\ncolour: red\n", "config.yaml has 'colour=red', a sett"),
        ("preset: quick\n", 'preset: quick\ncolour: "\\e[8m"\n', r"has 'colour=\x1b[8m', a set"),
        ("samples: 300", "samples: 0", "planner.samples must be at least 1, not 0."),
        (
            "beta: 0.05",
            "beta: [1]",
            "config.yaml: method.beta is a number, such as method.beta=0.05, not [1]. Use the "
            "version that the run was begun with, or mend it there.",
        ),
        ("seed: 0\n", "seed: a\n", "config.yaml: seed is a whole number, such as seed=0, not 'a'."),
        ("preset: quick\n", "", "config.yaml has no preset, which this version of the program n"),
        ("  updates: 250\n", "", "config.yaml has no protocol.updates, which this version of"),
        ("method:\n  name: hnet\n", "method:\n", "config.yaml has no method.name, which says what"),
        ("  name: hnet\n", "  name: hnett\n", "config.yaml: unknown method: 'hnett'; did you mean"),
        ("replay:\n  datasets: []\n", "replay: 5\n", "config.yaml has 5 for replay, which is a gr"),
        (
            "seed: 0\n",
            "seed: ???\n",
            "config.yaml has no seed, which this version of the progr",
        ),
        (
            "beta: 0.05",
            "beta: ???",
            "config.yaml has no method.beta, which this version of the",
        ),
        ("datasets: []", "datasets: {}", "config.yaml has {} for replay.datasets, which is a list"),
        ("datasets: []", "datasets: [[a]]", "replay.datasets is a list of single values, of whi"),
        ("task_id: given", "task_id: guessed", "task_id is one of given, inferred, not 'guessed'."),
        ("sampled: false", "sampled: true", "planner.sampled=true needs dynamics.probabilistic="),
        ("robots: 1\n", "robots: 7\n", "must be a multiple of 7"),
        ("burst_share: 0.0", "burst_share: 2.0", "burst_share must be at most 0.5, not 2"),
    ],
)
def test_what_cannot_be_is_one_message(text, other, says, tmp_path, capsys):
    run = changed(DEMOS / "push_demo", tmp_path, {text: other})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    said = message(capsys, "play", f"run={run}", "episodes=1")
    assert says in said
    assert "full_key" not in said
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
