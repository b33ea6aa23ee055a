"""The local APIC (SDM vol. 3 ch. 11), in xAPIC and x2APIC mode: acceptance and priority, EOI, local vector table, timer, IPIs.

A model of registers and rules whose surroundings come through its constructor. The board gives one to each processor; KVM's virtual local APIC is the same model in other surroundings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from worldswitch.arch.apic import (
    LVT_DELIVERY_STATUS, LVT_MASKED, LVT_REGISTERS, LVT_TIMER_MODE_SHIFT, LVT_VECTOR, REGISTERS, SVR_ENABLE, ApicRegister, DeliveryMode, Esr, TimerMode,
    timer_divisor,
)  # fmt: skip
from worldswitch.arch.msr import X2APIC_FIRST, X2APIC_LAST, ApicBase, Msr

_R = ApicRegister
_MASK32: Final = 0xFFFFFFFF
#: Bits of LVT registers that software can set, by register, beyond what their specification's x2APIC mask says: none; delivery status and remote IRR are read-only.
_READ_ONLY_LVT: Final = LVT_DELIVERY_STATUS | 1 << 14


class ApicClock(Protocol):
    """Time as a local APIC sees it."""

    def now(self) -> int:
        """The timer's input clock, in cycles."""

    def arm(self, time: int, callback: Callable[[int], None]) -> object:
        """Call back when `now()` reaches `time`; a handle for `disarm`."""

    def disarm(self, handle: object) -> None:
        """Forget a callback; harmless if it has come."""

    def tsc(self) -> int:
        """The TSC with which TSC-deadline mode compares."""


@dataclass(frozen=True, slots=True)
class Ipi:
    """What a write to the interrupt command register sends (SDM vol. 3 §11.6.1)."""

    vector: int
    mode: DeliveryMode
    destination: int
    logical: bool
    shorthand: int
    """0 none, 1 self, 2 all including self, 3 all excluding self."""
    level: bool = True


def highest(bits: int) -> int:
    """The highest bit number set in a 256-bit register; -1 if none."""
    return bits.bit_length() - 1


class LocalApic:
    """One local APIC; implements `cpu.bus.InterruptController`.

    `raised`: called when a waiting interrupt may have become deliverable. `record(event, vector, source)`: called for "accept", "acknowledge", "eoi". `send`: where IPIs go.
    """

    def __init__(
        self,
        apic_id: int,
        clock: ApicClock,
        *,
        raised: Callable[[], None],
        record: Callable[[str, int, str], None] | None = None,
        send: Callable[[Ipi], None] | None = None,
        eoi: Callable[[int], None] | None = None,
        boot_processor: bool = True,
    ) -> None:
        self.apic_id = apic_id
        self._clock, self._raised, self._record, self._send, self._eoi = clock, raised, record, send, eoi
        self.base = 0xFEE00000 | ApicBase.EN | (ApicBase.BSP if boot_processor else 0)
        self.irr = self.isr = self.tmr = 0
        self._nmi = False
        self._errors = 0
        self._timer: object | None = None
        self._timer_start = 0
        self.tsc_deadline = 0
        self._regs: dict[int, int] = {}
        self.reset()

    def reset(self) -> None:
        """The state after power-up or INIT (SDM vol. 3 §11.4.7.1): registers reset, software-disabled; IA32_APIC_BASE stays."""
        self._disarm()
        self.irr = self.isr = self.tmr = 0
        self._nmi, self._errors, self.tsc_deadline = False, 0, 0
        self._regs = {register: spec.reset for register, spec in REGISTERS.items()}

    # Modes.

    @property
    def enabled(self) -> bool:
        """IA32_APIC_BASE.EN."""
        return bool(self.base & ApicBase.EN)

    @property
    def x2apic(self) -> bool:
        """x2APIC mode."""
        return bool(self.base & ApicBase.EXTD)

    @property
    def software_enabled(self) -> bool:
        """Bit 8 of the spurious-interrupt vector register."""
        return bool(self._regs[_R.SVR] & SVR_ENABLE)

    # Acceptance, priority, acknowledgement (SDM vol. 3 §11.8).

    @property
    def ppr(self) -> int:
        """Processor priority: the higher of task priority and the class of the interrupt in service."""
        tpr, in_service = self._regs[_R.TPR], highest(self.isr)
        served = in_service & 0xF0 if in_service >= 0 else 0
        return tpr if tpr & 0xF0 >= served else served

    def pending(self) -> bool:
        top = highest(self.irr)
        return top >= 0 and top >> 4 > self.ppr >> 4 and self.enabled and self.software_enabled

    def acknowledge(self) -> int:
        if not self.pending():
            return self._regs[_R.SVR] & 0xFF  # withdrawn meanwhile: the spurious vector, without an ISR bit (§11.9)
        vector = highest(self.irr)
        self.irr &= ~(1 << vector)
        self.isr |= 1 << vector
        if self._record is not None:
            self._record("acknowledge", vector, "")
        return vector

    def deliver(self, vector: int, source: str, *, level: bool = False) -> bool:
        """Accept a fixed interrupt. False if the APIC is off or the vector illegal (ESR notes it)."""
        if not self.enabled or not self.software_enabled:
            return False
        if vector < 16:
            self._error(Esr.RECEIVE_ILLEGAL_VECTOR)
            return False
        self.irr |= 1 << vector
        self.tmr = self.tmr | 1 << vector if level else self.tmr & ~(1 << vector)
        if self._record is not None:
            self._record("accept", vector, source)
        self._raised()
        return True

    def raise_nmi(self) -> None:
        """Latch an NMI."""
        self._nmi = True
        self._raised()

    def nmi_pending(self) -> bool:
        return self._nmi

    def take_nmi(self) -> bool:
        was, self._nmi = self._nmi, False
        return was

    def get_tpr(self) -> int:
        return self._regs[_R.TPR]

    def set_tpr(self, value: int) -> None:
        self._regs[_R.TPR] = value & 0xFF
        self._raised()

    def end_of_interrupt(self) -> None:
        """EOI: the highest bit in service is cleared."""
        vector = highest(self.isr)
        if vector < 0:
            return
        self.isr &= ~(1 << vector)
        if self._record is not None:
            self._record("eoi", vector, "")
        if self._eoi is not None and self.tmr >> vector & 1:
            self._eoi(vector)
        self._raised()

    def _error(self, bit: Esr) -> None:
        if not self._errors & bit:
            self._errors |= bit
            self.local_interrupt(_R.LVT_ERROR)

    def local_interrupt(self, register: int) -> None:
        """A local source fires: what its LVT entry says happens (SDM vol. 3 §11.5.1)."""
        entry = self._regs[register]
        if entry & LVT_MASKED or not self.enabled:
            return
        mode = DeliveryMode.FIXED if register in (_R.LVT_TIMER, _R.LVT_ERROR) else entry >> 8 & 7
        if mode == DeliveryMode.NMI:
            self.raise_nmi()
        elif mode == DeliveryMode.FIXED:
            self.deliver(entry & LVT_VECTOR, _R(register).name.removeprefix("LVT_").lower())

    # The timer (SDM vol. 3 §11.5.4).

    @property
    def timer_mode(self) -> int:
        """Bits 18:17 of the timer's LVT entry."""
        return self._regs[_R.LVT_TIMER] >> LVT_TIMER_MODE_SHIFT & 3

    def _period(self) -> int:
        return self._regs[_R.TIMER_INITIAL_COUNT] * timer_divisor(self._regs[_R.TIMER_DIVIDE])

    def _disarm(self) -> None:
        if self._timer is not None:
            self._clock.disarm(self._timer)
            self._timer = None

    def _arm_counting(self, start: int) -> None:
        self._disarm()
        self._timer_start = start
        if self._period() and self.timer_mode != TimerMode.TSC_DEADLINE:
            self._timer = self._clock.arm(start + self._period(), self._expired)

    def _expired(self, time: int) -> None:
        self._timer = None
        mode = self.timer_mode
        if mode == TimerMode.PERIODIC:
            self._arm_counting(time)
        elif mode == TimerMode.TSC_DEADLINE:
            self.tsc_deadline = 0
        self.local_interrupt(_R.LVT_TIMER)

    def _current_count(self) -> int:
        if self._timer is None or self.timer_mode == TimerMode.TSC_DEADLINE:
            return 0
        left = self._timer_start + self._period() - self._clock.now()
        divisor = timer_divisor(self._regs[_R.TIMER_DIVIDE])
        return max(0, -(-left // divisor)) & _MASK32

    def _set_deadline(self, value: int) -> None:
        if self.timer_mode != TimerMode.TSC_DEADLINE:
            return
        self._disarm()
        self.tsc_deadline = value
        if value:
            # A deadline in the past fires at once.
            self._timer = self._clock.arm(max(self._clock.now() + value - self._clock.tsc(), self._clock.now()), self._expired)

    def _set_divide(self, value: int) -> None:
        left = self._current_count()
        self._regs[_R.TIMER_DIVIDE] = value & 0xB
        if self._timer is not None and self.timer_mode != TimerMode.TSC_DEADLINE:
            # The count goes on from where it is, at the new speed.
            self._disarm()
            step = timer_divisor(value)
            self._timer_start = self._clock.now() + left * step - self._period()
            self._timer = self._clock.arm(self._clock.now() + left * step, self._expired)

    # Registers.

    def read(self, register: int) -> int:
        """A 32-bit register by its offset; 0 for one that is write-only."""
        for base, bits in ((_R.ISR, self.isr), (_R.TMR, self.tmr), (_R.IRR, self.irr)):
            if base <= register < base + 0x80:
                return bits >> 2 * (register - base) & _MASK32
        match register:
            case _R.ID:
                return self.apic_id if self.x2apic else self.apic_id << 24
            case _R.PPR:
                return self.ppr
            case _R.LDR if self.x2apic:
                return (self.apic_id >> 4) << 16 | 1 << (self.apic_id & 15)  # §11.12.10.2
            case _R.TIMER_CURRENT_COUNT:
                return self._current_count()
        return self._regs.get(register, 0)

    def write(self, register: int, value: int) -> None:
        """Write a 32-bit register by its offset; bits that are reserved or read-only are dropped."""
        value &= _MASK32
        regs = self._regs
        match register:
            case _R.EOI:
                self.end_of_interrupt()
            case _R.TPR:
                self.set_tpr(value)
            case _R.SVR:
                regs[_R.SVR] = value & 0x3FF
                if not value & SVR_ENABLE:  # §11.4.7.2: every LVT entry becomes masked
                    for entry in LVT_REGISTERS:
                        regs[entry] |= LVT_MASKED
                self._raised()
            case _R.ESR:
                regs[_R.ESR], self._errors = self._errors, 0  # a write latches what has been seen since the last (§11.5.3)
            case _R.LVT_TIMER:
                old = self.timer_mode
                regs[register] = value & REGISTERS[register].writable | (0 if self.software_enabled else LVT_MASKED)
                if (old == TimerMode.TSC_DEADLINE) != (self.timer_mode == TimerMode.TSC_DEADLINE):
                    self._disarm()  # §11.5.4.1
                    self.tsc_deadline = 0
            case _R.TIMER_INITIAL_COUNT:
                if self.timer_mode != TimerMode.TSC_DEADLINE:
                    regs[register] = value
                    self._arm_counting(self._clock.now())
            case _R.TIMER_DIVIDE:
                self._set_divide(value)
            case _R.ICR_LOW:
                regs[register] = value & REGISTERS[register].writable
                self._send_ipi()
            case _R.SELF_IPI:
                self._ipi(Ipi(value & 0xFF, DeliveryMode.FIXED, 0, False, 1))
            case _R.LDR if not self.x2apic:
                regs[register] = value & 0xFF000000
            case _R.ID if not self.x2apic:
                self.apic_id = value >> 24
            case _ if register in LVT_REGISTERS:
                regs[register] = value & REGISTERS[register].writable & ~_READ_ONLY_LVT | (0 if self.software_enabled else LVT_MASKED)
            case _:
                spec = REGISTERS.get(register)
                if spec is not None and spec.write:
                    regs[register] = value & spec.writable | (spec.reset & ~spec.writable)

    def _send_ipi(self) -> None:
        low, high = self._regs[_R.ICR_LOW], self._regs[_R.ICR_HIGH]
        mode = low >> 8 & 7
        if mode not in DeliveryMode.__members__.values():
            return
        destination = high if self.x2apic else high >> 24
        self._ipi(Ipi(low & 0xFF, DeliveryMode(mode), destination, bool(low >> 11 & 1), low >> 18 & 3, bool(low >> 14 & 1)))

    def _ipi(self, ipi: Ipi) -> None:
        if ipi.mode is DeliveryMode.FIXED and ipi.vector < 16:
            self._error(Esr.SEND_ILLEGAL_VECTOR)
        elif ipi.shorthand == 1:
            self.deliver(ipi.vector, "self-ipi")
        elif self._send is not None:
            self._send(ipi)

    def accept_ipi(self, ipi: Ipi) -> None:
        """An IPI that is addressed to this APIC arrives."""
        if ipi.mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY):
            self.deliver(ipi.vector, "ipi")
        elif ipi.mode is DeliveryMode.NMI:
            self.raise_nmi()

    def addressed_by(self, ipi: Ipi) -> bool:
        """Whether a destination without shorthand means this APIC (SDM vol. 3 §11.6.2, §11.12.10)."""
        if self.x2apic:
            if ipi.destination == _MASK32:
                return True
            if not ipi.logical:
                return ipi.destination == self.apic_id
            return ipi.destination >> 16 == self.apic_id >> 4 and bool(ipi.destination & 1 << (self.apic_id & 15))
        if ipi.destination == 0xFF:
            return True
        if not ipi.logical:
            return ipi.destination == self.apic_id
        ldr = self._regs[_R.LDR] >> 24
        if self._regs[_R.DFR] >> 28 == 0xF:  # flat model
            return bool(ldr & ipi.destination)
        return ldr >> 4 == ipi.destination >> 4 and bool(ldr & ipi.destination & 0xF)

    # MSRs (SDM vol. 3 §11.12.1).

    def read_msr(self, msr: int) -> int | None:
        if msr == Msr.IA32_APIC_BASE:
            return int(self.base)
        if msr == Msr.IA32_TSC_DEADLINE:
            return self.tsc_deadline
        register = msr - X2APIC_FIRST << 4
        spec = REGISTERS.get(register)
        if not self.x2apic or not X2APIC_FIRST <= msr <= X2APIC_LAST or spec is None or not spec.read or not spec.x2apic:
            return None
        if register == _R.ICR_LOW:
            return self._regs[_R.ICR_HIGH] << 32 | self._regs[_R.ICR_LOW]
        return self.read(register)

    def write_msr(self, msr: int, value: int) -> bool:
        if msr == Msr.IA32_APIC_BASE:
            return self._write_base(value)
        if msr == Msr.IA32_TSC_DEADLINE:
            self._set_deadline(value)
            return True
        register = msr - X2APIC_FIRST << 4
        spec = REGISTERS.get(register)
        if not self.x2apic or not X2APIC_FIRST <= msr <= X2APIC_LAST or spec is None or not spec.write or not spec.x2apic:
            return False
        if register == _R.ICR_LOW:
            if value & _MASK32 & ~spec.writable:
                return False
            self._regs[_R.ICR_HIGH] = value >> 32
            self.write(register, value & _MASK32)
            return True
        # Reserved bits fault (§11.12.1.3); read-only ones of the LVT are not reserved; EOI and ESR take only 0.
        allowed = spec.writable | (_READ_ONLY_LVT if register in LVT_REGISTERS else 0)
        if value & ~allowed:
            return False
        self.write(register, value)
        return True

    def _write_base(self, value: int) -> bool:
        """IA32_APIC_BASE (§11.12.5): no way from x2APIC to xAPIC, nor from disabled to x2APIC."""
        if value & ~0xFFFFFFD00 or (value & ApicBase.EXTD and not value & ApicBase.EN):
            return False
        if self.x2apic and value & ApicBase.EN and not value & ApicBase.EXTD:
            return False
        if not self.enabled and value & ApicBase.EXTD:
            return False
        if not value & ApicBase.EN:
            self.reset()
        self.base = value & ~ApicBase.BSP | self.base & ApicBase.BSP
        self._raised()
        return True

    # Memory-mapped access in xAPIC mode (SDM vol. 3 §11.4.1): 32-bit accesses at 16-byte boundaries.

    def mmio_read(self, offset: int, size: int) -> int:
        """Read from the APIC page."""
        if self.x2apic or not self.enabled or size > 4 or (offset & 15) + size > 4:
            return (1 << 8 * size) - 1
        register = offset & ~15
        if register not in REGISTERS:
            self._error(Esr.ILLEGAL_REGISTER)
            return 0
        return self.read(register) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write to the APIC page."""
        if self.x2apic or not self.enabled or size != 4 or offset & 15:
            return
        if offset not in REGISTERS:
            self._error(Esr.ILLEGAL_REGISTER)
            return
        self.write(offset, value)

    # Snapshots, in the format of the register page (kvm_lapic_state).

    def save(self) -> bytes:
        """The 1-KByte register page."""
        page = bytearray(1024)
        for register in REGISTERS:
            page[register : register + 4] = self.read(register).to_bytes(4, "little") if register < 0x400 else b""
        return bytes(page)

    def restore(self, page: bytes) -> None:
        """Put a register page back; a counting timer starts again from its current count. ValueError for a page of another size."""
        if len(page) != 1024:
            raise ValueError(f"a local APIC's register page has 1024 bytes, this one has {len(page)}")

        def at(register: int) -> int:
            return int.from_bytes(page[register : register + 4], "little")

        for register in REGISTERS:
            self._regs[register] = at(register)
        self.isr, self.tmr, self.irr = (sum(at(base + 16 * i) << 32 * i for i in range(8)) for base in (_R.ISR, _R.TMR, _R.IRR))
        self._disarm()
        left = at(_R.TIMER_CURRENT_COUNT) * timer_divisor(at(_R.TIMER_DIVIDE))
        if left and self.timer_mode != TimerMode.TSC_DEADLINE:
            self._timer_start = self._clock.now() + left - self._period()
            self._timer = self._clock.arm(self._clock.now() + left, self._expired)
        self._raised()
