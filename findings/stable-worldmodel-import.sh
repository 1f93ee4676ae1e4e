#!/usr/bin/env bash
# stable-worldmodel 0.1.1
#
# Guess: `pip install stable-worldmodel` brings what `import stable_worldmodel` needs; what the optional
# groups (env, train, format) bring is needed for those alone.
# Seen: the import ends in ModuleNotFoundError for cv2. stable_worldmodel/wrapper/visual.py imports it at
# the top, the package imports its wrappers, so that every part of it does, its solvers too; OpenCV is
# among the requirements of the group `env` alone.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1 stable-worldmodel==0.1.1
venv/bin/python - <<'PY'
import importlib

try:
    importlib.import_module("stable_worldmodel.solver")
except ModuleNotFoundError as error:
    print(type(error).__name__, error)
    assert error.name == "cv2"
else:
    raise SystemExit("it behaves otherwise now")
PY
echo "as described"
