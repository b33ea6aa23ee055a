"""Reading and writing a VMCB: control area and state save area in a 4-KByte page (APM vol. 2 §15.5.1, appendix B)."""

from __future__ import annotations

from typing import Final

from worldswitch.arch.segments import ar_of_svm_attrib, svm_attrib_of
from worldswitch.arch.svm import VMCB_FIELD_BYTES, Save
from worldswitch.cpu.bus import Bus
from worldswitch.cpu.state import SegmentSlots, State

#: Segments that VMRUN and #VMEXIT switch, and those that VMLOAD and VMSAVE do (APM vol. 2 §15.5.1, §15.14).
RUN_SEGMENTS: Final = (("es", Save.ES), ("cs", Save.CS), ("ss", Save.SS), ("ds", Save.DS))
LOAD_SEGMENTS: Final = (("fs", Save.FS), ("gs", Save.GS), ("tr", Save.TR), ("ldtr", Save.LDTR))
#: MSRs of VMLOAD and VMSAVE: state slot to offset.
LOAD_MSRS: Final = {
    "kernel_gs_base": Save.KERNEL_GS_BASE, "star": Save.STAR, "lstar": Save.LSTAR, "cstar": Save.CSTAR, "fmask": Save.SFMASK,
    "sysenter_cs": Save.SYSENTER_CS, "sysenter_esp": Save.SYSENTER_ESP, "sysenter_eip": Save.SYSENTER_EIP,
}  # fmt: skip


class Vmcb:
    """One VMCB, by its physical address."""

    __slots__ = ("_bus", "pointer")

    def __init__(self, bus: Bus, pointer: int) -> None:
        self._bus = bus
        self.pointer = pointer

    def __getitem__(self, offset: int) -> int:
        return self._bus.read(self.pointer + offset, VMCB_FIELD_BYTES.get(offset, 8))

    def __setitem__(self, offset: int, value: int) -> None:
        size = VMCB_FIELD_BYTES.get(offset, 8)
        self._bus.write(self.pointer + offset, size, value & (1 << 8 * size) - 1)

    def segment(self, offset: int) -> tuple[int, int, int, int]:
        """(selector, base, limit, access rights in the VMX format) of a segment in the save area."""
        low, base = self._bus.read(self.pointer + offset, 8), self._bus.read(self.pointer + offset + 8, 8)
        return low & 0xFFFF, base, low >> 32, ar_of_svm_attrib(low >> 16 & 0xFFF)

    def set_segment(self, offset: int, segment: SegmentSlots) -> None:
        """Write a segment."""
        low = segment.selector | svm_attrib_of(segment.ar) << 16 | segment.limit << 32
        self._bus.write(self.pointer + offset, 8, low)
        self._bus.write(self.pointer + offset + 8, 8, segment.base)

    def table(self, offset: int) -> tuple[int, int]:
        """(base, limit) of a descriptor table."""
        _, base, limit, _ = self.segment(offset)
        return base, limit & 0xFFFF

    def set_table(self, offset: int, base: int, limit: int) -> None:
        """Write a descriptor table's base and limit."""
        self._bus.write(self.pointer + offset, 8, limit << 32)
        self._bus.write(self.pointer + offset + 8, 8, base)


def save_run_state(vmcb: Vmcb, s: State, rip: int) -> None:
    """What VMRUN saves of the host and #VMEXIT of the guest (APM vol. 2 §15.5.1, §15.6)."""
    for name, offset in RUN_SEGMENTS:
        vmcb.set_segment(offset, getattr(s, name))
    vmcb.set_table(Save.GDTR, s.gdtr_base, s.gdtr_limit)
    vmcb.set_table(Save.IDTR, s.idtr_base, s.idtr_limit)
    vmcb[Save.EFER], vmcb[Save.CR0], vmcb[Save.CR3], vmcb[Save.CR4] = s.efer, s.cr0, s.cr3, s.cr4
    vmcb[Save.RFLAGS], vmcb[Save.RIP], vmcb[Save.RSP], vmcb[Save.RAX] = s.rflags, rip, s.rsp, s.rax


def load_run_state(vmcb: Vmcb, s: State) -> None:
    """The counterpart."""
    for name, offset in RUN_SEGMENTS:
        getattr(s, name).set(*vmcb.segment(offset))
    s.gdtr_base, s.gdtr_limit = vmcb.table(Save.GDTR)
    s.idtr_base, s.idtr_limit = vmcb.table(Save.IDTR)
    s.efer, s.cr0, s.cr3, s.cr4 = vmcb[Save.EFER], vmcb[Save.CR0], vmcb[Save.CR3], vmcb[Save.CR4]
    s.rflags, s.rip, s.rsp, s.rax = vmcb[Save.RFLAGS], vmcb[Save.RIP], vmcb[Save.RSP], vmcb[Save.RAX]
