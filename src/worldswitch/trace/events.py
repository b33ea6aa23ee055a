"""The tracepoints, one record type each.

Linux's: `kvm_*` (arch/x86/kvm/trace.h and include/trace/events/kvm.h), `sched_*` (include/trace/events/sched.h), `local_timer_*` and the other vectors
(arch/x86/include/asm/trace/irq_vectors.h), `hrtimer_*` (include/trace/events/timer.h): same names, same field names. The hardware's own start with `hw_`.

Common fields: `cpu` is the number of the host processor, `time` its clock in cycles of virtual time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """What every event has."""

    #: The tracepoint's name as Linux spells it.
    name: ClassVar[str] = ""
    cpu: int
    time: int

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


# The hardware: what happens below the operating system.


@dataclass(frozen=True, slots=True)
class HwApicAccept(TraceEvent):
    """The local APIC accepted an interrupt: its bit in IRR is set (SDM vol. 3 §11.8.4)."""

    vector: int
    source: str
    """What raised it: "timer", "ipi", "msi", "lint0", "error", ..."""


@dataclass(frozen=True, slots=True)
class HwApicAcknowledge(TraceEvent):
    """The processor acknowledged an interrupt: IRR bit cleared, ISR bit set."""

    vector: int


@dataclass(frozen=True, slots=True)
class HwApicEoi(TraceEvent):
    """End of interrupt: the highest ISR bit is cleared."""

    vector: int


@dataclass(frozen=True, slots=True)
class HwBoundary(TraceEvent):
    """An instruction boundary at which a pending interrupt was noticed."""

    rip: int
    rflags_if: int
    guest: int
    """1 if a guest is running."""
    recognised: int
    """1 if something is done about it now, 0 if it is masked and waits."""


@dataclass(frozen=True, slots=True)
class HwVmEntry(TraceEvent):
    """A VM entry (VMLAUNCH, VMRESUME, VMRUN) succeeded: the processor now runs the guest."""

    instruction: str
    rip: int
    rflags: int
    event: int
    """The injected event's interruption information / EVENTINJ, 0 if none."""


@dataclass(frozen=True, slots=True)
class HwVmEntryFailed(TraceEvent):
    """A VM entry failed (VMfail, or an entry failure exit)."""

    instruction: str
    error: int
    check: str


@dataclass(frozen=True, slots=True)
class HwVmExit(TraceEvent):
    """A VM exit completed: guest state is in the VMCS / VMCB, host state is loaded."""

    vendor: str
    reason: int
    reason_name: str
    qualification: int
    """Exit qualification (VMX), EXITINFO1 (SVM)."""
    info2: int
    """Guest-physical address (VMX, EPT), EXITINFO2 (SVM)."""
    interruption_info: int
    """VM-exit interruption information; on SVM EXITINTINFO."""
    guest_rip: int
    guest_rflags: int
    host_rflags: int
    gif: int
    """SVM's global interrupt flag after the exit; always 1 on VMX, which has none."""


@dataclass(frozen=True, slots=True)
class HwEventDelivered(TraceEvent):
    """An event went through the IDT of whoever was running."""

    vector: int
    type: int
    guest: int
    rip: int
    """Where execution was interrupted."""


@dataclass(frozen=True, slots=True)
class HwHalt(TraceEvent):
    """HLT: the processor stopped fetching."""

    guest: int


@dataclass(frozen=True, slots=True)
class HwGif(TraceEvent):
    """STGI or CLGI executed (APM vol. 2 §15.17)."""

    gif: int


# The host kernel's interrupt flag, vectors and timers.


@dataclass(frozen=True, slots=True)
class IrqDisable(TraceEvent):
    """Interrupts were disabled (preemptirq:irq_disable)."""

    caller: str


@dataclass(frozen=True, slots=True)
class IrqEnable(TraceEvent):
    """Interrupts were enabled (preemptirq:irq_enable); what was pending is handled before anything else."""

    caller: str
    pending: int
    """1 if an interrupt was waiting for it."""


@dataclass(frozen=True, slots=True)
class LocalTimerEntry(TraceEvent):
    """The host's local timer interrupt handler begins."""

    vector: int


@dataclass(frozen=True, slots=True)
class LocalTimerExit(TraceEvent):
    """... and ends."""

    vector: int


@dataclass(frozen=True, slots=True)
class RescheduleEntry(TraceEvent):
    """The reschedule IPI's handler begins."""

    vector: int


@dataclass(frozen=True, slots=True)
class RescheduleExit(TraceEvent):
    """... and ends."""

    vector: int


@dataclass(frozen=True, slots=True)
class ExternalInterruptEntry(TraceEvent):
    """A handler of another host vector begins (Linux: irq_handler_entry, vector entries)."""

    vector: int


@dataclass(frozen=True, slots=True)
class ExternalInterruptExit(TraceEvent):
    """... and ends."""

    vector: int


@dataclass(frozen=True, slots=True)
class HrtimerExpireEntry(TraceEvent):
    """A high-resolution timer's function runs."""

    function: str
    now: int


@dataclass(frozen=True, slots=True)
class HrtimerStart(TraceEvent):
    """A high-resolution timer was armed."""

    function: str
    expires: int


@dataclass(frozen=True, slots=True)
class TickStop(TraceEvent):
    """The tick was stopped on an idle processor (1), or not (0)."""

    success: int


# The scheduler.


@dataclass(frozen=True, slots=True)
class SchedSwitch(TraceEvent):
    """The processor goes from one task to another."""

    prev_comm: str
    prev_pid: int
    prev_state: str
    next_comm: str
    next_pid: int


@dataclass(frozen=True, slots=True)
class SchedWakeup(TraceEvent):
    """A task became runnable."""

    comm: str
    pid: int
    target_cpu: int


@dataclass(frozen=True, slots=True)
class SchedSetNeedResched(TraceEvent):
    """TIF_NEED_RESCHED was set for the running task (sched_set_need_resched_tp)."""

    comm: str
    pid: int
    caller: str


@dataclass(frozen=True, slots=True)
class SchedStatRuntime(TraceEvent):
    """A task's run time was accounted (in cycles)."""

    comm: str
    pid: int
    runtime: int


# KVM.


@dataclass(frozen=True, slots=True)
class KvmEntry(TraceEvent):
    """About to enter the guest."""

    vcpu_id: int
    rip: int


@dataclass(frozen=True, slots=True)
class KvmExit(TraceEvent):
    """Back from the guest."""

    vcpu_id: int
    exit_reason: int
    reason_name: str
    guest_rip: int
    isa: int
    """1 VMX, 2 SVM, as in Linux."""
    info1: int
    info2: int
    intr_info: int
    error_code: int


@dataclass(frozen=True, slots=True)
class KvmInjVirq(TraceEvent):
    """A virtual interrupt is injected into the guest."""

    vcpu_id: int
    vector: int
    soft: int
    reinjected: int


@dataclass(frozen=True, slots=True)
class KvmInjException(TraceEvent):
    """An exception is injected into the guest."""

    vcpu_id: int
    vector: int
    error_code: int
    reinjected: int


@dataclass(frozen=True, slots=True)
class KvmNmiInject(TraceEvent):
    """An NMI is injected into the guest."""

    vcpu_id: int


@dataclass(frozen=True, slots=True)
class KvmIrqWindow(TraceEvent):
    """An interrupt window was requested: the guest cannot take the interrupt yet."""

    vcpu_id: int


@dataclass(frozen=True, slots=True)
class KvmVcpuLoad(TraceEvent):
    """vcpu_load: the vCPU's state goes onto this processor."""

    vcpu_id: int
    pid: int


@dataclass(frozen=True, slots=True)
class KvmVcpuPut(TraceEvent):
    """vcpu_put: the vCPU's state leaves this processor."""

    vcpu_id: int
    pid: int


@dataclass(frozen=True, slots=True)
class KvmVcpuWakeup(TraceEvent):
    """A vCPU thread blocked in HLT goes on."""

    vcpu_id: int
    ns: int
    """How long it was blocked (cycles here)."""
    waited: int
    valid: int


@dataclass(frozen=True, slots=True)
class KvmHaltPoll(TraceEvent):
    """A vCPU thread blocks because its guest halted."""

    vcpu_id: int


@dataclass(frozen=True, slots=True)
class KvmApicAcceptIrq(TraceEvent):
    """The guest's local APIC accepted an interrupt."""

    apicid: int
    dm: int
    tm: int
    vec: int


@dataclass(frozen=True, slots=True)
class KvmEoi(TraceEvent):
    """The guest's local APIC saw an end of interrupt."""

    apicid: int
    vector: int


@dataclass(frozen=True, slots=True)
class KvmApic(TraceEvent):
    """The guest accessed its local APIC."""

    rw: int
    reg: int
    val: int


@dataclass(frozen=True, slots=True)
class KvmMsr(TraceEvent):
    """The guest's RDMSR or WRMSR was handled."""

    write: int
    ecx: int
    data: int
    exception: int


@dataclass(frozen=True, slots=True)
class KvmCpuid(TraceEvent):
    """The guest's CPUID was handled."""

    function: int
    index: int
    rax: int
    rbx: int
    rcx: int
    rdx: int
    found: int


@dataclass(frozen=True, slots=True)
class KvmPio(TraceEvent):
    """The guest's port access was handled."""

    rw: int
    port: int
    size: int
    count: int
    val: int


@dataclass(frozen=True, slots=True)
class KvmMmio(TraceEvent):
    """The guest's access to memory that is none."""

    type: int
    len: int
    gpa: int
    val: int


@dataclass(frozen=True, slots=True)
class KvmPageFault(TraceEvent):
    """An EPT violation or nested page fault is handled."""

    vcpu_id: int
    guest_rip: int
    fault_address: int
    error_code: int


@dataclass(frozen=True, slots=True)
class KvmUserspaceExit(TraceEvent):
    """KVM_RUN returns to user space."""

    reason: int
    errno: int


#: Tracepoint name to record type.
EVENTS: dict[str, type[TraceEvent]] = {kind.name: kind for kind in TraceEvent.__subclasses__()}
