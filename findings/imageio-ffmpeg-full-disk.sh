#!/usr/bin/env bash
# imageio 2.38.1 and imageio-ffmpeg 0.8.1, get_writer(format="FFMPEG")
#
# Guess: a video that cannot be written whole, as on a full disk, makes append_data or close() raise.
# Seen: neither does. ffmpeg takes the frames, cannot write what it makes of them, says so on standard error
# and ends with a code that is not 0; nobody asks for it. What is left is a file without the table at its
# end, in which there is no frame to be read. append_data raises only once ffmpeg has gone, "Broken pipe",
# which few and small frames never come to: the pipe and the encoder hold them until close().
# count_frames_and_secs of the file tells: it raises, or counts fewer frames.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet imageio==2.38.1 imageio-ffmpeg==0.8.1 numpy==2.4.6 pillow==13.0.0
cat > write.py <<'PY'
import sys

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np

frames = np.random.default_rng(0).integers(0, 255, (40, 240, 240, 3), dtype=np.uint8)
writer = imageio.get_writer(sys.argv[1], format="FFMPEG", fps=10, codec="libx264")
for frame in frames:
    writer.append_data(frame)
writer.close()
try:
    counted = imageio_ffmpeg.count_frames_and_secs(sys.argv[1])[0]
except RuntimeError:
    counted = 0
print(f"{sys.argv[1]}: nothing raised; frames in it: {counted}")
assert counted == int(sys.argv[2])
PY
venv/bin/python write.py room.mp4 40
( ulimit -f 40; venv/bin/python write.py full.mp4 0 2> said )  # files of 20 or 40 KiB at most
stat --format='full.mp4: %s bytes' full.mp4
test -s full.mp4
echo "as described"
