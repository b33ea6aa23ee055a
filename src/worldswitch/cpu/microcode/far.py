"""Far transfers without gates: JMP, CALL, RET between code segments (SDM vol. 2; vol. 3 §5.8), and what every load of CS shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr, Seg
from worldswitch.arch.segments import (
    AR_DB,
    AR_DPL,
    AR_L,
    AR_P,
    AR_S,
    AR_UNUSABLE,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_EXPAND_DOWN,
    descriptor_ar,
    descriptor_base,
    descriptor_limit,
)  # fmt: skip
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.events import read_descriptor
from worldswitch.cpu.intercept import Access
from worldswitch.cpu.microcode.registry import microcode, operand, value
from worldswitch.cpu.microcode.segments import load_segment
from worldswitch.cpu.state import MASK64
from worldswitch.errors import UnimplementedFeature

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


@dataclass(slots=True)
class CodeSegment:
    """A checked code segment, not yet loaded."""

    cpu: Processor
    selector: int
    base: int
    limit: int
    ar: int

    @property
    def long(self) -> bool:
        """64-bit code."""
        return bool(self.ar & AR_L) and self.cpu.long_mode

    def commit(self) -> None:
        """Load CS; SS.DPL follows the privilege level."""
        self.cpu.state.cs.set(self.selector, self.base, self.limit, self.ar)
        self.cpu.context_changed()


def load_code_segment(cpu: Processor, selector: int, privilege: int) -> CodeSegment:
    """Check a code segment that execution returns or jumps to at `privilege`. Raises #GP, #NP (SDM vol. 2, IRET, RET)."""
    if not cpu.protected:
        return CodeSegment(cpu, selector, selector << 4, 0xFFFF, cpu.state.cs.ar)
    if not selector & ~3:
        raise fault(Vector.GP, 0)
    error = selector & ~3
    low = read_descriptor(cpu, selector)
    ar = descriptor_ar(low)
    dpl = (ar & AR_DPL) >> 5
    if not ar & AR_S or not ar & TYPE_CODE or privilege < cpu.cpl:
        raise fault(Vector.GP, error)
    if (dpl > privilege) if ar & TYPE_EXPAND_DOWN else (dpl != privilege):
        raise fault(Vector.GP, error)
    if cpu.long_mode and ar & AR_L and ar & AR_DB:
        raise fault(Vector.GP, error)
    if not ar & AR_P:
        raise fault(Vector.NP, error)
    base = 0 if cpu.long_mode and ar & AR_L else descriptor_base(low)
    return CodeSegment(cpu, selector, base, descriptor_limit(low), ar | TYPE_ACCESSED)


def outer_level(cpu: Processor, privilege: int) -> None:
    """After a return to an outer level: data segments that it may not use become null (SDM vol. 2, RET)."""
    for seg in (Seg.ES, Seg.DS, Seg.FS, Seg.GS):
        segment = cpu.state.seg[seg]
        dpl = (segment.ar & AR_DPL) >> 5
        conforming = segment.ar & TYPE_CODE and segment.ar & TYPE_EXPAND_DOWN
        if not segment.ar & AR_UNUSABLE and not conforming and dpl < privilege:
            segment.set(0, segment.base, 0, AR_UNUSABLE)


def _pointer(cpu: Processor, ins: Decoded) -> tuple[int, int]:
    """(selector, offset) of a far pointer operand, immediate or in memory."""
    target = operand(ins, 0)
    if isinstance(target, tuple):
        return target
    size = ins.operand_bits // 8
    linear = cpu.mmu.linear(target.seg, target.offset(), size + 2, Access.READ)
    return cpu.mmu.load(linear + size & MASK64, 2), cpu.mmu.load(linear, size)


def _direct(cpu: Processor, selector: int, offset: int) -> CodeSegment:
    """A JMP or CALL to a code segment at the current privilege level."""
    if cpu.protected and selector & ~3:
        low = read_descriptor(cpu, selector)
        if not descriptor_ar(low) & AR_S:
            raise UnimplementedFeature("a far transfer through a gate or TSS", f"selector {selector:#x} at RIP {cpu.state.rip:#x}")
    segment = load_code_segment(cpu, selector & ~3 | cpu.cpl if cpu.protected else selector, cpu.cpl)
    if not cpu.mmu.canonical(offset) if segment.long else offset > segment.limit:
        raise fault(Vector.GP, 0)
    return segment


def jmp_far(cpu: Processor, ins: Decoded) -> None:
    """JMP ptr16:32, JMP m16:64."""
    selector, offset = _pointer(cpu, ins)
    _direct(cpu, selector, offset).commit()
    cpu.next_rip = offset


def call_far(cpu: Processor, ins: Decoded) -> None:
    """CALL ptr16:32, CALL m16:64."""
    selector, offset = _pointer(cpu, ins)
    segment = _direct(cpu, selector, offset)
    core, bits = cpu.core, ins.operand_bits
    top = core.get(Gpr.RSP, core.stack_bits)
    core.store_stack(top - bits // 8, core.const(bits, cpu.state.cs.selector))
    core.store_stack(top - bits // 4, core.const(bits, cpu.next_rip))
    core.set(Gpr.RSP, top - bits // 4)
    segment.commit()
    cpu.next_rip = offset


@microcode("RETF")
def ret_far(cpu: Processor, ins: Decoded) -> None:
    core, bits = cpu.core, ins.operand_bits
    size = bits // 8
    release = value(ins, 0) if ins.operands else 0
    top = core.get(Gpr.RSP, core.stack_bits)
    offset = core.load_stack(top, bits).v
    selector = core.load_stack(top + size, bits).v & 0xFFFF
    outward = cpu.protected and (selector & 3) > cpu.cpl
    segment = load_code_segment(cpu, selector, selector & 3 if cpu.protected else 0)
    if not cpu.mmu.canonical(offset) if segment.long else offset > segment.limit:
        raise fault(Vector.GP, 0)
    after = top + 2 * size + release
    if outward:
        new_sp = core.load_stack(after, bits)
        ss = core.load_stack(after + size, bits).v & 0xFFFF
        load_segment(cpu, Seg.SS, ss, cpl=selector & 3)
        after = new_sp + release
    segment.commit()
    core.set(Gpr.RSP, after)
    cpu.next_rip = offset
    if outward:
        outer_level(cpu, selector & 3)
