#!/usr/bin/env bash
# wandb 0.31.0, mode="offline"
#
# Guess: offline, a step logged with commit=True goes to the run's .wandb file at once, so that a killed
# process (SIGKILL, out of memory) loses the last step at most.
# Seen: the steps wait in the memory of the wandb-core process until 32 KiB are full, 15 s have passed or
# finish() is called. It ends with the process that it serves and does not write them. Killed 3 s after five
# steps, the file has its 7 bytes of header and nothing else; after finish() it holds all five.
# The interval is a setting left out of the reference, x_transaction_log_flush_interval: at 1 s the killed
# process' five steps are there as well.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet wandb==0.31.0
cat > train.py <<'PY'
import sys, time

import wandb

settings = wandb.Settings(silent=True)
if sys.argv[1] == "killed-1s":
    settings.x_transaction_log_flush_interval = 1.0
run = wandb.init(project="p", mode="offline", dir=sys.argv[1], settings=settings)
for step in range(5):
    run.log({"loss": 1000.5 + step}, step=step, commit=True)
if sys.argv[1] == "finished":
    run.finish()
print("logged", flush=True)
time.sleep(60)
PY
HOME="$PWD" WANDB_ERROR_REPORTING=false venv/bin/python - <<'PY'
import pathlib, subprocess, sys, time

found = {}
for name in ("killed", "killed-1s", "finished"):
    folder = pathlib.Path(name)
    folder.mkdir()
    with subprocess.Popen([sys.executable, "train.py", name], stdout=subprocess.PIPE, text=True) as train:
        assert train.stdout.readline() == "logged\n"
        time.sleep(3)
        train.kill()
    time.sleep(5)  # time for wandb-core to write, if it would
    (file,) = folder.rglob("*.wandb")
    data = file.read_bytes()
    found[name] = [step for step in range(5) if str(1000.5 + step).encode() in data]
    print(f"{name}: {len(data)} bytes, with steps {found[name]}")
    assert name != "killed" or len(data) == 7
assert found == {"killed": [], "killed-1s": [0, 1, 2, 3, 4], "finished": [0, 1, 2, 3, 4]}
PY
echo "as described"
