"""The local APIC (SDM vol. 3 ch. 11), in xAPIC and x2APIC mode: acceptance and priority, EOI, local vector table, timer, IPIs.

A model of registers and rules whose surroundings come through its constructor: the board gives one to each processor, and KVM's virtual local APIC is the same
model in other surroundings. Leaves to them: time, the way of IPIs, INIT and start-up, pins and the ExtINT protocol of the 8259.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worldswitch.arch import apic as arch
from worldswitch.arch.apic import LVT_MASKED, LVT_VECTOR, SVR_ENABLE, ApicRegister, DeliveryMode, Esr
from worldswitch.arch.msr import X2APIC_FIRST, X2APIC_LAST, ApicBase, Msr
from worldswitch.board.lapic_timer import ApicClock, ApicTimer
from worldswitch.errors import ConfigurationError

__all__ = ["DEFAULT_BASE", "PAGE_BYTES", "ApicClock", "Ipi", "LocalApic", "highest"]

_R = ApicRegister
_MASK32: Final = 0xFFFFFFFF
#: The version register announces six LVT entries (SDM vol. 3 §11.4.8), so there is none for CMCI.
REGISTERS: Final[dict[int, arch.RegisterSpec]] = {register: spec for register, spec in arch.REGISTERS.items() if register != _R.LVT_CMCI}
_LVTS: Final = tuple(register for register in arch.LVT_REGISTERS if register in REGISTERS)
_PINS: Final = (_R.LVT_LINT0, _R.LVT_LINT1)
#: What raised an interrupt, for traces.
_SOURCES: Final = {register: register.name.removeprefix("LVT_").lower() for register in _LVTS}
_REMOTE_IRR: Final = 1 << 14
_LEVEL: Final = 1 << 15
#: Bits that are read-only, and so not reserved, in registers that WRMSR writes: delivery status; remote IRR where a pin has one.
_READ_ONLY: Final[dict[int, int]] = {register: arch.LVT_DELIVERY_STATUS | (_REMOTE_IRR if register in _PINS else 0) for register in (*_LVTS, _R.ICR_LOW)}
#: Bits of a register page that software could have put there.
_RESTORED: Final[dict[int, int]] = {register: spec.writable | _READ_ONLY.get(register, 0) & _REMOTE_IRR for register, spec in REGISTERS.items() if spec.write}
#: An xAPIC's and an x2APIC's broadcast destinations (SDM vol. 3 §11.6.2.1, §11.12.9).
_BROADCAST8: Final = 0xFF
_BROADCAST32: Final = _MASK32
#: Where the register page is after power-up (§11.4.1).
DEFAULT_BASE: Final = 0xFEE00000
#: Bytes in a saved register page.
PAGE_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Ipi:
    """What a write to the interrupt command register sends (SDM vol. 3 §11.6.1)."""

    vector: int
    mode: DeliveryMode
    destination: int
    """8 bits from an APIC in xAPIC mode, 32 bits in x2APIC mode; 0xFFFFFFFF is everybody, whoever sent it."""
    logical: bool
    shorthand: int
    """0 none, 1 self, 2 all including self, 3 all excluding self."""
    level: bool = True
    """Assert; False only for the INIT level de-assert message."""
    level_triggered: bool = False


def highest(bits: int) -> int:
    """The highest bit number set in a 256-bit register; -1 if none."""
    return bits.bit_length() - 1


class LocalApic:
    """One local APIC; implements `cpu.bus.InterruptController`.

    `apic_id`: 32 bits, given by hardware. `raised`: called whenever `pending()` or `nmi_pending()` may have changed.
    `record(event, vector, source)`: called for "accept", "acknowledge", "eoi". `send`: where IPIs to others go.
    `eoi(vector)`: called at the end of a level-triggered interrupt (the I/O APICs' EOI message).
    `message`: where IPIs go that concern the core, not the APIC: INIT, start-up, SMI.
    `physical_bits`: width of the address in IA32_APIC_BASE. `timer_shift`: the timer's input clock runs at `2**-timer_shift` of the clock's rate.
    `minimum_period`: cycles between two interrupts of a periodic timer, at least: a hypervisor's guard against a guest that asks for one every cycle.
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
        message: Callable[[Ipi], None] | None = None,
        boot_processor: bool = True,
        physical_bits: int = 40,
        timer_shift: int = 0,
        minimum_period: int = 0,
    ) -> None:
        self.initial_id = apic_id
        self._raised, self._record, self._send, self._eoi, self._message = raised, record, send, eoi, message
        self._boot_processor, self._physical_bits = boot_processor, physical_bits
        self._timer = ApicTimer(clock, self._timer_fires, self._timer_useful, shift=timer_shift, minimum_period=minimum_period)
        self.reset()

    def reset(self) -> None:
        """Power-up and RESET (SDM vol. 3 §11.4.7.1, §11.12.5.1): xAPIC mode at FEE00000H, software-disabled, the hardware's ID."""
        self.base = DEFAULT_BASE | int(ApicBase.EN) | (int(ApicBase.BSP) if self._boot_processor else 0)
        self._xapic_id = self.initial_id & 0xFF
        self.init()

    def init(self) -> None:
        """INIT (SDM vol. 3 §11.4.7.3): as after power-up, but IDs and IA32_APIC_BASE stay."""
        self._nmi = False
        self._initialise()

    def _initialise(self) -> None:
        self._timer.reset()
        self.irr = self.isr = self.tmr = 0
        self._errors = 0
        self._regs: dict[int, int] = {register: spec.reset for register, spec in REGISTERS.items()}

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

    @property
    def apic_id(self) -> int:
        """The ID by which messages find this APIC: 32 bits in x2APIC mode, else the 8 bits that software may have changed."""
        return self.initial_id if self.x2apic else self._xapic_id

    # Acceptance, priority, acknowledgement (SDM vol. 3 §11.8).

    @property
    def ppr(self) -> int:
        """Processor priority: the higher of task priority and the class of the interrupt in service (§11.8.3.1)."""
        tpr, served = self._regs[_R.TPR], max(highest(self.isr), 0) & 0xF0
        return tpr if tpr & 0xF0 >= served else served

    @property
    def apr(self) -> int:
        """Arbitration priority (§11.6.2.4)."""
        tpr, served, waiting = self._regs[_R.TPR], max(highest(self.isr), 0) & 0xF0, max(highest(self.irr), 0) & 0xF0
        return tpr if tpr & 0xF0 >= waiting and tpr & 0xF0 > served else max(tpr & 0xF0, served, waiting)

    def pending(self) -> bool:
        # Software-disabling keeps what was accepted before, and the processor still takes it (§11.4.7.2).
        return bool(self.irr) and highest(self.irr) >> 4 > self.ppr >> 4 and self.enabled

    def acknowledge(self) -> int:
        if not self.pending():
            return self._regs[_R.SVR] & 0xFF  # withdrawn meanwhile: the spurious vector, without an ISR bit (§11.9)
        vector = highest(self.irr)
        self.irr ^= 1 << vector
        self.isr |= 1 << vector
        if self._record is not None:
            self._record("acknowledge", vector, "")
        if not self._timer.armed and vector == self._regs[_R.LVT_TIMER] & LVT_VECTOR:
            self._timer.arm()  # its next interrupt would have merged with this one
        return vector

    def deliver(self, vector: int, source: str, *, level: bool = False) -> bool:
        """Accept a fixed interrupt; one whose vector waits already merges with it. False if the APIC is off or the vector is illegal (ESR notes that)."""
        if not self.enabled or not self.software_enabled:
            return False
        if vector < 16:
            self._error(Esr.RECEIVE_ILLEGAL_VECTOR)
            return False
        bit = 1 << vector
        self.irr |= bit
        self.tmr = self.tmr | bit if level else self.tmr & ~bit
        if self._record is not None:
            self._record("accept", vector, source)
        self._raised()
        return True

    def raise_nmi(self) -> None:
        """Latch an NMI; one that comes while one is latched merges with it (SDM vol. 3 §6.7.1)."""
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
        """EOI: the highest bit in service is cleared (§11.8.5). Nothing happens if there is none."""
        vector = highest(self.isr)
        if vector < 0:
            return
        self.isr ^= 1 << vector
        if self._record is not None:
            self._record("eoi", vector, "")
        if self.tmr >> vector & 1:
            for pin in _PINS:
                if self._regs[pin] & _REMOTE_IRR and self._regs[pin] & LVT_VECTOR == vector:
                    self._regs[pin] &= ~_REMOTE_IRR
            if self._eoi is not None:
                self._eoi(vector)
        self._raised()

    def _error(self, bit: Esr) -> None:
        """Note an error; the first since the last write of ESR raises the error interrupt (§11.5.3)."""
        if not self._errors & bit:
            self._errors |= bit
            self.local_interrupt(_R.LVT_ERROR)

    def local_interrupt(self, register: int) -> None:
        """A local source fires: what its LVT entry says happens (§11.5.1). SMI, INIT and ExtINT entries do nothing here."""
        entry = self._regs[register]
        if entry & LVT_MASKED or not self.enabled:
            return
        # Timer and error entries have no delivery mode.
        mode = DeliveryMode.FIXED if register in (_R.LVT_TIMER, _R.LVT_ERROR) else entry >> 8 & 7
        if mode == DeliveryMode.NMI:
            self.raise_nmi()
        elif mode == DeliveryMode.FIXED:
            level = register in _PINS and bool(entry & _LEVEL)
            if self.deliver(entry & LVT_VECTOR, _SOURCES[_R(register)], level=level) and level:
                self._regs[register] |= _REMOTE_IRR

    # The timer.

    @property
    def tsc_deadline(self) -> int:
        """IA32_TSC_DEADLINE: 0 unless armed."""
        return self._timer.deadline

    def tsc_changed(self) -> None:
        """The TSC jumped (a write to IA32_TSC or IA32_TSC_ADJUST, another offset): a deadline may be nearer now."""
        self._timer.arm()

    def _timer_fires(self) -> None:
        self.local_interrupt(_R.LVT_TIMER)

    def _timer_useful(self) -> bool:
        entry = self._regs[_R.LVT_TIMER]
        return not entry & LVT_MASKED and not self.irr >> (entry & LVT_VECTOR) & 1

    def _set_timer_entry(self, value: int) -> None:
        self._timer.overdue()
        self._regs[_R.LVT_TIMER] = value
        self._timer.set_mode(value >> arch.LVT_TIMER_MODE_SHIFT & 3)
        self._timer.arm()

    # Registers.

    def read(self, register: int) -> int:
        """A 32-bit register by its offset; 0 for one that is write-only."""
        if _R.ISR <= register < _R.ESR:  # three registers of 256 bits, in pieces of 32
            return (self.isr, self.tmr, self.irr)[register - _R.ISR >> 7] >> 2 * (register & 0x70) & _MASK32
        match register:
            case _R.ID:
                return self.initial_id if self.x2apic else self._xapic_id << 24
            case _R.PPR:
                return self.ppr
            case _R.APR:
                return self.apr
            case _R.LDR if self.x2apic:
                return (self.initial_id >> 4) << 16 & _MASK32 | 1 << (self.initial_id & 15)  # derived from the ID (§11.12.10.2)
            case _R.TIMER_INITIAL_COUNT:
                return self._timer.initial
            case _R.TIMER_CURRENT_COUNT:
                return self._timer.current()
            case _R.TIMER_DIVIDE:
                return self._timer.divide
        return self._regs.get(register, 0)

    def write(self, register: int, value: int) -> None:
        """Write a 32-bit register by its offset; bits that are reserved or read-only keep their value, and so do read-only registers."""
        spec = REGISTERS.get(register)
        regs = self._regs
        if spec is not None and spec.write:
            value = value & spec.writable | spec.reset & ~spec.writable
        if register in _LVTS:
            # While software-disabled, entries cannot be unmasked (§11.4.7.2).
            value |= regs[register] & _REMOTE_IRR | (0 if self.software_enabled else LVT_MASKED)
        match register:
            case _R.EOI:
                self.end_of_interrupt()
            case _R.TPR:
                self.set_tpr(value)
            case _R.SVR:
                self._timer.overdue()
                regs[_R.SVR] = value
                if not value & SVR_ENABLE:  # every LVT entry becomes masked; IRR and ISR stay (§11.4.7.2)
                    for entry in _LVTS:
                        self.write(entry, regs[entry])
                self._raised()
            case _R.ESR:
                regs[_R.ESR], self._errors = self._errors, 0  # a write latches what has been seen since the last one (§11.5.3)
            case _R.LVT_TIMER:
                self._set_timer_entry(value)
            case _R.TIMER_INITIAL_COUNT:
                self._timer.set_initial(value)
            case _R.TIMER_DIVIDE:
                self._timer.set_divide(value)
            case _R.ICR_LOW:
                regs[register] = value
                self._send_ipi()
            case _R.SELF_IPI:
                self._ipi(Ipi(value, DeliveryMode.FIXED, 0, False, 1))
            case _R.LDR if not self.x2apic:
                regs[register] = value & 0xFF000000
            case _R.ID if not self.x2apic:
                self._xapic_id = value >> 24 & 0xFF
            case _ if spec is not None and spec.write:
                regs[register] = value

    # Interprocessor interrupts (SDM vol. 3 §11.6).

    def _send_ipi(self) -> None:
        low, high = self._regs[_R.ICR_LOW], self._regs[_R.ICR_HIGH]
        mode = low >> 8 & 7
        if mode not in DeliveryMode.__members__.values() or mode == DeliveryMode.EXTINT:
            return
        destination = high if self.x2apic else _BROADCAST32 if high >> 24 == _BROADCAST8 else high >> 24
        self._ipi(Ipi(low & 0xFF, DeliveryMode(mode), destination, bool(low >> 11 & 1), low >> 18 & 3, bool(low >> 14 & 1), bool(low >> 15 & 1)))

    def _ipi(self, ipi: Ipi) -> None:
        if ipi.mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY) and ipi.vector < 16:
            self._error(Esr.SEND_ILLEGAL_VECTOR)
        elif ipi.shorthand == 1:
            self.accept_ipi(ipi)
        elif self._send is not None:
            self._send(ipi)

    def accept_ipi(self, ipi: Ipi) -> None:
        """An IPI that is addressed to this APIC arrives. Fixed ones are edge-triggered, whatever the command says (§11.6.1, trigger mode)."""
        if not self.enabled:
            return
        if ipi.mode in (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY):
            self.deliver(ipi.vector, "ipi")
        elif ipi.mode is DeliveryMode.NMI:
            self.raise_nmi()
        elif self._message is not None:
            self._message(ipi)

    def addressed_by(self, ipi: Ipi) -> bool:
        """Whether a destination without shorthand means this APIC (§11.6.2, §11.12.9-10)."""
        wanted = ipi.destination
        if wanted == _BROADCAST32 or (wanted == _BROADCAST8 and not self.x2apic):
            return True
        if not ipi.logical:
            return wanted == self.apic_id
        logical = self.read(_R.LDR)
        if self.x2apic:
            return wanted >> 16 == logical >> 16 and bool(wanted & logical & 0xFFFF)
        logical >>= 24
        if self._regs[_R.DFR] >> 28 == 0xF:  # flat model
            return bool(logical & wanted)
        return logical >> 4 == wanted >> 4 and bool(logical & wanted & 0xF)

    # MSRs (SDM vol. 3 §11.12.1).

    def read_msr(self, msr: int) -> int | None:
        if msr == Msr.IA32_APIC_BASE:
            return int(self.base)
        if msr == Msr.IA32_TSC_DEADLINE:
            return self.tsc_deadline
        register = self._x2apic_register(msr)
        if register is None or not REGISTERS[register].read:
            return None
        if register == _R.ICR_LOW:
            return self._regs[_R.ICR_HIGH] << 32 | self._regs[_R.ICR_LOW]
        return self.read(register)

    def write_msr(self, msr: int, value: int) -> bool:
        if msr == Msr.IA32_APIC_BASE:
            return self._write_base(value)
        if msr == Msr.IA32_TSC_DEADLINE:
            self._timer.set_deadline(value)
            return True
        register = self._x2apic_register(msr)
        if register is None or not REGISTERS[register].write:
            return False
        low = value & _MASK32 if register == _R.ICR_LOW else value  # the only one of 64 bits
        # Reserved bits fault (§11.12.1.3); EOI and ESR take only 0.
        if low & ~(REGISTERS[register].writable | _READ_ONLY.get(register, 0)):
            return False
        if register == _R.ICR_LOW:
            self._regs[_R.ICR_HIGH] = value >> 32
        self.write(register, low)
        return True

    def _x2apic_register(self, msr: int) -> int | None:
        """The register that an MSR is now; None where there is none."""
        register = msr - X2APIC_FIRST << 4
        if not self.x2apic or not X2APIC_FIRST <= msr <= X2APIC_LAST or register not in REGISTERS or not REGISTERS[register].x2apic:
            return None
        return register

    def _write_base(self, value: int) -> bool:
        """IA32_APIC_BASE. False for reserved bits and for what §11.12.5 forbids: from x2APIC mode to xAPIC mode, from disabled to x2APIC mode."""
        on, extended = bool(value & ApicBase.EN), bool(value & ApicBase.EXTD)
        if value >> self._physical_bits or value & 0x2FF or (extended and not on):
            return False
        if (self.x2apic and on and not extended) or (not self.enabled and extended):
            return False
        if not on and self.enabled:
            self._initialise()  # §11.4.3: as after power-up; an NMI that is latched reaches the core without the APIC
        elif extended and not self.x2apic:
            # §11.12.5.1: what does not survive the transition.
            self._regs[_R.LDR] = self._regs[_R.ICR_HIGH] = 0
            self._xapic_id = self.initial_id & 0xFF
        self.base = value
        self._raised()
        return True

    # Memory-mapped access in xAPIC mode (SDM vol. 3 §11.4.1): 32-bit accesses at 16-byte boundaries.

    def mmio_read(self, offset: int, size: int) -> int:
        """`size` bytes of the APIC page; all ones for accesses that leave a register's 4 bytes, and outside xAPIC mode."""
        if self.x2apic or not self.enabled or (offset & 15) + size > 4:
            return (1 << 8 * size) - 1
        register = offset & ~15
        if not self._at(register):
            return 0
        return self.read(register) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write a register in the APIC page; anything but an aligned access of 4 bytes is ignored."""
        if not self.x2apic and self.enabled and size == 4 and not offset & 15 and self._at(offset):
            self.write(offset, value & _MASK32)

    def _at(self, offset: int) -> bool:
        """Whether there is a register in the page; a reserved address is an error (§11.5.3)."""
        if offset in REGISTERS and offset != _R.SELF_IPI:
            return True
        self._error(Esr.ILLEGAL_REGISTER)
        return False

    # Snapshots, in the format of the register page (kvm_lapic_state).

    def save(self) -> bytes:
        """The 1-KByte register page, as software would read it in the present mode (so the ID has 32 bits in x2APIC mode).

        Not in it, as in KVM: IA32_APIC_BASE, IA32_TSC_DEADLINE, a latched NMI, errors that no write of ESR has latched, fractions of a timer count.
        """
        page = bytearray(PAGE_BYTES)
        for register in REGISTERS:
            page[register : register + 4] = self.read(register).to_bytes(4, "little")
        return bytes(page)

    def restore(self, page: bytes) -> None:
        """Put a register page back, in the mode that IA32_APIC_BASE says; a counting timer goes on from its current count, an armed TSC deadline stays armed.

        ConfigurationError for a page of another size. Bits that software could not have set are dropped.
        """
        if len(page) != PAGE_BYTES:
            raise ConfigurationError("local APIC register page", f"{len(page)} bytes", f"{PAGE_BYTES} bytes")

        def at(register: int) -> int:
            return int.from_bytes(page[register : register + 4], "little")

        for register, bits in _RESTORED.items():
            self._regs[register] = at(register) & bits | REGISTERS[register].reset & ~bits
        self._regs[_R.ESR] = at(_R.ESR) & 0xFF
        if self.x2apic:
            self._regs[_R.ICR_HIGH] = at(_R.ICR_HIGH)
        else:
            self._regs[_R.LDR] = at(_R.LDR) & 0xFF000000
            self._xapic_id = at(_R.ID) >> 24
        self.isr, self.tmr, self.irr = (sum(at(base + 16 * i) << 32 * i for i in range(8)) for base in (_R.ISR, _R.TMR, _R.IRR))
        self._timer.set_mode(self._regs[_R.LVT_TIMER] >> arch.LVT_TIMER_MODE_SHIFT & 3)
        self._timer.initial, self._timer.divide = self._regs[_R.TIMER_INITIAL_COUNT], self._regs[_R.TIMER_DIVIDE]
        self._timer.continue_from(min(at(_R.TIMER_CURRENT_COUNT), self._timer.initial))
        self._raised()
