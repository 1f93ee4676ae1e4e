#!/usr/bin/env bash
# tensorboard 2.21.0, EventAccumulator
#
# Guess: an open EventAccumulator whose event file was deleted and replaced by another goes on with
# the other at its next Reload(), as the default data server of the tensorboard command does.
# Seen: it never does. The watcher catches the error of the missing file, does not move on to the next
# file, and every later Reload() shows the old points alone; a new EventAccumulator shows the new.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet tensorboard==2.21.0 'setuptools<81'
venv/bin/python - <<'PY'
import pathlib, time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

folder = pathlib.Path("events")


def write(steps):
    writer = EventFileWriter(str(folder))
    for step in steps:
        value = Summary.Value(tag="x", simple_value=float(step))
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
    writer.close()


def steps_of(accumulator):
    return [event.step for event in accumulator.Reload().Scalars("x")]


write([1, 2])
old = EventAccumulator(str(folder))
print("before", steps_of(old))
for file in folder.iterdir():
    file.unlink()
time.sleep(1.1)
write([1, 2, 3, 4])
print("open before the change", steps_of(old), "opened after it", steps_of(EventAccumulator(str(folder))))
assert steps_of(old) == [1, 2]
assert steps_of(EventAccumulator(str(folder))) == [1, 2, 3, 4]
PY
echo "as described"
