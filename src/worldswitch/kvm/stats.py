"""What is counted for each vCPU (KVM's `kvm_vcpu_stat`, and a few figures that only a simulated processor can know)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class VcpuStat:
    """Counters since the vCPU was created."""

    exits: int = 0
    exits_by_reason: Counter[str] = field(default_factory=Counter)
    irq_exits: int = 0
    halt_exits: int = 0
    halt_wakeup: int = 0
    io_exits: int = 0
    mmio_exits: int = 0
    irq_window_exits: int = 0
    nmi_window_exits: int = 0
    irq_injections: int = 0
    nmi_injections: int = 0
    exception_injections: int = 0
    pf_taken: int = 0
    host_state_reload: int = 0
    preemptions: int = 0
    """Times the vCPU was put because its thread lost the processor."""
    guest_cycles: int = 0
    """Cycles between VM entries and exits."""
    instructions: int = 0
    """Guest instructions retired."""
