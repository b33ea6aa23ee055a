"""The local APIC's registers (SDM vol. 3 ch. 11; APM vol. 2 ch. 16)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from worldswitch.arch.flags import BitFlag


class ApicRegister(IntEnum):
    """Register offsets (SDM vol. 3 table 11-1). In x2APIC mode the MSR is 800H + (offset >> 4)."""

    ID = 0x20
    VERSION = 0x30
    TPR = 0x80
    APR = 0x90
    PPR = 0xA0
    EOI = 0xB0
    RRD = 0xC0
    LDR = 0xD0
    DFR = 0xE0
    SVR = 0xF0
    ISR = 0x100
    TMR = 0x180
    IRR = 0x200
    ESR = 0x280
    LVT_CMCI = 0x2F0
    ICR_LOW = 0x300
    ICR_HIGH = 0x310
    LVT_TIMER = 0x320
    LVT_THERMAL = 0x330
    LVT_PERF = 0x340
    LVT_LINT0 = 0x350
    LVT_LINT1 = 0x360
    LVT_ERROR = 0x370
    TIMER_INITIAL_COUNT = 0x380
    TIMER_CURRENT_COUNT = 0x390
    TIMER_DIVIDE = 0x3E0
    SELF_IPI = 0x3F0


@dataclass(frozen=True, slots=True)
class RegisterSpec:
    """Access and reset value of one register."""

    read: bool
    write: bool
    writable: int
    """Mask of the bits that software can write in x2APIC mode; others raise #GP (SDM vol. 3 §11.12.1.3) or are ignored in xAPIC mode."""
    reset: int = 0
    x2apic: bool = True


#: Register to its specification (SDM vol. 3 tables 11-1 and 11-6).
REGISTERS: Final[dict[int, RegisterSpec]] = {
    ApicRegister.ID: RegisterSpec(True, False, 0),
    ApicRegister.VERSION: RegisterSpec(True, False, 0, 0x0005_0014),
    ApicRegister.TPR: RegisterSpec(True, True, 0xFF),
    ApicRegister.APR: RegisterSpec(True, False, 0, 0, False),
    ApicRegister.PPR: RegisterSpec(True, False, 0),
    ApicRegister.EOI: RegisterSpec(False, True, 0),
    ApicRegister.RRD: RegisterSpec(True, False, 0, 0, False),
    ApicRegister.LDR: RegisterSpec(True, False, 0),
    ApicRegister.DFR: RegisterSpec(True, True, 0xF0000000, 0xFFFFFFFF, False),
    ApicRegister.SVR: RegisterSpec(True, True, 0x3FF, 0xFF),
    **{ApicRegister.ISR + 0x10 * i: RegisterSpec(True, False, 0) for i in range(8)},
    **{ApicRegister.TMR + 0x10 * i: RegisterSpec(True, False, 0) for i in range(8)},
    **{ApicRegister.IRR + 0x10 * i: RegisterSpec(True, False, 0) for i in range(8)},
    ApicRegister.ESR: RegisterSpec(True, True, 0),
    ApicRegister.LVT_CMCI: RegisterSpec(True, True, 0x1_07FF, 0x10000),
    ApicRegister.ICR_LOW: RegisterSpec(True, True, 0xC_CFFF),
    ApicRegister.ICR_HIGH: RegisterSpec(True, True, 0xFF00_0000, 0, False),
    ApicRegister.LVT_TIMER: RegisterSpec(True, True, 0x7_00FF, 0x10000),
    ApicRegister.LVT_THERMAL: RegisterSpec(True, True, 0x1_07FF, 0x10000),
    ApicRegister.LVT_PERF: RegisterSpec(True, True, 0x1_07FF, 0x10000),
    ApicRegister.LVT_LINT0: RegisterSpec(True, True, 0x1_A7FF, 0x10000),
    ApicRegister.LVT_LINT1: RegisterSpec(True, True, 0x1_A7FF, 0x10000),
    ApicRegister.LVT_ERROR: RegisterSpec(True, True, 0x1_00FF, 0x10000),
    ApicRegister.TIMER_INITIAL_COUNT: RegisterSpec(True, True, 0xFFFFFFFF),
    ApicRegister.TIMER_CURRENT_COUNT: RegisterSpec(True, False, 0),
    ApicRegister.TIMER_DIVIDE: RegisterSpec(True, True, 0xB),
    ApicRegister.SELF_IPI: RegisterSpec(False, True, 0xFF),
}

LVT_REGISTERS: Final = (
    ApicRegister.LVT_CMCI, ApicRegister.LVT_TIMER, ApicRegister.LVT_THERMAL, ApicRegister.LVT_PERF,
    ApicRegister.LVT_LINT0, ApicRegister.LVT_LINT1, ApicRegister.LVT_ERROR,
)  # fmt: skip
LVT_VECTOR: Final = 0xFF
LVT_DELIVERY_STATUS: Final = 1 << 12
LVT_MASKED: Final = 1 << 16
LVT_TIMER_MODE_SHIFT: Final = 17
SVR_ENABLE: Final = 1 << 8


class TimerMode(IntEnum):
    """LVT timer register bits 18:17 (SDM vol. 3 figure 11-8)."""

    ONE_SHOT = 0
    PERIODIC = 1
    TSC_DEADLINE = 2


class DeliveryMode(IntEnum):
    """Delivery modes (SDM vol. 3 §11.5.1, §11.6.1)."""

    FIXED = 0
    LOWEST_PRIORITY = 1
    SMI = 2
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


class Esr(BitFlag):
    """Error status register (SDM vol. 3 §11.5.3)."""

    SEND_ILLEGAL_VECTOR = 1 << 5
    RECEIVE_ILLEGAL_VECTOR = 1 << 6
    ILLEGAL_REGISTER = 1 << 7


#: Divide configuration register, bits 3, 1, 0 put together, to the divisor (SDM vol. 3 figure 11-10).
DIVISORS: Final = (2, 4, 8, 16, 32, 64, 128, 1)


def timer_divisor(divide_configuration: int) -> int:
    """The timer's divisor."""
    return DIVISORS[divide_configuration & 3 | divide_configuration >> 1 & 4]


def x2apic_msr(register: int) -> int:
    """The MSR of a register in x2APIC mode."""
    return 0x800 + (register >> 4)
