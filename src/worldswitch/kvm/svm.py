"""The SVM back end: the VMCB as KVM fills it, entering and leaving the guest, and what each exit code means.

A world switch reads top to bottom: `vcpu_run` (CLGI, interrupts on, VMRUN), `vcpu_ran` (interrupts off, STGI), `handle_exit_irqoff`, `handle_exit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.msr import Msr
from worldswitch.arch.registers import Cr0, Efer, Gpr, Rflags
from worldswitch.arch.segments import svm_attrib_of
from worldswitch.arch.svm import (
    EVENT_ERROR_CODE_SHIFT,
    EVENT_ERROR_CODE_VALID,
    EVENT_VALID,
    IOIO_IN,
    IOIO_PORT_SHIFT,
    IOIO_SIZE_SHIFT,
    IOIO_STR,
    IOPM_BYTES,
    MSRPM_BYTES,
    V_IGN_TPR,
    V_INTR_MASKING,
    V_INTR_PRIO_SHIFT,
    V_IRQ,
    V_TPR,
    InterceptMisc1,
    InterceptMisc2,
    Save,
    VmexitCode,
)  # fmt: skip
from worldswitch.arch.svm import Vmcb as V
from worldswitch.cpu.state import MASK64
from worldswitch.cpu.svm.vmcb import Vmcb
from worldswitch.cpu.svm.vmrun import exit_name
from worldswitch.errors import SimulationError
from worldswitch.kvm import x86
from worldswitch.kvm.exits import ExitFailEntry, ExitShutdown, ExitUnknown
from worldswitch.kvm.host import HostCpu
from worldswitch.kvm.types import Request

if TYPE_CHECKING:
    from worldswitch.kvm.host import HostKernel
    from worldswitch.kvm.system import Params
    from worldswitch.kvm.vcpu import Vcpu

_SEGMENTS: Final = {
    "es": Save.ES, "cs": Save.CS, "ss": Save.SS, "ds": Save.DS, "fs": Save.FS, "gs": Save.GS, "ldtr": Save.LDTR, "tr": Save.TR,
    "gdtr": Save.GDTR, "idtr": Save.IDTR,
}  # fmt: skip
#: `cpu.state` slot to offset in the VMCB.
_FIELDS: Final[dict[str, int]] = {
    "rip": Save.RIP, "rsp": Save.RSP, "rflags": Save.RFLAGS, "cr0": Save.CR0, "cr3": Save.CR3, "cr4": Save.CR4, "dr7": Save.DR7,
    "sysenter_cs": Save.SYSENTER_CS, "sysenter_esp": Save.SYSENTER_ESP, "sysenter_eip": Save.SYSENTER_EIP,
    "pat": Save.G_PAT, "debugctl": Save.DBGCTL, "tsc_offset": V.TSC_OFFSET,
}  # fmt: skip
_MISC1: Final = int(
    InterceptMisc1.NMI | InterceptMisc1.SMI | InterceptMisc1.INIT | InterceptMisc1.CPUID | InterceptMisc1.INVD | InterceptMisc1.HLT | InterceptMisc1.INVLPGA
    | InterceptMisc1.IOIO_PROT | InterceptMisc1.MSR_PROT | InterceptMisc1.TASK_SWITCH | InterceptMisc1.SHUTDOWN | InterceptMisc1.RSM
)  # fmt: skip
_MISC2: Final = int(
    InterceptMisc2.VMRUN | InterceptMisc2.VMMCALL | InterceptMisc2.VMLOAD | InterceptMisc2.VMSAVE | InterceptMisc2.STGI | InterceptMisc2.CLGI
    | InterceptMisc2.SKINIT | InterceptMisc2.WBINVD | InterceptMisc2.MONITOR | InterceptMisc2.MWAIT | InterceptMisc2.XSETBV
)  # fmt: skip


@dataclass(slots=True)
class SvmVcpu:
    """What the back end keeps for a vCPU."""

    vmcb: Vmcb
    asid: int
    nmi_masked: bool = False
    """The guest is in its NMI handler: its IRET is intercepted to learn when that ends."""
    invalid: bool = False


class SvmOps:
    """kvm_x86_ops for SVM."""

    name = "svm"
    isa = 2

    def __init__(self, params: Params, kernel: HostKernel) -> None:
        self.params = params
        self._kernel = kernel
        self._host_vmcb: dict[int, int] = {}
        self._iopm = self._msrpm = 0
        self._asid = 0

    # Hardware and vCPU life.

    def hardware_enable(self, host: HostCpu) -> None:
        p = host.processor
        p.msrs.write(Msr.IA32_EFER, p.state.efer | Efer.SVME)
        p.msrs.write(Msr.VM_HSAVE_PA, self._kernel.alloc_page())
        # Where VMSAVE keeps the host's FS, GS, TR, LDTR and system-call MSRs around a guest.
        self._host_vmcb[host.index] = self._kernel.alloc_page()
        if not self._iopm:
            # All ports and MSRs are intercepted.
            self._iopm = self._kernel.alloc_pages(IOPM_BYTES // 4096)
            self._msrpm = self._kernel.alloc_pages(MSRPM_BYTES // 4096)
            p.bus.write_block(self._iopm, b"\xff" * IOPM_BYTES)
            p.bus.write_block(self._msrpm, b"\xff" * MSRPM_BYTES)

    def vcpu_create(self, vcpu: Vcpu) -> None:
        self._asid += 1
        vcpu.vendor = SvmVcpu(Vmcb(vcpu.vm.host.memory, vcpu.vm.host.alloc_page()), self._asid)
        self._init_vmcb(vcpu)

    def vcpu_free(self, vcpu: Vcpu) -> None:
        vcpu.vm.host.free_page(vcpu.vendor.vmcb.pointer)

    def _init_vmcb(self, vcpu: Vcpu) -> None:
        vmcb: Vmcb = vcpu.vendor.vmcb
        misc1 = _MISC1 | (InterceptMisc1.INTR if self.params.intr_exiting else 0)
        vmcb[V.INTERCEPT_MISC1], vmcb[V.INTERCEPT_MISC2] = int(misc1), _MISC2
        vmcb[V.INTERCEPT_EXCEPTIONS] = 1 << Vector.MC
        vmcb[V.IOPM_BASE_PA], vmcb[V.MSRPM_BASE_PA] = self._iopm, self._msrpm
        vmcb[V.GUEST_ASID], vmcb[V.TSC_OFFSET] = vcpu.vendor.asid, vcpu.tsc_offset
        vmcb[V.V_INTR] = V_INTR_MASKING if self.params.v_intr_masking else 0
        vmcb[V.NP_ENABLE], vmcb[V.N_CR3] = 1, vcpu.vm.mmu.root
        # The guest's power-up state (APM vol. 2 §14.1.3).
        for name in ("es", "ss", "ds", "fs", "gs"):
            self._put_segment(vcpu, name, 0, 0, 0xFFFF, 0x93)
        self._put_segment(vcpu, "cs", 0xF000, 0xFFFF0000, 0xFFFF, 0x9B)
        self._put_segment(vcpu, "ldtr", 0, 0, 0xFFFF, 0x82)
        self._put_segment(vcpu, "tr", 0, 0, 0xFFFF, 0x8B)
        for name, value in (
            ("gdtr_limit", 0xFFFF), ("idtr_limit", 0xFFFF), ("rip", 0xFFF0), ("rflags", 2), ("dr7", 0x400), ("pat", 0x0007040600070406), ("efer", 0),
            ("cr0", int(Cr0.ET | Cr0.CD | Cr0.NW)), ("cr4", 0),
        ):  # fmt: skip
            self.set_state(vcpu, name, value)
        vmcb[Save.DR6] = 0xFFFF0FF0

    def _put_segment(self, vcpu: Vcpu, name: str, *parts: int) -> None:
        for part, value in zip(("selector", "base", "limit", "ar"), parts, strict=True):
            self.set_state(vcpu, f"{name}_{part}", value)

    # Loading.

    def vcpu_load(self, vcpu: Vcpu, host: HostCpu) -> None:
        """A VMCB is memory: there is nothing to make current. Another processor's translations of this ASID are not this one's (no tagging across
        context changes here)."""

    def vcpu_put(self, vcpu: Vcpu, host: HostCpu) -> None:
        """Nothing stays on the processor."""

    def prepare_switch_to_guest(self, vcpu: Vcpu, host: HostCpu) -> None:
        """VMSAVE of the host's part that VMRUN does not switch (svm_prepare_switch_to_guest); the system-call MSRs of the guest go to its VMCB."""
        vmcb: Vmcb = vcpu.vendor.vmcb
        s = host.processor.state
        for name, offset in _LAZY.items():
            vmcb[offset] = getattr(s, name)
        host.processor.svm.vmsave(self._host_vmcb[host.index])

    # Entering and leaving.

    def vcpu_run(self, vcpu: Vcpu, host: HostCpu) -> bool:
        p, vmcb = host.processor, vcpu.vendor.vmcb
        vmcb[Save.RAX] = vcpu.regs[Gpr.RAX]
        vmcb[Save.CR2] = vcpu.cr2
        if self.params.v_intr_masking:
            vmcb[V.V_INTR] = vmcb[V.V_INTR] & ~V_TPR | vcpu.get_cr8()
        p.svm.clgi()
        # VMRUN keeps the host's IF: it must be 1 for physical interrupts to reach a guest under V_INTR_MASKING. Nothing is taken here, GIF is 0.
        host.local_irq_enable("svm_vcpu_run")
        for i in range(16):
            if i not in (Gpr.RAX, Gpr.RSP):
                p.state.q[i] = vcpu.regs[i]
        p.svm.vmload(vmcb.pointer)
        p.svm.vmrun(vmcb.pointer)
        return p.guest is not None

    def vcpu_ran(self, vcpu: Vcpu, host: HostCpu) -> None:
        p, vendor = host.processor, vcpu.vendor
        vmcb: Vmcb = vendor.vmcb
        vendor.invalid = vmcb[V.EXITCODE] == VmexitCode.INVALID
        if not vendor.invalid:
            vcpu.regs[:] = p.state.q[:16]
            vcpu.regs[Gpr.RAX] = vmcb[Save.RAX]
        p.svm.vmsave(vmcb.pointer)
        guest_lazy = {name: getattr(p.state, name) for name in _LAZY}
        p.svm.vmload(self._host_vmcb[host.index])
        for name, value in guest_lazy.items():
            setattr(p.state, name, value)  # they stay loaded with the vCPU (`Vcpu.vcpu_put` takes them away)
        host.local_irq_disable("svm_vcpu_run")
        p.svm.stgi()
        if self.params.v_intr_masking:
            vcpu.set_cr8(vmcb[V.V_INTR] & 0xF)
        info = vmcb[V.EXITINTINFO]
        x86.requeue(vcpu, 0 if vendor.invalid else info & 0xFFFFFFFF, info >> EVENT_ERROR_CODE_SHIFT)
        p.state.cr2 = vmcb[Save.CR2]

    def exit_info(self, vcpu: Vcpu) -> tuple[int, str, int, int, int, int]:
        vmcb: Vmcb = vcpu.vendor.vmcb
        code, info = vmcb[V.EXITCODE], vmcb[V.EXITINTINFO]
        return code, exit_name(code), vmcb[V.EXITINFO1], vmcb[V.EXITINFO2], info & 0xFFFFFFFF, info >> EVENT_ERROR_CODE_SHIFT

    def handle_exit_irqoff(self, vcpu: Vcpu, host: HostCpu) -> None:
        """Interrupts are still pending and arrive when they are enabled; an NMI arrived at STGI."""
        if vcpu.vendor.vmcb[V.EXITCODE] == VmexitCode.NMI and host.processor.apic.take_nmi():
            host.handle_nmi_irqoff()

    def handle_exit(self, vcpu: Vcpu, host: HostCpu) -> int:
        host.charge("handle_exit")
        vmcb: Vmcb = vcpu.vendor.vmcb
        code = vmcb[V.EXITCODE]
        if vcpu.vendor.invalid:
            vcpu.exit = ExitFailEntry(code, host.index)
            return 0
        handler = _HANDLERS.get(code)
        if handler is None:
            if VmexitCode.EXCEPTION <= code < VmexitCode.EXCEPTION + 32:
                return x86.internal_error(vcpu, 2, code, vmcb[V.EXITINFO1])
            vcpu.exit = ExitUnknown(code)
            return 0
        return handler(self, vcpu, host)

    # Events.

    def interrupt_allowed(self, vcpu: Vcpu) -> bool:
        vmcb: Vmcb = vcpu.vendor.vmcb
        return bool(vmcb[Save.RFLAGS] & Rflags.IF) and not vmcb[V.INTERRUPT_SHADOW] & 1

    def nmi_allowed(self, vcpu: Vcpu) -> bool:
        return not vcpu.vendor.nmi_masked and not vcpu.vendor.vmcb[V.INTERRUPT_SHADOW] & 1

    def inject_irq(self, vcpu: Vcpu, vector: int, soft: bool) -> None:
        vcpu.vendor.vmcb[V.EVENTINJ] = vector | EVENT_VALID

    def inject_nmi(self, vcpu: Vcpu) -> None:
        vmcb: Vmcb = vcpu.vendor.vmcb
        vmcb[V.EVENTINJ] = Vector.NMI | 2 << 8 | EVENT_VALID
        vcpu.vendor.nmi_masked = True
        vmcb[V.INTERCEPT_MISC1] = vmcb[V.INTERCEPT_MISC1] | InterceptMisc1.IRET

    def inject_exception(self, vcpu: Vcpu, vector: int, error_code: int | None) -> None:
        event = vector | 3 << 8 | EVENT_VALID
        if error_code is not None and vcpu.vendor.vmcb[Save.CR0] & Cr0.PE:
            event |= EVENT_ERROR_CODE_VALID | error_code << EVENT_ERROR_CODE_SHIFT
        vcpu.vendor.vmcb[V.EVENTINJ] = event

    def enable_irq_window(self, vcpu: Vcpu) -> None:
        """svm_set_vintr: a virtual interrupt of the highest priority, intercepted before the guest takes it."""
        vmcb: Vmcb = vcpu.vendor.vmcb
        vmcb[V.INTERCEPT_MISC1] = vmcb[V.INTERCEPT_MISC1] | InterceptMisc1.VINTR
        vmcb[V.V_INTR] = vmcb[V.V_INTR] | V_IRQ | V_IGN_TPR | 0xF << V_INTR_PRIO_SHIFT

    def _clear_vintr(self, vcpu: Vcpu) -> None:
        vmcb: Vmcb = vcpu.vendor.vmcb
        vmcb[V.INTERCEPT_MISC1] = vmcb[V.INTERCEPT_MISC1] & ~InterceptMisc1.VINTR
        vmcb[V.V_INTR] = vmcb[V.V_INTR] & ~(V_IRQ | V_IGN_TPR | 0xF << V_INTR_PRIO_SHIFT)

    def enable_nmi_window(self, vcpu: Vcpu) -> None:
        """The IRET intercept of the handler that is running tells when the next NMI can go in; outside of a handler a shadow ends by itself with the
        next instruction."""
        if not vcpu.vendor.nmi_masked:
            self.enable_irq_window(vcpu)

    # State.

    def get_state(self, vcpu: Vcpu, name: str) -> int:
        vmcb: Vmcb = vcpu.vendor.vmcb
        if name in _FIELDS:
            return vmcb[_FIELDS[name]]
        if name == "efer":
            return vmcb[Save.EFER] & ~Efer.SVME
        table, _, part = name.partition("_")
        selector, base, limit, ar = vmcb.segment(_SEGMENTS[table])
        if part == "ar" and table == "ss":
            ar = ar & ~0x60 | (vmcb[Save.CPL] & 3) << 5
        return {"selector": selector, "base": base, "limit": limit, "ar": ar}[part]

    def set_state(self, vcpu: Vcpu, name: str, value: int) -> None:
        vmcb: Vmcb = vcpu.vendor.vmcb
        if name in _FIELDS:
            vmcb[_FIELDS[name]] = value
            return
        if name == "efer":
            vmcb[Save.EFER] = value | Efer.SVME  # VMRUN demands it; the guest does not see it
            return
        table, _, part = name.partition("_")
        at = _SEGMENTS[table]
        bus = vcpu.vm.host.memory
        match part:
            case "selector":
                bus.write(vmcb.pointer + at, 2, value)
            case "ar":
                bus.write(vmcb.pointer + at + 2, 2, svm_attrib_of(value))
                if table == "ss":
                    vmcb[Save.CPL] = value >> 5 & 3
            case "limit":
                bus.write(vmcb.pointer + at + 4, 4, value)
            case "base":
                bus.write(vmcb.pointer + at + 8, 8, value)

    def skip_emulated_instruction(self, vcpu: Vcpu) -> None:
        vmcb: Vmcb = vcpu.vendor.vmcb
        if not vmcb[V.NRIP]:
            raise SimulationError(f"exit {exit_name(vmcb[V.EXITCODE])} has no next RIP")
        vmcb[Save.RIP] = vmcb[V.NRIP] & MASK64
        self.clear_shadow(vcpu)

    def clear_shadow(self, vcpu: Vcpu) -> None:
        vcpu.vendor.vmcb[V.INTERRUPT_SHADOW] = 0

    # Exit handlers: 1 back to the guest, 0 to user space.

    def _handle_intr(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.stat.irq_exits += 1
        return 1

    def _handle_nothing(self, vcpu: Vcpu, host: HostCpu) -> int:
        return 1

    def _handle_vintr(self, vcpu: Vcpu, host: HostCpu) -> int:
        self._clear_vintr(vcpu)
        vcpu.stat.irq_window_exits += 1
        vcpu.make_request(Request.EVENT)
        return 1

    def _handle_iret(self, vcpu: Vcpu, host: HostCpu) -> int:
        """The guest's NMI handler is about to return: the next NMI may go in once it has (svm_iret_interception)."""
        vmcb: Vmcb = vcpu.vendor.vmcb
        vmcb[V.INTERCEPT_MISC1] = vmcb[V.INTERCEPT_MISC1] & ~InterceptMisc1.IRET
        vcpu.vendor.nmi_masked = False
        vcpu.stat.nmi_window_exits += 1
        vcpu.make_request(Request.EVENT)
        return 1

    def _handle_shutdown(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.exit = ExitShutdown()
        return 0

    def _handle_io(self, vcpu: Vcpu, host: HostCpu) -> int:
        info = vcpu.vendor.vmcb[V.EXITINFO1]
        return x86.emulate_pio(vcpu, host, info >> IOIO_PORT_SHIFT & 0xFFFF, info >> IOIO_SIZE_SHIFT & 7, not info & IOIO_IN, bool(info & IOIO_STR))

    def _handle_msr(self, vcpu: Vcpu, host: HostCpu) -> int:
        return x86.emulate_wrmsr(vcpu, host) if vcpu.vendor.vmcb[V.EXITINFO1] else x86.emulate_rdmsr(vcpu, host)

    def _handle_npf(self, vcpu: Vcpu, host: HostCpu) -> int:
        vmcb: Vmcb = vcpu.vendor.vmcb
        error = vmcb[V.EXITINFO1]
        return x86.page_fault(vcpu, host, vmcb[V.EXITINFO2], bool(error & 2), error)

    def _handle_skip(self, vcpu: Vcpu, host: HostCpu) -> int:
        self.skip_emulated_instruction(vcpu)
        return 1

    def _handle_ud(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.queue_exception(Vector.UD)
        return 1


#: MSRs that VMLOAD and VMSAVE move: state slot to offset in the VMCB.
_LAZY: Final = {"star": Save.STAR, "lstar": Save.LSTAR, "cstar": Save.CSTAR, "fmask": Save.SFMASK, "kernel_gs_base": Save.KERNEL_GS_BASE}


def _common(function: Callable[[Vcpu, HostCpu], int]) -> Callable[[SvmOps, Vcpu, HostCpu], int]:
    return lambda ops, vcpu, host: function(vcpu, host)


#: Instructions that the guest's CPUID does not offer: #UD.
_NOT_OFFERED: Final = (
    VmexitCode.VMRUN, VmexitCode.VMLOAD, VmexitCode.VMSAVE, VmexitCode.STGI, VmexitCode.CLGI, VmexitCode.SKINIT, VmexitCode.INVLPGA, VmexitCode.MONITOR,
    VmexitCode.MWAIT, VmexitCode.XSETBV, VmexitCode.RSM,
)  # fmt: skip
#: svm_exit_handlers.
_HANDLERS: Final[dict[int, Callable[[SvmOps, Vcpu, HostCpu], int]]] = {
    VmexitCode.INTR: SvmOps._handle_intr,
    VmexitCode.NMI: SvmOps._handle_nothing,
    VmexitCode.SMI: SvmOps._handle_nothing,
    VmexitCode.VINTR: SvmOps._handle_vintr,
    VmexitCode.IRET: SvmOps._handle_iret,
    VmexitCode.CPUID: _common(x86.emulate_cpuid),
    VmexitCode.HLT: _common(x86.emulate_halt),
    VmexitCode.VMMCALL: _common(x86.emulate_hypercall),
    VmexitCode.IOIO: SvmOps._handle_io,
    VmexitCode.MSR: SvmOps._handle_msr,
    VmexitCode.NPF: SvmOps._handle_npf,
    VmexitCode.SHUTDOWN: SvmOps._handle_shutdown,
    VmexitCode.INVD: SvmOps._handle_skip,
    VmexitCode.WBINVD: SvmOps._handle_skip,
    **dict.fromkeys(_NOT_OFFERED, SvmOps._handle_ud),
}  # fmt: skip
