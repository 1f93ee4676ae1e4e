#!/usr/bin/env bash
# torch 2.13.0, torch.nn.utils.vector_to_parameters
#
# Guess: its documentation says that it copies slices of a vector into parameters, so that afterwards the vector and the module
# are each on their own, as they are after parameters_to_vector.
# Seen: nothing is copied, the parameters become views of the vector. A search over weights that goes on with `mean += noise` changes the network
# that it has just evaluated, and training the network changes the vector it came from, for instance one task's row of a bank of weights, which
# was to be kept. The check against what was written then compares it with itself and says that nothing was forgotten. And torch.save of the
# network's state writes the whole bank, 12 MB for 132 numbers. parameters_to_vector does copy. With `bank[0].clone()` each of the three is as guessed.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PY'
import io

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def adapted(copied):
    """The largest change of a bank's row by training and of the module by the bank, and the bytes of its saved state."""
    bank = torch.linspace(-1, 1, 23_000 * 132).view(-1, 132)
    kept = bank.clone()
    network = torch.nn.Linear(32, 4)
    vector_to_parameters(bank[0].clone() if copied else bank[0], network.parameters())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(10):
        optimiser.zero_grad()
        network(torch.ones(1, 32)).square().sum().backward()
        optimiser.step()
    by_training = (bank - kept).abs().max().item()
    before = parameters_to_vector(network.parameters()).detach().clone()
    bank += 0.5
    by_bank = (parameters_to_vector(network.parameters()) - before).abs().max().item()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return round(by_training, 2), round(by_bank, 2), file.tell()


print("torch", torch.__version__.split("+")[0], "says:", vector_to_parameters.__doc__.split("\n")[0])
seen = {copied: adapted(copied) for copied in (False, True)}
for copied, (by_training, by_bank, size) in seen.items():
    print("a clone of the row:" if copied else "the row:           ",
          f"training changed the bank by {by_training}, the bank the network by {by_bank}; {size} bytes saved")
assert seen[False][0] > 0.5 and seen[False][1] == 0.5 and seen[False][2] > 12_000_000, "it behaves otherwise now"
assert seen[True][:2] == (0, 0) and seen[True][2] < 10_000, "it behaves otherwise now"

network = torch.nn.Linear(32, 4)
vector = parameters_to_vector(network.parameters()).detach()
vector += 1
assert not torch.equal(vector, parameters_to_vector(network.parameters())), "it behaves otherwise now"
PY
echo "as described"
