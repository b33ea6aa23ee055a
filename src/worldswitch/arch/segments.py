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

# Type bits of code and data segments.
TYPE_ACCESSED: Final = 1
TYPE_WRITABLE: Final = 2
"""Data: writable; code: readable."""
TYPE_EXPAND_DOWN: Final = 4
"""Data: expand-down; code: conforming."""
TYPE_CODE: Final = 8


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
