"""Reading and writing a VMCS: its data lies in the 4-KByte region that software gave, in the layout of `arch.vmcs` (SDM vol. 3 §25.2, §25.11)."""

from __future__ import annotations

import struct
from typing import Final

from worldswitch.arch.vmcs import VMCS_BITS, VMCS_HEADER_BYTES, VMCS_LAUNCH_STATE_OFFSET, VMCS_OFFSET, VMCS_REVISION_OFFSET, is_high
from worldswitch.cpu.bus import Bus

#: All fields in the order of the layout.
_ALL: Final = struct.Struct(f"<{len(VMCS_OFFSET)}Q")
_MASK: Final = {field: (1 << bits) - 1 for field, bits in VMCS_BITS.items()}


def exists(encoding: int) -> bool:
    """Whether this processor has the field, whole or (64-bit fields) its high half."""
    if is_high(encoding):
        return VMCS_BITS.get(encoding & ~1) == 64 and (encoding >> 13 & 3) == 1
    return encoding in VMCS_OFFSET


class VmcsRegion:
    """One VMCS, by the physical address of its region."""

    __slots__ = ("_bus", "pointer")

    def __init__(self, bus: Bus, pointer: int) -> None:
        self._bus = bus
        self.pointer = pointer

    def __getitem__(self, field: int) -> int:
        """A field as an unsigned number; `field | 1` is the high half of a 64-bit one."""
        if is_high(field):
            return self._bus.read(self.pointer + VMCS_OFFSET[field & ~1] + 4, 4)
        return self._bus.read(self.pointer + VMCS_OFFSET[field], 8)

    def __setitem__(self, field: int, value: int) -> None:
        """Write a field; bits beyond its width are dropped, as VMWRITE does."""
        if is_high(field):
            self._bus.write(self.pointer + VMCS_OFFSET[field & ~1] + 4, 4, value & 0xFFFFFFFF)
        else:
            self._bus.write(self.pointer + VMCS_OFFSET[field], 8, value & _MASK[field])

    def all(self) -> dict[int, int]:
        """Every field, by its (full) encoding."""
        raw = self._bus.read_block(self.pointer + VMCS_HEADER_BYTES, 8 * len(VMCS_OFFSET))
        return dict(zip(VMCS_OFFSET, _ALL.unpack(raw), strict=True))

    @property
    def revision(self) -> int:
        """The first four bytes: revision identifier and, in bit 31, the shadow-VMCS indicator."""
        return self._bus.read(self.pointer + VMCS_REVISION_OFFSET, 4)

    @property
    def launched(self) -> bool:
        """The launch state."""
        return bool(self._bus.read(self.pointer + VMCS_LAUNCH_STATE_OFFSET, 8))

    @launched.setter
    def launched(self, value: bool) -> None:
        self._bus.write(self.pointer + VMCS_LAUNCH_STATE_OFFSET, 8, int(value))
