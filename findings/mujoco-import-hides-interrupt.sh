#!/usr/bin/env bash
# mujoco 4.0.0, Python 3.11 or newer
#
# Guess: Ctrl-C while `import mujoco` is under way raises KeyboardInterrupt, as while any other module is imported, and so does what
# a handler of one's own raises for SIGTERM. Programs that end in order on either may import simulators at any time.
# Seen: while one of mujoco's compiled modules imports another, what the handler raised becomes "ImportError: initialization failed";
# the KeyboardInterrupt is left as its cause alone. `except KeyboardInterrupt` does not see it, and a program that treats a missing
# package and an interrupt apart takes the interrupt for a broken installation (exit code 1 in place of 130).
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet mujoco==4.0.0 numpy==2.4.6
cat > interrupted.py <<'PY'
import os
import signal
import sys


class PressesCtrlC:
    """Stands for somebody who does so as the compiled module asks for another."""

    def __init__(self, module):
        self.module = module

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, PressesCtrlC(sys.argv[1]))
try:
    import mujoco
except BaseException as error:
    print(f"{sys.argv[1]}: {type(error).__name__}: {error}; cause {type(error.__cause__).__name__}")
PY
plain=$(venv/bin/python interrupted.py numpy)
compiled=$(venv/bin/python interrupted.py mujoco._structs)
echo "$plain"
echo "$compiled"
[ "$plain" = "numpy: KeyboardInterrupt: ; cause NoneType" ]
[ "$compiled" = "mujoco._structs: ImportError: initialization failed; cause KeyboardInterrupt" ]
echo "as described"
