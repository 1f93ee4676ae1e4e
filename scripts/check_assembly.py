"""Find kernels in Triton's cache that read a uniform register before anything has written it.

    python scripts/check_assembly.py [CACHE]

ptxas before CUDA 12.9 makes such code of loops with warp-group products on Hopper (see
`hypercrl_kernels.assembler`): run it after GPU tests or benchmarks. It reads the machine code that
lies in the cache and needs no GPU. A register that something else wrote before the loop goes
unnoticed, so silence is no proof. The exit code is 1 if anything is found.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from triton import knobs

_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s*(@!?\w+\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_LABEL = re.compile(r"^\s*(\.L_\w+):")
_UNIFORM = re.compile(r"\bUR(\d+)\b")


class Instruction:
    """One line of machine code, and the uniform registers that it reads and writes."""

    def __init__(self, predicate: str | None, operation: str, operands: str) -> None:
        self.text = f"{operation} {operands}"
        self.target = match[1] if (match := re.search(r"`\((\.L_\w+)\)", operands)) else None
        self.reads: set[int] = set()
        self.writes: set[int] = set()
        self.certain = predicate is None
        parts = [part.strip() for part in re.split(r",(?![^\[]*\])", operands)]
        for place, part in enumerate(parts):
            for first in map(int, _UNIFORM.findall(part)):
                registers = set(range(first, first + self._width(operation, place, parts)))
                if place == 0 and part.startswith("UR"):
                    self.writes |= registers
                elif "gdesc" in part and self._left_in_registers(parts):
                    self.reads |= {first + 2, first + 3}
                else:
                    self.reads |= registers

    @staticmethod
    def _left_in_registers(parts: list[str]) -> bool:
        """Of a warp-group product: only its right operand has a descriptor."""
        return bool(re.match(r"-?R\d", parts[1]))

    @staticmethod
    def _width(operation: str, place: int, parts: list[str]) -> int:
        """Registers of an operand."""
        part = parts[place]
        if "gdesc" in part:
            return 4
        wide = ".64" in operation or (operation.startswith("UIMAD.WIDE") and place in (0, 3))
        if part.startswith("["):  # an address: how much lies there says nothing about its width
            wide = False
        return 2 if wide or "desc[" in part or ".64" in part else 1


def disassemble(binary: Path) -> str:
    """The machine code as text."""
    command = [knobs.nvidia.nvdisasm.path, "-c", str(binary)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def parse(text: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions, and the place of each label."""
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if match := _LABEL.match(line):
            labels[match[1]] = len(code)
        elif match := _INSTRUCTION.match(line):
            code.append(Instruction(*match.groups()))
    return code, labels


def unwritten(code: list[Instruction], labels: dict[str, int]) -> Iterator[tuple[int, str]]:
    """Uniform registers, and what reads them in a loop's first iteration."""
    for end, branch in enumerate(code):
        start = labels.get(branch.target or "", end + 1)
        if start >= end:  # not a loop
            continue
        written = {r for instruction in code[:start] for r in instruction.writes}
        for instruction in code[start : end + 1]:
            for register in instruction.reads - written:
                yield register, instruction.text
            if instruction.certain:
                written |= instruction.writes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", nargs="?", type=Path, default=Path(knobs.cache.dir))
    arguments = parser.parse_args()
    binaries = sorted(arguments.cache.rglob("*.cubin"))
    found = 0
    for binary in binaries:
        registers = dict(unwritten(*parse(disassemble(binary))))
        found += bool(registers)
        for register, text in sorted(registers.items()):
            print(f"{binary.parent.name[:12]} {binary.stem}: UR{register} is unwritten at {text}")
    print(f"{found} of {len(binaries)} kernels read unwritten uniform registers")
    parser.exit(found > 0)


if __name__ == "__main__":
    main()
