"""The page walk (SDM vol. 3 §4.3-4.7; APM vol. 2 §5.3-5.6), for guests and hosts alike, and for nested paging, whose tables have the same format (APM
vol. 2 §15.25).

One walker serves every format; what differs is in `FORMATS`. It sets accessed and dirty bits, and tells where each entry lies through `locate`, which under a
second level of translation turns a guest-physical into a physical address (and may exit).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from worldswitch.arch.paging import ADDRESS_MASK, PageFault, Pte, reserved_bits
from worldswitch.cpu.bus import Bus


@dataclass(frozen=True, slots=True)
class Format:
    """A paging mode: per level, from the root down, the shift and number of the linear-address bits that index it and whether an entry there may map a page."""

    entry_bytes: int
    levels: tuple[tuple[int, int, int, bool], ...]
    """(level number, shift, index bits, may be a page with PS=1)"""


#: SDM vol. 3 tables 4-1 and 4-2.
LONG_4_LEVEL: Final = Format(8, ((4, 39, 9, False), (3, 30, 9, True), (2, 21, 9, True), (1, 12, 9, True)))
PAE: Final = Format(8, ((3, 30, 2, False), (2, 21, 9, True), (1, 12, 9, True)))
LEGACY_32: Final = Format(4, ((2, 22, 10, True), (1, 12, 10, True)))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the control registers say about a walk, and what the access is."""

    format: Format
    root: int
    """Physical address of the top table."""
    physical_bits: int
    write: bool
    fetch: bool
    user: bool
    wp: bool
    """CR0.WP: read-only pages bind the supervisor too."""
    nxe: bool
    smep: bool
    smap: bool
    """SMAP applies to this access (RFLAGS.AC already considered)."""
    large: bool
    """Entries may map large pages (CR4.PSE; always in PAE and 4-level)."""


class Translation(NamedTuple):
    """Where a linear address lies."""

    page: int
    """Physical address of its 4-KByte page."""
    writable: bool
    user: bool
    dirty: bool
    executable: bool


class WalkFault(Exception):
    """The walk ends in a page fault with this error code."""

    def __init__(self, error_code: int) -> None:
        super().__init__(error_code)
        self.error_code = error_code


def _here(address: int, write: bool) -> int:
    return address


def walk(bus: Bus, rules: Rules, linear: int, locate: Callable[[int, bool], int] = _here) -> Translation:
    """Translate one linear address. `locate(address, write)` gives the physical address of a paging-structure entry. Raises `WalkFault`."""
    access = (PageFault.WR if rules.write else 0) | (PageFault.US if rules.user else 0)
    if rules.fetch and (rules.nxe or rules.smep):
        access |= PageFault.ID  # SDM vol. 3 §4.7: the I/D flag exists only with one of them
    size = rules.format.entry_bytes
    table = rules.root
    writable, user, executable = True, True, True
    path: list[tuple[int, int]] = []
    for level, shift, bits, may_map in rules.format.levels:
        address = table + size * (linear >> shift & (1 << bits) - 1)
        where = locate(address, False)
        entry = bus.read(where, size)
        if not entry & Pte.P:
            raise WalkFault(access)
        leaf = level == 1 or (may_map and rules.large and bool(entry & Pte.PS))
        if size == 8:
            reserved = reserved_bits(level, leaf and level > 1, rules.physical_bits, rules.nxe)
            if rules.format is PAE and level == 3:
                reserved |= 0x1E6  # PDPTEs: bits 2:1 and 8:5 too (SDM vol. 3 table 4-8)
            elif level == 3 and not may_map:
                reserved |= Pte.PS
            if entry & reserved:
                raise WalkFault(access | PageFault.P | PageFault.RSVD)
        path.append((where, address))
        if not (rules.format is PAE and level == 3):
            writable &= bool(entry & Pte.RW)
            user &= bool(entry & Pte.US)
            if size == 8 and entry & Pte.XD:
                executable = False
        if leaf:
            break
        table = entry & ADDRESS_MASK if size == 8 else entry & 0xFFFFF000
    _check(rules, writable, user, executable, access)
    _mark(bus, rules, path, locate)
    offset_mask = (1 << shift) - 1
    pse36 = size == 4 and shift == 22  # SDM vol. 3 table 4-4
    base = entry & 0xFFC00000 | (entry & 0x1FE000) << 19 if pse36 else entry & ADDRESS_MASK & ~offset_mask
    return Translation(base | linear & offset_mask & ~0xFFF, writable, user, rules.write or bool(entry & Pte.D), executable)


def _check(rules: Rules, writable: bool, user: bool, executable: bool, access: int) -> None:
    """Access rights (SDM vol. 3 §4.6.1)."""
    refused = (
        (rules.user and not user)
        or (rules.write and not writable and (rules.user or rules.wp))
        or (rules.fetch and not executable)
        or (not rules.user and user and (rules.smep if rules.fetch else rules.smap))
    )
    if refused:
        raise WalkFault(access | PageFault.P)


def _mark(bus: Bus, rules: Rules, path: list[tuple[int, int]], locate: Callable[[int, bool], int]) -> None:
    """Accessed flags on the way, the dirty flag in the entry that maps the page (SDM vol. 3 §4.8)."""
    size = rules.format.entry_bytes
    for i, (where, address) in enumerate(path):
        if rules.format is PAE and i == 0:
            continue  # PDPTEs have no accessed flag
        wanted = Pte.A | (Pte.D if rules.write and i == len(path) - 1 else 0)
        entry = bus.read(where, size)
        if entry & wanted != wanted:
            bus.write(locate(address, True), size, entry | wanted)
