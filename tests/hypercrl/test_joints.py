"""Names broken at their joints: nothing is lost, and no line is longer than need be."""

import pytest

from hypercrl.base.joints import in_lines, parts

NAMES = [
    "hnet + gru, planner=own.planner:Momentum, beta=0.5, lr=1e-05",
    "a: b= c.",
    "::",
    " spaced  out ",
    "one",
    "",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1, 8, 14, 100])
def test_lines_hold_the_name_in_as_little_as_fits(name, width):
    assert "".join(parts(name)).split() == name.split()
    lines = in_lines(name, width)
    assert "".join("".join(lines).split()) == "".join(name.split())
    longest = max((len(part.rstrip()) for part in parts(name)), default=0)
    assert max(map(len, lines)) <= max(width, longest)


def test_numbers_and_what_a_setting_begins_with_are_not_torn():
    assert in_lines("planner=own.planner:Momentum, beta=0.5", 8) == [
        "planner=",
        "own.",
        "planner:",
        "Momentum,",
        "beta=0.5",
    ]
