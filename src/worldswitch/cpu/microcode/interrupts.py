"""Software interrupts and the return from handlers: INT, INT1, INT3, INTO, IRET (SDM vol. 2; vol. 3 §6.12-6.14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr, Rflags, Seg
from worldswitch.arch.vmx import Interruptibility, InterruptionType
from worldswitch.cpu import events
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import Event, fault
from worldswitch.cpu.intercept import Intercept
from worldswitch.cpu.microcode.far import load_code_segment, outer_level
from worldswitch.cpu.microcode.registry import intercepted, microcode, value
from worldswitch.cpu.microcode.segments import load_segment
from worldswitch.cpu.state import MASK64
from worldswitch.errors import UnimplementedFeature

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


def _software(cpu: Processor, vector: int, kind: InterruptionType, length: int) -> None:
    events.deliver(cpu, Event(vector, kind, length=length))
    cpu.next_rip = cpu.state.rip


@microcode("INT")
def int_n(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.INTN)
    _software(cpu, value(ins, 0), InterruptionType.SOFTWARE_INTERRUPT, ins.length)


@microcode("INT3", "INTO")
def int3(cpu: Processor, ins: Decoded) -> None:
    if ins.name == "INTO" and not cpu.state.rflags & Rflags.OF:
        return
    event = Event(Vector.BP if ins.name == "INT3" else Vector.OF, InterruptionType.SOFTWARE_EXCEPTION, length=ins.length)
    if cpu.guest is not None:
        cpu.guest.exception(event)
    events.deliver(cpu, event)
    cpu.next_rip = cpu.state.rip


@microcode("INT1")
def int1(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.ICEBP)
    event = Event(Vector.DB, InterruptionType.PRIVILEGED_SOFTWARE_EXCEPTION, length=ins.length)
    if cpu.guest is not None:
        cpu.guest.exception(event)
    events.deliver(cpu, event)
    cpu.next_rip = cpu.state.rip


@microcode("IRET", "IRETD", "IRETQ")
def iret(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.IRET)
    if not cpu.long_mode:
        raise UnimplementedFeature("IRET outside of long mode", f"at RIP {cpu.state.rip:#x} in {cpu.mode_name}")
    state = cpu.state
    if state.rflags & Rflags.NT:
        raise fault(Vector.GP, 0)  # no task return in long mode (SDM vol. 2, IRET)
    size, core = ins.operand_bits // 8, cpu.core
    sp = core.get(Gpr.RSP, core.stack_bits).v
    mask = (1 << core.stack_bits) - 1

    def pop(index: int) -> int:
        return core.load_stack(core.const(core.stack_bits, sp + index * size & mask), size * 8).v

    rip, cs, flags = pop(0), pop(1) & 0xFFFF, pop(2)
    old_level = cpu.cpl
    # In 64-bit mode SS:RSP are always popped (SDM vol. 3 §6.14.3).
    outward = (cs & 3) > old_level
    with_stack = outward or cpu.mode_bits == 64
    new_sp, ss = (pop(3), pop(4) & 0xFFFF) if with_stack else (sp + 3 * size, state.ss.selector)
    segment = load_code_segment(cpu, cs, cs & 3)
    if segment.long and not cpu.mmu.canonical(rip):
        raise fault(Vector.GP, 0)
    if not segment.long and rip > segment.limit:
        raise fault(Vector.GP, 0)
    if with_stack:
        load_segment(cpu, Seg.SS, ss, cpl=cs & 3)
    segment.commit()
    changeable = 0x8D5 | Rflags.TF | Rflags.DF | Rflags.NT | (Rflags.RF | Rflags.AC | Rflags.ID if size > 2 else 0)
    if old_level <= (state.rflags >> 12 & 3):
        changeable |= Rflags.IF
    if old_level == 0:
        changeable |= Rflags.IOPL
    state.rflags = state.rflags & ~changeable | flags & changeable
    cpu.keep_rf = True
    if with_stack and size == 8:
        state.rsp = new_sp & MASK64
    else:
        core.set(Gpr.RSP, core.const(32 if size == 4 else core.stack_bits, new_sp))
    cpu.next_rip = rip
    if outward:
        outer_level(cpu, cs & 3)
    # IRET ends the blocking of NMIs, whatever it returns from (SDM vol. 3 §6.7.1); under virtual NMIs it is their blocking (§26.3).
    state.interruptibility &= ~Interruptibility.BLOCKING_BY_NMI
    cpu.context_changed()
