"""VM exit, in the order in which the processor does it (SDM vol. 3 ch. 28): information, guest state, MSRs, host state.

After it, RFLAGS is 2: interrupts are off, and the host goes on after its vm-entry instruction with the interrupt that caused the exit still pending
in the local APIC, or,
with "acknowledge interrupt on exit", in the exit-interruption information.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from worldswitch.arch.registers import DR7_FIXED, Cr0, Cr4, Efer, Rflags, Seg
from worldswitch.arch.segments import AR_UNUSABLE
from worldswitch.arch.vmcs import Vmcs
from worldswitch.arch.vmx import (
    EXIT_REASON_ENTRY_FAILURE,
    INTR_INFO_ERROR_CODE,
    INTR_INFO_VALID,
    ActivityState,
    EntryControls,
    ExitControls,
    ExitReason,
    Interruptibility,
    InterruptionType,
)  # fmt: skip
from worldswitch.cpu.event import SOFTWARE, Fault, VmExit, info_of
from worldswitch.cpu.state import MASK64
from worldswitch.cpu.vmx.checks import AR, BASE, LIMIT, SELECTOR
from worldswitch.cpu.vmx.vmcs import VmcsRegion
from worldswitch.errors import SimulationError
from worldswitch.trace.events import HwVmExit

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

#: CR0 bits that a VM exit does not load (SDM vol. 3 §28.5.1).
_CR0_KEPT: Final = int(Cr0.ET | Cr0.CD | Cr0.NW)


@dataclass(slots=True)
class ExitInfo:
    """What is recorded in the VM-exit information fields (§28.2); None where the manual leaves a field undefined and this processor clears it."""

    reason: ExitReason
    qualification: int = 0
    interruption: int = 0
    error_code: int = 0
    instruction_length: int = 0
    instruction_info: int = 0
    linear: int = 0
    gpa: int = 0


def vm_exit(cpu: Processor, vmcs: VmcsRegion, info: ExitInfo) -> NoReturn:
    """Leave the guest. Raises `VmExit` once host state is loaded."""
    state = cpu.state
    cpu.cycles += cpu.model.timing.vm_exit
    controls = vmcs[Vmcs.VM_EXIT_CONTROLS]
    if info.reason is ExitReason.EXTERNAL_INTERRUPT and controls & ExitControls.ACKNOWLEDGE_INTERRUPT_ON_EXIT:
        # The processor acknowledges the interrupt as part of the exit (§28.2.2).
        info.interruption = cpu.apic.acknowledge() | InterruptionType.EXTERNAL << 8 | INTR_INFO_VALID
    guest_rip, guest_rflags = state.rip, state.rflags
    _record(cpu, vmcs, info)
    _save_guest(cpu, vmcs, controls)
    _store_msrs(cpu, vmcs)
    _leave(cpu, vmcs, controls)
    if info.reason is ExitReason.EXCEPTION_OR_NMI and info.interruption >> 8 & 7 == InterruptionType.NMI:
        state.interruptibility |= Interruptibility.BLOCKING_BY_NMI  # §28.5.5
    if cpu.trace.on:
        cpu.trace.emit(
            HwVmExit(
                cpu.index, cpu.cycles, "intel", int(info.reason), info.reason.name, info.qualification, info.gpa, info.interruption,
                guest_rip, guest_rflags, state.rflags, 1,
            )
        )  # fmt: skip
    raise VmExit


def entry_failed(cpu: Processor, vmcs: VmcsRegion, reason: ExitReason, qualification: int) -> None:
    """A VM entry that fails after its controls and host state proved good: looks like an exit, but saves no guest state (§27.8)."""
    vmcs[Vmcs.VM_EXIT_REASON] = reason | EXIT_REASON_ENTRY_FAILURE
    vmcs[Vmcs.EXIT_QUALIFICATION] = qualification
    _leave(cpu, vmcs, vmcs[Vmcs.VM_EXIT_CONTROLS])


def _record(cpu: Processor, vmcs: VmcsRegion, info: ExitInfo) -> None:
    vmcs[Vmcs.VM_EXIT_REASON] = info.reason
    vmcs[Vmcs.EXIT_QUALIFICATION] = info.qualification
    vmcs[Vmcs.VM_EXIT_INTR_INFO] = info.interruption
    if info.interruption & INTR_INFO_ERROR_CODE:
        vmcs[Vmcs.VM_EXIT_INTR_ERROR_CODE] = info.error_code
    vmcs[Vmcs.VMX_INSTRUCTION_INFO] = info.instruction_info
    vmcs[Vmcs.GUEST_LINEAR_ADDRESS] = info.linear
    vmcs[Vmcs.GUEST_PHYSICAL_ADDRESS] = info.gpa
    length = info.instruction_length
    # IDT-vectoring information: the event during whose delivery the exit happened (§28.2.4).
    vectoring, cpu.delivering = cpu.delivering, None
    vmcs[Vmcs.IDT_VECTORING_INFO_FIELD] = 0 if vectoring is None else info_of(vectoring)
    if vectoring is not None:
        vmcs[Vmcs.IDT_VECTORING_ERROR_CODE] = vectoring.error_code or 0
        if vectoring.type in SOFTWARE:
            length = vectoring.length
    vmcs[Vmcs.VM_EXIT_INSTRUCTION_LEN] = length
    vmcs[Vmcs.VM_ENTRY_INTR_INFO_FIELD] = vmcs[Vmcs.VM_ENTRY_INTR_INFO_FIELD] & ~INTR_INFO_VALID  # §28.2: not injected twice


def _save_guest(cpu: Processor, vmcs: VmcsRegion, controls: int) -> None:
    """§28.3."""
    s = cpu.state
    vmcs[Vmcs.GUEST_CR0], vmcs[Vmcs.GUEST_CR3], vmcs[Vmcs.GUEST_CR4] = s.cr0, s.cr3, s.cr4
    vmcs[Vmcs.GUEST_SYSENTER_CS], vmcs[Vmcs.GUEST_SYSENTER_ESP], vmcs[Vmcs.GUEST_SYSENTER_EIP] = s.sysenter_cs, s.sysenter_esp, s.sysenter_eip
    if controls & ExitControls.SAVE_DEBUG_CONTROLS:
        vmcs[Vmcs.GUEST_DR7], vmcs[Vmcs.GUEST_IA32_DEBUGCTL] = s.dr7, s.debugctl
    if controls & ExitControls.SAVE_IA32_PAT:
        vmcs[Vmcs.GUEST_IA32_PAT] = s.pat
    if controls & ExitControls.SAVE_IA32_EFER:
        vmcs[Vmcs.GUEST_IA32_EFER] = s.efer
    # §28.3.1: the entry control follows EFER.LMA (IA32_VMX_MISC bit 5).
    long = int(EntryControls.IA32E_MODE_GUEST)
    vmcs[Vmcs.VM_ENTRY_CONTROLS] = vmcs[Vmcs.VM_ENTRY_CONTROLS] & ~long | (long if s.efer & Efer.LMA else 0)
    for seg in Seg:
        vmcs[SELECTOR[seg]], vmcs[BASE[seg]], vmcs[LIMIT[seg]], vmcs[AR[seg]] = s.seg[seg].get()
    vmcs[Vmcs.GUEST_GDTR_BASE], vmcs[Vmcs.GUEST_GDTR_LIMIT] = s.gdtr_base, s.gdtr_limit
    vmcs[Vmcs.GUEST_IDTR_BASE], vmcs[Vmcs.GUEST_IDTR_LIMIT] = s.idtr_base, s.idtr_limit
    vmcs[Vmcs.GUEST_RSP], vmcs[Vmcs.GUEST_RIP], vmcs[Vmcs.GUEST_RFLAGS] = s.rsp, s.rip, s.rflags
    vmcs[Vmcs.GUEST_ACTIVITY_STATE] = s.activity
    vmcs[Vmcs.GUEST_PENDING_DBG_EXCEPTIONS] = s.pending_debug
    nmi = Interruptibility.BLOCKING_BY_NMI
    if cpu.vmx.virtual_nmis:
        vmcs[Vmcs.GUEST_INTERRUPTIBILITY_INFO] = s.interruptibility & ~nmi | (nmi if cpu.vmx.virtual_nmi_blocking else 0)
    else:
        vmcs[Vmcs.GUEST_INTERRUPTIBILITY_INFO] = s.interruptibility


def _store_msrs(cpu: Processor, vmcs: VmcsRegion) -> None:
    """§28.4. An MSR that cannot be stored is a VMX abort."""
    address = vmcs[Vmcs.VM_EXIT_MSR_STORE_ADDR]
    for i in range(vmcs[Vmcs.VM_EXIT_MSR_STORE_COUNT]):
        number = cpu.bus.read(address + 16 * i, 4)
        try:
            cpu.bus.write(address + 16 * i + 8, 8, cpu.msrs.read(number))
        except Fault:
            raise SimulationError(f"VMX abort: the VM-exit MSR-store area names MSR {number:#x}, which cannot be read") from None


def _leave(cpu: Processor, vmcs: VmcsRegion, controls: int) -> None:
    """Load host state (§28.5)."""
    s = cpu.state
    long = bool(controls & ExitControls.HOST_ADDRESS_SPACE_SIZE)
    s.vmx_operation = 1
    cpu.guest = None
    cpu.shadow = 0
    cpu.vmx.virtual_nmi_blocking = False
    # §28.5.1: control registers, debug registers, MSRs.
    s.cr0 = vmcs[Vmcs.HOST_CR0] & ~_CR0_KEPT | s.cr0 & _CR0_KEPT
    s.cr3 = vmcs[Vmcs.HOST_CR3]
    s.cr4 = vmcs[Vmcs.HOST_CR4] | (Cr4.PAE if long else 0)
    s.dr7, s.debugctl = DR7_FIXED, 0
    s.sysenter_cs, s.sysenter_esp, s.sysenter_eip = vmcs[Vmcs.HOST_IA32_SYSENTER_CS], vmcs[Vmcs.HOST_IA32_SYSENTER_ESP], vmcs[Vmcs.HOST_IA32_SYSENTER_EIP]
    if controls & ExitControls.LOAD_IA32_EFER:
        s.efer = vmcs[Vmcs.HOST_IA32_EFER]
    else:
        s.efer = s.efer & ~(Efer.LMA | Efer.LME) | (Efer.LMA | Efer.LME if long else 0)
    if controls & ExitControls.LOAD_IA32_PAT:
        s.pat = vmcs[Vmcs.HOST_IA32_PAT]
    # §28.5.2: segments with their fixed hidden parts.
    s.cs.set(vmcs[Vmcs.HOST_CS_SELECTOR], 0, 0xFFFFFFFF, 0xA09B if long else 0xC09B)
    for segment, field, base in (
        (s.ss, Vmcs.HOST_SS_SELECTOR, 0),
        (s.ds, Vmcs.HOST_DS_SELECTOR, 0),
        (s.es, Vmcs.HOST_ES_SELECTOR, 0),
        (s.fs, Vmcs.HOST_FS_SELECTOR, vmcs[Vmcs.HOST_FS_BASE]),
        (s.gs, Vmcs.HOST_GS_SELECTOR, vmcs[Vmcs.HOST_GS_BASE]),
    ):
        selector = vmcs[field]
        segment.set(selector, base, 0xFFFFFFFF, 0xC093 if selector else AR_UNUSABLE)
    s.tr.set(vmcs[Vmcs.HOST_TR_SELECTOR], vmcs[Vmcs.HOST_TR_BASE], 0x67, 0x8B)
    s.ldtr.set(0, 0, 0, AR_UNUSABLE)
    s.gdtr_base, s.gdtr_limit = vmcs[Vmcs.HOST_GDTR_BASE], 0xFFFF
    s.idtr_base, s.idtr_limit = vmcs[Vmcs.HOST_IDTR_BASE], 0xFFFF
    # §28.5.3: RFLAGS is cleared but for bit 1, so interrupts are off.
    s.rsp, s.rip, s.rflags = vmcs[Vmcs.HOST_RSP], vmcs[Vmcs.HOST_RIP], int(Rflags.FIXED)
    # §28.5.5: non-register state.
    s.interruptibility &= Interruptibility.BLOCKING_BY_NMI
    s.pending_debug = s.injection = 0
    s.activity = ActivityState.ACTIVE
    s.tsc_offset = 0
    cpu.stepping = False
    cpu.next_rip = s.rip & MASK64
    cpu.context_changed()
    bad = cpu.vmx.load_exit_msrs(vmcs)
    if bad:
        raise SimulationError(f"VMX abort: entry {bad} of the VM-exit MSR-load area cannot be loaded")
