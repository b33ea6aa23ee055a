"""Exceptions by vector: kind, error code, and the class that decides on double faults (SDM vol. 3 §6.3, tables 6-1 and 6-5; APM vol. 2 §8.2)."""

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
    HV = 28
    """AMD only, as the next two."""
    VC = 29
    SX = 30


class ExceptionKind(Enum):
    """What the saved RIP points at (SDM vol. 3 §6.5)."""

    FAULT = "fault"
    TRAP = "trap"
    ABORT = "abort"
    INTERRUPT = "interrupt"


class ExceptionClass(Enum):
    """Classes of table 6-5."""

    BENIGN = 0
    CONTRIBUTORY = 1
    PAGE_FAULT = 2
    DOUBLE_FAULT = 3
    """#DF itself, which the table leaves out: a contributory exception or page fault while it is delivered makes a triple fault."""


Kind = ExceptionKind
Class = ExceptionClass


@dataclass(frozen=True, slots=True)
class ExceptionSpec:
    """One row of table 6-1."""

    mnemonic: str
    name: str
    kind: ExceptionKind
    error_code: bool
    """Whether delivery pushes one (not in real-address mode)."""
    exception_class: ExceptionClass
    section: str

    @property
    def has_error_code(self) -> bool:
        """`error_code`, by the name that VMX uses for it in checks."""
        return self.error_code


def _row(vector: Vector, name: str, kind: ExceptionKind, error_code: bool, cls: ExceptionClass) -> ExceptionSpec:
    mnemonic = vector.name if vector is Vector.NMI else f"#{vector.name}"
    return ExceptionSpec(mnemonic, name, kind, error_code, cls, f"SDM vol. 3 §6.15, interrupt {vector}")


#: Vector to its specification, for what both vendors' processors have (and #VE, Intel's alone).
EXCEPTIONS: Final[dict[int, ExceptionSpec]] = {
    Vector.DE: _row(Vector.DE, "divide error", Kind.FAULT, False, Class.CONTRIBUTORY),
    Vector.DB: _row(Vector.DB, "debug", Kind.TRAP, False, Class.BENIGN),
    Vector.NMI: _row(Vector.NMI, "NMI", Kind.INTERRUPT, False, Class.BENIGN),
    Vector.BP: _row(Vector.BP, "breakpoint", Kind.TRAP, False, Class.BENIGN),
    Vector.OF: _row(Vector.OF, "overflow", Kind.TRAP, False, Class.BENIGN),
    Vector.BR: _row(Vector.BR, "BOUND range exceeded", Kind.FAULT, False, Class.BENIGN),
    Vector.UD: _row(Vector.UD, "invalid opcode", Kind.FAULT, False, Class.BENIGN),
    Vector.NM: _row(Vector.NM, "device not available", Kind.FAULT, False, Class.BENIGN),
    Vector.DF: _row(Vector.DF, "double fault", Kind.ABORT, True, Class.DOUBLE_FAULT),
    Vector.TS: _row(Vector.TS, "invalid TSS", Kind.FAULT, True, Class.CONTRIBUTORY),
    Vector.NP: _row(Vector.NP, "segment not present", Kind.FAULT, True, Class.CONTRIBUTORY),
    Vector.SS: _row(Vector.SS, "stack fault", Kind.FAULT, True, Class.CONTRIBUTORY),
    Vector.GP: _row(Vector.GP, "general protection", Kind.FAULT, True, Class.CONTRIBUTORY),
    Vector.PF: _row(Vector.PF, "page fault", Kind.FAULT, True, Class.PAGE_FAULT),
    Vector.MF: _row(Vector.MF, "x87 floating-point error", Kind.FAULT, False, Class.BENIGN),
    Vector.AC: _row(Vector.AC, "alignment check", Kind.FAULT, True, Class.BENIGN),
    Vector.MC: _row(Vector.MC, "machine check", Kind.ABORT, False, Class.BENIGN),
    Vector.XM: _row(Vector.XM, "SIMD floating-point", Kind.FAULT, False, Class.BENIGN),
    Vector.VE: _row(Vector.VE, "virtualization exception", Kind.FAULT, False, Class.PAGE_FAULT),
    Vector.CP: _row(Vector.CP, "control protection", Kind.FAULT, True, Class.CONTRIBUTORY),
}

#: The same for AMD's own vectors. Apart, since on an Intel processor these vectors are reserved: nothing there has an error code,
#: so VM entry refuses one (SDM vol. 3 §27.2.1.3).
AMD_EXCEPTIONS: Final[dict[int, ExceptionSpec]] = {
    Vector.HV: ExceptionSpec("#HV", "hypervisor injection", Kind.INTERRUPT, False, Class.BENIGN, "APM vol. 2 §8.2.21, §15.36.16"),
    Vector.VC: ExceptionSpec("#VC", "VMM communication", Kind.FAULT, True, Class.CONTRIBUTORY, "APM vol. 2 §8.2.22, §15.35.5"),
    Vector.SX: ExceptionSpec("#SX", "security exception", Kind.FAULT, True, Class.CONTRIBUTORY, "APM vol. 2 §8.2.23"),
}
