#!/usr/bin/env bash
# torch 2.13.0 with Python's multiprocessing.connection.Connection
#
# Guess: Connection.send pickles what it is given, so that a tensor on the CPU arrives by value in any
# process that has the other end, as a NumPy array does.
# Seen: importing torch registers its own way of pickling tensors with every Connection: what is sent
# is a file descriptor of shared memory, to be fetched from a server in the sending process. Where the
# two processes were not made by multiprocessing, but hold the two ends of a socket pair, they have
# different authentication keys, and recv raises AuthenticationError. The array arrives, and so does
# the tensor when pickle.dumps makes the bytes and send_bytes sends them.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
cat > child.py <<'PY'
import pickle, sys
from multiprocessing.connection import Connection

import numpy as np
import torch

connection = Connection(int(sys.argv[1]))
connection.send(np.arange(3.0))
connection.send_bytes(pickle.dumps(torch.arange(3.0)))
connection.send(torch.arange(3.0))
connection.recv()  # stays until it is told that all has been read
PY
cat > parent.py <<'PY'
import pickle, socket, subprocess, sys
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection

import torch

ours, theirs = socket.socketpair()
child = subprocess.Popen([sys.executable, "child.py", str(theirs.fileno())], pass_fds=[theirs.fileno()])
connection = Connection(ours.detach())
print("torch", torch.__version__.split("+")[0])
array = connection.recv()
print("array, send:", array.tolist())
tensor = pickle.loads(connection.recv_bytes())
print("tensor, pickle.dumps and send_bytes:", tensor.tolist())
try:
    print("tensor, send:", connection.recv().tolist())
    seen = False
except AuthenticationError as error:
    print("tensor, send:", type(error).__name__, error)
    seen = True
connection.send(None)
child.wait()
assert array.tolist() == tensor.tolist() == [0.0, 1.0, 2.0]
sys.exit(0 if seen else "it behaves otherwise now")
PY
venv/bin/python parent.py
