#!/usr/bin/env bash
# torch 2.13.0, torch.optim.Optimizer.load_state_dict
#
# Guess: it copies what it is given, as Module.load_state_dict does, so that a snapshot kept in memory, a copy.deepcopy of state_dict(), can be gone
# back to as often as one likes.
# Seen: the optimiser goes on with the snapshot's own tensors, moments and step counts, and its next steps write into them. Who goes back a second time
# gets the parameters as they were, and the moments that the last attempt left: three attempts of 20 steps from one snapshot end at three losses, with Adam
# and with momentum. Two members of a population that begin from one snapshot share their moments: 20 steps of the one are counted by the other, which has
# made none. Nothing is said. Where the snapshot's dtype is another one than the parameters' it does copy, and with a deepcopy for each load all is well.
# So of tasks, or learning rates, that are to be compared from one beginning, every one but the first begins with what another learned. (It is
# known as issue 196083 of pytorch/pytorch; the documentation of 2.13 does not mention it.)
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PY'
from copy import deepcopy

import torch
from torch.optim import SGD, Adam

print("torch", torch.__version__.split("+")[0])
torch.manual_seed(0)
INPUTS = torch.randn(64, 4)
TARGETS = INPUTS @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
ADAM, MOMENTUM = (Adam, {"lr": 0.05}), (SGD, {"lr": 0.05, "momentum": 0.9})


def loss(network):
    return (network(INPUTS) - TARGETS).square().mean()


def train(network, optimiser, steps=20):
    for _ in range(steps):
        optimiser.zero_grad()
        loss(network).backward()
        optimiser.step()


def begun(kind):
    """A network and its optimiser after 20 steps."""
    torch.manual_seed(1)
    network = torch.nn.Linear(4, 1)
    optimiser = kind[0](network.parameters(), **kind[1])
    train(network, optimiser)
    return network, optimiser


def attempts(kind, load=lambda snapshot: snapshot, kept=lambda snapshot: snapshot):
    """The losses that three attempts from one snapshot end at."""
    network, optimiser = begun(kind)
    weights, moments = deepcopy(network.state_dict()), kept(deepcopy(optimiser.state_dict()))
    ends = []
    for _ in range(3):
        network.load_state_dict(weights)
        optimiser.load_state_dict(load(moments))
        train(network, optimiser)
        ends.append(round(loss(network).item(), 4))
    return ends


def in_float64(snapshot):
    for values in snapshot["state"].values():
        values.update({name: value.double() for name, value in values.items() if torch.is_tensor(value)})
    return snapshot


seen = {
    "Adam": attempts(ADAM),
    "momentum": attempts(MOMENTUM),
    "Adam, deepcopy for each load": attempts(ADAM, load=deepcopy),
    "momentum, snapshot in float64": attempts(MOMENTUM, kept=in_float64),
}
for name, ends in seen.items():
    print(f"{name}: {ends}")
    wanted = 3 if name in ("Adam", "momentum") else 1
    assert len(set(ends)) == wanted, "it behaves otherwise now"
assert seen["momentum, snapshot in float64"][0] == seen["momentum"][0], "it behaves otherwise now"

snapshot = deepcopy(begun(ADAM)[1].state_dict())
(one, its), (_, other) = begun(ADAM), begun(ADAM)
its.load_state_dict(snapshot)
other.load_state_dict(snapshot)
train(one, its)
counts = [int(each.state_dict()["state"][0]["step"]) for each in (its, other)]
print("one of two members was trained, step counts:", counts)
assert counts == [40, 40], "it behaves otherwise now"
PY
echo "as described"
