"""The README's first screen says what the pages of results say."""

import re
from pathlib import Path

import pytest

from hypercrl.methods import METHODS

ROOT = Path(__file__).parents[1]


def table(page: str, head: str) -> list[list[str]]:
    """Cells of the first table whose head matches, without bold and brackets."""
    lines = (ROOT / page).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if re.match(head, line))
    rows = []
    for line in [lines[first], *lines[first + 2 :]]:
        if not line.startswith("|"):
            break
        rows.append([re.sub(r"[*()]", "", cell).strip() for cell in line.strip("|").split("|")])
    return rows


def test_success_of_methods_is_that_of_the_evidence():
    columns, *rows = table("docs/results/evidence.md", r"\|  \| mean of \d")
    found = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    (_, *shown, _), *claims = table("README.md", r"\| method \| push")
    named = {column.partition(",")[0]: column for column in columns}
    for method, *values, keeps in claims:
        evidence = found[method.split(",")[0]]
        for sequence, value in zip(shown, values, strict=True):
            assert value == (evidence[named[sequence]] or "–"), (method, sequence)
        if not evidence["keeps after 20 tasks"]:
            assert keeps == "as much", method
            continue
        size, unit = evidence["keeps after 20 tasks"].split()
        mebibytes = float(size) / {"MiB": 1, "KiB": 1024}[unit]
        assert keeps == f"{mebibytes:.1f} MiB", method


@pytest.mark.parametrize("page", ["README.md", "docs/costs.md"])
def test_all_methods_with_three_seeds_are_as_many_runs_as_is_said(page):
    lines = (ROOT / page).read_text().splitlines()
    said = [re.findall(r"(\d+) runs", s) for s in lines if "bench method=all seed=0,1,2" in s]
    assert {int(number) for numbers in said for number in numbers} == {3 * len(list(METHODS))}
