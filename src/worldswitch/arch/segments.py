"""Descriptors, access rights, gates and task-state segments (SDM vol. 3 §3.4-3.5, §5.8, §6.14, §8.2, §8.7)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

# Access rights in the VMX format (SDM vol. 3 table 25-2): the descriptor's bits 55:40 with the limit nibble as 0, plus "unusable".
AR_TYPE: Final = 0xF
AR_S: Final = 1 << 4
AR_DPL: Final = 3 << 5
AR_P: Final = 1 << 7
AR_AVL: Final = 1 << 12
AR_L: Final = 1 << 13
AR_DB: Final = 1 << 14
AR_G: Final = 1 << 15
AR_UNUSABLE: Final = 1 << 16
AR_DPL_SHIFT: Final = 5
AR_RESERVED: Final = 0xFFFE_0F00
"""Bits 31:17 and 11:8 (SDM vol. 3 table 25-2)."""

# Type bits of code and data segments.
TYPE_ACCESSED: Final = 1
TYPE_WRITABLE: Final = 2
"""Data: writable; code: readable."""
TYPE_EXPAND_DOWN: Final = 4
"""Data: expand-down; code: conforming."""
TYPE_CODE: Final = 8
TYPE_READABLE: Final = TYPE_WRITABLE
TYPE_CONFORMING: Final = TYPE_EXPAND_DOWN

# Selectors (SDM vol. 3 §3.4.2) and the error codes made of them (§6.13).
SELECTOR_RPL: Final = 3
SELECTOR_TI: Final = 1 << 2
SELECTOR_INDEX: Final = 0xFFF8
ERROR_CODE_EXT: Final = 1 << 0
ERROR_CODE_IDT: Final = 1 << 1
ERROR_CODE_TI: Final = 1 << 2


class SystemType(IntEnum):
    """System-descriptor types (SDM vol. 3 table 3-2)."""

    TSS16_AVAILABLE = 1
    LDT = 2
    TSS16_BUSY = 3
    CALL_GATE16 = 4
    TASK_GATE = 5
    INTERRUPT_GATE16 = 6
    TRAP_GATE16 = 7
    TSS_AVAILABLE = 9
    TSS_BUSY = 11
    CALL_GATE = 12
    INTERRUPT_GATE = 14
    TRAP_GATE = 15


#: Offsets in the 64-bit TSS (SDM vol. 3 figure 8-11).
TSS64_RSP: Final = (4, 12, 20)
TSS64_IST: Final = (None, 36, 44, 52, 60, 68, 76, 84)
TSS64_IO_MAP_BASE: Final = 102
TSS64_BYTES: Final = 104
"""Without I/O map; LTR needs a limit of at least this less 1 (SDM vol. 3 §8.7)."""

#: The 32-bit TSS: field to its offset and bytes (SDM vol. 3 figure 8-2).
TSS32: Final[dict[str, tuple[int, int]]] = {
    "LINK": (0, 2),
    "ESP0": (4, 4),
    "SS0": (8, 2),
    "ESP1": (12, 4),
    "SS1": (16, 2),
    "ESP2": (20, 4),
    "SS2": (24, 2),
    "CR3": (28, 4),
    "EIP": (32, 4),
    "EFLAGS": (36, 4),
    "EAX": (40, 4),
    "ECX": (44, 4),
    "EDX": (48, 4),
    "EBX": (52, 4),
    "ESP": (56, 4),
    "EBP": (60, 4),
    "ESI": (64, 4),
    "EDI": (68, 4),
    "ES": (72, 2),
    "CS": (76, 2),
    "SS": (80, 2),
    "DS": (84, 2),
    "FS": (88, 2),
    "GS": (92, 2),
    "LDTR": (96, 2),
    "TRAP": (100, 2),
    "IO_MAP_BASE": (102, 2),
}
TSS32_BYTES: Final = 104
"""Without I/O map and shadow stack pointer."""
TSS_TRAP: Final = 1
"""Bit of TRAP: #DB after the switch to this task."""

#: The 16-bit TSS: field to its offset; each has 2 bytes (SDM vol. 3 figure 8-10).
TSS16: Final[dict[str, int]] = {
    "LINK": 0,
    "SP0": 2,
    "SS0": 4,
    "SP1": 6,
    "SS1": 8,
    "SP2": 10,
    "SS2": 12,
    "IP": 14,
    "FLAGS": 16,
    "AX": 18,
    "CX": 20,
    "DX": 22,
    "BX": 24,
    "SP": 26,
    "BP": 28,
    "SI": 30,
    "DI": 32,
    "ES": 34,
    "CS": 36,
    "SS": 38,
    "DS": 40,
    "LDTR": 42,
}
TSS16_BYTES: Final = 44


def descriptor_base(low: int) -> int:
    """Base of an 8-byte descriptor (bits 31:0)."""
    return low >> 16 & 0xFFFFFF | low >> 32 & 0xFF000000


def descriptor_limit(low: int) -> int:
    """Limit in bytes of an 8-byte descriptor, scaled by its granularity."""
    limit = low & 0xFFFF | low >> 32 & 0xF0000
    return limit << 12 | 0xFFF if low >> 55 & 1 else limit


def descriptor_ar(low: int) -> int:
    """Access rights of an 8-byte descriptor in the VMX format."""
    return low >> 40 & 0xF0FF


def svm_attrib_of(ar: int) -> int:
    """The VMCB's 12-bit attribute of a segment (APM vol. 2 §15.5.1) from VMX-format access rights; unusable becomes not present."""
    return 0 if ar & AR_UNUSABLE else ar & 0xFF | ar >> 4 & 0xF00


def ar_of_svm_attrib(attrib: int) -> int:
    """VMX-format access rights from the VMCB's 12-bit attribute; not present becomes unusable."""
    ar = attrib & 0xFF | (attrib & 0xF00) << 4
    return ar if ar & AR_P else ar | AR_UNUSABLE


@dataclass(frozen=True, slots=True)
class Gate64:
    """A 16-byte gate of the long-mode IDT (SDM vol. 3 figure 6-8)."""

    offset: int
    selector: int
    ist: int
    type: int
    dpl: int
    present: bool


def decode_gate64(low: int, high: int) -> Gate64:
    """Decode the two quadwords of a gate."""
    return Gate64(
        offset=low & 0xFFFF | low >> 32 & 0xFFFF0000 | (high & 0xFFFFFFFF) << 32,
        selector=low >> 16 & 0xFFFF,
        ist=low >> 32 & 7,
        type=low >> 40 & 0x1F,
        dpl=low >> 45 & 3,
        present=bool(low >> 47 & 1),
    )


@dataclass(frozen=True, slots=True)
class Gate32:
    """An 8-byte gate of the protected-mode IDT, or a call gate (SDM vol. 3 figures 5-8, 6-2)."""

    offset: int
    """0 to 0xFFFFFFFF; 16-bit gates have only bits 15:0, task gates none."""
    selector: int
    """Code segment, or TSS of a task gate."""
    type: int
    """With the S bit as bit 4, which is 0 in every gate."""
    dpl: int
    present: bool
    parameters: int
    """Call gates: words (doublewords, in 32-bit ones) to copy to the new stack, 0 to 31."""


#: Gates without bits 31:16 of an offset.
_OFFSET16: Final = frozenset({SystemType.CALL_GATE16, SystemType.INTERRUPT_GATE16, SystemType.TRAP_GATE16})


def decode_gate32(low: int) -> Gate32:
    """Decode the one quadword of a gate. What its type does not have is 0."""
    kind = low >> 40 & 0x1F
    offset = 0 if kind == SystemType.TASK_GATE else low & 0xFFFF | (0 if kind in _OFFSET16 else low >> 32 & 0xFFFF0000)
    return Gate32(
        offset=offset,
        selector=low >> 16 & 0xFFFF,
        type=kind,
        dpl=low >> 45 & 3,
        present=bool(low >> 47 & 1),
        parameters=low >> 32 & 0x1F if kind in (SystemType.CALL_GATE, SystemType.CALL_GATE16) else 0,
    )
