"""Paging-structure entries and page-fault error codes (SDM vol. 3 §4.3-4.7; APM vol. 2 §5.3-5.6).

The walk itself is in `worldswitch.cpu.paging`, EPT's own format in `worldswitch.cpu.vmx.ept`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from worldswitch.arch.flags import BitFlag


class Pte(BitFlag):
    """Bits of paging-structure entries at every level (SDM vol. 3 tables 4-15 to 4-20)."""

    P = 1 << 0
    RW = 1 << 1
    US = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    A = 1 << 5
    D = 1 << 6
    PS = 1 << 7
    PAT = 1 << 7
    """The same bit in an entry of level 1."""
    G = 1 << 8
    PAT_LARGE = 1 << 12
    PKEY = 0xF << 59
    XD = 1 << 63


PKEY_SHIFT: Final = 59


class PageFault(BitFlag):
    """Page-fault error code (SDM vol. 3 figure 4-12; RMP: APM vol. 2 §8.4.2)."""

    P = 1 << 0
    WR = 1 << 1
    US = 1 << 2
    RSVD = 1 << 3
    ID = 1 << 4
    PK = 1 << 5
    SS = 1 << 6
    HLAT = 1 << 7
    SGX = 1 << 15
    RMP = 1 << 31


#: Level (4 is PML4) to the lowest linear-address bit that it indexes; in 4- and 5-level paging each level indexes 9 bits.
LEVEL_SHIFT: Final = {5: 48, 4: 39, 3: 30, 2: 21, 1: 12}
LEVEL_NAMES: Final = {5: "PML5E", 4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
ADDRESS_MASK: Final = 0x000F_FFFF_FFFF_F000
"""Bits 51:12 of an entry."""
#: Level to the address of the page that an entry maps there.
PAGE_ADDRESS_MASK: Final = {3: 0x000F_FFFF_C000_0000, 2: 0x000F_FFFF_FFE0_0000, 1: ADDRESS_MASK}
ADDRESS_MASK_32: Final = 0xFFFF_F000
"""Bits 31:12 of a 4-byte entry."""
PAE_POINTER_TABLE_MASK: Final = 0xFFFF_FFE0
"""CR3 with PAE paging: the 32-byte page-directory-pointer table (SDM vol. 3 table 4-7)."""


class PagingMode(Enum):
    """Formats of paging structures (SDM vol. 3 §4.1.1)."""

    LEGACY_32 = "32-bit"
    PAE = "PAE"
    LONG = "4-level or 5-level"


@dataclass(frozen=True, slots=True)
class ReservedRule:
    """What must be 0 in a present entry of one form."""

    fixed: int
    """Reserved on every processor (in the formats with 8-byte entries, below the address)."""
    above_address: int
    """Of these bits, those from the physical-address width upwards are reserved too."""
    xd: bool
    """XD is reserved unless IA32_EFER.NXE = 1."""
    section: str


_LONG_ADDRESS: Final = 0x000F_FFFF_FFFF_F000
_PAE_ADDRESS: Final = 0x7FFF_FFFF_FFFF_F000
"""PAE entries, unlike those of 4-level paging, do not ignore bits 62:52."""

#: Format, level, "maps a large page" to the rule.
RESERVED: Final[dict[tuple[PagingMode, int, bool], ReservedRule]] = {
    (PagingMode.LONG, 5, False): ReservedRule(Pte.PS, _LONG_ADDRESS, True, "SDM vol. 3 table 4-14"),
    (PagingMode.LONG, 4, False): ReservedRule(Pte.PS, _LONG_ADDRESS, True, "SDM vol. 3 table 4-15"),
    (PagingMode.LONG, 3, True): ReservedRule(0x3FFF_E000, _LONG_ADDRESS, True, "SDM vol. 3 table 4-16"),
    (PagingMode.LONG, 3, False): ReservedRule(0, _LONG_ADDRESS, True, "SDM vol. 3 table 4-17"),
    (PagingMode.LONG, 2, True): ReservedRule(0x1F_E000, _LONG_ADDRESS, True, "SDM vol. 3 table 4-18"),
    (PagingMode.LONG, 2, False): ReservedRule(0, _LONG_ADDRESS, True, "SDM vol. 3 table 4-19"),
    (PagingMode.LONG, 1, False): ReservedRule(0, _LONG_ADDRESS, True, "SDM vol. 3 table 4-20"),
    (PagingMode.PAE, 3, False): ReservedRule(0x1E6 | Pte.XD, _PAE_ADDRESS, False, "SDM vol. 3 table 4-8"),
    (PagingMode.PAE, 2, True): ReservedRule(0x1F_E000, _PAE_ADDRESS, True, "SDM vol. 3 table 4-9"),
    (PagingMode.PAE, 2, False): ReservedRule(0, _PAE_ADDRESS, True, "SDM vol. 3 table 4-10"),
    (PagingMode.PAE, 1, False): ReservedRule(0, _PAE_ADDRESS, True, "SDM vol. 3 table 4-11"),
    (PagingMode.LEGACY_32, 2, True): ReservedRule(1 << 21, 0, False, "SDM vol. 3 table 4-4 (PSE-36 with 40 bits)"),
    (PagingMode.LEGACY_32, 2, False): ReservedRule(0, 0, False, "SDM vol. 3 table 4-5"),
    (PagingMode.LEGACY_32, 1, False): ReservedRule(0, 0, False, "SDM vol. 3 table 4-6"),
}

#: Level to the bits that AMD processors reserve in an entry that maps no page, on top of the above (APM vol. 2 figures 5-20 ff.: "MBZ").
RESERVED_AMD: Final = {5: Pte.G, 4: Pte.G, 3: Pte.G}


def reserved_in(mode: PagingMode, level: int, large: bool, physical_bits: int, nxe: bool) -> int:
    """Bits that must be 0 in a present entry. `physical_bits`: MAXPHYADDR, 32 to 52. KeyError for a form that does not exist (a large page at level 4).

    For 4-MByte pages the address bits 39:32 lie in bits 20:13, and those from `physical_bits` upwards are reserved (PSE-36, SDM vol. 3 table 4-4).
    """
    rule = RESERVED[mode, level, large]
    mask = rule.fixed | rule.above_address & -(1 << physical_bits)
    if mode is PagingMode.LEGACY_32 and large:
        mask |= 0x1F_E000 & -(1 << max(physical_bits, 32) - 19)
    return mask | Pte.XD if rule.xd and not nxe else mask


def reserved_bits(level: int, large: bool, physical_bits: int, nxe: bool) -> int:
    """`reserved_in` for 4- and 5-level paging."""
    return reserved_in(PagingMode.LONG, level, large, physical_bits, nxe)
