"""Events: which one is next at an instruction boundary, and how one gets to its handler.

Priority is in one function, `boundary`, whose parts carry the numbers of SDM vol. 3 table 6-2; where VMX's own events fit in is SDM vol. 3 §26.2,
SVM's APM vol. 2 §15.21.4.
Delivery is through the 64-bit IDT (SDM vol. 3 §6.14).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import EXCEPTIONS, Class, Kind, Vector
from worldswitch.arch.registers import Dr6, Rflags
from worldswitch.arch.segments import (
    AR_DB,
    AR_DPL,
    AR_L,
    AR_P,
    AR_S,
    AR_UNUSABLE,
    TSS64_IST,
    TSS64_RSP,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_EXPAND_DOWN,
    SystemType,
    decode_gate64,
    descriptor_ar,
    descriptor_limit,
)
from worldswitch.arch.vmx import ActivityState, Interruptibility, InterruptionType
from worldswitch.cpu.event import SOFTWARE, Event, Fault, TripleFault, event_of, fault
from worldswitch.cpu.intercept import GuestMode
from worldswitch.cpu.state import MASK64
from worldswitch.errors import UnimplementedFeature
from worldswitch.trace.events import HwBoundary, HwEventDelivered

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_SHADOW: Final = Interruptibility.BLOCKING_BY_STI | Interruptibility.BLOCKING_BY_MOV_SS


def boundary(cpu: Processor) -> None:
    """What happens between two instructions. Delivers at most one event; raises `VmExit` if it leaves the guest instead.

    Called only when something may be up (`Processor.attention`); leaves that flag set if the next boundary must look again by itself. What is masked
    now and stays pending needs no
    flag: whatever unmasks it (STI, POPF, IRET, STGI, MOV CR8, a VM entry, ...) calls `Processor.attend`.
    """
    state, guest = cpu.state, cpu.guest
    if state.injection:
        # An injected event precedes everything else, whatever masks it (SDM vol. 3 §27.6.1).
        event = event_of(state.injection, state.injection_error, state.injection_length)
        state.injection = 0
        deliver(cpu, event)
        cpu.attention = True
        return
    shadow = state.interruptibility & _SHADOW
    # An interrupt shadow ends with the next instruction, and a trap flag acts after it: look again then.
    cpu.attention = bool(shadow or state.rflags & Rflags.TF)
    cpu.stepping = False
    # 1-3: machine checks, task-switch traps, INIT and SMI do not arise here.
    # 4: traps of the previous instruction (pending debug exceptions); held over by MOV SS.
    if state.pending_debug and not shadow & Interruptibility.BLOCKING_BY_MOV_SS:
        bits, state.pending_debug = state.pending_debug, 0
        raise_exception(cpu, Event(Vector.DB, InterruptionType.HARDWARE_EXCEPTION, payload=bits))
        cpu.attention = True
        return
    # With GIF = 0 nothing below is recognised (APM vol. 2 §15.17).
    if state.gif and (_nmi(cpu, guest, shadow) or _interrupt(cpu, guest, shadow)):
        cpu.attention = True
        return
    cpu.stepping = bool(state.rflags & Rflags.TF)


def _nmi(cpu: Processor, guest: GuestMode | None, shadow: int) -> bool:
    """5: NMI, after the VM exits that come before it."""
    if guest is not None:
        guest.timer_expired()  # after debug traps, before NMI-window exiting (SDM vol. 3 §26.5.1)
        if not shadow:
            guest.nmi_window()  # takes priority over NMIs (SDM vol. 3 §26.2)
    if not cpu.apic.nmi_pending() or shadow & Interruptibility.BLOCKING_BY_MOV_SS:
        return False
    if guest is not None:
        guest.nmi()
    if cpu.state.interruptibility & Interruptibility.BLOCKING_BY_NMI:
        return False  # IRET attends
    cpu.apic.take_nmi()
    deliver(cpu, Event(Vector.NMI, InterruptionType.NMI))
    return True


def _interrupt(cpu: Processor, guest: GuestMode | None, shadow: int) -> bool:
    """6: maskable interrupts: the interrupt window, then physical ones, then (SVM) virtual ones."""
    state = cpu.state
    open_now = bool(state.rflags & Rflags.IF) and not shadow
    if guest is not None and open_now:
        guest.interrupt_window()  # before external interrupts, after NMIs (SDM vol. 3 §26.2)
    if cpu.apic.pending():
        recognised = (open_now if guest is None else guest.intr_possible()) and not shadow
        if cpu.trace.on:
            cpu.trace.emit(HwBoundary(cpu.index, cpu.cycles, state.rip, int(bool(state.rflags & Rflags.IF)), int(guest is not None), int(recognised)))
        if recognised:
            if guest is not None:
                guest.interrupt()
            # Not intercepted: through the IDT of whoever is running, the guest's if it is a guest.
            deliver(cpu, Event(cpu.apic.acknowledge(), InterruptionType.EXTERNAL))
            return True
    if guest is not None and open_now:
        vector = guest.virtual_interrupt()
        if vector is not None:
            deliver(cpu, Event(vector, InterruptionType.EXTERNAL))
            return True
    return False


def raise_exception(cpu: Processor, event: Event) -> None:
    """An exception has been raised: intercept it, or deliver it; what goes wrong on the way becomes a double fault or a shutdown (SDM vol. 3 §6.15, table 6-5).

    Raises `VmExit`; `TripleFault` if nobody intercepts that.
    """
    while True:
        first = cpu.delivering
        if cpu.guest is not None:
            # The exception itself, before a double fault is made of it (SDM vol. 3 §28.2.4: IDT-vectoring information then names the first).
            cpu.guest.exception(event)
        event = _combine(cpu, first, event)
        try:
            deliver(cpu, event)
            return
        except Fault as nested:
            event = nested.event


def _combine(cpu: Processor, first: Event | None, second: Event) -> Event:
    if first is None:
        return second
    one, two = _class_of(first), _class_of(second)
    if one is Class.DOUBLE_FAULT and two is not Class.BENIGN:
        cpu.delivering = None
        if cpu.guest is not None:
            cpu.guest.triple_fault()
        raise TripleFault
    serious = (one is Class.CONTRIBUTORY and two is Class.CONTRIBUTORY) or (one is Class.PAGE_FAULT and two in (Class.CONTRIBUTORY, Class.PAGE_FAULT))
    if not serious:
        return second
    double = Event(Vector.DF, InterruptionType.HARDWARE_EXCEPTION, 0)
    if cpu.guest is not None:
        cpu.guest.exception(double)
    return double


def _class_of(event: Event) -> Class:
    if event.type is not InterruptionType.HARDWARE_EXCEPTION or event.vector not in EXCEPTIONS:
        return Class.BENIGN
    return EXCEPTIONS[event.vector].exception_class


def deliver(cpu: Processor, event: Event) -> None:
    """Take an event through the IDT. Raises `Fault` if that fails; then `Processor.delivering` still names the event (IDT-vectoring information)."""
    cpu.delivering = event
    if event.type is InterruptionType.HARDWARE_EXCEPTION:
        if event.vector == Vector.PF:
            cpu.state.cr2 = event.payload
        elif event.vector == Vector.DB:
            cpu.state.dr6 = cpu.state.dr6 & ~(Dr6.B0 | Dr6.B1 | Dr6.B2 | Dr6.B3) | event.payload
    if not cpu.long_mode:
        cpu.delivering = None
        raise UnimplementedFeature(f"delivery of vector {event.vector} in {cpu.mode_name}", f"at RIP {cpu.state.rip:#x}")
    came_from = cpu.state.rip
    _through_long_mode_idt(cpu, event)
    cpu.delivering = None
    if event.type is InterruptionType.NMI:
        cpu.state.interruptibility |= Interruptibility.BLOCKING_BY_NMI
    cpu.state.interruptibility &= ~_SHADOW
    cpu.state.activity = ActivityState.ACTIVE
    cpu.cycles += cpu.model.timing.event_delivery
    if cpu.trace.on:
        cpu.trace.emit(HwEventDelivered(cpu.index, cpu.cycles, int(event.vector), int(event.type), int(cpu.guest is not None), came_from))


def _through_long_mode_idt(cpu: Processor, event: Event) -> None:
    state = cpu.state
    software = event.type in SOFTWARE
    ext = 0 if software else 1
    in_idt = event.vector * 8 + 2 + (0 if software else 1)  # error code: IDT flag and EXT (SDM vol. 3 figure 6-7)
    if event.vector * 16 + 15 > state.idtr_limit:
        raise fault(Vector.GP, in_idt)
    at = state.idtr_base + event.vector * 16 & MASK64
    gate = decode_gate64(cpu.mmu.load_system(at, 8), cpu.mmu.load_system(at + 8 & MASK64, 8))
    if gate.type not in (SystemType.INTERRUPT_GATE, SystemType.TRAP_GATE):
        raise fault(Vector.GP, in_idt)
    if software and event.type is not InterruptionType.PRIVILEGED_SOFTWARE_EXCEPTION and gate.dpl < cpu.cpl:
        raise fault(Vector.GP, in_idt)
    if not gate.present:
        raise fault(Vector.NP, in_idt)
    cs_low, privilege = _handler_segment(cpu, gate.selector, ext)
    rsp = _handler_stack(cpu, gate.ist, privilege, ext)
    if not cpu.mmu.canonical(gate.offset):
        raise fault(Vector.GP, ext)

    flags = state.rflags
    if event.type is InterruptionType.HARDWARE_EXCEPTION and EXCEPTIONS[event.vector].kind is Kind.FAULT:
        flags |= Rflags.RF  # SDM vol. 3 §18.3.1.1
    frame = [state.ss.selector, state.rsp, flags, state.cs.selector, state.rip + event.length & MASK64]
    if event.error_code is not None:
        frame.append(event.error_code)
    for value in frame:
        rsp = rsp - 8 & MASK64
        if not cpu.mmu.canonical(rsp):
            raise fault(Vector.SS, ext)
        if privilege == 3:
            cpu.mmu.store(rsp, 8, value)
        else:
            cpu.mmu.store_system(rsp, 8, value)
    # Nothing below this line can fail.
    if privilege != cpu.cpl:
        state.ss.set(privilege, 0, 0, AR_UNUSABLE | privilege << 5)
    state.cs.set(gate.selector & ~3 | privilege, 0, descriptor_limit(cs_low), descriptor_ar(cs_low) & ~AR_DPL | privilege << 5 | TYPE_ACCESSED)
    state.rsp = rsp
    state.rip = gate.offset
    cleared = Rflags.TF | Rflags.NT | Rflags.RF | Rflags.VM | (Rflags.IF if gate.type == SystemType.INTERRUPT_GATE else 0)
    state.rflags &= ~cleared
    cpu.context_changed()


def _handler_segment(cpu: Processor, selector: int, ext: int) -> tuple[int, int]:
    """The handler's code-segment descriptor and the privilege level it runs at."""
    if not selector & ~3:
        raise fault(Vector.GP, ext)
    low = read_descriptor(cpu, selector, ext)
    ar = descriptor_ar(low)
    dpl = (ar & AR_DPL) >> 5
    if not ar & AR_S or not ar & TYPE_CODE or dpl > cpu.cpl or not ar & AR_L or ar & AR_DB:
        raise fault(Vector.GP, selector & ~7 | ext | selector & 4)
    if not ar & AR_P:
        raise fault(Vector.NP, selector & ~7 | ext | selector & 4)
    return low, cpu.cpl if ar & TYPE_EXPAND_DOWN else dpl  # conforming: stays at the current level


def _handler_stack(cpu: Processor, ist: int, privilege: int, ext: int) -> int:
    """RSP before the frame is pushed, aligned to 16 bytes (SDM vol. 3 §6.14.2, §6.14.4-5)."""
    if ist or privilege < cpu.cpl:
        offset = TSS64_IST[ist] if ist else TSS64_RSP[privilege]
        if offset is None or offset + 7 > cpu.state.tr.limit:
            raise fault(Vector.TS, cpu.state.tr.selector & ~7 | ext)
        rsp = cpu.mmu.load_system(cpu.state.tr.base + offset & MASK64, 8)
        if not cpu.mmu.canonical(rsp):
            raise fault(Vector.SS, ext)
    else:
        rsp = cpu.state.rsp
    return rsp & ~15


def read_descriptor(cpu: Processor, selector: int, ext: int = 0, vector: int = Vector.GP) -> int:
    """The 8 bytes of a descriptor in the GDT or LDT. Raises `vector`(selector) beyond the table's limit."""
    state = cpu.state
    if selector & 4:
        base, limit = state.ldtr.base, state.ldtr.limit if not state.ldtr.ar & AR_UNUSABLE else 0
    else:
        base, limit = state.gdtr_base, state.gdtr_limit
    if (selector | 7) > limit:
        raise fault(vector, selector & ~3 | ext)
    return cpu.mmu.load_system(base + (selector & ~7) & MASK64, 8)
