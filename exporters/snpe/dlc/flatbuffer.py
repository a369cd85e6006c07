"""A FlatBuffer walker that trusts no offset: every read is checked against the buffer, and work is bounded.

Format: https://flatbuffers.dev/internals/ . Offsets between tables only point forward, so there are no cycles, but
tables that are shared a thousand times over could make a small file expand without end: hence the budget.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from edgedeploy.exporters.snpe.dlc.errors import DlcError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


class FlatBuffer:
    """One buffer and what may still be read of it; ``what`` names it in errors."""

    def __init__(self, data: memoryview, what: str) -> None:
        self.data = data
        self.what = what
        self._budget = 8 * len(data) + 1024

    def root(self, file_id: bytes) -> Table:
        """The root table of a buffer whose file identifier is ``file_id``."""
        if bytes(self.data[4:8]) != file_id:
            raise self.error(f"its identifier is {bytes(self.data[4:8])!r}, expected {file_id!r}")
        return Table(self, self.unsigned32(0))

    def error(self, problem: str) -> DlcError:
        """An error that names this buffer."""
        return DlcError(f"{self.what}: {problem}")

    def spend(self, amount: int) -> None:
        """Account for ``amount`` bytes or tables read."""
        self._budget -= amount
        if self._budget < 0:
            raise self.error(f"its tables expand to more than a buffer of {len(self.data)} bytes can hold")

    def check(self, position: int, size: int) -> None:
        """Raise unless ``size`` bytes at ``position`` lie inside the buffer."""
        if position < 0 or size < 0 or position + size > len(self.data):
            raise self.error(f"{size} bytes at offset {position} lie outside its {len(self.data)} bytes")

    def scalar(self, layout: str, position: int) -> int | float:
        """One little-endian scalar in `struct` notation."""
        self.check(position, struct.calcsize(f"<{layout}"))
        value: int | float = struct.unpack_from(f"<{layout}", self.data, position)[0]
        return value

    def unsigned32(self, position: int) -> int:
        """One u32, the type of all lengths and offsets."""
        return int(self.scalar("I", position))

    def text(self, position: int) -> str:
        """The string at ``position``."""
        length = self.unsigned32(position)
        self.check(position + 4, length)
        self.spend(length + 4)
        return bytes(self.data[position + 4 : position + 4 + length]).decode("utf-8", "replace")


class Table:
    """One table; a slot is the byte offset of its entry in the vtable, as the format counts them (4, 6, 8 ...)."""

    def __init__(self, buffer: FlatBuffer, position: int) -> None:
        self._buffer = buffer
        self._position = position
        buffer.spend(1)
        self._vtable = position - int(buffer.scalar("i", position))
        self._vtable_size = int(buffer.scalar("H", self._vtable))
        buffer.check(self._vtable, self._vtable_size)

    def _field(self, slot: int) -> int | None:
        if slot + 2 > self._vtable_size:
            return None
        offset = int(self._buffer.scalar("H", self._vtable + slot))
        return self._position + offset if offset else None

    def _target(self, slot: int) -> int | None:
        field = self._field(slot)
        return None if field is None else field + self._buffer.unsigned32(field)

    def integer(self, slot: int, layout: str = "i", default: int = 0) -> int:
        """An integer field; ``layout`` is its `struct` letter."""
        field = self._field(slot)
        return default if field is None else int(self._buffer.scalar(layout, field))

    def real(self, slot: int, layout: str = "f") -> float:
        """A floating-point field, 0 where absent."""
        field = self._field(slot)
        return 0.0 if field is None else float(self._buffer.scalar(layout, field))

    def string(self, slot: int) -> str:
        """A string field, empty where absent."""
        target = self._target(slot)
        return "" if target is None else self._buffer.text(target)

    def table(self, slot: int) -> Table | None:
        """A nested table."""
        target = self._target(slot)
        return None if target is None else Table(self._buffer, target)

    def strings(self, slot: int) -> tuple[str, ...]:
        """A vector of strings."""
        return tuple(self._buffer.text(position) for position in self._elements(slot))

    def tables(self, slot: int) -> tuple[Table, ...]:
        """A vector of tables."""
        return tuple(Table(self._buffer, position) for position in self._elements(slot))

    def array(self, slot: int, dtype: DTypeLike) -> NDArray[np.generic] | None:
        """A vector of little-endian scalars as a view of the buffer; ``None`` where absent."""
        target = self._target(slot)
        if target is None:
            return None
        kind = np.dtype(dtype).newbyteorder("<")
        length = self._buffer.unsigned32(target)
        self._buffer.check(target + 4, length * kind.itemsize)
        self._buffer.spend(length)
        return np.frombuffer(self._buffer.data, kind, length, target + 4)

    def _elements(self, slot: int) -> list[int]:
        target = self._target(slot)
        if target is None:
            return []
        length = self._buffer.unsigned32(target)
        self._buffer.check(target + 4, 4 * length)
        self._buffer.spend(length)
        return [at + self._buffer.unsigned32(at) for at in range(target + 4, target + 4 + 4 * length, 4)]
