"""kvm_x86_ops: what differs between VMX and SVM, as one protocol with two implementations (`kvm.vmx`, `kvm.svm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from worldswitch.kvm.host import HostCpu
    from worldswitch.kvm.vcpu import Vcpu


class KvmX86Ops(Protocol):
    """One per VM's vendor; all state is in the vCPU (`Vcpu.vendor`)."""

    name: str
    isa: int
    """1 VMX, 2 SVM, as in the kvm_exit tracepoint."""

    def hardware_enable(self, host: HostCpu) -> None:
        """Turn virtualization on, on this processor (VMXON; EFER.SVME and VM_HSAVE_PA)."""

    def vcpu_create(self, vcpu: Vcpu) -> None:
        """Allocate and initialise the VMCS or VMCB."""

    def vcpu_free(self, vcpu: Vcpu) -> None: ...

    def vcpu_load(self, vcpu: Vcpu, host: HostCpu) -> None:
        """The vCPU's state goes onto this processor."""

    def vcpu_put(self, vcpu: Vcpu, host: HostCpu) -> None:
        """... and leaves it."""

    def prepare_switch_to_guest(self, vcpu: Vcpu, host: HostCpu) -> None: ...

    def vcpu_run(self, vcpu: Vcpu, host: HostCpu) -> bool:
        """Enter the guest. True: it runs. False: the entry failed, or has exited already; `vcpu_ran` comes next in either case."""

    def vcpu_ran(self, vcpu: Vcpu, host: HostCpu) -> None:
        """The first thing after the exit: registers and exit information are taken up, interrupts are off."""

    def handle_exit_irqoff(self, vcpu: Vcpu, host: HostCpu) -> None:
        """What must be done before interrupts are enabled."""

    def handle_exit(self, vcpu: Vcpu, host: HostCpu) -> int:
        """Handle the exit: 1 back to the guest, 0 to user space."""

    def exit_info(self, vcpu: Vcpu) -> tuple[int, str, int, int, int, int]:
        """(reason, its name, info1, info2, interruption information, error code) for the kvm_exit tracepoint."""

    # Events.
    def interrupt_allowed(self, vcpu: Vcpu) -> bool:
        """The guest can take an interrupt now (RFLAGS.IF, no shadow)."""

    def nmi_allowed(self, vcpu: Vcpu) -> bool: ...

    def inject_irq(self, vcpu: Vcpu, vector: int, soft: bool) -> None: ...

    def inject_nmi(self, vcpu: Vcpu) -> None: ...

    def inject_exception(self, vcpu: Vcpu, vector: int, error_code: int | None) -> None: ...

    def enable_irq_window(self, vcpu: Vcpu) -> None:
        """Exit as soon as the guest can take an interrupt."""

    def enable_nmi_window(self, vcpu: Vcpu) -> None: ...

    # State.
    def get_state(self, vcpu: Vcpu, name: str) -> int:
        """A register that the VMCS or VMCB holds, by its `cpu.state` slot name (rip, rsp, rflags, cr0, cs_base, ...)."""

    def set_state(self, vcpu: Vcpu, name: str, value: int) -> None: ...

    def skip_emulated_instruction(self, vcpu: Vcpu) -> None:
        """RIP goes past the instruction that exited; its interrupt shadow ends."""

    def clear_shadow(self, vcpu: Vcpu) -> None:
        """The guest's interrupt shadow ends: an instruction has been emulated."""
