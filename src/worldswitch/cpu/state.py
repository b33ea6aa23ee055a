"""The registers of one logical processor, in one flat buffer whose layout is declared here and nowhere else.

Every engine works on the same buffer: the concrete engine through the properties below, a compiled one through the byte
offsets in `LAYOUT`. Each slot is a 64-bit little-endian quadword, also where the architecture's register is narrower, so
that offsets stay trivial. A copy of the buffer is a copy of the processor's architectural state; nothing else has to be saved.

What is *not* here: physical memory, the local APIC (board), decoded code and translation caches (rebuilt on demand).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from worldswitch.arch.registers import Seg

MASK64: Final = (1 << 64) - 1


class Slot:
    """One 64-bit slot of the buffer; slots are laid out in the order of their creation."""

    __slots__ = ("index", "name")
    _next = 0

    def __init__(self) -> None:
        self.index = Slot._next
        self.name = ""
        Slot._next += 1

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: State, owner: type) -> int:
        return instance.q[self.index]

    def __set__(self, instance: State, value: int) -> None:
        instance.q[self.index] = value


def _slots(count: int) -> int:
    """Reserve `count` slots in a row; the index of the first."""
    first = Slot._next
    Slot._next += count
    return first


class SegmentSlots:
    """A view of one segment register with its hidden part: selector, base (64 bits), limit (bytes, already scaled), and access rights in
    the VMX format (SDM vol. 3 §25.4.1, table 25-2; bit 16 is "unusable")."""

    __slots__ = ("_first", "_q")

    def __init__(self, q: memoryview, first: int) -> None:
        self._q = q
        self._first = first

    @property
    def selector(self) -> int:
        return self._q[self._first]

    @selector.setter
    def selector(self, value: int) -> None:
        self._q[self._first] = value & 0xFFFF

    @property
    def base(self) -> int:
        return self._q[self._first + 1]

    @base.setter
    def base(self, value: int) -> None:
        self._q[self._first + 1] = value & MASK64

    @property
    def limit(self) -> int:
        return self._q[self._first + 2]

    @limit.setter
    def limit(self, value: int) -> None:
        self._q[self._first + 2] = value & 0xFFFFFFFF

    @property
    def ar(self) -> int:
        return self._q[self._first + 3]

    @ar.setter
    def ar(self, value: int) -> None:
        self._q[self._first + 3] = value & 0x1FFFF

    def set(self, selector: int, base: int, limit: int, ar: int) -> None:
        """Load all four parts at once."""
        self.selector, self.base, self.limit, self.ar = selector, base, limit, ar

    def get(self) -> tuple[int, int, int, int]:
        """(selector, base, limit, ar)"""
        return self.selector, self.base, self.limit, self.ar


class State:
    """One logical processor's state. Attributes are plain integers, each below 2**64 (a write of anything else raises ValueError)."""

    # General registers in the order of their numbers in instruction encodings (SDM vol. 2 §3.1.1.1): slot i is register i.
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi = Slot(), Slot(), Slot(), Slot(), Slot(), Slot(), Slot(), Slot()
    r8, r9, r10, r11, r12, r13, r14, r15 = Slot(), Slot(), Slot(), Slot(), Slot(), Slot(), Slot(), Slot()
    rip, rflags = Slot(), Slot()
    _segments: Final = _slots(4 * len(Seg))
    gdtr_base, gdtr_limit, idtr_base, idtr_limit = Slot(), Slot(), Slot(), Slot()
    cr0, cr2, cr3, cr4, xcr0 = Slot(), Slot(), Slot(), Slot(), Slot()
    dr0, dr1, dr2, dr3, dr6, dr7 = Slot(), Slot(), Slot(), Slot(), Slot(), Slot()
    # Model-specific registers that the processor itself reads (the others live in `cpu.msr`'s table).
    efer, star, lstar, cstar, fmask, kernel_gs_base = Slot(), Slot(), Slot(), Slot(), Slot(), Slot()
    sysenter_cs, sysenter_esp, sysenter_eip = Slot(), Slot(), Slot()
    pat, tsc_aux, debugctl, misc_enable, feature_control, spec_ctrl, xss = Slot(), Slot(), Slot(), Slot(), Slot(), Slot(), Slot()
    # IA32_TSC as guest or host software sees it is `cycles + tsc_adjust (+ the current guest's TSC offset)`; both in cycles, modulo 2**64.
    tsc_adjust, tsc_offset = Slot(), Slot()
    # Not registers, but architectural all the same (SDM vol. 3 §25.4.2): interruptibility in the VMX format, activity state.
    interruptibility, activity = Slot(), Slot()
    #: Pending debug exceptions in the format of the guest-state field (SDM vol. 3 §25.4.2).
    pending_debug = Slot()
    #: An event that a VM entry injects: delivered before the guest's first instruction (SDM vol. 3 §27.6; APM vol. 2 §15.20). VMX
    #: interruption-information format, error code, length.
    injection, injection_error, injection_length = Slot(), Slot(), Slot()
    # VMX operation: 0 off, 1 root, 2 non-root; pointers are physical addresses, all ones when invalid (SDM vol. 3 §25.1).
    vmx_operation, vmxon_pointer, vmcs_pointer = Slot(), Slot(), Slot()
    # SVM: the global interrupt flag, whether a guest runs, its VMCB and the host save area (APM vol. 2 §15.17, §15.30.4), VM_CR.
    gif, svm_guest, vmcb_pointer, vm_hsave_pa, vm_cr = Slot(), Slot(), Slot(), Slot(), Slot()
    #: What the virtual machine entry came from: 1 if the host is Python code, which regains control from `Processor.run` at the exit; 0 if it is machine code.
    host_is_python = Slot()
    #: SVM's virtual interrupt control word as it is while the guest runs (APM vol. 2 §15.21.1), 0 outside.
    v_intr = Slot()
    # Vector state: 16 XMM registers of two slots, MXCSR, and the x87 unit (8 registers of two slots, control, status, tag word, pointers).
    mxcsr = Slot()
    _xmm: Final = _slots(32)
    _st: Final = _slots(16)
    fcw, fsw, ftw, fop, fip, fdp = Slot(), Slot(), Slot(), Slot(), Slot(), Slot()
    _end: Final = Slot._next

    __slots__ = ("buffer", "cs", "ds", "es", "fs", "gs", "ldtr", "q", "seg", "ss", "tr")

    def __init__(self) -> None:
        self.buffer = bytearray(8 * State._end)
        self.q = memoryview(self.buffer).cast("Q")
        self.seg = tuple(SegmentSlots(self.q, State._segments + 4 * s) for s in Seg)
        self.es, self.cs, self.ss, self.ds, self.fs, self.gs, self.ldtr, self.tr = self.seg

    def xmm(self, index: int) -> int:
        """The 128 bits of an XMM register."""
        at = State._xmm + 2 * index
        return self.q[at] | self.q[at + 1] << 64

    def set_xmm(self, index: int, value: int) -> None:
        """Write the 128 bits of an XMM register."""
        at = State._xmm + 2 * index
        self.q[at], self.q[at + 1] = value & MASK64, value >> 64 & MASK64

    def save(self) -> bytes:
        """A copy of everything."""
        return bytes(self.buffer)

    def restore(self, saved: bytes) -> None:
        """Put a `save()` back. ValueError if it is not one of this layout's."""
        if len(saved) != len(self.buffer):
            raise ValueError(f"a register snapshot has {len(self.buffer)} bytes, this one has {len(saved)}")
        self.buffer[:] = saved

    def items(self) -> Iterator[tuple[str, int]]:
        """(name, value) of every slot, in layout order."""
        for name, index in LAYOUT.items():
            yield name, self.q[index]


def _layout() -> dict[str, int]:
    table = {name: slot.index for name, slot in vars(State).items() if isinstance(slot, Slot)}
    for s in Seg:
        for i, part in enumerate(("selector", "base", "limit", "ar")):
            table[f"{s.name.lower()}_{part}"] = State._segments + 4 * s + i
    for i in range(16):
        table[f"xmm{i}_low"], table[f"xmm{i}_high"] = State._xmm + 2 * i, State._xmm + 2 * i + 1
    for i in range(8):
        table[f"st{i}_low"], table[f"st{i}_high"] = State._st + 2 * i, State._st + 2 * i + 1
    return dict(sorted(table.items(), key=lambda item: item[1]))


#: Slot name to slot index (byte offset / 8); the one description of the buffer that engines share.
LAYOUT: Final = _layout()
