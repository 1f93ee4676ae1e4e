#!/usr/bin/env bash
# omegaconf 2.3.1, Python 3.11 or newer
#
# Guess: a structured config's `list[int]` and `dict[str, int]` hold whole numbers, whichever way values come in: an element of another
# kind is refused when it is assigned, so it is when a config is merged in, as of a file or a command line.
# Seen: OmegaConf.merge refuses a text in a number's place, but takes a list or a mapping there, and OmegaConf.to_object hands both on
# inside the dataclass. Assigning and appending the same values is refused. Whoever relies on the types is told nothing until a
# computation meets a list.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet omegaconf==2.3.1
cat > elements.py <<'PY'
from dataclasses import dataclass, field

from omegaconf import OmegaConf, ValidationError


@dataclass
class Sizes:
    hidden: list[int] = field(default_factory=lambda: [200, 200])
    named: dict[str, int] = field(default_factory=dict)


def outcome(function):
    try:
        return function()
    except ValidationError as error:
        return type(error).__name__


base = OmegaConf.structured(Sizes)
for given in ({"hidden": ["a"]}, {"hidden": [[1]]}, {"hidden": [{"x": 1}]}, {"named": {"x": [1]}}):
    print("merged", given, outcome(lambda: OmegaConf.to_object(OmegaConf.merge(base, given))))
print("assigned", outcome(lambda: base.hidden.__setitem__(0, [1])))
print("appended", outcome(lambda: base.hidden.append([1])))
PY
venv/bin/python elements.py | tee seen
diff seen - <<'SEEN'
merged {'hidden': ['a']} ValidationError
merged {'hidden': [[1]]} Sizes(hidden=[[1]], named={})
merged {'hidden': [{'x': 1}]} Sizes(hidden=[{'x': 1}], named={})
merged {'named': {'x': [1]}} Sizes(hidden=[200, 200], named={'x': [1]})
assigned ValidationError
appended ValidationError
SEEN
echo "as described"
