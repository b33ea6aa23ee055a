"""VM entry, in the order in which the processor does it (SDM vol. 3 ch. 27): checks, guest state, MSRs, event injection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.msr import Msr
from worldswitch.arch.registers import DR7_DEFINED, DR7_FIXED, Cr0, Efer, Seg
from worldswitch.arch.vmcs import Vmcs
from worldswitch.arch.vmx import INTR_INFO_VALID, EntryControls, ExitReason, InstructionError, Interruptibility, PinBased
from worldswitch.cpu.event import Fault
from worldswitch.cpu.vmx.checks import AR, BASE, LIMIT, SELECTOR, check_entry
from worldswitch.cpu.vmx.exit import entry_failed
from worldswitch.cpu.vmx.vmcs import VmcsRegion
from worldswitch.trace.events import HwVmEntry, HwVmEntryFailed

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

#: CR0 bits that a VM entry does not load (SDM vol. 3 §27.3.2.1).
_CR0_KEPT: Final = int(Cr0.ET | Cr0.CD | Cr0.NW)
#: MSRs that the VM-entry MSR-load area must not name (§27.4).
_NOT_LOADABLE: Final = (Msr.IA32_FS_BASE, Msr.IA32_GS_BASE)


def vm_entry(cpu: Processor, vmcs: VmcsRegion, name: str) -> InstructionError | None:
    """VMLAUNCH or VMRESUME (`name`) after the instruction's own checks. None: the processor is now in the guest, or the entry failed late and is back
    in the host
    (`cpu.guest` tells). An error number: VMfailValid, nothing has changed."""
    failure = check_entry(cpu, vmcs)
    if failure is not None and failure.error is not None:
        _trace_failure(cpu, name, failure.error, failure.check.name)
        return failure.error
    cpu.cycles += cpu.model.timing.vm_entry
    if failure is not None:
        _trace_failure(cpu, name, ExitReason.ENTRY_FAILURE_GUEST_STATE, failure.check.name)
        entry_failed(cpu, vmcs, ExitReason.ENTRY_FAILURE_GUEST_STATE, failure.check.qualification)
        return None
    entry = vmcs[Vmcs.VM_ENTRY_CONTROLS]
    _load_registers(cpu, vmcs, entry)
    _load_segments(cpu, vmcs)
    _load_non_register_state(cpu, vmcs)
    bad = load_msrs(cpu, vmcs[Vmcs.VM_ENTRY_MSR_LOAD_ADDR], vmcs[Vmcs.VM_ENTRY_MSR_LOAD_COUNT])
    if bad:
        _trace_failure(cpu, name, ExitReason.ENTRY_FAILURE_MSR_LOADING, f"MSR entry {bad}")
        entry_failed(cpu, vmcs, ExitReason.ENTRY_FAILURE_MSR_LOADING, bad)
        return None
    vmcs.launched = True
    cpu.vmx.entered()
    info = vmcs[Vmcs.VM_ENTRY_INTR_INFO_FIELD]
    if info & INTR_INFO_VALID:
        state = cpu.state
        state.injection, state.injection_error = info, vmcs[Vmcs.VM_ENTRY_EXCEPTION_ERROR_CODE]
        state.injection_length = vmcs[Vmcs.VM_ENTRY_INSTRUCTION_LEN]
        state.activity = 0  # an injected event ends HLT (§27.6.2)
    if cpu.trace.on:
        cpu.trace.emit(HwVmEntry(cpu.index, cpu.cycles, name, cpu.state.rip, cpu.state.rflags, info if info & INTR_INFO_VALID else 0))
    return None


def _trace_failure(cpu: Processor, name: str, error: int, check: str) -> None:
    if cpu.trace.on:
        cpu.trace.emit(HwVmEntryFailed(cpu.index, cpu.cycles, name, int(error), check))


def _load_registers(cpu: Processor, vmcs: VmcsRegion, entry: int) -> None:
    """Control registers, debug registers, MSRs, RSP, RIP, RFLAGS (§27.3.2.1, §27.3.2.3)."""
    s = cpu.state
    s.cr0 = vmcs[Vmcs.GUEST_CR0] & ~_CR0_KEPT | s.cr0 & _CR0_KEPT
    s.cr3, s.cr4 = vmcs[Vmcs.GUEST_CR3], vmcs[Vmcs.GUEST_CR4]
    if entry & EntryControls.LOAD_DEBUG_CONTROLS:
        s.dr7 = vmcs[Vmcs.GUEST_DR7] & DR7_DEFINED | DR7_FIXED
        s.debugctl = vmcs[Vmcs.GUEST_IA32_DEBUGCTL]
    s.sysenter_cs, s.sysenter_esp, s.sysenter_eip = vmcs[Vmcs.GUEST_SYSENTER_CS], vmcs[Vmcs.GUEST_SYSENTER_ESP], vmcs[Vmcs.GUEST_SYSENTER_EIP]
    if entry & EntryControls.LOAD_IA32_EFER:
        s.efer = vmcs[Vmcs.GUEST_IA32_EFER]
    else:
        long = bool(entry & EntryControls.IA32E_MODE_GUEST)
        s.efer = s.efer & ~(Efer.LMA | Efer.LME) | (Efer.LMA if long else 0) | (Efer.LME if long or (not s.cr0 & Cr0.PG and s.efer & Efer.LME) else 0)
    if entry & EntryControls.LOAD_IA32_PAT:
        s.pat = vmcs[Vmcs.GUEST_IA32_PAT]
    s.rsp, s.rip, s.rflags = vmcs[Vmcs.GUEST_RSP], vmcs[Vmcs.GUEST_RIP], vmcs[Vmcs.GUEST_RFLAGS]


def _load_segments(cpu: Processor, vmcs: VmcsRegion) -> None:
    """§27.3.2.2. An unusable segment keeps what the fields say of selector and base; nothing can be done with it."""
    for seg in Seg:
        cpu.state.seg[seg].set(vmcs[SELECTOR[seg]], vmcs[BASE[seg]], vmcs[LIMIT[seg]], vmcs[AR[seg]])
    s = cpu.state
    s.gdtr_base, s.gdtr_limit = vmcs[Vmcs.GUEST_GDTR_BASE], vmcs[Vmcs.GUEST_GDTR_LIMIT]
    s.idtr_base, s.idtr_limit = vmcs[Vmcs.GUEST_IDTR_BASE], vmcs[Vmcs.GUEST_IDTR_LIMIT]


def _load_non_register_state(cpu: Processor, vmcs: VmcsRegion) -> None:
    """Activity, interruptibility, pending debug exceptions (§27.3.2.5, §27.7)."""
    s = cpu.state
    s.activity = vmcs[Vmcs.GUEST_ACTIVITY_STATE]
    s.pending_debug = vmcs[Vmcs.GUEST_PENDING_DBG_EXCEPTIONS] & 0x400F
    nmi = Interruptibility.BLOCKING_BY_NMI
    given = vmcs[Vmcs.GUEST_INTERRUPTIBILITY_INFO]
    cpu.vmx.virtual_nmi_blocking = False
    if vmcs[Vmcs.PIN_BASED_VM_EXEC_CONTROL] & PinBased.VIRTUAL_NMIS:
        # The bit is about virtual NMIs; physical ones are as they were in the host (§27.3.2.5).
        cpu.vmx.virtual_nmi_blocking = bool(given & nmi)
        s.interruptibility = given & ~nmi | s.interruptibility & nmi
    else:
        s.interruptibility = given


def load_msrs(cpu: Processor, address: int, count: int) -> int:
    """Load MSRs from an area of 16-byte entries (§27.4, §28.6). 0, or the number (from 1) of the entry that cannot be loaded."""
    for i in range(count):
        entry = cpu.bus.read(address + 16 * i, 16)
        number, reserved, value = entry & 0xFFFFFFFF, entry >> 32 & 0xFFFFFFFF, entry >> 64
        if reserved or number in _NOT_LOADABLE or number >> 8 == 8:
            return i + 1
        try:
            cpu.msrs.write(number, value)
        except Fault:
            return i + 1
    return 0
