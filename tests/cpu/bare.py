"""A bare processor on a board, in 64-bit mode at CPL 0 with page tables, GDT, IDT and TSS in memory: what most tests of the silicon start from."""

from __future__ import annotations

from worldswitch.arch.msr import FeatureControl, Msr
from worldswitch.arch.registers import Cr0, Cr4, Efer
from worldswitch.board import Board
from worldswitch.cpu.model import Timing, model_named
from worldswitch.cpu.processor import Processor
from worldswitch.trace import Recorder

CODE = 0x10000
STACK = 0x20000
PML4, PDPT, PD, PT = 0x1000, 0x2000, 0x3000, 0x4000
GDT, IDT, TSS = 0x5000, 0x6000, 0x7000
HANDLERS = 0x8000
IST1, RSP0 = 0x30000, 0x38000
CS, DS, USER_CS, USER_DS, TR = 0x08, 0x10, 0x2B, 0x33, 0x18


class Bare:
    """The first 2 MiB mapped by 4-KByte pages (`PT`), the rest of the first GiB by large ones, all supervisor and writable. Vector v's handler is one
    HLT at HANDLERS + 16 v."""

    def __init__(self, vendor: str = "intel", code: bytes = b"", **timing: int) -> None:
        self.board = Board(model_named(vendor).with_timing(Timing(**timing)), memory_bytes=4 << 20, trace=Recorder())
        self.cpu: Processor = self.board.processors[0]
        self.mem = self.board.memory
        self.state = self.cpu.state
        self.words(PML4, PDPT | 7)
        self.words(PDPT, PD | 7)
        self.words(PD, PT | 7, *(i << 21 | 0x83 for i in range(1, 512)))
        self.words(PT, *(i << 12 | 3 for i in range(512)))
        tss = 0x0000890000000067 | (TSS & 0xFFFF) << 16 | (TSS >> 16 & 0xFF) << 32
        self.words(GDT, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, tss, 0, 0x00AFFB000000FFFF, 0x00CFF3000000FFFF)
        for vector in range(256):
            self.gate(vector)
            self.mem.write(HANDLERS + 16 * vector, 1, 0xF4)
        self.mem.write(TSS + 4, 8, RSP0)
        self.mem.write(TSS + 36, 8, IST1)
        s = self.state
        s.cr0 = int(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.PG)
        s.cr4 = int(Cr4.PAE)
        s.cr3 = PML4
        s.efer = int(Efer.LME | Efer.LMA | Efer.NXE)
        s.cs.set(CS, 0, 0xFFFFFFFF, 0xA09B)
        for segment in (s.ss, s.ds, s.es, s.fs, s.gs):
            segment.set(DS, 0, 0xFFFFFFFF, 0xC093)
        s.ldtr.set(0, 0, 0, 0x10082)
        s.tr.set(TR, TSS, 0x67, 0x8B)
        s.gdtr_base, s.gdtr_limit, s.idtr_base, s.idtr_limit = GDT, 0x37, IDT, 0xFFF
        s.rip, s.rsp, s.rflags = CODE, STACK, 2
        if vendor == "intel":
            self.cpu.msrs.write(Msr.IA32_FEATURE_CONTROL, int(FeatureControl.LOCKED | FeatureControl.VMX_OUTSIDE_SMX))
        self.cpu.context_changed()
        self.code(code)

    def code(self, code: bytes, at: int = CODE) -> None:
        """Put machine code somewhere."""
        self.mem.write_block(at, code)

    def words(self, address: int, *values: int) -> None:
        """Write quadwords."""
        for i, value in enumerate(values):
            self.mem.write(address + 8 * i, 8, value)

    def gate(self, vector: int, *, kind: int = 0x8E, selector: int = CS, ist: int = 0, offset: int | None = None) -> None:
        """Write an IDT gate; `kind` is its sixth byte (present, DPL, type)."""
        target = HANDLERS + 16 * vector if offset is None else offset
        low = target & 0xFFFF | selector << 16 | ist << 32 | kind << 40 | (target >> 16 & 0xFFFF) << 48
        self.words(IDT + 16 * vector, low, target >> 32)

    def apic_on(self) -> None:
        """x2APIC mode, software-enabled."""
        self.cpu.msrs.write(Msr.IA32_APIC_BASE, self.cpu.msrs.read(Msr.IA32_APIC_BASE) | 0xC00)
        self.cpu.msrs.write(0x80F, 0x1FF)

    def taken(self) -> int:
        """The vector whose handler the processor has halted in; -1 if it is in none."""
        at = self.state.rip - 1 - HANDLERS
        return at // 16 if at >= 0 and at % 16 == 0 and at // 16 < 256 else -1

    def frame(self, count: int = 6) -> list[int]:
        """Quadwords at RSP, top first."""
        return [self.mem.read(self.state.rsp + 8 * i, 8) for i in range(count)]

    def user(self) -> None:
        """Go on in ring 3: code and stack pages become user pages."""
        for page in (CODE, STACK - 0x1000, STACK):
            self.words(PT + 8 * (page >> 12), page | 7)
        self.state.cs.set(USER_CS, 0, 0xFFFFFFFF, 0xA0FB)
        self.state.ss.set(USER_DS, 0, 0xFFFFFFFF, 0xC0F3)
        self.cpu.context_changed()
