"""Exceptions by vector: kind, error code, and the class that decides on double faults (SDM vol. 3 §6.3, tables 6-1 and 6-5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final


class Vector(IntEnum):
    """Architectural vectors."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21


class Kind(Enum):
    """What the saved RIP points at (SDM vol. 3 §6.5)."""

    FAULT = "fault"
    TRAP = "trap"
    ABORT = "abort"
    INTERRUPT = "interrupt"


class Class(Enum):
    """Classes of table 6-5."""

    BENIGN = 0
    CONTRIBUTORY = 1
    PAGE_FAULT = 2
    DOUBLE_FAULT = 3


@dataclass(frozen=True, slots=True)
class ExceptionSpec:
    """One row of table 6-1."""

    name: str
    kind: Kind
    error_code: bool
    exception_class: Class
    section: str


def _row(name: str, kind: Kind, error_code: bool, cls: Class, number: int) -> ExceptionSpec:
    return ExceptionSpec(name, kind, error_code, cls, f"SDM vol. 3 §6.15, interrupt {number}")


#: Vector to its specification.
EXCEPTIONS: Final[dict[int, ExceptionSpec]] = {
    Vector.DE: _row("divide error", Kind.FAULT, False, Class.CONTRIBUTORY, 0),
    Vector.DB: _row("debug", Kind.TRAP, False, Class.BENIGN, 1),
    Vector.NMI: _row("NMI", Kind.INTERRUPT, False, Class.BENIGN, 2),
    Vector.BP: _row("breakpoint", Kind.TRAP, False, Class.BENIGN, 3),
    Vector.OF: _row("overflow", Kind.TRAP, False, Class.BENIGN, 4),
    Vector.BR: _row("BOUND range exceeded", Kind.FAULT, False, Class.BENIGN, 5),
    Vector.UD: _row("invalid opcode", Kind.FAULT, False, Class.BENIGN, 6),
    Vector.NM: _row("device not available", Kind.FAULT, False, Class.BENIGN, 7),
    Vector.DF: _row("double fault", Kind.ABORT, True, Class.DOUBLE_FAULT, 8),
    Vector.TS: _row("invalid TSS", Kind.FAULT, True, Class.CONTRIBUTORY, 10),
    Vector.NP: _row("segment not present", Kind.FAULT, True, Class.CONTRIBUTORY, 11),
    Vector.SS: _row("stack fault", Kind.FAULT, True, Class.CONTRIBUTORY, 12),
    Vector.GP: _row("general protection", Kind.FAULT, True, Class.CONTRIBUTORY, 13),
    Vector.PF: _row("page fault", Kind.FAULT, True, Class.PAGE_FAULT, 14),
    Vector.MF: _row("x87 floating-point error", Kind.FAULT, False, Class.BENIGN, 16),
    Vector.AC: _row("alignment check", Kind.FAULT, True, Class.BENIGN, 17),
    Vector.MC: _row("machine check", Kind.ABORT, False, Class.BENIGN, 18),
    Vector.XM: _row("SIMD floating-point", Kind.FAULT, False, Class.BENIGN, 19),
    Vector.VE: _row("virtualization exception", Kind.FAULT, False, Class.PAGE_FAULT, 20),
    Vector.CP: _row("control protection", Kind.FAULT, True, Class.CONTRIBUTORY, 21),
}
