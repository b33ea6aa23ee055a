"""A processor in VMX root operation with a VMCS that enters a 64-bit guest: same page tables, code and IDT as the bare processor's (tests.cpu.bare),
under an identity EPT."""

from __future__ import annotations

from cpu.bare import CODE, GDT, IDT, PML4, STACK, TR, TSS, Bare
from worldswitch.arch.registers import Cr4
from worldswitch.arch.vmcs import VMCS_REVISION_ID, Vmcs
from worldswitch.arch.vmx import (
    ENTRY_TRUE_DEFAULT1,
    EXIT_TRUE_DEFAULT1,
    PIN_DEFAULT1,
    PROC_TRUE_DEFAULT1,
    EntryControls,
    ExitControls,
    PinBased,
    ProcBased,
    ProcBased2,
)  # fmt: skip
from worldswitch.cpu.processor import Stop
from worldswitch.cpu.vmx.vmcs import VmcsRegion
from worldswitch.trace.events import HwVmEntryFailed

VMXON_REGION, REGION = 0x100000, 0x101000
EPT_ROOT, EPT_PDPT, EPT_PD, EPT_PT = 0x102000, 0x103000, 0x104000, 0x105000
HOST_RIP, HOST_RSP = 0x18000, 0x28000


class Vmx(Bare):
    """`vmcs` gives direct access to the region: tests prepare what no VMWRITE could."""

    def __init__(
        self, code: bytes = b"\xeb\xfe", *, pin: int = PinBased.EXTERNAL_INTERRUPT_EXITING, proc: int = 0, proc2: int = 0, exit_: int = 0, **timing: int
    ) -> None:
        super().__init__("intel", code, **timing)
        self.apic_on()
        self.words(EPT_ROOT, EPT_PDPT | 7)
        self.words(EPT_PDPT, EPT_PD | 7)
        self.words(EPT_PD, EPT_PT | 7, *(i << 21 | 0xB7 for i in range(1, 512)))
        self.words(EPT_PT, *(i << 12 | 0x37 for i in range(512)))
        for region in (VMXON_REGION, REGION):
            self.mem.write(region, 4, VMCS_REVISION_ID)
        self.state.cr4 |= Cr4.VMXE
        unit = self.cpu.vmx
        assert unit.vmxon(VMXON_REGION) == 0
        assert unit.vmclear(REGION) == 0
        assert unit.vmptrld(REGION) == 0
        self.vmcs = VmcsRegion(self.mem, REGION)
        self._fill(pin, proc, proc2, exit_)

    def _fill(self, pin: int, proc: int, proc2: int, exit_: int) -> None:
        s, v = self.state, self.vmcs
        leave = ExitControls.HOST_ADDRESS_SPACE_SIZE | ExitControls.SAVE_DEBUG_CONTROLS
        leave |= ExitControls.SAVE_IA32_EFER | ExitControls.LOAD_IA32_EFER | ExitControls.SAVE_IA32_PAT | ExitControls.LOAD_IA32_PAT
        enter = EntryControls.IA32E_MODE_GUEST | EntryControls.LOAD_DEBUG_CONTROLS | EntryControls.LOAD_IA32_EFER | EntryControls.LOAD_IA32_PAT
        fields = {
            Vmcs.PIN_BASED_VM_EXEC_CONTROL: PIN_DEFAULT1 | pin,
            Vmcs.CPU_BASED_VM_EXEC_CONTROL: PROC_TRUE_DEFAULT1 | ProcBased.SECONDARY_CONTROLS | proc,
            Vmcs.SECONDARY_VM_EXEC_CONTROL: ProcBased2.ENABLE_EPT | ProcBased2.ENABLE_RDTSCP | proc2,
            Vmcs.VM_EXIT_CONTROLS: EXIT_TRUE_DEFAULT1 | leave | exit_,
            Vmcs.VM_ENTRY_CONTROLS: ENTRY_TRUE_DEFAULT1 | enter,
            Vmcs.EPT_POINTER: EPT_ROOT | 0x1E,
            Vmcs.VMCS_LINK_POINTER: (1 << 64) - 1,
            Vmcs.VIRTUAL_PROCESSOR_ID: 1,
            Vmcs.HOST_CR0: s.cr0, Vmcs.HOST_CR3: s.cr3, Vmcs.HOST_CR4: s.cr4, Vmcs.HOST_IA32_EFER: s.efer, Vmcs.HOST_IA32_PAT: s.pat,
            Vmcs.HOST_CS_SELECTOR: 0x08, Vmcs.HOST_SS_SELECTOR: 0x10, Vmcs.HOST_DS_SELECTOR: 0x10, Vmcs.HOST_ES_SELECTOR: 0x10, Vmcs.HOST_TR_SELECTOR: TR,
            Vmcs.HOST_TR_BASE: TSS, Vmcs.HOST_GDTR_BASE: GDT, Vmcs.HOST_IDTR_BASE: IDT, Vmcs.HOST_RIP: HOST_RIP, Vmcs.HOST_RSP: HOST_RSP,
            Vmcs.GUEST_CR0: s.cr0, Vmcs.GUEST_CR3: PML4, Vmcs.GUEST_CR4: s.cr4, Vmcs.GUEST_IA32_EFER: s.efer, Vmcs.GUEST_IA32_PAT: s.pat,
            Vmcs.GUEST_DR7: 0x400, Vmcs.GUEST_RIP: CODE, Vmcs.GUEST_RSP: STACK, Vmcs.GUEST_RFLAGS: 2,
            Vmcs.GUEST_GDTR_BASE: GDT, Vmcs.GUEST_GDTR_LIMIT: 0x37, Vmcs.GUEST_IDTR_BASE: IDT, Vmcs.GUEST_IDTR_LIMIT: 0xFFF,
        }  # fmt: skip
        for i, segment in enumerate(s.seg):
            selector, base, limit, ar = segment.get()
            fields |= {
                Vmcs(Vmcs.GUEST_ES_SELECTOR + 2 * i): selector, Vmcs(Vmcs.GUEST_ES_BASE + 2 * i): base, Vmcs(Vmcs.GUEST_ES_LIMIT + 2 * i): limit,
                Vmcs(Vmcs.GUEST_ES_AR_BYTES + 2 * i): ar,
            }  # fmt: skip
        for field, value in fields.items():
            v[field] = int(value)

    def enter(self) -> int:
        """VMLAUNCH or VMRESUME, whichever the launch state asks for."""
        unit = self.cpu.vmx
        return unit.vmresume() if self.vmcs.launched else unit.vmlaunch()

    def run(self, budget: int = 1000) -> Stop:
        """Enter, and run until the guest exits or the budget is used up."""
        assert self.enter() == 0
        return self.cpu.run(budget)

    def failed_on(self) -> str:
        """The name of the check that the last entry failed on."""
        return list(self.board.trace.of(HwVmEntryFailed))[-1].check

    def reason(self) -> int:
        """The exit reason."""
        return self.vmcs[Vmcs.VM_EXIT_REASON]
