"""Paging-structure entries and page-fault error codes (SDM vol. 3 §4.5, §4.7; APM vol. 2 §5.4)."""

from __future__ import annotations

from enum import IntFlag
from typing import Final


class Pte(IntFlag):
    """Bits of paging-structure entries at every level (SDM vol. 3 tables 4-15 to 4-20)."""

    P = 1 << 0
    RW = 1 << 1
    US = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    A = 1 << 5
    D = 1 << 6
    PS = 1 << 7
    G = 1 << 8
    PAT_LARGE = 1 << 12
    XD = 1 << 63


class PageFault(IntFlag):
    """Page-fault error code (SDM vol. 3 figure 4-12)."""

    P = 1 << 0
    WR = 1 << 1
    US = 1 << 2
    RSVD = 1 << 3
    ID = 1 << 4
    PK = 1 << 5
    SS = 1 << 6


#: Level (4 is PML4) to the lowest linear-address bit that it indexes; each level indexes 9 bits.
LEVEL_SHIFT: Final = {4: 39, 3: 30, 2: 21, 1: 12}
LEVEL_NAMES: Final = {4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
ADDRESS_MASK: Final = 0x000F_FFFF_FFFF_F000
"""Bits 51:12 of an entry."""


def reserved_bits(level: int, large: bool, physical_bits: int, nxe: bool) -> int:
    """Bits that must be 0 in a present 4-level entry (SDM vol. 3 table 4-15 ff.). `large`: the entry maps a page at level 2 or 3."""
    mask = ADDRESS_MASK & ~((1 << physical_bits) - 1)
    if not nxe:
        mask |= Pte.XD
    if large:
        mask |= ((1 << LEVEL_SHIFT[level]) - 1) & ~0x1FFF  # between PAT (bit 12) and the page's address
    if level == 4:
        mask |= Pte.PS
    return mask
