#!/usr/bin/env bash
# torch 2.13.0, torch.utils._python_dispatch.TorchDispatchMode
#
# Guess: a mode that hands every operation on costs microseconds an operation; torch.compile's front end
# (torch._dynamo) is imported where something is compiled.
# Seen: the first operation under any subclass imports torch._dynamo and with it nine hundred modules, for a
# second or more: __torch_dispatch__ of every subclass is wrapped so that Dynamo leaves it alone. A process that
# never compiles pays for it too. Operations after the first cost microseconds.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PY'
import sys
import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HandOn(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


x = torch.ones(1)
x + 1
before = len(sys.modules)
assert "torch._dynamo" not in sys.modules
with HandOn():
    started = time.perf_counter()
    x + 1
    first = time.perf_counter() - started
    started = time.perf_counter()
    x + 1
    second = time.perf_counter() - started
print("torch", torch.__version__.split("+")[0], "modules imported by one addition:", len(sys.modules) - before)
print("the first addition takes more than 100 times as long as the second:", first > 100 * second)
if "torch._dynamo" not in sys.modules or first < 100 * second:
    raise SystemExit("it behaves otherwise now")
PY
echo "as described"
