"""Help pages: every setting with its meaning, within 80 columns."""

import re
import sys
from dataclasses import fields, is_dataclass

import pytest

import hypercrl
from hypercrl.agent.task_inference import InferenceConfig
from hypercrl.base.errors import UserError
from hypercrl.base.settings import choice, meaning, number
from hypercrl.cli import COMMANDS, main
from hypercrl.commands.bench import OWN
from hypercrl.config.compose import composed
from hypercrl.config.help import Setting, limits
from hypercrl.config.schema import ExportConfig, PlayConfig, RecallConfig, TrainConfig
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS


def schemas():
    """Every dataclass of settings, and those that are fields of one."""
    found = {TrainConfig, PlayConfig, ExportConfig, RecallConfig}
    found |= {schema for kinds in (METHODS, MEMORIES, PLANNERS) for _, schema in kinds.values()}
    for schema in tuple(found):
        found |= {f.type for f in fields(schema) if is_dataclass(f.type)}
    return sorted(found, key=lambda schema: schema.__name__)


def page(capsys, *words):
    main(words)
    return capsys.readouterr().out


def rows(capsys, *words):
    """Setting → its row of the help of train, in one line."""
    text = page(capsys, "train", *words, "--help").split("\nsettings\n")[1]
    found = (re.split(r"\s{2,}", row, maxsplit=1) for row in re.split(r"\n  (?=\S)", text))
    return {row[0].strip().split("=")[0]: " ".join(" ".join(row).split()) for row in found}


def test_schemas_are_found():
    assert InferenceConfig in schemas()
    assert len(schemas()) > 35


@pytest.mark.parametrize("schema", schemas())
def test_every_setting_has_a_meaning_of_one_line(schema):
    for f in fields(schema):
        text = meaning(schema, f.name)
        assert text, f"{schema.__name__}.{f.name} says nowhere what it means: help=..."
        assert "\n" not in text
        assert len(text) <= 90, f"{schema.__name__}.{f.name}: {text}"
        assert not text.endswith("."), text


@pytest.mark.parametrize("schema", schemas())
def test_what_a_setting_goes_with_is_there_and_has_such_values(schema):
    """Beside it, or "/name" of a run's whole configuration."""
    for f in fields(schema):
        for needed in f.metadata.get("only_with", ()):
            names, _, values = needed.partition("=")
            whole = TrainConfig if names.startswith("/") else schema
            there = {g.name: g.metadata.get("values") for g in fields(whole)}
            for path in names.removeprefix("/").split("|"):
                name = path.partition(".")[0]
                assert name in there, f"{schema.__name__}.{f.name} goes with {name}"
                assert (whole, path) != (schema, f.name), f"{schema.__name__}.{path} and itself"
                if values and there[name]:
                    assert set(values.split("|")) <= set(there[name]), needed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_names_no_schema(capsys, command):
    text = page(capsys, command, "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert "_schema" not in text
    assert "hydra" not in text.replace("Hydra's multirun", "")
    assert text.startswith(f"usage: hypercrl {command}")


def test_the_first_page_fits_80_columns(capsys):
    assert max(map(len, page(capsys, "--help").splitlines())) <= 80


def test_help_needs_nothing_that_the_command_does(capsys, monkeypatch):
    """Of train that is the trainer, and matplotlib for the report."""
    monkeypatch.setitem(sys.modules, "hypercrl.commands.train", None)
    assert "protocol.updates" in page(capsys, "train", "--help")


def test_help_of_train_has_every_setting(capsys):
    text = page(capsys, "train", "--help")
    for f in fields(TrainConfig):
        if not is_dataclass(f.type) or f.name in ("env", "method", "memory", "planner"):
            assert f"\n  {f.name}" in text
            continue
        for inner in fields(f.type):
            assert f"\n  {f.name}.{inner.name}" in text


def test_help_has_the_values_of_the_words_beside_it(capsys):
    words = ("method=ewc", "method.strength=3", "memory=titans_mac", "preset=smoke")
    text = page(capsys, "train", *words, "--help")
    for shown in (
        "method.strength=3.0",
        "method.fisher_samples=1000",
        "memory.persistent=4",
        "planner.samples=32",
        "protocol.num_tasks=2",
    ):
        assert f"\n  {shown} " in text or f"\n  {shown}\n" in text
    assert "method.beta" not in text


@pytest.mark.parametrize(
    ("words", "gone", "marked", "plain"),
    [
        (
            ("method=ftl", "memory=gru"),
            ("method.learning_rate", "method.clip_norm", "memory.heads", "dynamics.hidden"),
            (),
            ("method.ridge", "memory.width", "context.windows"),
        ),
        (
            (),
            ("memory.width",),
            ("planner.risk_beta", "planner.risk=penalty"),
            ("planner.risk", "planner.samples", "method.beta"),
        ),
        (("planner.risk=penalty",), (), (), ("planner.risk_beta",)),
    ],
)
def test_help_leaves_out_what_has_no_effect_and_says_what_gives_it_one(
    capsys, words, gone, marked, plain
):
    said = rows(capsys, *words)
    assert not said.keys() & set(gone)
    if marked:
        assert said[marked[0]].endswith(f"[only with {marked[1]}]")
    for key in plain:
        assert "only with" not in said[key]


def test_help_says_once_what_a_whole_group_needs(capsys):
    text = page(capsys, "train", "planner.dynamics=simulator", "--help")
    told = [line for line in text.splitlines() if line.startswith("dynamics: ")]
    assert told == ["dynamics: the main network [only with planner.dynamics=model]"]


def test_what_help_leaves_out_or_marks_is_what_is_refused(capsys):
    """Of numbers given at the value that they have, so that nothing else can be wrong."""
    words = ("method=ftl", "memory=gru")

    def is_refused(key, value):
        try:
            composed("train", [*words, f"{key}={value}"])
        except UserError as error:
            return f"{key} has no effect" in str(error)
        return False

    said, config = rows(capsys, *words), composed("train", words)
    numbers = {
        f"{group}.{name}": value
        for group in ("method", "memory", "planner", "value")
        for name, value in config[group].items()
        if type(value) in (int, float)
    }
    refused = {key for key, value in numbers.items() if is_refused(key, value)}
    assert {key for key in numbers if "only with" in said.get(key, "only with")} == refused
    assert {"method.learning_rate", "value.discount"} < refused < numbers.keys()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method=nothing", "there is no method=nothing"),
        ("env=1", "env is the name of one choice, not 1"),
    ],
)
def test_a_mistake_beside_help_is_told(word, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", word, "--help"])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_help_of_recall_knows_its_own_presets(capsys):
    text = page(capsys, "recall", "--help", "preset=smoke")
    assert "preset=smoke" in text
    assert "paper" not in text
    assert "\n  steps=5 " in text


def test_help_of_bench_has_its_own_settings(capsys):
    text = page(capsys, "bench", "--help")
    assert [key for key in OWN if f"\n  {key}=" not in text] == []


def test_version(capsys):
    assert page(capsys, "--version") == f"hypercrl {hypercrl.__version__}\n"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (number(1, least=1), "≥1"),
        (number(0.5, least=0, most=1), "0 to 1"),
        (number(0, least=0, most=2**63 - 1), "0 to 9223372036854775807"),
        (number(0.5, most=2), "≤2"),
        (number(0.5), ""),
        (choice("a", "a", "b"), "a, b"),
    ],
)
def test_limits_in_words(field, text):
    assert limits(field) == text


def test_a_default_is_one_of_the_choices():
    with pytest.raises(ValueError, match="'a' is none of b, c"):
        choice("a", "b", "c")


def test_a_setting_without_a_meaning_shows_its_limits():
    """Of a dataclass of one's own, which need not say what its fields mean."""
    assert Setting("method.own", "1.0", "", "≥0").text == "(≥0)"
    assert Setting("method.own", "1.0", "of mine", "≥0").text == "of mine (≥0)"
    assert Setting("method.own", "1.0", "of mine", "").text == "of mine"
