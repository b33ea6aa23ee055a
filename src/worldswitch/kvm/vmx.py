"""The VMX back end: the VMCS as KVM fills it, entering and leaving the guest, and what each exit reason means.

A world switch reads top to bottom: `vcpu_run` (before VMLAUNCH/VMRESUME), `vcpu_ran` (after the exit), `handle_exit_irqoff`, `handle_exit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Cr0, Cr4, Efer, Gpr, Rflags
from worldswitch.arch.vmcs import VMCS_REVISION_ID, Vmcs
from worldswitch.arch.vmx import (
    ENTRY_TRUE_DEFAULT1,
    EPTP_ACCESSED_DIRTY,
    EPTP_WB,
    EXIT_REASON_ENTRY_FAILURE,
    EXIT_TRUE_DEFAULT1,
    INTR_INFO_ERROR_CODE,
    INTR_INFO_VALID,
    PIN_DEFAULT1,
    PROC_TRUE_DEFAULT1,
    CrAccess,
    CrQualification,
    EntryControls,
    EptViolation,
    ExitControls,
    ExitReason,
    Interruptibility,
    InterruptionType,
    IoQualification,
    PinBased,
    ProcBased,
    ProcBased2,
)  # fmt: skip
from worldswitch.cpu.state import MASK64
from worldswitch.errors import SimulationError
from worldswitch.kvm import x86
from worldswitch.kvm.exits import ExitFailEntry, ExitShutdown, ExitUnknown
from worldswitch.kvm.host import HostCpu
from worldswitch.kvm.types import Request

if TYPE_CHECKING:
    from worldswitch.kvm.host import HostKernel
    from worldswitch.kvm.system import Params
    from worldswitch.kvm.vcpu import Vcpu

#: Where the host goes on after an exit: the (symbolic) address of the label behind VMRESUME.
VMX_VMEXIT: Final = 0xFFFFFFFF81001000
#: CR0 bits that the host owns: NE must be 1 in VMX operation whatever the guest wants.
_CR0_HOST_OWNED: Final = int(Cr0.NE)
_CR4_HOST_OWNED: Final = int(Cr4.VMXE)

_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
#: `cpu.state` slot to guest-state field.
_FIELDS: Final[dict[str, Vmcs]] = {
    **{f"{name}_selector": Vmcs(Vmcs.GUEST_ES_SELECTOR + 2 * i) for i, name in enumerate(_SEGMENTS)},
    **{f"{name}_base": Vmcs(Vmcs.GUEST_ES_BASE + 2 * i) for i, name in enumerate(_SEGMENTS)},
    **{f"{name}_limit": Vmcs(Vmcs.GUEST_ES_LIMIT + 2 * i) for i, name in enumerate(_SEGMENTS)},
    **{f"{name}_ar": Vmcs(Vmcs.GUEST_ES_AR_BYTES + 2 * i) for i, name in enumerate(_SEGMENTS)},
    "gdtr_base": Vmcs.GUEST_GDTR_BASE, "gdtr_limit": Vmcs.GUEST_GDTR_LIMIT, "idtr_base": Vmcs.GUEST_IDTR_BASE, "idtr_limit": Vmcs.GUEST_IDTR_LIMIT,
    "rip": Vmcs.GUEST_RIP, "rsp": Vmcs.GUEST_RSP, "rflags": Vmcs.GUEST_RFLAGS, "cr3": Vmcs.GUEST_CR3,
    "sysenter_cs": Vmcs.GUEST_SYSENTER_CS, "sysenter_esp": Vmcs.GUEST_SYSENTER_ESP, "sysenter_eip": Vmcs.GUEST_SYSENTER_EIP,
    "pat": Vmcs.GUEST_IA32_PAT, "debugctl": Vmcs.GUEST_IA32_DEBUGCTL, "dr7": Vmcs.GUEST_DR7, "tsc_offset": Vmcs.TSC_OFFSET,
}  # fmt: skip


@dataclass(slots=True)
class VmxVcpu:
    """What the back end keeps for a vCPU."""

    vmcs: int
    """Physical address of its VMCS."""
    vpid: int
    launched: bool = False
    fail: int = 0
    """VM-instruction error of an entry that failed at once."""
    exit_reason: int = 0


class VmxOps:
    """kvm_x86_ops for VMX."""

    name = "vmx"
    isa = 1

    def __init__(self, params: Params, kernel: HostKernel) -> None:
        self.params = params
        self._kernel = kernel
        self._regions: dict[int, int] = {}
        self._vpid = 0

    # Access to the current VMCS, as the instructions do it.

    def _read(self, vcpu: Vcpu, field: int) -> int:
        host = vcpu.loaded_on
        if host is None:
            raise SimulationError(f"VMREAD of {field:#x} for vCPU {vcpu.vcpu_id}, whose VMCS is not current")
        result, value = host.processor.vmx.vmread(field)
        if result:
            raise SimulationError(f"VMREAD of field {field:#x} failed: {result}")
        return value

    def _write(self, vcpu: Vcpu, field: int, value: int) -> None:
        host = vcpu.loaded_on
        if host is None:
            raise SimulationError(f"VMWRITE of {field:#x} for vCPU {vcpu.vcpu_id}, whose VMCS is not current")
        result = host.processor.vmx.vmwrite(field, value)
        if result:
            raise SimulationError(f"VMWRITE of field {field:#x} failed: {result}")

    def _set_bits(self, vcpu: Vcpu, field: int, bits: int, on: bool) -> None:
        old = self._read(vcpu, field)
        self._write(vcpu, field, old | bits if on else old & ~bits)

    # Hardware and vCPU life.

    def hardware_enable(self, host: HostCpu) -> None:
        p = host.processor
        region = self._kernel.alloc_page()
        p.bus.write(region, 4, VMCS_REVISION_ID)
        self._regions[host.index] = region
        p.state.cr4 |= Cr4.VMXE
        if p.vmx.vmxon(region):
            raise SimulationError("VMXON failed")

    def vcpu_create(self, vcpu: Vcpu) -> None:
        """The first load happens before there is a VMCS: make one, then load it (vmx_vcpu_create, init_vmcs)."""
        host = vcpu.loaded_on
        assert host is not None
        page = vcpu.vm.host.alloc_page()
        host.processor.bus.write(page, 4, VMCS_REVISION_ID)
        self._vpid += 1
        vcpu.vendor = VmxVcpu(page, self._vpid)
        host.processor.vmx.vmclear(page)
        self.vcpu_load(vcpu, host)
        self._init_vmcs(vcpu)
        self._reset(vcpu)

    def vcpu_free(self, vcpu: Vcpu) -> None:
        vcpu.vm.host.free_page(vcpu.vendor.vmcs)

    def _init_vmcs(self, vcpu: Vcpu) -> None:
        params = self.params
        pin = PIN_DEFAULT1 | PinBased.NMI_EXITING | PinBased.VIRTUAL_NMIS
        if params.intr_exiting:
            pin |= PinBased.EXTERNAL_INTERRUPT_EXITING
        proc = PROC_TRUE_DEFAULT1 | ProcBased.HLT_EXITING | ProcBased.UNCONDITIONAL_IO_EXITING | ProcBased.USE_TSC_OFFSETTING | ProcBased.SECONDARY_CONTROLS
        # Without a TPR shadow MOV to CR8 would reach the host's own task priority.
        proc |= ProcBased.CR8_LOAD_EXITING | ProcBased.CR8_STORE_EXITING
        proc2 = ProcBased2.ENABLE_EPT | ProcBased2.ENABLE_VPID | ProcBased2.UNRESTRICTED_GUEST | ProcBased2.ENABLE_RDTSCP
        leave = EXIT_TRUE_DEFAULT1 | ExitControls.HOST_ADDRESS_SPACE_SIZE | ExitControls.SAVE_DEBUG_CONTROLS
        leave |= ExitControls.SAVE_IA32_PAT | ExitControls.LOAD_IA32_PAT | ExitControls.SAVE_IA32_EFER | ExitControls.LOAD_IA32_EFER
        if params.ack_on_exit and params.intr_exiting:
            leave |= ExitControls.ACKNOWLEDGE_INTERRUPT_ON_EXIT
        enter = ENTRY_TRUE_DEFAULT1 | EntryControls.LOAD_DEBUG_CONTROLS | EntryControls.LOAD_IA32_PAT | EntryControls.LOAD_IA32_EFER
        for field, value in (
            (Vmcs.PIN_BASED_VM_EXEC_CONTROL, pin),
            (Vmcs.CPU_BASED_VM_EXEC_CONTROL, proc),
            (Vmcs.SECONDARY_VM_EXEC_CONTROL, proc2),
            (Vmcs.VM_EXIT_CONTROLS, leave),
            (Vmcs.VM_ENTRY_CONTROLS, enter),
            (Vmcs.EXCEPTION_BITMAP, 1 << Vector.MC),
            (Vmcs.VIRTUAL_PROCESSOR_ID, vcpu.vendor.vpid),
            (Vmcs.VMCS_LINK_POINTER, MASK64),
            (Vmcs.EPT_POINTER, vcpu.vm.mmu.root | EPTP_WB | 3 << 3 | EPTP_ACCESSED_DIRTY),
            (Vmcs.CR0_GUEST_HOST_MASK, _CR0_HOST_OWNED),
            (Vmcs.CR4_GUEST_HOST_MASK, _CR4_HOST_OWNED),
            (Vmcs.TSC_OFFSET, vcpu.tsc_offset),
        ):
            self._write(vcpu, field, int(value))

    def _reset(self, vcpu: Vcpu) -> None:
        """The guest's power-up state (SDM vol. 3 table 10-1)."""
        put = vcpu.put
        for name in ("es", "ss", "ds", "fs", "gs"):
            self._put_segment(vcpu, name, 0, 0, 0xFFFF, 0x93)
        self._put_segment(vcpu, "cs", 0xF000, 0xFFFF0000, 0xFFFF, 0x9B)
        self._put_segment(vcpu, "ldtr", 0, 0, 0xFFFF, 0x82)
        self._put_segment(vcpu, "tr", 0, 0, 0xFFFF, 0x8B)
        put("gdtr_limit", 0xFFFF)
        put("idtr_limit", 0xFFFF)
        put("rip", 0xFFF0)
        put("rflags", 2)
        put("dr7", 0x400)
        put("pat", 0x0007040600070406)
        put("efer", 0)
        put("cr0", int(Cr0.ET | Cr0.CD | Cr0.NW))
        put("cr4", 0)

    def _put_segment(self, vcpu: Vcpu, name: str, *parts: int) -> None:
        for part, value in zip(("selector", "base", "limit", "ar"), parts, strict=True):
            vcpu.put(f"{name}_{part}", value)

    # Loading.

    def vcpu_load(self, vcpu: Vcpu, host: HostCpu) -> None:
        vendor: VmxVcpu | None = vcpu.vendor
        if vendor is None:
            return
        unit = host.processor.vmx
        if host.processor.state.vmcs_pointer != vendor.vmcs and unit.vmptrld(vendor.vmcs):
            raise SimulationError("VMPTRLD failed")
        self._write_host_state(vcpu, host)

    def _write_host_state(self, vcpu: Vcpu, host: HostCpu) -> None:
        """vmx_set_constant_host_state: what the exit will load."""
        s = host.processor.state
        for field, value in (
            (Vmcs.HOST_CR0, s.cr0), (Vmcs.HOST_CR3, s.cr3), (Vmcs.HOST_CR4, s.cr4), (Vmcs.HOST_IA32_EFER, s.efer), (Vmcs.HOST_IA32_PAT, s.pat),
            (Vmcs.HOST_CS_SELECTOR, s.cs.selector), (Vmcs.HOST_SS_SELECTOR, s.ss.selector), (Vmcs.HOST_DS_SELECTOR, s.ds.selector),
            (Vmcs.HOST_ES_SELECTOR, s.es.selector), (Vmcs.HOST_FS_SELECTOR, s.fs.selector), (Vmcs.HOST_GS_SELECTOR, s.gs.selector),
            (Vmcs.HOST_TR_SELECTOR, s.tr.selector), (Vmcs.HOST_TR_BASE, s.tr.base), (Vmcs.HOST_FS_BASE, s.fs.base), (Vmcs.HOST_GS_BASE, s.gs.base),
            (Vmcs.HOST_GDTR_BASE, s.gdtr_base), (Vmcs.HOST_IDTR_BASE, s.idtr_base), (Vmcs.HOST_IA32_SYSENTER_CS, s.sysenter_cs),
            (Vmcs.HOST_IA32_SYSENTER_ESP, s.sysenter_esp), (Vmcs.HOST_IA32_SYSENTER_EIP, s.sysenter_eip), (Vmcs.HOST_RSP, s.rsp), (Vmcs.HOST_RIP, VMX_VMEXIT),
        ):  # fmt: skip
            self._write(vcpu, field, value)

    def vcpu_put(self, vcpu: Vcpu, host: HostCpu) -> None:
        """On one processor the VMCS stays active and current. With several it may be loaded elsewhere next, and must be written back first (SDM vol.
        3 §25.11.1). KVM asks the
        old processor for that VMCLEAR by IPI when the time comes (loaded_vmcs_clear); here it is done at once."""
        if len(self._kernel.cpus) > 1:
            host.processor.vmx.vmclear(vcpu.vendor.vmcs)
            vcpu.vendor.launched = False

    # Entering and leaving.

    def prepare_switch_to_guest(self, vcpu: Vcpu, host: HostCpu) -> None:
        """Host state that may have changed since the load is written by `vcpu_load`; nothing is left to do here."""

    def vcpu_run(self, vcpu: Vcpu, host: HostCpu) -> bool:
        p, vendor = host.processor, vcpu.vendor
        for i in range(16):
            if i != Gpr.RSP:
                p.state.q[i] = vcpu.regs[i]
        vendor.fail = p.vmx.vmresume() if vendor.launched else p.vmx.vmlaunch()
        return vendor.fail == 0 and p.guest is not None

    def vcpu_ran(self, vcpu: Vcpu, host: HostCpu) -> None:
        vendor = vcpu.vendor
        if vendor.fail:
            vendor.exit_reason = EXIT_REASON_ENTRY_FAILURE
            return
        vendor.exit_reason = self._read(vcpu, Vmcs.VM_EXIT_REASON)
        if vendor.exit_reason & EXIT_REASON_ENTRY_FAILURE:
            return
        vcpu.regs[:] = host.processor.state.q[:16]
        vendor.launched = True
        x86.requeue(vcpu, self._read(vcpu, Vmcs.IDT_VECTORING_INFO_FIELD), self._read(vcpu, Vmcs.IDT_VECTORING_ERROR_CODE))

    def exit_info(self, vcpu: Vcpu) -> tuple[int, str, int, int, int, int]:
        reason = vcpu.vendor.exit_reason
        if vcpu.vendor.fail:
            return reason, "VMFAIL", vcpu.vendor.fail, 0, 0, 0
        basic = reason & 0xFFFF
        name = ExitReason(basic).name if basic in ExitReason.__members__.values() else f"reason {basic}"
        return (
            reason, name, self._read(vcpu, Vmcs.EXIT_QUALIFICATION), self._read(vcpu, Vmcs.IDT_VECTORING_INFO_FIELD),
            self._read(vcpu, Vmcs.VM_EXIT_INTR_INFO), self._read(vcpu, Vmcs.VM_EXIT_INTR_ERROR_CODE),
        )  # fmt: skip

    def handle_exit_irqoff(self, vcpu: Vcpu, host: HostCpu) -> None:
        reason = vcpu.vendor.exit_reason
        if reason == ExitReason.EXTERNAL_INTERRUPT:
            info = self._read(vcpu, Vmcs.VM_EXIT_INTR_INFO)
            if info & INTR_INFO_VALID:
                # Acknowledged by the exit: nobody else will call the handler.
                host.handle_external_interrupt_irqoff(info & 0xFF)
        elif reason == ExitReason.EXCEPTION_OR_NMI and self._read(vcpu, Vmcs.VM_EXIT_INTR_INFO) >> 8 & 7 == InterruptionType.NMI:
            host.handle_nmi_irqoff()

    def handle_exit(self, vcpu: Vcpu, host: HostCpu) -> int:
        host.charge("handle_exit")
        vendor = vcpu.vendor
        if vendor.fail or vendor.exit_reason & EXIT_REASON_ENTRY_FAILURE:
            vcpu.exit = ExitFailEntry(vendor.fail or vendor.exit_reason, host.index)
            return 0
        handler = _HANDLERS.get(vendor.exit_reason)
        if handler is None:
            vcpu.exit = ExitUnknown(vendor.exit_reason)
            return 0
        return handler(self, vcpu, host)

    # Events.

    def interrupt_allowed(self, vcpu: Vcpu) -> bool:
        shadow = self._read(vcpu, Vmcs.GUEST_INTERRUPTIBILITY_INFO) & 3
        return bool(self._read(vcpu, Vmcs.GUEST_RFLAGS) & Rflags.IF) and not shadow

    def nmi_allowed(self, vcpu: Vcpu) -> bool:
        blocking = Interruptibility.BLOCKING_BY_MOV_SS | Interruptibility.BLOCKING_BY_STI | Interruptibility.BLOCKING_BY_NMI
        return not self._read(vcpu, Vmcs.GUEST_INTERRUPTIBILITY_INFO) & blocking

    def _inject(self, vcpu: Vcpu, vector: int, kind: InterruptionType, error_code: int | None = None) -> None:
        if error_code is not None:
            self._write(vcpu, Vmcs.VM_ENTRY_EXCEPTION_ERROR_CODE, error_code)
        info = vector | kind << 8 | INTR_INFO_VALID | (INTR_INFO_ERROR_CODE if error_code is not None else 0)
        self._write(vcpu, Vmcs.VM_ENTRY_INTR_INFO_FIELD, info)
        self._write(vcpu, Vmcs.GUEST_ACTIVITY_STATE, 0)

    def inject_irq(self, vcpu: Vcpu, vector: int, soft: bool) -> None:
        self._inject(vcpu, vector, InterruptionType.EXTERNAL)

    def inject_nmi(self, vcpu: Vcpu) -> None:
        # A virtual NMI that goes in again must not find itself blocked by its own first attempt.
        self._set_bits(vcpu, Vmcs.GUEST_INTERRUPTIBILITY_INFO, Interruptibility.BLOCKING_BY_NMI, False)
        self._inject(vcpu, Vector.NMI, InterruptionType.NMI)

    def inject_exception(self, vcpu: Vcpu, vector: int, error_code: int | None) -> None:
        if not self._read(vcpu, Vmcs.GUEST_CR0) & Cr0.PE:
            error_code = None  # no error codes in real mode (SDM vol. 3 §27.2.1.3)
        self._inject(vcpu, vector, InterruptionType.HARDWARE_EXCEPTION, error_code)

    def enable_irq_window(self, vcpu: Vcpu) -> None:
        self._set_bits(vcpu, Vmcs.CPU_BASED_VM_EXEC_CONTROL, ProcBased.INTERRUPT_WINDOW_EXITING, True)

    def enable_nmi_window(self, vcpu: Vcpu) -> None:
        self._set_bits(vcpu, Vmcs.CPU_BASED_VM_EXEC_CONTROL, ProcBased.NMI_WINDOW_EXITING, True)

    # State.

    def get_state(self, vcpu: Vcpu, name: str) -> int:
        match name:
            case "cr0":
                return self._shadowed(vcpu, Vmcs.GUEST_CR0, Vmcs.CR0_READ_SHADOW, _CR0_HOST_OWNED)
            case "cr4":
                return self._shadowed(vcpu, Vmcs.GUEST_CR4, Vmcs.CR4_READ_SHADOW, _CR4_HOST_OWNED)
            case "efer":
                return self._read(vcpu, Vmcs.GUEST_IA32_EFER)
        return self._read(vcpu, _FIELDS[name])

    def _shadowed(self, vcpu: Vcpu, field: int, shadow: int, owned: int) -> int:
        return self._read(vcpu, field) & ~owned | self._read(vcpu, shadow) & owned

    def set_state(self, vcpu: Vcpu, name: str, value: int) -> None:
        match name:
            case "cr0":
                self._write(vcpu, Vmcs.CR0_READ_SHADOW, value)
                self._write(vcpu, Vmcs.GUEST_CR0, value | _CR0_HOST_OWNED)
            case "cr4":
                self._write(vcpu, Vmcs.CR4_READ_SHADOW, value)
                self._write(vcpu, Vmcs.GUEST_CR4, value | _CR4_HOST_OWNED)
            case "efer":
                self._write(vcpu, Vmcs.GUEST_IA32_EFER, value)
                self._set_bits(vcpu, Vmcs.VM_ENTRY_CONTROLS, EntryControls.IA32E_MODE_GUEST, bool(value & Efer.LMA))
            case _:
                self._write(vcpu, _FIELDS[name], value)

    def skip_emulated_instruction(self, vcpu: Vcpu) -> None:
        rip = self._read(vcpu, Vmcs.GUEST_RIP) + self._read(vcpu, Vmcs.VM_EXIT_INSTRUCTION_LEN)
        self._write(vcpu, Vmcs.GUEST_RIP, rip & MASK64)
        self.clear_shadow(vcpu)

    def clear_shadow(self, vcpu: Vcpu) -> None:
        self._set_bits(vcpu, Vmcs.GUEST_INTERRUPTIBILITY_INFO, 3, False)

    # Exit handlers: 1 back to the guest, 0 to user space.

    def _handle_exception_nmi(self, vcpu: Vcpu, host: HostCpu) -> int:
        info = self._read(vcpu, Vmcs.VM_EXIT_INTR_INFO)
        if info >> 8 & 7 == InterruptionType.NMI:
            return 1  # the host's NMI was handled with interrupts off
        return x86.internal_error(vcpu, 2, info, self._read(vcpu, Vmcs.VM_EXIT_INTR_ERROR_CODE))

    def _handle_external_interrupt(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.stat.irq_exits += 1
        return 1

    def _handle_triple_fault(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.exit = ExitShutdown()
        return 0

    def _handle_interrupt_window(self, vcpu: Vcpu, host: HostCpu) -> int:
        self._set_bits(vcpu, Vmcs.CPU_BASED_VM_EXEC_CONTROL, ProcBased.INTERRUPT_WINDOW_EXITING, False)
        vcpu.stat.irq_window_exits += 1
        vcpu.make_request(Request.EVENT)
        return 1

    def _handle_nmi_window(self, vcpu: Vcpu, host: HostCpu) -> int:
        self._set_bits(vcpu, Vmcs.CPU_BASED_VM_EXEC_CONTROL, ProcBased.NMI_WINDOW_EXITING, False)
        vcpu.stat.nmi_window_exits += 1
        vcpu.make_request(Request.EVENT)
        return 1

    def _handle_io(self, vcpu: Vcpu, host: HostCpu) -> int:
        q, qualification = IoQualification, self._read(vcpu, Vmcs.EXIT_QUALIFICATION)
        write, string = not q.IN.get(qualification), bool(q.STRING.get(qualification))
        return x86.emulate_pio(vcpu, host, q.PORT.get(qualification), q.SIZE.get(qualification) + 1, write, string)

    def _handle_cr(self, vcpu: Vcpu, host: HostCpu) -> int:
        q, qualification = CrQualification, self._read(vcpu, Vmcs.EXIT_QUALIFICATION)
        cr, gpr, access = q.NUMBER.get(qualification), q.GPR.get(qualification), q.ACCESS.get(qualification)
        if access == CrAccess.MOV_FROM_CR:
            self._set_gpr(vcpu, gpr, vcpu.get_cr8())
            self.skip_emulated_instruction(vcpu)
            return 1
        if access == CrAccess.LMSW:
            value = self.get_state(vcpu, "cr0") & ~0xE | q.LMSW_SOURCE.get(qualification) & 0xF
        else:
            value = self._read(vcpu, Vmcs.GUEST_RSP) if gpr == Gpr.RSP else vcpu.regs[gpr]
        if not self._set_cr(vcpu, cr, value):
            vcpu.queue_exception(Vector.GP, 0)
            return 1
        self.skip_emulated_instruction(vcpu)
        return 1

    def _set_gpr(self, vcpu: Vcpu, gpr: int, value: int) -> None:
        if gpr == Gpr.RSP:
            self._write(vcpu, Vmcs.GUEST_RSP, value)
        else:
            vcpu.regs[gpr] = value

    def _set_cr(self, vcpu: Vcpu, cr: int, value: int) -> bool:
        """kvm_set_cr0, kvm_set_cr4, kvm_set_cr8; False: #GP(0)."""
        if cr == 8:
            if value >> 4:
                return False
            vcpu.set_cr8(value)
            return True
        if cr == 4:
            if value & Cr4.VMXE:
                return False  # no nested virtualization
            self.set_state(vcpu, "cr4", value)
            return True
        if value >> 32 or (value & Cr0.PG and not value & Cr0.PE) or (value & Cr0.NW and not value & Cr0.CD):
            return False
        self._paging_changed(vcpu, value)
        self.set_state(vcpu, "cr0", value | Cr0.ET)
        return True

    def _paging_changed(self, vcpu: Vcpu, new: int) -> None:
        """Long mode comes and goes with paging (SDM vol. 3 §10.8.5)."""
        efer, old = self.get_state(vcpu, "efer"), self.get_state(vcpu, "cr0")
        if efer & Efer.LME and (new ^ old) & Cr0.PG:
            self.set_state(vcpu, "efer", efer | Efer.LMA if new & Cr0.PG else efer & ~Efer.LMA)

    def _handle_ept_violation(self, vcpu: Vcpu, host: HostCpu) -> int:
        qualification = self._read(vcpu, Vmcs.EXIT_QUALIFICATION)
        return x86.page_fault(vcpu, host, self._read(vcpu, Vmcs.GUEST_PHYSICAL_ADDRESS), bool(qualification & EptViolation.WRITE), qualification)

    def _handle_ept_misconfig(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.exit = ExitUnknown(int(ExitReason.EPT_MISCONFIGURATION))
        return 0

    def _handle_skip(self, vcpu: Vcpu, host: HostCpu) -> int:
        self.skip_emulated_instruction(vcpu)
        return 1

    def _handle_ud(self, vcpu: Vcpu, host: HostCpu) -> int:
        vcpu.queue_exception(Vector.UD)
        return 1


def _common(function: Callable[[Vcpu, HostCpu], int]) -> Callable[[VmxOps, Vcpu, HostCpu], int]:
    return lambda ops, vcpu, host: function(vcpu, host)


#: Instructions that the guest's CPUID does not offer: #UD.
_NOT_OFFERED: Final = (
    ExitReason.VMCLEAR, ExitReason.VMLAUNCH, ExitReason.VMPTRLD, ExitReason.VMPTRST, ExitReason.VMREAD, ExitReason.VMRESUME, ExitReason.VMWRITE,
    ExitReason.VMXOFF, ExitReason.VMXON, ExitReason.INVEPT, ExitReason.INVVPID, ExitReason.XSETBV, ExitReason.GETSEC,
)  # fmt: skip
#: kvm_vmx_exit_handlers.
_HANDLERS: Final[dict[int, Callable[[VmxOps, Vcpu, HostCpu], int]]] = {
    ExitReason.EXCEPTION_OR_NMI: VmxOps._handle_exception_nmi,
    ExitReason.EXTERNAL_INTERRUPT: VmxOps._handle_external_interrupt,
    ExitReason.TRIPLE_FAULT: VmxOps._handle_triple_fault,
    ExitReason.INTERRUPT_WINDOW: VmxOps._handle_interrupt_window,
    ExitReason.NMI_WINDOW: VmxOps._handle_nmi_window,
    ExitReason.IO_INSTRUCTION: VmxOps._handle_io,
    ExitReason.CR_ACCESS: VmxOps._handle_cr,
    ExitReason.CPUID: _common(x86.emulate_cpuid),
    ExitReason.RDMSR: _common(x86.emulate_rdmsr),
    ExitReason.WRMSR: _common(x86.emulate_wrmsr),
    ExitReason.HLT: _common(x86.emulate_halt),
    ExitReason.VMCALL: _common(x86.emulate_hypercall),
    ExitReason.EPT_VIOLATION: VmxOps._handle_ept_violation,
    ExitReason.EPT_MISCONFIGURATION: VmxOps._handle_ept_misconfig,
    ExitReason.INVD: VmxOps._handle_skip,
    ExitReason.WBINVD: VmxOps._handle_skip,
    **dict.fromkeys(_NOT_OFFERED, VmxOps._handle_ud),
}  # fmt: skip
