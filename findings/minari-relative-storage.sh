#!/usr/bin/env bash
# minari 0.5.4, MinariStorage with HDF5 files
#
# Guess: MinariStorage.new takes any path where the data shall be stored, a relative one too.
# Seen: it makes the storage, and update_episodes then raises FileNotFoundError for a doubled path,
# data/data/main_data.hdf5. The size of the storage is counted over data_path.glob(), whose paths begin
# with data_path already, and joins data_path to each once more; that does nothing to an absolute path.
# The episode has been written by then, while the metadata says 0 episodes.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet 'minari[hdf5]==0.5.4' gymnasium==1.4.0 h5py==3.16.0 numpy==2.4.6 pillow==13.0.0
venv/bin/python - <<'PY'
import pathlib

import gymnasium
import h5py
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

box = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
episode = EpisodeBuffer(
    id=0, observations=np.zeros((4, 2), np.float32), actions=np.zeros((3, 2), np.float32),
    rewards=[0.0] * 3, terminations=[False, False, True], truncations=[False] * 3, infos={})

storage = MinariStorage.new(pathlib.Path("absolute").absolute(), observation_space=box, action_space=box)
storage.update_episodes([episode])
print("absolute path:", storage.total_episodes, "episode")
assert storage.total_episodes == 1

storage = MinariStorage.new("data", observation_space=box, action_space=box)
try:
    storage.update_episodes([episode])
except FileNotFoundError as error:
    print("relative path:", error)
    assert pathlib.Path(error.filename).parts[:2] == ("data", "data")  # then either file, by glob's order
else:
    raise SystemExit("a relative path works")
with h5py.File("data/main_data.hdf5") as file:
    print("in the file:", list(file), "in the metadata:", storage.total_episodes)
    assert list(file) == ["episode_0"] and storage.total_episodes == 0
PY
echo "as described"
