#!/usr/bin/env bash
# hydra-core 1.3.8, a plugin's module that was imported before Hydra looks for plugins
#
# Guess: a module is executed once in a process. Whoever imports a class or a list of a plugin's module, be it a search path plugin of one's own
# or Hydra's launcher, has what Hydra uses: to patch it, to ask isinstance, to read what the plugin has noted.
# Seen: as Hydra first looks for plugins it executes all their modules, those that were imported before once more, in the same module object. The
# names in it are then other objects: a class imported before is no longer the one that Hydra makes instances of, a patch of it has no effect,
# and a list imported before stays empty while the plugin fills the new one. Nothing is said. What is looked up in the module afterwards is right.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8
mkdir hydra_plugins
cat > hydra_plugins/mine.py <<'PY'
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

print("the module is executed")
CALLS = []


class Mine(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        CALLS.append("called")
PY
cat > program.py <<'PY'
from hydra import compose, initialize
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra_plugins import mine
from hydra_plugins.mine import CALLS, Mine

with initialize(version_base="1.3", config_path=None):
    compose(overrides=["+seed=1"])
print("calls in the list imported before:", len(CALLS), "and in the module's list:", len(mine.CALLS))
print("the module's class is the one imported before:", mine.Mine is Mine)
launchers = {kind.__name__: kind for kind in Plugins.instance().discover(Launcher)}
print("Hydra's launcher is the one imported before:", launchers["BasicLauncher"] is BasicLauncher)
PY
PYTHONPATH=. venv/bin/python program.py | tee seen.txt
expected='the module is executed
the module is executed
calls in the list imported before: 0 and in the module'"'"'s list: 1
the module'"'"'s class is the one imported before: False
Hydra'"'"'s launcher is the one imported before: False'
[ "$(cat seen.txt)" = "$expected" ] || { echo "it behaves otherwise now"; exit 1; }
echo "as described"
