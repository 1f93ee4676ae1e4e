"""On a CUDA device: what the driver says of it, and NVIDIA's own daemon where it is to be had."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from hypercrl.bench import mps
from hypercrl.bench.gpus import visible_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PLAIN = {**os.environ, **mps.OUTSIDE}


def test_the_driver_and_torch_mean_the_same_gpus():
    found = visible_gpus(PLAIN)
    count = torch.cuda.device_count()
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]
    assert [gpu.name.removeprefix("GPU-") for gpu in found] == uuids
    totals = [torch.cuda.get_device_properties(index).total_memory for index in range(count)]
    for gpu, total in zip(found, totals, strict=True):
        assert 0 < gpu.free <= total
    last = visible_gpus({**PLAIN, "CUDA_VISIBLE_DEVICES": found[-1].name})
    assert [gpu.name for gpu in last] == [found[-1].name]


@pytest.mark.skipif(shutil.which(mps.CONTROL) is None, reason="needs NVIDIA's MPS")
def test_a_process_is_served_on_its_gpu_and_beside_it_one_does_without():
    name = visible_gpus(PLAIN)[-1].name
    said: list[str] = []
    computes = "import torch; print(torch.arange(10, device='cuda').sum().item())"
    with mps.served([name], 2, "true", said.append) as service:
        served = {**os.environ, **service.environment, "CUDA_VISIBLE_DEVICES": name}
        for each in (served, {**served, **mps.OUTSIDE}):
            done = subprocess.run([sys.executable, "-c", computes], env=each, capture_output=True)
            assert done.stdout == b"45\n", done.stderr
        daemon = mps.Daemon(mps.CONTROL, served)
        assert daemon.answers()
    assert not daemon.answers()
    assert "a daemon that ends with this grid" in said[0]
