"""Interrupts: the flag that holds them, and the path from the local APIC to a handler.

Everything that happens to a kernel from outside arrives here: the timer, other processors' IPIs, devices. The flag is the processor's own
RFLAGS.IF. Host code is Python and executes no instructions, so the moments at which the hardware would interrupt it are explicit: when
interrupts are enabled with something pending, and whenever time is charged with interrupts on. On AMD processors GIF = 0 holds everything
as well, whatever IF says (APM vol. 2 §15.17).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from worldswitch.arch.apic import ApicRegister, x2apic_msr
from worldswitch.arch.registers import Rflags
from worldswitch.errors import SimulationError
from worldswitch.trace.events import (
    ExternalInterruptEntry,
    ExternalInterruptExit,
    IrqDisable,
    IrqEnable,
    LocalTimerEntry,
    LocalTimerExit,
    RescheduleEntry,
    RescheduleExit,
)  # fmt: skip

if TYPE_CHECKING:
    from worldswitch.host.kernel import KernelCpu

#: Linux's system vectors.
LOCAL_TIMER_VECTOR: Final = 0xEC
RESCHEDULE_VECTOR: Final = 0xFD
SPURIOUS_VECTOR: Final = 0xFF

_IF: Final = int(Rflags.IF)
_EOI: Final = x2apic_msr(ApicRegister.EOI)
#: Vectors with tracepoints of their own; the others are external interrupts.
_TRACEPOINTS: Final = {LOCAL_TIMER_VECTOR: (LocalTimerEntry, LocalTimerExit), RESCHEDULE_VECTOR: (RescheduleEntry, RescheduleExit)}

Handler = Callable[["KernelCpu"], None]


class Irq:
    """One processor's interrupt state and vectors."""

    def __init__(self, cpu: KernelCpu, handlers: dict[int, Handler]) -> None:
        self._cpu = cpu
        self._state = cpu.processor.state
        self._handlers = handlers
        #: Handled interrupts by vector.
        self.counts: dict[int, int] = {}

    def disabled(self) -> bool:
        """irqs_disabled."""
        return not self._state.rflags & _IF

    def disable(self, caller: str) -> None:
        """local_irq_disable."""
        was_on = self._state.rflags & _IF
        self._state.rflags &= ~_IF
        if was_on and self._cpu.trace.on:
            self._cpu.trace.emit(IrqDisable(self._cpu.index, self._cpu.now(), caller))

    def enable(self, caller: str) -> None:
        """local_irq_enable: what is pending is handled before this returns, as right after STI."""
        if self._cpu.trace.on and not self._state.rflags & _IF:
            pending = int(self._cpu.processor.apic.pending())
            self._cpu.trace.emit(IrqEnable(self._cpu.index, self._cpu.now(), caller, pending))
        self._state.rflags |= _IF
        self.take_pending()

    def save(self, caller: str) -> int:
        """local_irq_save: the flags as they were."""
        flags = self._state.rflags
        self.disable(caller)
        return flags

    def restore(self, flags: int, caller: str) -> None:
        """local_irq_restore."""
        if flags & _IF:
            self.enable(caller)
        else:
            self.disable(caller)

    def take_pending(self) -> None:
        """What the hardware does wherever interrupts are on: take what waits."""
        apic, state = self._cpu.processor.apic, self._state
        while state.gif:
            if apic.take_nmi():
                self._cpu.handle_nmi_irqoff()  # whatever IF says, and first (SDM vol. 3 table 6-2)
            elif state.rflags & _IF and apic.pending():
                state.rflags &= ~_IF  # through an interrupt gate
                self.dispatch(apic.acknowledge())
                state.rflags |= _IF  # IRET
            else:
                return

    def dispatch(self, vector: int) -> None:
        """The handler of an acknowledged interrupt, with interrupts off; its EOI included."""
        cpu = self._cpu
        if not self.disabled():
            raise SimulationError(f"the handler of vector {vector:#x} was called with interrupts enabled")
        if vector == SPURIOUS_VECTOR:
            return  # no ISR bit was set, so there is no EOI (SDM vol. 3 §11.9)
        self.counts[vector] = self.counts.get(vector, 0) + 1
        cpu.charge_irqoff("irq_entry")
        entry, leave = _TRACEPOINTS.get(vector, (ExternalInterruptEntry, ExternalInterruptExit))
        if cpu.trace.on:
            cpu.trace.emit(entry(cpu.index, cpu.now(), vector))
        handler = self._handlers.get(vector)
        if handler is not None:
            handler(cpu)
        cpu.processor.msrs.write(_EOI, 0)
        if cpu.trace.on:
            cpu.trace.emit(leave(cpu.index, cpu.now(), vector))
        cpu.charge_irqoff("irq_exit")
