#!/usr/bin/env bash
# omegaconf 2.3.1, Python 3.11 or newer
#
# Guess: Ctrl-C while OmegaConf.create builds a config raises KeyboardInterrupt, as from any other pure Python code.
# Seen: in 88 of 100 places what comes out is a ConfigKeyError, with the KeyboardInterrupt as its context alone: flags of a config
# that is half made are set back on the way out, which fails. In copy.deepcopy of the same data it is 0 of 100. Who catches
# OmegaConf's errors around composing takes an interrupt for a wrong setting, and says that a key does not exist or goes on.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet omegaconf==2.3.1
cat > interrupted.py <<'PY'
import collections
import copy
import os
import signal
import sys

from omegaconf import OmegaConf


def pressed_at(call, function, value):
    """What `function(value)` raises where somebody presses Ctrl-C at its n-th call."""
    calls = 0

    def watch(frame, event, argument):
        nonlocal calls
        calls += event == "call"
        if calls == call:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(watch)
    try:
        function(value)
    except BaseException as error:
        behind = error
        while behind.__context__ is not None:
            behind = behind.__context__
        return f"{type(error).__name__} after {type(behind).__name__}"
    finally:
        sys.setprofile(None)
    return "nothing"


config = {"tasks": [{"name": "a", "number": n} for n in range(100)]}
for function in (copy.deepcopy, OmegaConf.create):
    print(function.__name__, dict(collections.Counter(
        pressed_at(call, function, config) for call in range(100, 1100, 10)
    )))
PY
venv/bin/python interrupted.py | tee seen
[ "$(sed -n 1p seen)" = "deepcopy {'KeyboardInterrupt after KeyboardInterrupt': 100}" ]
grep -Eq "^create .*'ConfigKeyError after KeyboardInterrupt': [5-9][0-9]" seen
echo "as described"
