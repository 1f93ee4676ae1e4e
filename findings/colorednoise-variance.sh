#!/usr/bin/env bash
# colorednoise 2.2.0, powerlaw_psd_gaussian
#
# Guess: its documentation says that the samples are normalised to unit variance.
# Seen: they have unit variance about each series' own mean, and the mean, which for steep spectra and
# short series is most of the motion, comes on top: 1.38 at exponent 2.5 and 20 steps, and 1.08 for
# white noise. Planners that sample actions with it (iCEM, horizon 20 to 30) search a range a sixth
# wider than the standard deviation that they are set to.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv venv
venv/bin/pip install --quiet colorednoise==2.2.0 numpy==2.4.6
venv/bin/python - <<'PY'
import colorednoise
import numpy as np

for exponent, wanted in ((2.5, 1.38), (0.0, 1.08)):
    x = colorednoise.powerlaw_psd_gaussian(exponent, (100_000, 20), random_state=0)
    print("exponent", exponent, "variance", round(float(x.var()), 3), "about its own mean",
          round(float(x.var(axis=1).mean()), 3))
    assert abs(x.var() - wanted) < 0.02
    assert abs(x.var(axis=1).mean() - 1) < 0.04
PY
echo "as described"
