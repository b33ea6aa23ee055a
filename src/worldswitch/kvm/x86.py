"""The run loop and what both vendors share: entering and leaving the guest, events, MSRs, CPUID, HLT, port I/O.

The path of a world switch on the host's side, top to bottom: `vcpu_run` -> `vcpu_enter_guest` -> (the guest) -> `vcpu_left_guest` -> `vcpu_run`. A
thread has no stack, so what in C is one
function around the vm-entry instruction is two here, before and after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.msr import DEBUGCTL_DEFINED, PAT_TYPES, X2APIC_FIRST, X2APIC_LAST, Msr
from worldswitch.arch.registers import Cr0, Cr4, Efer, Gpr
from worldswitch.cpu.state import MASK64
from worldswitch.host.task import Park
from worldswitch.kvm import emulate
from worldswitch.kvm.cpuid import lookup
from worldswitch.kvm.exits import ExitHlt, ExitInternalError, ExitIo, ExitShutdown
from worldswitch.kvm.host import HostCpu
from worldswitch.kvm.types import MpState, Request, Sregs, einval
from worldswitch.trace.events import (
    KvmApic,
    KvmCpuid,
    KvmEntry,
    KvmExit,
    KvmHaltPoll,
    KvmInjException,
    KvmInjVirq,
    KvmIrqWindow,
    KvmMsr,
    KvmNmiInject,
    KvmPageFault,
    KvmPio,
    KvmUserspaceExit,
    KvmVcpuWakeup,
)  # fmt: skip

if TYPE_CHECKING:
    from worldswitch.kvm.vcpu import Vcpu

_MASK32: Final = 0xFFFFFFFF
#: What a hypercall that is not known returns in RAX: -KVM_ENOSYS.
_ENOSYS: Final = -1000 & MASK64


# The run loop.


def vcpu_run(vcpu: Vcpu, cpu: HostCpu, *, after_exit: bool = False) -> Park:
    """Enter the guest again and again until user space is needed, the thread must wait, or the scheduler wants the processor. `after_exit`: the guest
    has just exited."""
    while True:
        if vcpu.reemulate:
            vcpu.reemulate = False
            vcpu.exit = None
            if not emulate.emulate_instruction(vcpu, cpu):
                return _to_user(vcpu, cpu)
        elif after_exit:
            after_exit = False
            if not vcpu_left_guest(vcpu, cpu):
                return _to_user(vcpu, cpu)
        elif vcpu.mp_state is not MpState.RUNNABLE:
            if not _vcpu_block(vcpu, cpu):
                return Park.BLOCKED
        elif vcpu_enter_guest(vcpu, cpu):
            return Park.GUEST
        elif vcpu.exit is not None:
            return _to_user(vcpu, cpu)
        # xfer_to_guest_mode_handle_work: the scheduler's turn, if it wants one.
        if cpu.need_resched():
            return Park.PREEMPTED


def vcpu_enter_guest(vcpu: Vcpu, cpu: HostCpu) -> bool:
    """The half before the vm-entry instruction. True: the processor is in the guest. False: not entered (work to do first, or an exit to user space)."""
    ops = vcpu.ops
    vcpu.exit = None
    cpu.charge("vcpu_run_prepare")
    if vcpu.check_request(Request.TRIPLE_FAULT):
        vcpu.exit = ExitShutdown()
        return False
    if vcpu.check_request(Request.TLB_FLUSH):
        cpu.processor.mmu.context_changed()
    if vcpu.check_request(Request.EVENT) or vcpu.has_interrupt():
        inject_pending_event(vcpu, cpu)
    cpu.preempt_disable()
    ops.prepare_switch_to_guest(vcpu, cpu)
    cpu.local_irq_disable("vcpu_enter_guest")
    # Whatever arrived until now was handled by the host and may have left work; whatever arrives from now on is pending and makes the guest exit at
    # its first boundary.
    if vcpu.requests or cpu.need_resched():
        cpu.local_irq_enable("vcpu_enter_guest")
        cpu.preempt_enable()
        vcpu.make_request(Request.EVENT)
        return False
    if cpu.trace.on:
        cpu.trace.emit(KvmEntry(cpu.index, cpu.now(), vcpu.vcpu_id, ops.get_state(vcpu, "rip")))
    cpu.processor.state.cr2 = vcpu.cr2
    vcpu.entering(cpu)
    if ops.vcpu_run(vcpu, cpu):
        return True
    vcpu.left(cpu)
    after_entry(vcpu, cpu)
    return False


def vcpu_left_guest(vcpu: Vcpu, cpu: HostCpu) -> bool:
    """The half after the vm-entry instruction, interrupts off. True: back to the guest; False: to user space."""
    vcpu.left(cpu)
    return after_entry(vcpu, cpu)


def after_entry(vcpu: Vcpu, cpu: HostCpu) -> bool:
    """What follows an exit, and an entry that failed: take up state, let the host's interrupts in, handle the reason."""
    ops = vcpu.ops
    ops.vcpu_ran(vcpu, cpu)
    vcpu.cr2 = cpu.processor.state.cr2
    reason, name, info1, info2, interruption, error_code = ops.exit_info(vcpu)
    vcpu.stat.exits += 1
    vcpu.stat.exits_by_reason[name] += 1
    if cpu.trace.on:
        rip = ops.get_state(vcpu, "rip")
        cpu.trace.emit(KvmExit(cpu.index, cpu.now(), vcpu.vcpu_id, reason, name, rip, ops.isa, info1, info2, interruption, error_code))
    ops.handle_exit_irqoff(vcpu, cpu)
    # Here the host gets its processor back: a pending interrupt is taken now, as on any other kernel code path.
    cpu.local_irq_enable("vcpu_enter_guest")
    cpu.charge("vcpu_run_finish")
    cpu.preempt_enable()
    if vcpu.nmi_injected or vcpu.interrupt_injected or vcpu.exception_injected:
        vcpu.make_request(Request.EVENT)  # an event was interrupted on its way: it goes in again
    return bool(ops.handle_exit(vcpu, cpu))


def _to_user(vcpu: Vcpu, cpu: HostCpu) -> Park:
    if cpu.trace.on:
        cpu.trace.emit(KvmUserspaceExit(cpu.index, cpu.now(), 0, 0))
    return Park.USER


def _vcpu_block(vcpu: Vcpu, cpu: HostCpu) -> bool:
    """kvm_vcpu_block: the guest halted. True: it can go on; False: the thread sleeps."""
    cpu.charge("block")
    vcpu.wait.prepare_to_wait(cpu.current)
    if runnable(vcpu):
        vcpu.wait.finish_wait(cpu.current)
        vcpu.mp_state = MpState.RUNNABLE
        vcpu.make_request(Request.EVENT)
        if cpu.trace.on:
            cpu.trace.emit(KvmVcpuWakeup(cpu.index, cpu.now(), vcpu.vcpu_id, 0, 1, 1))
        return True
    if cpu.trace.on:
        cpu.trace.emit(KvmHaltPoll(cpu.index, cpu.now(), vcpu.vcpu_id))
    return False


def runnable(vcpu: Vcpu) -> bool:
    """kvm_vcpu_has_events: something ends the guest's HLT."""
    return bool(vcpu.nmi_pending) or vcpu.exception_pending is not None or (vcpu.has_interrupt() and vcpu.ops.interrupt_allowed(vcpu))


# Events.


def inject_pending_event(vcpu: Vcpu, cpu: HostCpu) -> None:
    """kvm_check_and_inject_events: what was interrupted on its way goes first, then exceptions, NMIs, interrupts; what cannot go in yet gets a window."""
    ops, trace = vcpu.ops, cpu.trace
    free = True
    if vcpu.exception_injected is not None:
        ops.inject_exception(vcpu, *vcpu.exception_injected)
        free = False
    elif vcpu.nmi_injected:
        ops.inject_nmi(vcpu)
        free = False
    elif vcpu.interrupt_injected is not None:
        ops.inject_irq(vcpu, *vcpu.interrupt_injected)
        if trace.on:
            trace.emit(KvmInjVirq(cpu.index, cpu.now(), vcpu.vcpu_id, vcpu.interrupt_injected[0], int(vcpu.interrupt_injected[1]), 1))
        free = False
    elif vcpu.exception_pending is not None:
        vector, error_code, payload = vcpu.exception_pending
        vcpu.exception_pending = None
        if vector == Vector.PF:
            vcpu.cr2 = payload
        vcpu.exception_injected = (vector, error_code)
        vcpu.stat.exception_injections += 1
        if trace.on:
            trace.emit(KvmInjException(cpu.index, cpu.now(), vcpu.vcpu_id, vector, error_code or 0, 0))
        ops.inject_exception(vcpu, vector, error_code)
        free = False
    if vcpu.nmi_pending:
        if free and ops.nmi_allowed(vcpu):
            vcpu.nmi_pending -= 1
            vcpu.nmi_injected = True
            vcpu.stat.nmi_injections += 1
            if trace.on:
                trace.emit(KvmNmiInject(cpu.index, cpu.now(), vcpu.vcpu_id))
            ops.inject_nmi(vcpu)
            free = False
        if vcpu.nmi_pending:
            ops.enable_nmi_window(vcpu)
    if vcpu.has_interrupt():
        if free and ops.interrupt_allowed(vcpu):
            vector = vcpu.get_interrupt()
            vcpu.interrupt_injected = (vector, False)
            vcpu.stat.irq_injections += 1
            cpu.charge("inject")
            if trace.on:
                trace.emit(KvmInjVirq(cpu.index, cpu.now(), vcpu.vcpu_id, vector, 0, 0))
            ops.inject_irq(vcpu, vector, False)
        if vcpu.has_interrupt():
            if trace.on:
                trace.emit(KvmIrqWindow(cpu.index, cpu.now(), vcpu.vcpu_id))
            ops.enable_irq_window(vcpu)


def requeue(vcpu: Vcpu, info: int, error_code: int) -> None:
    """vmx_complete_interrupts, svm_complete_interrupts: what the exit interrupted on its way to the guest, in the common format of IDT-vectoring
    information and EXITINTINFO."""
    vcpu.exception_injected = None
    vcpu.nmi_injected = False
    vcpu.interrupt_injected = None
    if not info >> 31 & 1:
        return
    vector, kind = info & 0xFF, info >> 8 & 7
    match kind:
        case 0:
            vcpu.interrupt_injected = (vector, False)
        case 2:
            vcpu.nmi_injected = True
        case 3:
            vcpu.exception_injected = (vector, error_code if info >> 11 & 1 else None)
        case 4 | 5 | 6:
            pass  # a software event executes again: its instruction has not completed


# Exits that both vendors have.


def emulate_cpuid(vcpu: Vcpu, cpu: HostCpu) -> int:
    """CPUID."""
    function, index = vcpu.regs[Gpr.RAX] & _MASK32, vcpu.regs[Gpr.RCX] & _MASK32
    entry, exact = lookup(vcpu.cpuid, function, index, vcpu.ops.name == "vmx")
    a, b, c, d = (entry.eax, entry.ebx, entry.ecx, entry.edx) if entry is not None else (0, 0, 0, 0)
    if entry is not None and function == 1:
        b = b & 0x00FFFFFF | vcpu.vcpu_id << 24
    if cpu.trace.on:
        cpu.trace.emit(KvmCpuid(cpu.index, cpu.now(), function, index, a, b, c, d, int(exact)))
    vcpu.regs[Gpr.RAX], vcpu.regs[Gpr.RBX], vcpu.regs[Gpr.RCX], vcpu.regs[Gpr.RDX] = a, b, c, d
    vcpu.ops.skip_emulated_instruction(vcpu)
    return 1


def emulate_halt(vcpu: Vcpu, cpu: HostCpu) -> int:
    """HLT: with a local APIC in the kernel the thread blocks; without one user space must decide."""
    vcpu.ops.skip_emulated_instruction(vcpu)
    vcpu.stat.halt_exits += 1
    if vcpu.apic is None:
        vcpu.exit = ExitHlt()
        return 0
    vcpu.mp_state = MpState.HALTED
    return 1


def emulate_hypercall(vcpu: Vcpu, cpu: HostCpu) -> int:
    """VMCALL, VMMCALL: no hypercall is offered."""
    vcpu.regs[Gpr.RAX] = _ENOSYS
    vcpu.ops.skip_emulated_instruction(vcpu)
    return 1


def emulate_pio(vcpu: Vcpu, cpu: HostCpu, port: int, size: int, write: bool, string: bool) -> int:
    """IN and OUT go to user space; INS and OUTS are emulated instruction by instruction."""
    vcpu.stat.io_exits += 1
    if string:
        return emulate.emulate_instruction(vcpu, cpu)
    mask = (1 << 8 * size) - 1
    data = vcpu.regs[Gpr.RAX] & mask if write else 0
    if cpu.trace.on:
        cpu.trace.emit(KvmPio(cpu.index, cpu.now(), int(write), port, size, 1, data))
    vcpu.ops.skip_emulated_instruction(vcpu)
    vcpu.exit = ExitIo(port, size, write, data)
    if not write:

        def answer(value: int) -> None:
            value &= mask
            vcpu.regs[Gpr.RAX] = value if size == 4 else vcpu.regs[Gpr.RAX] & ~mask | value

        vcpu.pending_input = answer
    return 0


def page_fault(vcpu: Vcpu, cpu: HostCpu, gpa: int, write: bool, error_code: int) -> int:
    """An EPT violation or nested page fault: map the page, or emulate the access to what is no memory."""
    vcpu.stat.pf_taken += 1
    cpu.charge("page_fault")
    if cpu.trace.on:
        cpu.trace.emit(KvmPageFault(cpu.index, cpu.now(), vcpu.vcpu_id, vcpu.ops.get_state(vcpu, "rip"), gpa, error_code))
    if vcpu.vm.mmu.page_fault(gpa, write):
        return 1
    vcpu.stat.mmio_exits += 1
    return emulate.emulate_instruction(vcpu, cpu)


def internal_error(vcpu: Vcpu, suberror: int, *data: int) -> int:
    """KVM_EXIT_INTERNAL_ERROR."""
    vcpu.exit = ExitInternalError(suberror, data)
    return 0


# MSRs.

#: MSR to the `cpu.state` slot that the VMCS or VMCB holds, and whether addresses must be canonical.
_OPS_MSRS: Final = {
    Msr.IA32_SYSENTER_CS: ("sysenter_cs", False),
    Msr.IA32_SYSENTER_ESP: ("sysenter_esp", True),
    Msr.IA32_SYSENTER_EIP: ("sysenter_eip", True),
    Msr.IA32_FS_BASE: ("fs_base", True),
    Msr.IA32_GS_BASE: ("gs_base", True),
}
#: MSR to the slot that is loaded with the vCPU.
_LAZY_MSRS: Final = {
    Msr.IA32_STAR: ("star", False),
    Msr.IA32_LSTAR: ("lstar", True),
    Msr.IA32_CSTAR: ("cstar", True),
    Msr.IA32_FMASK: ("fmask", False),
    Msr.IA32_KERNEL_GS_BASE: ("kernel_gs_base", True),
    Msr.IA32_TSC_AUX: ("tsc_aux", False),
}
#: MSRs that only keep what is written, with their reset values; writes are ignored where KVM ignores them.
_KEPT: Final = {Msr.IA32_MISC_ENABLE: 1, Msr.IA32_BIOS_SIGN_ID: 0, Msr.IA32_TSC_ADJUST: 0, Msr.IA32_MTRR_DEF_TYPE: 0}
_EFER: Final = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)


def _is_apic(msr: int) -> bool:
    return X2APIC_FIRST <= msr <= X2APIC_LAST or msr in (Msr.IA32_APIC_BASE, Msr.IA32_TSC_DEADLINE)


def get_msr(vcpu: Vcpu, msr: int) -> int | None:
    """kvm_get_msr_common; None: the guest gets #GP(0)."""
    if _is_apic(msr):
        return vcpu.apic.read_msr(msr) if vcpu.apic is not None else None
    if msr in _OPS_MSRS:
        return vcpu.get(_OPS_MSRS[Msr(msr)][0])
    if msr in _LAZY_MSRS:
        name = _LAZY_MSRS[Msr(msr)][0]
        return int(getattr(vcpu.loaded_on.processor.state, name)) if vcpu.loaded_on is not None else vcpu.lazy[name]
    match msr:
        case Msr.IA32_TSC:
            return vcpu.vm.host.now() + vcpu.tsc_offset & MASK64
        case Msr.IA32_EFER:
            return vcpu.get("efer")
        case Msr.IA32_PAT:
            return vcpu.get("pat")
        case Msr.IA32_DEBUGCTL:
            return vcpu.get("debugctl")
        case Msr.IA32_MTRRCAP:
            return 0
        case _ if msr in _KEPT:
            return vcpu.msrs.get(msr, _KEPT[Msr(msr)])
    return None


def set_msr(vcpu: Vcpu, msr: int, value: int) -> bool:
    """kvm_set_msr_common; False: the guest gets #GP(0)."""
    if _is_apic(msr):
        return vcpu.apic is not None and vcpu.apic.write_msr(msr, value)
    canonical = not (value + (1 << 47) & MASK64) >> 48
    if msr in _OPS_MSRS:
        name, address = _OPS_MSRS[Msr(msr)]
        if address and not canonical:
            return False
        vcpu.put(name, value)
        return True
    if msr in _LAZY_MSRS:
        name, address = _LAZY_MSRS[Msr(msr)]
        if (address and not canonical) or (name in ("fmask", "tsc_aux") and value >> 32):
            return False
        vcpu.lazy[name] = value
        if vcpu.loaded_on is not None:
            setattr(vcpu.loaded_on.processor.state, name, value)
        return True
    match msr:
        case Msr.IA32_TSC:
            vcpu.tsc_offset = value - vcpu.vm.host.now() & MASK64
            vcpu.put("tsc_offset", vcpu.tsc_offset)
        case Msr.IA32_EFER:
            old = vcpu.get("efer")
            if value & ~_EFER or ((value ^ old) & Efer.LME and vcpu.get("cr0") & Cr0.PG):
                return False
            vcpu.put("efer", value & ~Efer.LMA | old & Efer.LMA)
        case Msr.IA32_PAT:
            if any(value >> 8 * i & 0xFF not in PAT_TYPES for i in range(8)):
                return False
            vcpu.put("pat", value)
        case Msr.IA32_DEBUGCTL:
            if value & ~DEBUGCTL_DEFINED:
                return False
            vcpu.put("debugctl", value)
        case _ if msr in _KEPT:
            vcpu.msrs[msr] = value
        case _:
            return False
    return True


def emulate_rdmsr(vcpu: Vcpu, cpu: HostCpu) -> int:
    """RDMSR."""
    msr = vcpu.regs[Gpr.RCX] & _MASK32
    value = get_msr(vcpu, msr)
    if cpu.trace.on:
        cpu.trace.emit(KvmMsr(cpu.index, cpu.now(), 0, msr, value or 0, int(value is None)))
        if X2APIC_FIRST <= msr <= X2APIC_LAST and value is not None:
            cpu.trace.emit(KvmApic(cpu.index, cpu.now(), 0, msr - X2APIC_FIRST << 4, value))
    if value is None:
        vcpu.queue_exception(Vector.GP, 0)
        return 1
    vcpu.regs[Gpr.RAX], vcpu.regs[Gpr.RDX] = value & _MASK32, value >> 32
    vcpu.ops.skip_emulated_instruction(vcpu)
    return 1


def emulate_wrmsr(vcpu: Vcpu, cpu: HostCpu) -> int:
    """WRMSR."""
    msr = vcpu.regs[Gpr.RCX] & _MASK32
    value = (vcpu.regs[Gpr.RDX] & _MASK32) << 32 | vcpu.regs[Gpr.RAX] & _MASK32
    good = set_msr(vcpu, msr, value)
    if cpu.trace.on:
        cpu.trace.emit(KvmMsr(cpu.index, cpu.now(), 1, msr, value, int(not good)))
        if X2APIC_FIRST <= msr <= X2APIC_LAST and good:
            cpu.trace.emit(KvmApic(cpu.index, cpu.now(), 1, msr - X2APIC_FIRST << 4, value))
    if not good:
        vcpu.queue_exception(Vector.GP, 0)
        return 1
    vcpu.ops.skip_emulated_instruction(vcpu)
    return 1


def check_sregs(vcpu: Vcpu, sregs: Sregs) -> None:
    """kvm_is_valid_sregs: what no processor could be in. EINVAL."""
    long = bool(sregs.efer & Efer.LMA)
    paging = bool(sregs.cr0 & Cr0.PG)
    if paging and not sregs.cr0 & Cr0.PE:
        raise einval("CR0.PG without CR0.PE")
    if sregs.cr0 >> 32 or sregs.cr8 >> 4 or sregs.efer & ~_EFER:
        raise einval(f"cr0 {sregs.cr0:#x}, cr8 {sregs.cr8:#x}, efer {sregs.efer:#x}: reserved bits")
    if paging and sregs.efer & Efer.LME:
        if not sregs.cr4 & Cr4.PAE or not long:
            raise einval("long mode needs CR4.PAE and EFER.LMA")
    elif long or (sregs.cs.ar & 0x2000 and not sregs.cs.ar & 0x10000 and long):
        raise einval("EFER.LMA without paging and EFER.LME")
