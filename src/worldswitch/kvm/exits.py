"""Why KVM_RUN returned: one record per KVM_EXIT_* reason, to `match` on (Documentation: the `kvm_run` structure of the KVM API)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """Base of all exits."""


@dataclass(frozen=True, slots=True)
class ExitIo(Exit):
    """KVM_EXIT_IO: a port access for user space. For input (`write` False) answer with `Vcpu.complete_io(value)` before the next run."""

    port: int
    size: int
    """Bytes: 1, 2 or 4."""
    write: bool
    data: int
    """The value written; 0 for input."""


@dataclass(frozen=True, slots=True)
class ExitMmio(Exit):
    """KVM_EXIT_MMIO: an access to guest-physical memory that no slot backs. For reads answer with `Vcpu.complete_mmio(value)`."""

    address: int
    size: int
    write: bool
    data: int


@dataclass(frozen=True, slots=True)
class ExitHlt(Exit):
    """KVM_EXIT_HLT: HLT without an in-kernel local APIC."""


@dataclass(frozen=True, slots=True)
class ExitShutdown(Exit):
    """KVM_EXIT_SHUTDOWN: triple fault."""


@dataclass(frozen=True, slots=True)
class ExitFailEntry(Exit):
    """KVM_EXIT_FAIL_ENTRY: the processor refused the VM entry."""

    hardware_entry_failure_reason: int
    cpu: int


@dataclass(frozen=True, slots=True)
class ExitIrqWindowOpen(Exit):
    """KVM_EXIT_IRQ_WINDOW_OPEN: the guest can take an interrupt now, as user space had asked."""


@dataclass(frozen=True, slots=True)
class ExitIntr(Exit):
    """KVM_EXIT_INTR: a signal (or `immediate_exit`) ended the run."""


@dataclass(frozen=True, slots=True)
class ExitInternalError(Exit):
    """KVM_EXIT_INTERNAL_ERROR: KVM could not go on (an instruction it cannot emulate, an unexpected exit)."""

    suberror: int
    data: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ExitSystemEvent(Exit):
    """KVM_EXIT_SYSTEM_EVENT: the guest asked for a reset, a shutdown or crashed."""

    type: int


@dataclass(frozen=True, slots=True)
class ExitUnknown(Exit):
    """KVM_EXIT_UNKNOWN: a hardware exit reason that KVM does not know."""

    hardware_exit_reason: int
