"""/dev/kvm: the module's parameters, what it can do, and the VMs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worldswitch.errors import ConfigurationError
from worldswitch.kvm.cpuid import CpuidEntry, supported_cpuid
from worldswitch.kvm.host import HostKernel
from worldswitch.kvm.svm import SvmOps
from worldswitch.kvm.vcpu import Vcpu
from worldswitch.kvm.vm import Vm
from worldswitch.kvm.vmx import VmxOps
from worldswitch.kvm.x86_ops import KvmX86Ops

KVM_API_VERSION: Final = 12
#: Offset of the `kvm_run` structure's mapping: bytes.
VCPU_MMAP_SIZE: Final = 4096


@dataclass(frozen=True, slots=True)
class Params:
    """Choices that real KVM makes once and for all, here for experiments. The defaults are KVM's."""

    ack_on_exit: bool = True
    """VMX: "acknowledge interrupt on exit". KVM always uses it."""
    intr_exiting: bool = True
    """VMX: external-interrupt exiting; SVM: the INTR intercept. Without it the guest takes the host's interrupts through its own IDT."""
    v_intr_masking: bool = True
    """SVM: V_INTR_MASKING. Without it the guest's RFLAGS.IF masks physical interrupts."""


class Kvm:
    """/dev/kvm on a simulated host. Methods are named after the system ioctls."""

    def __init__(self, kernel: HostKernel, params: Params | None = None) -> None:
        self.kernel = kernel
        self.params = params if params is not None else Params()
        if kernel.vendor == "intel":
            if not self.params.v_intr_masking:
                raise ConfigurationError("v_intr_masking", False, "left on for an Intel processor: V_INTR_MASKING is SVM's (APM vol. 2 §15.21.1)")
            self.ops: KvmX86Ops = VmxOps(self.params, kernel)
        else:
            if not self.params.ack_on_exit:
                raise ConfigurationError("ack_on_exit", False, "left on for an AMD processor: SVM never acknowledges an interrupt on exit")
            self.ops = SvmOps(self.params, kernel)
        #: Processor to the vCPU that is loaded on it (kvm_running_vcpu).
        self.running_vcpu: dict[int, Vcpu] = {}
        for cpu in kernel.cpus:
            with kernel.executing_on(cpu.index):
                self.ops.hardware_enable(cpu)
        self.vms: list[Vm] = []

    def get_api_version(self) -> int:
        """KVM_GET_API_VERSION: 12."""
        return KVM_API_VERSION

    def get_vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE, bytes."""
        return VCPU_MMAP_SIZE

    def get_supported_cpuid(self) -> tuple[CpuidEntry, ...]:
        """KVM_GET_SUPPORTED_CPUID."""
        return supported_cpuid(self.kernel.cpus[0].processor)

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM."""
        vm = Vm(self)
        self.vms.append(vm)
        return vm
