#!/usr/bin/env bash
# hydra-core 1.3.8: what a plain run of a @hydra.main program costs
#
# Guess: the configuration is composed once, whose result the program is given, and once more for each job of a --multirun: 1, and 4 for three jobs.
# Seen: a plain run composes all of it twice. The first time is for hydra.mode alone, which is asked of a whole configuration, and is thrown
# away; a --multirun of three jobs composes eight times, twice for itself and twice for each job, of which once to see beforehand whether it can be
# composed. So reading files, merging and checking schemas take twice as long as compose() of the same.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8 omegaconf==2.3.1
echo 'x: 1' > config.yaml
cat > program.py <<'PY'
import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl

composed = 0
load = ConfigLoaderImpl.load_configuration


def counted(self, *args, **kwargs):
    global composed
    composed += 1
    return load(self, *args, **kwargs)


ConfigLoaderImpl.load_configuration = counted


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    pass


main()
print(composed)
PY
one=$(venv/bin/python program.py hydra.run.dir=one | tail -1)
many=$(venv/bin/python program.py --multirun x=1,2,3 hydra.sweep.dir=many | tail -1)
echo "composed by a plain run: $one; by --multirun of three jobs: $many"
[ "$one" = 2 ]
[ "$many" = 8 ]
