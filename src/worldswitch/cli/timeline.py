"""The trace told as a story: each event of a world switch as one annotated line, grouped into episodes that begin with an interrupt raised in the
local APIC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from worldswitch.arch.vmx import INTR_INFO_VALID
from worldswitch.host.irq import LOCAL_TIMER_VECTOR
from worldswitch.trace import TraceEvent
from worldswitch.trace import events as t


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story."""

    time: int
    """Cycles of virtual time."""
    stage: str
    text: str
    event: TraceEvent

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"time": self.time, "stage": self.stage, "event": self.event.name, "text": self.text}


@dataclass(slots=True)
class Episode:
    """From an interrupt in the local APIC to the next guest that runs."""

    steps: list[Step] = field(default_factory=list)
    tick: bool = False
    """The host's tick was handled in it."""
    in_guest: bool = True
    """The interrupt was raised while a guest was running; else the host was at work already, and takes it when it enables interrupts."""

    def first(self, kind: type[TraceEvent]) -> Any:
        """The first event of a kind; None if there is none."""
        return next((step.event for step in self.steps if isinstance(step.event, kind)), None)


def _if(flags: int) -> int:
    return flags >> 9 & 1


def _accept(e: t.HwApicAccept) -> str:
    return f"local APIC accepts vector {e.vector:#x} ({e.source}): IRR bit set"


def _boundary(e: t.HwBoundary) -> str:
    where = f"boundary at RIP {e.rip:#x}, {'guest' if e.guest else 'host'} IF={e.rflags_if}"
    return f"{where}: the pending interrupt is {'recognised' if e.recognised else 'masked and waits'}"


def _exit(e: t.HwVmExit) -> str:
    saved = f"saved guest RIP {e.guest_rip:#x} RFLAGS {e.guest_rflags:#x} (IF={_if(e.guest_rflags)})"
    if e.vendor == "intel":
        info = f"interruption info {e.interruption_info:#010x}" if e.interruption_info & INTR_INFO_VALID else "interruption info not valid"
        return f"VM exit, reason {e.reason} {e.reason_name}, {info}; {saved}; host RFLAGS {e.host_rflags:#x}: IF={_if(e.host_rflags)}"
    return f"#VMEXIT {e.reason:#x} {e.reason_name}; {saved}; GIF={e.gif}, host RFLAGS back with IF={_if(e.host_rflags)}"


def _irq_enable(e: t.IrqEnable) -> str:
    return f"local_irq_enable in {e.caller}: " + ("the pending interrupt is taken now" if e.pending else "nothing is pending")


def _delivered(e: t.HwEventDelivered) -> str:
    return f"vector {e.vector:#x} goes through the {'guest' if e.guest else 'host'}'s IDT (interrupted at {e.rip:#x})"


#: Event type to (stage, text).
_LINES: Final[dict[type[TraceEvent], tuple[str, Callable[[Any], str]]]] = {
    t.HwApicAccept: ("apic", _accept),
    t.HwApicAcknowledge: ("apic", lambda e: f"interrupt acknowledged: vector {e.vector:#x} goes from IRR to ISR"),
    t.HwApicEoi: ("apic", lambda e: f"end of interrupt: ISR bit {e.vector:#x} cleared"),
    t.HwBoundary: ("boundary", _boundary),
    t.HwVmExit: ("exit", _exit),
    t.HwVmEntry: (
        "entry",
        lambda e: f"{e.instruction}: the guest runs at RIP {e.rip:#x}, IF={_if(e.rflags)}" + (f", event {e.event:#x} injected" if e.event else ""),
    ),
    t.HwVmEntryFailed: ("entry", lambda e: f"{e.instruction} failed ({e.error}): {e.check}"),
    t.HwEventDelivered: ("delivery", _delivered),
    t.HwGif: ("host", lambda e: f"{'STGI' if e.gif else 'CLGI'}: GIF={e.gif}"),
    t.KvmExit: ("kvm", lambda e: f"kvm_exit vcpu {e.vcpu_id} {e.reason_name}: the host goes on after the vm-entry instruction"),
    t.IrqEnable: ("host", _irq_enable),
    t.IrqDisable: ("host", lambda e: f"local_irq_disable in {e.caller}"),
    t.LocalTimerEntry: ("handler", lambda e: f"local timer handler begins (vector {e.vector:#x})"),
    t.LocalTimerExit: ("handler", lambda e: "local timer handler ends"),
    t.HrtimerExpireEntry: ("handler", lambda e: f"hrtimer {e.function} expires"),
    t.SchedSetNeedResched: ("sched", lambda e: f"need_resched set for {e.comm} ({e.caller})"),
    t.SchedSwitch: ("sched", lambda e: f"schedule(): {e.prev_comm} ({e.prev_state}) -> {e.next_comm}"),
    t.KvmVcpuPut: ("kvm", lambda e: f"vcpu_put (thread {e.pid})"),
    t.KvmVcpuLoad: ("kvm", lambda e: f"vcpu_load (thread {e.pid})"),
    t.KvmInjVirq: ("kvm", lambda e: f"kvm_inj_virq: vector {e.vector:#x} for the guest goes in at the next entry"),
    t.KvmApicAcceptIrq: ("kvm", lambda e: f"the guest's local APIC accepts vector {e.vec:#x}"),
    t.KvmIrqWindow: ("kvm", lambda e: "the guest cannot take it yet: interrupt window requested"),
    t.KvmEntry: ("kvm", lambda e: f"kvm_entry vcpu {e.vcpu_id}"),
}


def step_of(event: TraceEvent) -> Step | None:
    """An event as a line; None for those that the story leaves out."""
    row = _LINES.get(type(event))
    return None if row is None else Step(event.time, row[0], row[1](event), event)


def episodes(events: list[TraceEvent]) -> list[Episode]:
    """Cut the trace at each host timer interrupt that is raised; an episode ends with the next VM entry."""
    found: list[Episode] = []
    current: Episode | None = None
    running = False
    for event in events:
        if isinstance(event, t.HwApicAccept) and event.vector == LOCAL_TIMER_VECTOR and current is None:
            current = Episode(in_guest=running)
            found.append(current)
        if isinstance(event, t.HwVmExit):
            running = False
        elif isinstance(event, t.HwVmEntry):
            running = True
        if current is None:
            continue
        step = step_of(event)
        if step is not None:
            current.steps.append(step)
        if isinstance(event, t.HrtimerExpireEntry) and event.function == "tick_sched_timer":
            current.tick = True
        elif isinstance(event, t.HwVmEntry):
            current = None
    return found


def summary(episode: Episode, number: int) -> str:
    """A tick in one line."""
    accept, leave, switch, entry = (episode.first(kind) for kind in (t.HwApicAccept, t.HwVmExit, t.SchedSwitch, t.HwVmEntry))
    to = f"{switch.prev_comm} -> {switch.next_comm}" if switch is not None else "the same task goes on"
    since = accept.time if leave is None else leave.time
    cost = f", {entry.time - since} cycles in the host" if entry is not None else ""
    how = "the host was at work already" if leave is None or not episode.in_guest else f"exit at {leave.time} (guest IF={_if(leave.guest_rflags)})"
    return f"tick {number}: IRR at {accept.time}, {how}, {to}{cost}"
