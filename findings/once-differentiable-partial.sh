#!/usr/bin/env bash
# torch 2.13.0, torch.autograd.function.once_differentiable
#
# Guess: its documentation says that a backward pass marked with it raises an error when it is
# differentiated a second time.
# Seen: with torch.autograd.grad for some inputs (a gradient penalty with respect to a weight) it
# does not. The error's node hangs on detached copies of the gradients, where the walk to the weight
# never comes by, and what is returned is the part of the derivative that goes around the Function:
# 864 where 3456 is right. loss.backward() does raise.
#
# y = (x w)², loss = y² = (x w)⁴: d/dx = 4 x³ w⁴ and d²/dx dw = 16 x³ w³ = 3456 at x = 2, w = 3.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy
venv/bin/python - <<'PY'
import torch
from torch.autograd.function import once_differentiable


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, d):
        return 2 * ctx.saved_tensors[0] * d


def slope_and_weight():
    w = torch.tensor(3.0, requires_grad=True)
    x = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(Square.apply(x * w).square(), x, create_graph=True)
    return slope, w


slope, w = slope_and_weight()
(partial,) = torch.autograd.grad(slope, w)
print("torch", torch.__version__, "second derivative", partial.item(), "right is 3456")
assert partial.item() == 864.0
slope, w = slope_and_weight()
try:
    slope.backward()
except RuntimeError as error:
    print("backward() raises:", error)
else:
    raise SystemExit("backward() does not raise")
PY
echo "as described"
