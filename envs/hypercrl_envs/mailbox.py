"""Messages in memory that two processes share, which cost no call of the system."""

from __future__ import annotations

import mmap
import struct
import zlib

SLOTS = 16
"""Messages in one direction that may be under way at the same time."""

ROOM = 4096
"""Bytes of a slot."""

_HEADER = struct.Struct("=QII")
_LONGEST = ROOM - _HEADER.size
_ELSEWHERE = 0xFFFFFFFF
"""Length of a message that is too long for a slot, and comes another way."""

SIZE = 2 * (SLOTS + 1) * ROOM
"""Bytes of memory for both directions."""


class Mailbox:
    """One direction: message number n, from 1 on, lies in slot n mod `SLOTS`.

    A message is there once its number and its checksum are, so that neither side needs to know in
    which order a processor lets another one see what it has written.

    Args:
        memory: of `SIZE` bytes, zeros at first.
        half: 0 or 1, which direction.
    """

    def __init__(self, memory: mmap.mmap, half: int) -> None:
        first = half * (SLOTS + 1) * ROOM
        self._view = memoryview(memory)[first : first + (SLOTS + 1) * ROOM]
        self._numbers = self._view.cast("Q")[:: ROOM // 8]

    @property
    def sleeping(self) -> bool:
        """Whether who reads here has to be woken."""
        return bool(self._numbers[SLOTS])

    @sleeping.setter
    def sleeping(self, whether: bool) -> None:
        self._numbers[SLOTS] = whether

    def put(self, number: int, message: bytes) -> bool:
        """Leave message `number`; False: it is too long, and only said to come another way."""
        fits = len(message) <= _LONGEST
        first = number % SLOTS * ROOM
        length, kept = (len(message), message) if fits else (_ELSEWHERE, b"")
        end = first + _HEADER.size
        self._view[end : end + len(kept)] = kept
        _HEADER.pack_into(self._view, first, number, length, _checksum(number, kept))
        return fits

    def there(self, number: int) -> bool:
        """Whether message `number` may be there: as cheap a look as there is."""
        return self._numbers[number % SLOTS] == number

    def take(self, number: int) -> bytes | None:
        """Message `number`, empty if it comes another way; None: it is not there yet."""
        first = number % SLOTS * ROOM
        found, length, checksum = _HEADER.unpack_from(self._view, first)
        if found != number or (length > _LONGEST and length != _ELSEWHERE):
            return None
        end = first + _HEADER.size
        message = bytes(self._view[end : end + (0 if length == _ELSEWHERE else length)])
        return message if checksum == _checksum(number, message) else None


def _checksum(number: int, message: bytes) -> int:
    return zlib.crc32(message, number & 0xFFFFFFFF)
