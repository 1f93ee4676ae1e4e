#!/usr/bin/env bash
# hydra-core 1.3.8 with omegaconf 2.3.1, structured configs
#
# Guess: a field `Optional[dict[str, Any]] = None` of a dataclass is given a mapping on the command
# line as any other field is given its value, `a={x: 1}`.
# Seen: no spelling does it. `a={x: 1}` and `++a={x: 1}` end with AttributeError, 'NoneType' object
# has no attribute 'get', `++a.x=1` with an AssertionError. Only with `a={}` or as `a: Any = None` does
# it work, the former by `+a={x: 1}`, not by `a={x: 1}`, which is said to be a key that there is not. A YAML
# file with `a: null` in place of the dataclass takes `a={x: 1}`.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8 omegaconf==2.3.1
echo 'a: null' > plain.yaml
venv/bin/python - <<'PY'
import os
from dataclasses import dataclass, field
from typing import Any, Optional

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf


@dataclass
class Options:
    nothing: Optional[dict[str, Any]] = None
    empty: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


ConfigStore.instance().store(name="options", node=Options)
SEEN = {
    ("options", "nothing={x: 1}"): "AttributeError",
    ("options", "++nothing={x: 1}"): "AttributeError",
    ("options", "++nothing.x=1"): "AssertionError",
    ("options", "empty={x: 1}"): "ConfigCompositionException",
    ("options", "+empty={x: 1}"): {"x": 1},
    ("options", "anything={x: 1}"): {"x": 1},
    ("plain", "a={x: 1}"): {"x": 1},
}
with initialize_config_dir(os.getcwd(), version_base=None):
    for (name, word), seen in SEEN.items():
        key = word.lstrip("+").partition("=")[0].partition(".")[0]
        try:
            found = OmegaConf.to_container(compose(name, [word]))[key]
        except Exception as error:
            found = type(error).__name__
        print(f"{name:8} {word:20} {found}")
        assert found == seen, f"it behaves otherwise now: {found}, not {seen}"
PY
