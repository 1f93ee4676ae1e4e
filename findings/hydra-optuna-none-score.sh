#!/usr/bin/env bash
# hydra-core 1.3.8, hydra-optuna-sweeper 1.3.0, optuna 2.10.1: a job without a score
#
# Guess: max_failure_rate=0, the default, means that a trial that fails ends the search; a job that returns None where a number is wanted is such a
# failure, as one that raises is.
# Seen: one that raises ends the search with its error. One that returns None is logged as "Failed experiment: Return value must be float-castable"
# and counts as failed, and yet the search goes on to the last trial, ends with exit code 0, and writes the best of the others as its result.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet hydra-core==1.3.8 hydra-optuna-sweeper==1.3.0 optuna==2.10.1 "sqlalchemy<2" "setuptools<80"
cat > app.py <<'PY'
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config: DictConfig):
    number = HydraConfig.get().job.num
    print("trial", number)
    if number == 0 and config.first == "raises":
        raise RuntimeError("no score")
    return None if number == 0 else float(number)


main()
PY
for first in raises none; do
  code=0
  venv/bin/python app.py -m hydra/sweeper=optuna hydra.sweeper.n_trials=3 hydra.sweeper.n_jobs=1 hydra.sweeper.max_failure_rate=0 \
    hydra.sweep.dir="$first" "+first=$first" "+x=interval(0,1)" > said.txt 2>&1 || code=$?
  found=$(grep -s best_value "$first/optimization_results.yaml" || echo "no result")
  echo "first trial $first: exit code $code, $(grep -c '^trial' said.txt) trials, $found" | tee -a seen.txt
done
expected="first trial raises: exit code 1, 1 trials, no result
first trial none: exit code 0, 3 trials, best_value: 1.0"
[ "$(cat seen.txt)" = "$expected" ] || { echo "it behaves otherwise now"; exit 1; }
grep -q "Failed experiment: Return value must be float-castable" said.txt || { echo "the message is another one now"; exit 1; }
echo "as described"
