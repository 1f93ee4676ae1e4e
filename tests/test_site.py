"""The documentation site: its hooks, and the page of settings. `make docs` builds it."""

import sys
from dataclasses import fields, is_dataclass

import pytest

from hypercrl.config.schema import PlayConfig, RecallConfig, TrainConfig
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS


@pytest.fixture(autouse=True)
def fresh_hooks(monkeypatch):
    for name in ("docs_hooks", "docs_settings"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def hooks():
    pytest.importorskip("mkdocs", reason="the extra hypercrl[docs] is not installed")
    import docs_hooks

    return docs_hooks


def test_every_setting_is_on_the_page():
    from docs_settings import settings_tables

    page = settings_tables()
    groups = {f.name: [f.type] for f in fields(TrainConfig) if is_dataclass(f.type)}
    for name, kinds in (("method", METHODS), ("memory", MEMORIES), ("planner", PLANNERS)):
        groups[name] = [schema for _, schema in kinds.values()]
    keys = {
        f"{group}.{f.name}"
        for group, schemas in groups.items()
        for schema in schemas
        for f in fields(schema)
    }
    for schema in (TrainConfig, PlayConfig, RecallConfig):
        keys |= {f.name for f in fields(schema) if not is_dataclass(f.type)}
    missing = [key for key in keys if f"| `{key}` |" not in page and not key.endswith(".name")]
    assert missing == []
    assert len(keys) > 100


def test_the_page_has_the_values_of_yaml_and_presets():
    from docs_settings import settings_tables

    rows = [row for row in settings_tables().splitlines() if row.startswith("| `")]
    (planned,) = (row for row in rows if row.startswith("| `protocol.planned_steps`"))
    assert planned.endswith("| – | `60` | `1200` | `4000` | `4000` |")
    (samples,) = (row for row in rows if row.startswith("| `planner.samples`"))
    assert samples.endswith("| `200` | `32` | `300` | `500` | `500` |")
    rates = [row for row in rows if row.startswith("| `method.learning_rate`")]
    assert rates[0].startswith("| `method.learning_rate` | of Adam (≥0) | `0.0001` |")


@pytest.mark.parametrize(
    ("here", "uri", "text", "target", "expected"),
    [
        ("README.md", "index.md", "Guide", "docs/guide.md#train", "[Guide](guide.md#train)"),
        ("docs/guide.md", "guide.md", "map", "../CONTRIBUTING.md", "[map](contributing.md)"),
        (
            "docs/results/planners.md",
            "results/planners.md",
            "the kernels",
            "../../kernels/README.md#memories",
            "[the kernels](../kernels.md#memories)",
        ),
        ("README.md", "index.md", "cli", "hypercrl/cli.py", "cli (`hypercrl/cli.py`)"),
        ("README.md", "index.md", "cli.py", "hypercrl/cli.py", "`hypercrl/cli.py`"),
        ("docs/results.md", "results.md", "raw", "results/paper", "raw (`docs/results/paper`)"),
    ],
)
def test_links_of_the_site(hooks, here, uri, text, target, expected):
    assert hooks._link(text, target, here, uri) == expected


def test_code_is_left_as_it_is(hooks):
    class Here:
        file = type("File", (), {"src_uri": "guide.md"})

    text = "`[a](../README.md)` [`b`](../README.md) [c](https://x.org) [d](#e)\n"
    fenced = "```\n[a](../README.md)\n```\n"
    seen = hooks.on_page_markdown(text + fenced, page=Here())
    assert seen == text.replace("[`b`](../README.md)", "[`b`](index.md)") + fenced


def test_patterns_of_the_nav_take_what_is_left(hooks):
    nav = [
        {"Home": "index.md"},
        {"Extend": ["extend/*.md", {"Own": "own.md"}]},
        {"Empty": ["none/*.md"]},
        {"More": ["*.md"]},
    ]
    free = ["extend/a.md", "extend/b.md", "extend/deep/c.md", "late.md"]
    assert list(hooks._entries(nav)) == [
        "index.md", "extend/*.md", "own.md", "none/*.md", "*.md",
    ]  # fmt: skip
    assert hooks._expanded(nav, free) == [
        {"Home": "index.md"},
        {"Extend": ["extend/a.md", "extend/b.md", {"Own": "own.md"}]},
        {"More": ["late.md"]},
    ]
