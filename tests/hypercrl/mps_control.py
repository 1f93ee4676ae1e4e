"""What stands for NVIDIA's nvidia-cuda-mps-control where there is no driver.

`-d` begins a daemon that answers on a socket in CUDA_MPS_PIPE_DIRECTORY and writes its number there
and what it was told into CUDA_MPS_LOG_DIRECTORY; without an argument it hands the daemon a line of
standard input. Exit codes and messages are those of the driver's 580.
"""

import os
import socket
import sys
from pathlib import Path

PIPES = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", os.environ["USUAL_MPS_FOLDER"]))


def serve() -> None:
    control = socket.socket(socket.AF_UNIX)
    control.bind(str(PIPES / "control"))
    control.listen()
    if os.fork():
        os._exit(0)
    os.setsid()
    (PIPES / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()))
    quits = os.environ.get("MPS_QUITS", "true") == "true"
    with open(Path(os.environ["CUDA_MPS_LOG_DIRECTORY"]) / "control.log", "a") as log:
        print("begun for", os.environ["CUDA_VISIBLE_DEVICES"], file=log, flush=True)
        for descriptor in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        while True:
            client, _ = control.accept()
            command = client.recv(100).decode().split()
            print(*command, file=log, flush=True)
            client.close()
            if command[:1] == ["quit"] and quits:
                os._exit(0)


def tell() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(PIPES / "control"))
        except OSError:
            sys.exit("Cannot find MPS control daemon process")
        client.sendall(sys.stdin.readline().encode())
        client.recv(1)


if sys.argv[1:] == ["-d"]:
    serve()
else:
    tell()
