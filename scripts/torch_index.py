"""Where pip finds torch without CUDA: on Linux the plain build brings 3 GB of it.

    pip install $(python scripts/torch_index.py) torch          # nothing is added beside a GPU
    pip install $(python scripts/torch_index.py cuda) torch     # nor where CUDA is asked for

An index that cannot be reached is named in one line on stderr instead of to pip, which would ask it
again, with a warning each time, for every package that torch needs.
"""

import shutil
import sys
from urllib.request import urlopen

INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 10  # to wait for an answer


def options(device: str) -> list[str]:
    """Options for `pip install torch` on `device`: "cpu", "cuda", or "auto" for what is here."""
    if device == "cuda" or (device == "auto" and shutil.which("nvidia-smi")):
        return []
    try:
        urlopen(f"{INDEX}/torch/", timeout=SECONDS).close()
    except OSError as error:
        reason = getattr(error, "reason", error)
        print(f"no answer from {INDEX} ({reason}): torch comes from PyPI", file=sys.stderr)
        return []
    return ["--extra-index-url", INDEX]


def main(arguments: list[str]) -> None:
    if arguments not in ([], ["cpu"], ["cuda"]):
        sys.exit("usage: python scripts/torch_index.py [cpu|cuda]")
    print(*options(*(arguments or ["auto"])))


if __name__ == "__main__":
    main(sys.argv[1:])
