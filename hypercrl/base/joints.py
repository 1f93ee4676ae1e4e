"""Where a long name may be broken: behind what joins its parts."""

import re

_PART = re.compile(r"\S.*?(?:[:=](?=\S)|\.(?=[^\W\d])|\s+|$)", re.DOTALL)


def parts(name: str) -> list[str]:
    """The parts between which a line may end; with what joins them they are the name again.

    >>> parts("hnet, planner=own.planner:Momentum, beta=0.5")
    ['hnet, ', 'planner=', 'own.', 'planner:', 'Momentum, ', 'beta=', '0.5']
    """
    return _PART.findall(name)


def in_lines(name: str, width: float) -> list[str]:
    """The name on lines of so many letters at most; of more where a part has more.

    >>> in_lines("hnet, planner=own_planner:Momentum", 14)
    ['hnet, planner=', 'own_planner:', 'Momentum']
    """
    lines = [""]
    for part in parts(name):
        if lines[-1] and len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]
