"""Made-up files and settings are accepted or refused by one message; scripts/fuzz.py has more."""

import pytest

from scripts.fuzz import fuzz


@pytest.mark.parametrize(
    ("target", "examples"),
    [("config", 60), ("result", 150), ("metrics", 150), ("words", 30), ("grid", 40)],
)
def test_nothing_but_the_one_message(target, examples):
    seen = fuzz(target, examples)
    assert seen["refused"]
    assert sum(seen.values()) >= examples // 2
