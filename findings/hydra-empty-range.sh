#!/usr/bin/env bash
# hydra-core 1.3.8, a multirun over range()
#
# Guess: range(5,1) counts down, as nothing else can be meant, or is refused; and a sweep that has no job to run says so and fails.
# Seen: it is an empty sweep. One empty range among other choices takes every job with it: seed=0,1,2 times nothing is nothing. No job runs, the
# exit code is 0, and a folder with multirun.yaml lies there as after any other multirun, so that a script that goes on from there takes it for
# done. With a step below zero, range(5,1,-1), it counts down. An upper end that is never reached, such as range(0,1,-1), is the same.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8
cat > app.py <<'PY'
import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config: DictConfig) -> None:
    print("job", dict(config))


main()
PY
jobs() {
  rm -rf out
  venv/bin/python app.py -m hydra.sweep.dir=out "$@" > said.txt
  echo "exit code $?, $(grep -c '^job' said.txt || true) jobs, left: $(ls out | tr '\n' ' ') $*" | tee -a seen.txt
}
jobs '+seed=0,1,2' '+x=range(1,5)'
jobs '+seed=0,1,2' '+x=range(5,1)'
jobs '+seed=0,1,2' '+x=range(0,1,-1)'
jobs '+seed=0,1,2' '+x=range(5,1,-1)'
counts=$(sed 's/.*code 0, \([0-9]*\) jobs.*/\1/' seen.txt | tr '\n' ' ')
files=$(sed 's/.*left: \(.*\) +seed.*/\1/' seen.txt | sed -n 2p)
[ "$counts" = "12 0 0 12 " ] && [ "$files" = "multirun.yaml " ] || { echo "it behaves otherwise now: $counts ($files)"; exit 1; }
echo "as described"
