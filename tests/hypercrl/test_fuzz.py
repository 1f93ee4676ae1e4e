"""Made-up files and settings are accepted or refused by one message; scripts/fuzz.py has more."""

import pytest

from scripts.fuzz import TARGETS, fuzz


@pytest.mark.parametrize(
    ("target", "examples"),
    [
        ("checkpoint", 600),
        ("state", 60),
        ("config", 60),
        ("result", 150),
        ("metrics", 150),
        ("words", 50),
    ],
)
def test_nothing_but_the_one_message(target, examples):
    seen = fuzz(target, examples)
    assert seen["refused"]
    assert sum(seen.values()) >= examples // 2


def test_a_page_over_errors_that_were_not_measured(tmp_path):
    """As fuzzing found it: an axis in decades without a number on it."""
    line = b'{"kind": "eval", "env_steps": 12, "task": 1, "on": 1, "return": 1.0}\n'
    TARGETS["page"].read({"metrics": line}, tmp_path)
    assert (tmp_path / "report" / "index.html").exists()
