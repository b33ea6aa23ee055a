"""VMRUN and #VMEXIT, in the order in which the processor does them (APM vol. 2 §15.5, §15.6).

After an exit GIF is 0, so that no interrupt is taken whatever the host's RFLAGS.IF, which comes back as it was at VMRUN. The interrupt that caused
the exit is still pending in
the local APIC: SVM never acknowledges it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from worldswitch.arch.registers import DR7_FIXED, Cr0, Efer, Rflags
from worldswitch.arch.svm import EVENT_ERROR_CODE_SHIFT, EVENT_VALID, Save, VmexitCode
from worldswitch.arch.svm import Vmcb as V
from worldswitch.arch.vmx import ActivityState, Interruptibility
from worldswitch.cpu.event import VmExit, info_of
from worldswitch.cpu.svm.checks import first_failure
from worldswitch.cpu.svm.vmcb import Vmcb, load_run_state, save_run_state
from worldswitch.trace.events import HwVmEntry, HwVmEntryFailed, HwVmExit

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_NESTED = 1


def vmrun(cpu: Processor, pointer: int, host_rip: int) -> None:
    """VMRUN after the instruction's own checks. `host_rip`: where the host goes on after the exit. Afterwards the processor is in the guest, or
    already back (`Processor.guest`
    is None): the VMCB was inconsistent."""
    s, unit = cpu.state, cpu.svm
    vmcb = Vmcb(cpu.bus, pointer)
    # Host state to the host save area; its format is the implementation's own, ours is the VMCB's.
    save_run_state(Vmcb(cpu.bus, s.vm_hsave_pa), s, host_rip)
    cpu.cycles += cpu.model.timing.vm_entry
    s.vmcb_pointer = pointer
    unit.vmcb = vmcb
    failure = first_failure(cpu, vmcb)
    if failure is not None:
        if cpu.trace.on:
            cpu.trace.emit(HwVmEntryFailed(cpu.index, cpu.cycles, "VMRUN", -1, failure.name))
        _invalid(cpu, vmcb)
        return
    # Whose IF masks physical interrupts from now on (§15.21.1): the host's as it is here.
    unit.host_if = bool(s.rflags & Rflags.IF)
    host_efer = s.efer
    load_run_state(vmcb, s)
    s.cr0 |= Cr0.ET
    s.efer = s.efer & ~Efer.LMA | (Efer.LMA if s.efer & Efer.LME and s.cr0 & Cr0.PG else 0)
    s.cr2, s.dr6, s.dr7 = vmcb[Save.CR2], vmcb[Save.DR6], vmcb[Save.DR7] | DR7_FIXED
    s.rflags |= Rflags.FIXED
    # CPL is a field of its own; this processor keeps it in SS (§15.5.1).
    cpl = 0 if not s.cr0 & Cr0.PE else 3 if s.rflags & Rflags.VM else vmcb[Save.CPL] & 3
    s.ss.ar = s.ss.ar & ~0x60 | cpl << 5
    s.interruptibility = s.interruptibility & Interruptibility.BLOCKING_BY_NMI | (vmcb[V.INTERRUPT_SHADOW] & 1)
    s.pending_debug = 0
    s.activity = ActivityState.ACTIVE
    s.tsc_offset = vmcb[V.TSC_OFFSET]
    s.v_intr = vmcb[V.V_INTR]
    unit.load_controls(host_efer)
    if unit.nested:
        unit.host_pat, s.pat = s.pat, vmcb[Save.G_PAT]
    s.svm_guest, s.gif = 1, 1
    cpu.guest = unit
    cpu.context_changed()
    event = vmcb[V.EVENTINJ]
    if event & EVENT_VALID:
        s.injection, s.injection_error = event & 0xFFFFFFFF, event >> EVENT_ERROR_CODE_SHIFT
        s.injection_length = max(0, vmcb[V.NRIP] - s.rip) if event >> 8 & 7 == 4 else 0
    if cpu.trace.on:
        cpu.trace.emit(HwVmEntry(cpu.index, cpu.cycles, "VMRUN", s.rip, s.rflags, event & 0xFFFFFFFF if event & EVENT_VALID else 0))


def _invalid(cpu: Processor, vmcb: Vmcb) -> None:
    """VMEXIT_INVALID: nothing of the guest was loaded; only the exit code is written."""
    vmcb[V.EXITCODE], vmcb[V.EXITINFO1], vmcb[V.EXITINFO2], vmcb[V.EXITINTINFO] = VmexitCode.INVALID, 0, 0, 0
    _load_host(cpu)
    _trace_exit(cpu, VmexitCode.INVALID, 0, 0, 0, vmcb[Save.RIP], vmcb[Save.RFLAGS])


def vmexit(cpu: Processor, code: int, info1: int = 0, info2: int = 0, *, next_rip: int = 0) -> NoReturn:
    """#VMEXIT. Raises `VmExit` once host state is loaded."""
    s, unit = cpu.state, cpu.svm
    vmcb = unit.vmcb
    cpu.cycles += cpu.model.timing.vm_exit
    s.gif = 0
    rip, rflags = s.rip, s.rflags
    save_run_state(vmcb, s, rip)
    vmcb[Save.CR2], vmcb[Save.DR6], vmcb[Save.DR7], vmcb[Save.CPL] = s.cr2, s.dr6, s.dr7, cpu.cpl
    if unit.nested:
        vmcb[Save.G_PAT] = s.pat
        s.pat = unit.host_pat
    vmcb[V.INTERRUPT_SHADOW] = int(bool(s.interruptibility & 3))
    # V_TPR, V_IRQ and the virtual GIF are written back, the rest of the word stays as it was (§15.6).
    vmcb[V.V_INTR] = vmcb[V.V_INTR] & ~0x1FF | s.v_intr & 0x1FF
    interrupted, cpu.delivering = cpu.delivering, None
    int_info = 0
    if interrupted is not None:
        kind = 3 if interrupted.type in (5, 6) else int(interrupted.type)
        int_info = info_of(interrupted) & ~0x700 | kind << 8 | (interrupted.error_code or 0) << EVENT_ERROR_CODE_SHIFT
    vmcb[V.EXITINTINFO] = int_info
    vmcb[V.EXITCODE], vmcb[V.EXITINFO1], vmcb[V.EXITINFO2], vmcb[V.NRIP] = code, info1, info2, next_rip
    vmcb[V.EVENTINJ] = vmcb[V.EVENTINJ] & ~EVENT_VALID
    _load_host(cpu)
    _trace_exit(cpu, code, info1, info2, int_info & 0xFFFFFFFF, rip, rflags)
    raise VmExit


def _load_host(cpu: Processor) -> None:
    """Host state from the host save area (§15.6): the host's RFLAGS with its own IF, protection on, CPL 0, breakpoints off."""
    s = cpu.state
    s.gif = 0
    s.svm_guest = 0
    cpu.guest = None
    cpu.shadow = 0
    cpu.stepping = False
    load_run_state(Vmcb(cpu.bus, s.vm_hsave_pa), s)
    s.cr0 |= Cr0.PE
    s.rflags &= ~Rflags.VM
    s.dr7 = DR7_FIXED
    s.interruptibility &= Interruptibility.BLOCKING_BY_NMI
    s.pending_debug = s.injection = 0
    s.activity = ActivityState.ACTIVE
    s.tsc_offset = s.v_intr = 0
    cpu.next_rip = s.rip
    cpu.context_changed()


def _trace_exit(cpu: Processor, code: int, info1: int, info2: int, int_info: int, rip: int, rflags: int) -> None:
    if cpu.trace.on:
        cpu.trace.emit(
            HwVmExit(cpu.index, cpu.cycles, "amd", int(code), exit_name(code), info1, info2, int_info, rip, rflags, cpu.state.rflags, cpu.state.gif)
        )  # fmt: skip


def exit_name(code: int) -> str:
    """The name of an exit code; CR, DR and exception codes carry their number."""
    for base, count, name in ((0x00, 16, "READ_CR{}"), (0x10, 16, "WRITE_CR{}"), (0x20, 16, "READ_DR{}"), (0x30, 16, "WRITE_DR{}"), (0x40, 32, "EXCP{}")):
        if base <= code < base + count:
            return name.format(code - base)
    return VmexitCode(code).name if code in VmexitCode.__members__.values() else f"exit {code:#x}"
