"""The SVM unit of one processor: its instructions, which host code in Python and machine code both call, and guest mode as `cpu.intercept.GuestMode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Cr0, Efer, Rflags
from worldswitch.arch.svm import (
    IOIO_ADDRESS_SHIFT,
    IOIO_IN,
    IOIO_PORT_SHIFT,
    IOIO_REP,
    IOIO_SEG_SHIFT,
    IOIO_SIZE_SHIFT,
    IOIO_STR,
    MSRPM_RANGES,
    NPF_FINAL,
    NPF_WALK,
    V_IGN_TPR,
    V_INTR_MASKING,
    V_INTR_PRIO_SHIFT,
    V_INTR_VECTOR_SHIFT,
    V_IRQ,
    V_TPR,
    InterceptMisc1,
    InterceptMisc2,
    VmexitCode,
)  # fmt: skip
from worldswitch.arch.svm import Vmcb as V
from worldswitch.arch.vmx import InterruptionType
from worldswitch.cpu.event import Event, fault
from worldswitch.cpu.intercept import Access, Intercept, IoAccess
from worldswitch.cpu.paging import LONG_4_LEVEL, Rules, WalkFault, walk
from worldswitch.cpu.state import MASK64
from worldswitch.cpu.svm.vmcb import LOAD_MSRS, LOAD_SEGMENTS, Vmcb
from worldswitch.cpu.svm.vmrun import vmexit, vmrun
from worldswitch.errors import SimulationError
from worldswitch.trace.events import HwGif

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_M1, _M2 = InterceptMisc1, InterceptMisc2
#: Instruction to (intercept bit in word 00CH, bit in word 010H, exit code) (APM vol. 2 §15.9, table B-1). What is missing cannot be intercepted.
INSTRUCTIONS: Final[dict[Intercept, tuple[int, int, VmexitCode]]] = {
    Intercept.CPUID: (_M1.CPUID, 0, VmexitCode.CPUID),
    Intercept.HLT: (_M1.HLT, 0, VmexitCode.HLT),
    Intercept.RDTSC: (_M1.RDTSC, 0, VmexitCode.RDTSC),
    Intercept.RDPMC: (_M1.RDPMC, 0, VmexitCode.RDPMC),
    Intercept.PAUSE: (_M1.PAUSE, 0, VmexitCode.PAUSE),
    Intercept.INVD: (_M1.INVD, 0, VmexitCode.INVD),
    Intercept.RSM: (_M1.RSM, 0, VmexitCode.RSM),
    Intercept.IRET: (_M1.IRET, 0, VmexitCode.IRET),
    Intercept.PUSHF: (_M1.PUSHF, 0, VmexitCode.PUSHF),
    Intercept.POPF: (_M1.POPF, 0, VmexitCode.POPF),
    Intercept.INTN: (_M1.INTN, 0, VmexitCode.SWINT),
    Intercept.SIDT: (_M1.IDTR_READ, 0, VmexitCode.IDTR_READ),
    Intercept.SGDT: (_M1.GDTR_READ, 0, VmexitCode.GDTR_READ),
    Intercept.SLDT: (_M1.LDTR_READ, 0, VmexitCode.LDTR_READ),
    Intercept.STR: (_M1.TR_READ, 0, VmexitCode.TR_READ),
    Intercept.LIDT: (_M1.IDTR_WRITE, 0, VmexitCode.IDTR_WRITE),
    Intercept.LGDT: (_M1.GDTR_WRITE, 0, VmexitCode.GDTR_WRITE),
    Intercept.LLDT: (_M1.LDTR_WRITE, 0, VmexitCode.LDTR_WRITE),
    Intercept.LTR: (_M1.TR_WRITE, 0, VmexitCode.TR_WRITE),
    Intercept.INVLPGA: (_M1.INVLPGA, 0, VmexitCode.INVLPGA),
    Intercept.VMRUN: (0, _M2.VMRUN, VmexitCode.VMRUN),
    Intercept.VMMCALL: (0, _M2.VMMCALL, VmexitCode.VMMCALL),
    Intercept.VMLOAD: (0, _M2.VMLOAD, VmexitCode.VMLOAD),
    Intercept.VMSAVE: (0, _M2.VMSAVE, VmexitCode.VMSAVE),
    Intercept.STGI: (0, _M2.STGI, VmexitCode.STGI),
    Intercept.CLGI: (0, _M2.CLGI, VmexitCode.CLGI),
    Intercept.SKINIT: (0, _M2.SKINIT, VmexitCode.SKINIT),
    Intercept.RDTSCP: (0, _M2.RDTSCP, VmexitCode.RDTSCP),
    Intercept.ICEBP: (0, _M2.ICEBP, VmexitCode.ICEBP),
    Intercept.WBINVD: (0, _M2.WBINVD, VmexitCode.WBINVD),
    Intercept.MONITOR: (0, _M2.MONITOR, VmexitCode.MONITOR),
    Intercept.MWAIT: (0, _M2.MWAIT, VmexitCode.MWAIT),
    Intercept.XSETBV: (0, _M2.XSETBV, VmexitCode.XSETBV),
}


class SvmUnit:
    """SVM of one processor. `misc1`, `cr`, ... are copies of the VMCB's intercept words, made by VMRUN and valid while the guest runs."""

    def __init__(self, cpu: Processor) -> None:
        self.cpu = cpu
        self.vmcb = Vmcb(cpu.bus, MASK64)
        self.cr = self.dr = self.exceptions = self.misc1 = self.misc2 = 0
        self.nested = False
        self.n_cr3 = 0
        self.asid = 0
        self.nested_nxe = False
        self.host_if = False
        """The host's RFLAGS.IF at VMRUN."""
        self.host_pat = 0

    # Instructions (APM vol. 3, system instructions).

    def _begin(self, what: Intercept, *, needs_svme: bool = True) -> None:
        """#UD without EFER.SVME, #GP(0) above CPL 0, the intercept of a guest hypervisor."""
        s = self.cpu.state
        if needs_svme and (not s.efer & Efer.SVME or not s.cr0 & Cr0.PE):
            raise fault(Vector.UD)
        if self.cpu.cpl:
            raise fault(Vector.GP, 0)
        if s.svm_guest:
            self.instruction(what)

    def _check_address(self, pointer: int) -> None:
        if pointer & 0xFFF or pointer >> self.cpu.model.physical_bits:
            raise fault(Vector.GP, 0)

    def vmrun(self, pointer: int, *, python: bool = True) -> None:
        """VMRUN. Afterwards the processor is in the guest -- or already back in the host, if `Processor.guest` is None: the VMCB was inconsistent
        (VMEXIT_INVALID)."""
        self._begin(Intercept.VMRUN)
        self._check_address(pointer)
        s = self.cpu.state
        s.host_is_python = int(python)
        vmrun(self.cpu, pointer, s.rip if python else self.cpu.next_rip)
        self.cpu.next_rip = s.rip
        self.cpu.attend()

    def vmload(self, pointer: int) -> None:
        """VMLOAD: FS, GS, TR, LDTR with their hidden parts, and the system-call MSRs (APM vol. 2 §15.14)."""
        self._begin(Intercept.VMLOAD)
        self._check_address(pointer)
        vmcb, s = Vmcb(self.cpu.bus, pointer), self.cpu.state
        for name, offset in LOAD_SEGMENTS:
            getattr(s, name).set(*vmcb.segment(offset))
        for slot, at in LOAD_MSRS.items():
            setattr(s, slot, vmcb[at])

    def vmsave(self, pointer: int) -> None:
        """VMSAVE: the counterpart."""
        self._begin(Intercept.VMSAVE)
        self._check_address(pointer)
        vmcb, s = Vmcb(self.cpu.bus, pointer), self.cpu.state
        for name, offset in LOAD_SEGMENTS:
            vmcb.set_segment(offset, getattr(s, name))
        for slot, at in LOAD_MSRS.items():
            vmcb[at] = getattr(s, slot)

    def stgi(self) -> None:
        """STGI: the global interrupt flag is set; what waited is taken at the next boundary."""
        self._begin(Intercept.STGI)
        self._set_gif(1)

    def clgi(self) -> None:
        """CLGI: interrupts, NMIs and the like are held, whatever RFLAGS.IF says (APM vol. 2 §15.17)."""
        self._begin(Intercept.CLGI)
        self._set_gif(0)

    def _set_gif(self, gif: int) -> None:
        self.cpu.state.gif = gif
        self.cpu.attend()
        if self.cpu.trace.on:
            self.cpu.trace.emit(HwGif(self.cpu.index, self.cpu.cycles, gif))

    def vmmcall(self) -> None:
        """VMMCALL: exits if intercepted; #UD otherwise, in guests and hosts alike (APM vol. 3, VMMCALL)."""
        if self.cpu.state.svm_guest:
            self.instruction(Intercept.VMMCALL)
        raise fault(Vector.UD)

    def invlpga(self) -> None:
        """INVLPGA."""
        self._begin(Intercept.INVLPGA)
        self.cpu.mmu.context_changed()

    # Guest mode.

    def load_controls(self, host_efer: int) -> None:
        """Take copies of the VMCB's controls."""
        v = self.vmcb
        self.cr, self.dr, self.exceptions = v[V.INTERCEPT_CR], v[V.INTERCEPT_DR], v[V.INTERCEPT_EXCEPTIONS]
        self.misc1, self.misc2 = v[V.INTERCEPT_MISC1], v[V.INTERCEPT_MISC2]
        self.nested, self.n_cr3, self.asid = bool(v[V.NP_ENABLE] & 1), v[V.N_CR3], v[V.GUEST_ASID]
        self.nested_nxe = bool(host_efer & Efer.NXE)

    def _next_rip(self) -> int:
        """nRIP: the instruction after the intercepted one (APM vol. 2 §15.7.1)."""
        return (self.cpu.state.rip + self.cpu.core.instruction.length) & MASK64

    def _exit(self, code: int, info1: int = 0, info2: int = 0, *, next_rip: int = 0) -> None:
        vmexit(self.cpu, code, info1, info2, next_rip=next_rip)

    def instruction(self, what: Intercept, *, linear: int = 0) -> None:
        if what is Intercept.CLTS:
            self._cr_intercept(0, True, 0)
            return
        if what is Intercept.SMSW:
            self._cr_intercept(0, False, 0)
            return
        row = INSTRUCTIONS.get(what)
        if row is not None and (self.misc1 & row[0] or self.misc2 & row[1]):
            self._exit(row[2], next_rip=self._next_rip())

    def io(self, access: IoAccess) -> None:
        if not self.misc1 & InterceptMisc1.IOIO_PROT:
            return
        bitmap = self.vmcb[V.IOPM_BASE_PA] & ~0xFFF
        bits = self.cpu.bus.read(bitmap + access.port // 8, 2) >> access.port % 8
        if bits & (1 << access.size) - 1:
            info = (0 if access.write else IOIO_IN) | (IOIO_STR if access.string else 0) | (IOIO_REP if access.repeat else 0)
            info |= access.size << IOIO_SIZE_SHIFT | {16: 1, 32: 2, 64: 4}[access.address_bits] << IOIO_ADDRESS_SHIFT
            info |= (access.segment << IOIO_SEG_SHIFT if access.string else 0) | access.port << IOIO_PORT_SHIFT
            self._exit(VmexitCode.IOIO, info, self._next_rip(), next_rip=self._next_rip())

    def _msr(self, msr: int, write: int) -> None:
        if not self.misc1 & InterceptMisc1.MSR_PROT:
            return
        for first, offset in MSRPM_RANGES:
            if first <= msr < first + 0x2000:
                at = 2 * (msr - first) + write
                if not self.cpu.bus.read((self.vmcb[V.MSRPM_BASE_PA] & ~0xFFF) + offset + at // 8, 1) >> at % 8 & 1:
                    return
        self._exit(VmexitCode.MSR, write, next_rip=self._next_rip())

    def rdmsr(self, msr: int) -> None:
        self._msr(msr, 0)

    def wrmsr(self, msr: int, value: int) -> None:
        self._msr(msr, 1)

    def _cr_intercept(self, cr: int, write: bool, info: int) -> None:
        if self.cr >> cr + 16 * write & 1:
            self._exit((VmexitCode.CR0_WRITE if write else VmexitCode.CR0_READ) + cr, info, next_rip=self._next_rip())

    def cr_read(self, cr: int, gpr: int) -> int | None:
        self._cr_intercept(cr, False, 1 << 63 | gpr)
        return None

    def cr_write(self, cr: int, gpr: int, value: int) -> int:
        self._cr_intercept(cr, True, 1 << 63 | gpr)
        if cr == 0 and self.misc1 & InterceptMisc1.CR0_SEL_WRITE and (value ^ self.cpu.state.cr0) & ~(Cr0.TS | Cr0.MP):
            self._exit(VmexitCode.CR0_SEL_WRITE, 1 << 63 | gpr, next_rip=self._next_rip())
        return value

    def lmsw(self, source: int, memory: bool, linear: int) -> int:
        self._cr_intercept(0, True, 0)
        return source

    def dr_access(self, dr: int, gpr: int, write: bool) -> None:
        if self.dr >> dr + 16 * write & 1:
            self._exit((VmexitCode.DR0_WRITE if write else VmexitCode.DR0_READ) + dr, gpr, next_rip=self._next_rip())

    def invlpg(self, linear: int) -> None:
        if self.misc1 & InterceptMisc1.INVLPG:
            self._exit(VmexitCode.INVLPG, linear, next_rip=self._next_rip())

    # Events.

    def exception(self, event: Event) -> None:
        if event.vector < 32 and self.exceptions >> event.vector & 1:
            info2 = event.payload if event.vector == Vector.PF else 0
            next_rip = self._next_rip() if event.type is InterruptionType.SOFTWARE_EXCEPTION else 0
            self._exit(VmexitCode.EXCEPTION + event.vector, event.error_code or 0, info2, next_rip=next_rip)

    def triple_fault(self) -> None:
        if self.misc1 & InterceptMisc1.SHUTDOWN:
            self._exit(VmexitCode.SHUTDOWN)

    def task_switch(self, selector: int, source: int, error_code: int | None) -> None:
        if self.misc1 & InterceptMisc1.TASK_SWITCH:
            info2 = (error_code or 0) | int(error_code is not None) << 44 | int(source == 1) << 36 | int(source == 2) << 38
            self._exit(VmexitCode.TASK_SWITCH, selector, info2)

    def tsc_offset(self) -> int:
        return self.cpu.state.tsc_offset

    def nmi_window(self) -> None:
        """SVM has no such exit."""

    def nmi(self) -> None:
        if self.misc1 & InterceptMisc1.NMI:
            # The NMI stays pending until the host sets GIF (APM vol. 2 §15.13.2).
            self._exit(VmexitCode.NMI)

    def interrupt_window(self) -> None:
        """SVM has no such exit; hypervisors use V_IRQ with the VINTR intercept."""

    def intr_possible(self) -> bool:
        if self.cpu.state.v_intr & V_INTR_MASKING:
            return self.host_if
        return bool(self.cpu.state.rflags & Rflags.IF)

    def interrupt(self) -> None:
        if self.misc1 & InterceptMisc1.INTR:
            self._exit(VmexitCode.INTR)

    def virtual_interrupt(self) -> int | None:
        word = self.cpu.state.v_intr
        if not word & V_IRQ:
            return None
        if not word & V_IGN_TPR and word >> V_INTR_PRIO_SHIFT & 0xF <= word & V_TPR & 0xF:
            return None
        if self.misc1 & InterceptMisc1.VINTR:
            self._exit(VmexitCode.VINTR)  # before it is taken: V_IRQ stays (APM vol. 2 §15.21.5)
        self.cpu.state.v_intr = word & ~V_IRQ
        return word >> V_INTR_VECTOR_SHIFT & 0xFF

    def virtual_tpr(self) -> int | None:
        """CR8 as the guest sees it under V_INTR_MASKING; None without."""
        return self.cpu.state.v_intr & 0xF if self.cpu.state.v_intr & V_INTR_MASKING else None

    def set_virtual_tpr(self, value: int) -> bool:
        """MOV to CR8 under V_INTR_MASKING writes V_TPR; False without."""
        if not self.cpu.state.v_intr & V_INTR_MASKING:
            return False
        self.cpu.state.v_intr = self.cpu.state.v_intr & ~V_TPR | value
        return True

    def timer_expired(self) -> None:
        """SVM has no such timer."""

    def monitor_trap(self) -> None:
        """SVM has no monitor trap flag."""

    # Memory.

    @property
    def second_level(self) -> bool:
        return self.nested

    @property
    def tlb_tag(self) -> int:
        return self.asid

    def translate(self, gpa: int, access: Access, *, linear: int | None, walk: bool, user: bool) -> int:
        # Every access of a guest is a user access to the nested table; those to its own paging structures are writes as well (APM vol. 2 §15.25.5).
        rules = Rules(
            format=LONG_4_LEVEL, root=self.n_cr3 & 0x000F_FFFF_FFFF_F000, physical_bits=self.cpu.model.physical_bits,
            write=walk or access is Access.WRITE, fetch=access is Access.EXECUTE, user=True, wp=True, nxe=self.nested_nxe, smep=False, smap=False, large=True,
        )  # fmt: skip
        try:
            return self._walk(rules, gpa) | gpa & 0xFFF
        except WalkFault as bad:
            self._exit(VmexitCode.NPF, bad.error_code | (NPF_WALK if walk else NPF_FINAL), gpa)
            raise SimulationError("vmexit does not return") from bad

    def _walk(self, rules: Rules, gpa: int) -> int:
        return walk(self.cpu.bus, rules, gpa).page

    def reload(self) -> None:
        """After `State.restore`: take up what the registers say."""
        if self.cpu.state.svm_guest:
            self.vmcb = Vmcb(self.cpu.bus, self.cpu.state.vmcb_pointer)
            host = Vmcb(self.cpu.bus, self.cpu.state.vm_hsave_pa)
            self.load_controls(host[0x4D0])
            self.host_if = bool(host[0x570] & Rflags.IF)
            self.cpu.guest = self
