"""A processor with SVM enabled and a VMCB that runs a 64-bit guest: page tables, code and IDT of the bare processor, under identity nested paging."""

from __future__ import annotations

from cpu.bare import CODE, GDT, IDT, PML4, STACK, Bare
from worldswitch.arch.msr import Msr
from worldswitch.arch.registers import Efer
from worldswitch.arch.svm import V_INTR_MASKING, InterceptMisc1, InterceptMisc2, Save
from worldswitch.arch.svm import Vmcb as V
from worldswitch.cpu.processor import Stop
from worldswitch.cpu.svm.vmcb import Vmcb

HSAVE, VMCB_PAGE = 0x100000, 0x101000
NPT_ROOT, NPT_PDPT, NPT_PD, NPT_PT = 0x102000, 0x103000, 0x104000, 0x105000
IOPM, MSRPM = 0x110000, 0x114000
HOST_RIP = 0x18000


class Svm(Bare):
    """`vmcb` gives direct access. The host runs with RFLAGS `host_flags` (IF = 1 unless told otherwise) and GIF = 0 around the guest, as KVM does."""

    def __init__(
        self, code: bytes = b"\xeb\xfe", *, misc1: int = InterceptMisc1.INTR, misc2: int = 0, v_intr: int = V_INTR_MASKING, host_flags: int = 0x202
    ) -> None:
        super().__init__("amd", code)
        self.apic_on()
        cpu, s = self.cpu, self.state
        cpu.msrs.write(Msr.IA32_EFER, s.efer | Efer.SVME)
        cpu.msrs.write(Msr.VM_HSAVE_PA, HSAVE)
        self.words(NPT_ROOT, NPT_PDPT | 7)
        self.words(NPT_PDPT, NPT_PD | 7)
        self.words(NPT_PD, NPT_PT | 7, *(i << 21 | 0x87 for i in range(1, 512)))
        self.words(NPT_PT, *(i << 12 | 7 for i in range(512)))
        s.rip, s.rflags = HOST_RIP, host_flags
        self.vmcb = v = Vmcb(self.mem, VMCB_PAGE)
        v[V.INTERCEPT_MISC1], v[V.INTERCEPT_MISC2] = int(misc1), int(misc2 | InterceptMisc2.VMRUN)
        v[V.GUEST_ASID], v[V.NP_ENABLE], v[V.N_CR3], v[V.V_INTR] = 1, 1, NPT_ROOT, v_intr
        v[V.IOPM_BASE_PA], v[V.MSRPM_BASE_PA] = IOPM, MSRPM
        for name, at in (
            ("es", Save.ES),
            ("cs", Save.CS),
            ("ss", Save.SS),
            ("ds", Save.DS),
            ("fs", Save.FS),
            ("gs", Save.GS),
            ("ldtr", Save.LDTR),
            ("tr", Save.TR),
        ):
            v.set_segment(at, getattr(s, name))
        v.set_table(Save.GDTR, GDT, 0x37)
        v.set_table(Save.IDTR, IDT, 0xFFF)
        v[Save.EFER], v[Save.CR0], v[Save.CR3], v[Save.CR4], v[Save.G_PAT] = s.efer, s.cr0, PML4, s.cr4, s.pat
        v[Save.RFLAGS], v[Save.RIP], v[Save.RSP], v[Save.DR6], v[Save.DR7] = 2, CODE, STACK, 0xFFFF0FF0, 0x400

    def enter(self) -> None:
        """CLGI, VMRUN."""
        self.cpu.svm.clgi()
        self.cpu.svm.vmrun(VMCB_PAGE)

    def run(self, budget: int = 1000) -> Stop:
        """Enter, and run until the guest exits or the budget is used up."""
        self.enter()
        return self.cpu.run(budget)

    def code_of_exit(self) -> int:
        """EXITCODE."""
        return self.vmcb[V.EXITCODE]
