"""EPT: guest-physical to physical addresses (SDM vol. 3 §29.3), with violations, misconfigurations, accessed and dirty flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worldswitch.arch.vmx import EPT_ADDRESS_MASK, EPT_MEMORY_TYPES, EPTP_ACCESSED_DIRTY, Ept, EptViolation
from worldswitch.cpu.bus import Bus
from worldswitch.cpu.intercept import Access

_NEEDED: Final = {Access.READ: Ept.READ, Access.WRITE: Ept.WRITE, Access.EXECUTE: Ept.EXECUTE}
_LEVELS: Final = ((4, 39), (3, 30), (2, 21), (1, 12))


@dataclass(slots=True)
class EptFault(Exception):
    """A violation (`qualification`: access and permission bits, SDM vol. 3 table 28-7 bits 5:0) or a misconfiguration (None)."""

    qualification: int | None


def translate(bus: Bus, eptp: int, gpa: int, access: Access, physical_bits: int) -> int:
    """The physical address of a guest-physical one. Raises `EptFault`."""
    accessed_dirty = bool(eptp & EPTP_ACCESSED_DIRTY)
    table = eptp & EPT_ADDRESS_MASK
    allowed = int(Ept.READ | Ept.WRITE | Ept.EXECUTE)
    needed = _NEEDED[access]
    path: list[tuple[int, int]] = []
    for level, shift in _LEVELS:
        where = table + 8 * (gpa >> shift & 0x1FF)
        entry = bus.read(where, 8)
        if not entry & 7:
            raise EptFault(_qualification(access, 0))
        leaf = level == 1 or bool(entry & Ept.PAGE)
        if _misconfigured(entry, level, leaf, physical_bits):
            raise EptFault(None)
        allowed &= entry & 7
        path.append((where, entry))
        if leaf:
            break
        table = entry & EPT_ADDRESS_MASK
    if not allowed & needed:
        raise EptFault(_qualification(access, allowed))
    if accessed_dirty:
        for i, (where, entry) in enumerate(path):
            marked = entry | Ept.ACCESSED | (Ept.DIRTY if access is Access.WRITE and i == len(path) - 1 else 0)
            if marked != entry:
                bus.write(where, 8, marked)
    mask = (1 << shift) - 1
    return entry & EPT_ADDRESS_MASK & ~mask | gpa & mask


def _misconfigured(entry: int, level: int, leaf: bool, physical_bits: int) -> bool:
    """§29.3.3.1: impossible permissions, reserved bits, memory type. Write without read; execute-only is announced as supported."""
    if entry & Ept.WRITE and not entry & Ept.READ:
        return True
    reserved = EPT_ADDRESS_MASK & ~((1 << physical_bits) - 1)
    if leaf:
        if level > 2 and level == 4:
            reserved |= Ept.PAGE
        if level > 1:
            reserved |= ((1 << {2: 21, 3: 30, 4: 39}[level]) - 1) & ~0xFFF
        if entry >> 3 & 7 not in EPT_MEMORY_TYPES:
            return True
    else:
        reserved |= 0xF8 if level == 4 else 0x78
    return bool(entry & reserved)


def _qualification(access: Access, allowed: int) -> int:
    wanted = {Access.READ: EptViolation.READ, Access.WRITE: EptViolation.WRITE, Access.EXECUTE: EptViolation.FETCH}[access]
    return int(wanted) | (allowed & 7) << 3
