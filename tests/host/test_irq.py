"""The interrupt flag: what holds interrupts, when they hit, and what a handler finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worldswitch.arch.registers import Rflags
from worldswitch.errors import ConfigurationError, SimulationError
from worldswitch.host import LOCAL_TIMER_VECTOR, RESCHEDULE_VECTOR, Kernel, KernelCpu
from worldswitch.trace.events import (
    ExternalInterruptEntry,
    ExternalInterruptExit,
    IrqDisable,
    IrqEnable,
    LocalTimerEntry,
    LocalTimerExit,
    RescheduleEntry,
    RescheduleExit,
    TraceEvent,
)  # fmt: skip

VECTOR = 0x40
Boot = Callable[..., Kernel]


def raise_interrupt(kernel: Kernel, vector: int = VECTOR, cpu: int = 0) -> None:
    assert kernel.board.apics[cpu].deliver(vector, "test")


def with_handler(kernel: Kernel, vector: int = VECTOR) -> list[bool]:
    """Registers a handler; the list gets, for each call, whether interrupts were off."""
    calls: list[bool] = []
    kernel.register(vector, lambda cpu: calls.append(cpu.irq.disabled()))
    return calls


#: IF, GIF before; the operation; IF after; whether the waiting interrupt is taken.
FLAG_ROWS = [
    (0, 1, "enable", 1, True),
    (0, 0, "enable", 1, False),
    (1, 1, "enable", 1, True),
    (1, 0, "enable", 1, False),
    (1, 1, "disable", 0, False),
    (0, 1, "disable", 0, False),
    (1, 1, "charge", 1, True),
    (0, 1, "charge", 0, False),
    (1, 0, "charge", 1, False),
    (1, 1, "charge_irqoff", 1, False),
    (1, 1, "arrive", 1, True),
    (0, 1, "arrive", 0, False),
    (1, 0, "arrive", 1, False),
]


@pytest.mark.parametrize(("if_before", "gif", "operation", "if_after", "taken"), FLAG_ROWS)
def test_flag(boot: Boot, if_before: int, gif: int, operation: str, if_after: int, taken: bool) -> None:
    kernel = boot("amd")
    cpu = kernel.cpus[0]
    calls = with_handler(kernel)
    cpu.processor.state.rflags = Rflags.FIXED | (Rflags.IF if if_before else 0)
    cpu.processor.state.gif = gif
    raise_interrupt(kernel)
    match operation:
        case "enable":
            cpu.local_irq_enable("test")
        case "disable":
            cpu.local_irq_disable("test")
        case "charge":
            cpu.charge("emulate")
        case "charge_irqoff":
            cpu.charge_irqoff("emulate")
        case "arrive":
            cpu.interrupts_arrive()
    assert calls == ([True] if taken else [])
    assert bool(cpu.processor.state.rflags & Rflags.IF) is bool(if_after)
    assert cpu.processor.apic.pending() is not taken
    assert kernel.board.apics[0].isr == 0, "every handled interrupt got its EOI"


def test_interrupts_held_by_gif_hit_after_stgi(boot: Boot) -> None:
    kernel = boot("amd")
    cpu, calls = kernel.cpus[0], with_handler(kernel)
    cpu.processor.state.gif = 0
    raise_interrupt(kernel)
    cpu.local_irq_enable("svm_vcpu_run")
    assert calls == []
    cpu.processor.state.gif = 1
    cpu.interrupts_arrive()
    assert calls == [True]


def test_save_and_restore_nest(boot: Boot) -> None:
    kernel = boot()
    irq, calls = kernel.cpus[0].irq, with_handler(kernel)
    outer = irq.save("outer")
    inner = irq.save("inner")
    raise_interrupt(kernel)
    irq.restore(inner, "inner")
    assert irq.disabled()
    assert calls == []
    irq.restore(outer, "outer")
    assert not irq.disabled()
    assert calls == [True]


def test_the_flag_is_traced_when_it_changes(boot: Boot) -> None:
    kernel = boot()
    cpu, trace = kernel.cpus[0], kernel.trace
    with_handler(kernel)
    trace.clear()
    cpu.local_irq_enable("a")
    cpu.local_irq_disable("b")
    cpu.local_irq_disable("c")
    raise_interrupt(kernel)
    cpu.local_irq_enable("d")
    assert [(type(e), e.caller) for e in trace if isinstance(e, IrqDisable | IrqEnable)] == [(IrqDisable, "b"), (IrqEnable, "d")]
    assert [e.pending for e in trace.of(IrqEnable)] == [1]


def test_the_highest_vector_first_and_one_after_the_other(boot: Boot) -> None:
    kernel = boot()
    cpu = kernel.cpus[0]
    seen: list[tuple[str, int]] = []
    for vector in (0x41, 0x52, 0x63):

        def handler(at: KernelCpu, vector: int = vector) -> None:
            seen.append(("in", vector))
            if vector == 0x63:
                raise_interrupt(kernel, 0x74)  # higher still: but interrupts are off in here
            at.charge("emulate")
            seen.append(("out", vector))

        kernel.register(vector, handler)
    kernel.register(0x74, lambda at: seen.append(("in", 0x74)))
    cpu.local_irq_disable("test")
    for vector in (0x52, 0x63, 0x41):
        raise_interrupt(kernel, vector)
    cpu.local_irq_enable("test")
    assert seen == [("in", 0x63), ("out", 0x63), ("in", 0x74), ("in", 0x52), ("out", 0x52), ("in", 0x41), ("out", 0x41)]
    assert cpu.irq.counts == {0x63: 1, 0x74: 1, 0x52: 1, 0x41: 1}


@pytest.mark.parametrize(
    ("vector", "entry", "leave"),
    [
        (LOCAL_TIMER_VECTOR, LocalTimerEntry, LocalTimerExit),
        (RESCHEDULE_VECTOR, RescheduleEntry, RescheduleExit),
        (VECTOR, ExternalInterruptEntry, ExternalInterruptExit),
    ],
)
def test_each_vector_has_its_tracepoints(boot: Boot, vector: int, entry: type[TraceEvent], leave: type[TraceEvent]) -> None:
    kernel = boot()
    kernel.trace.clear()
    raise_interrupt(kernel, vector)
    kernel.cpus[0].charge("emulate")
    kinds = [type(e) for e in kernel.trace]
    assert kinds.index(entry) < kinds.index(leave)


def test_an_interrupt_that_the_exit_acknowledged(boot: Boot) -> None:
    """What KVM does with "acknowledge interrupt on exit": the vector comes from the VMCS, the APIC has it in service already."""
    kernel = boot()
    cpu, calls = kernel.cpus[0], with_handler(kernel)
    cpu.local_irq_disable("vmx_vcpu_run")
    raise_interrupt(kernel)
    vector = cpu.processor.apic.acknowledge()
    assert kernel.board.apics[0].isr == 1 << VECTOR
    cpu.handle_external_interrupt_irqoff(vector)
    assert calls == [True]
    assert kernel.board.apics[0].isr == 0
    assert cpu.irq.disabled()


def test_a_handler_is_never_called_with_interrupts_on(boot: Boot) -> None:
    with pytest.raises(SimulationError, match="with interrupts enabled"):
        boot().cpus[0].handle_external_interrupt_irqoff(VECTOR)


def test_a_vector_without_a_handler_still_gets_its_eoi(boot: Boot) -> None:
    kernel = boot()
    raise_interrupt(kernel, 0x99)
    kernel.cpus[0].charge("emulate")
    assert kernel.cpus[0].irq.counts == {0x99: 1}
    assert kernel.board.apics[0].isr == 0


def test_a_spurious_interrupt_has_no_eoi(boot: Boot) -> None:
    kernel = boot()
    cpu = kernel.cpus[0]
    cpu.local_irq_disable("test")
    raise_interrupt(kernel)
    assert cpu.processor.apic.acknowledge() == VECTOR
    cpu.handle_external_interrupt_irqoff(cpu.processor.apic.acknowledge())
    assert kernel.board.apics[0].isr == 1 << VECTOR, "an EOI would have ended the other one"


@pytest.mark.parametrize("flags", [0, int(Rflags.IF)])
def test_an_nmi_is_not_held_by_if(boot: Boot, flags: int) -> None:
    kernel = boot()
    cpu = kernel.cpus[0]
    cpu.processor.state.rflags = Rflags.FIXED | flags
    kernel.board.apics[0].raise_nmi()
    cpu.charge("emulate")
    assert cpu.nmis == 1
    assert cpu.processor.state.rflags & Rflags.IF == flags
    cpu.charge("emulate")
    assert cpu.nmis == 1


@pytest.mark.parametrize("vector", [LOCAL_TIMER_VECTOR, 31, 256])
def test_vectors_that_cannot_be_registered(boot: Boot, vector: int) -> None:
    with pytest.raises(ConfigurationError, match="a free one from 32 to 255"):
        boot().register(vector, lambda cpu: None)
