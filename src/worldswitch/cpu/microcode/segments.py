"""Segment registers: MOV Sreg, POP Sreg, LFS/LGS/LSS, LLDT, LTR, SLDT, STR (SDM vol. 2; checks in vol. 3 §5.2-5.6, §3.4.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Cr4, Gpr, Rflags, Seg
from worldswitch.arch.segments import (
    AR_DPL,
    AR_P,
    AR_S,
    AR_UNUSABLE,
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_EXPAND_DOWN,
    TYPE_WRITABLE,
    SystemType,
    descriptor_ar,
    descriptor_base,
    descriptor_limit,
)  # fmt: skip
from worldswitch.arch.vmx import Interruptibility
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.events import read_descriptor
from worldswitch.cpu.intercept import Access, Intercept
from worldswitch.cpu.microcode.registry import intercepted, microcode, operand, require_cpl0, value
from worldswitch.cpu.state import MASK64

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


def load_segment(cpu: Processor, seg: int, selector: int, cpl: int | None = None) -> None:
    """Load ES, SS, DS, FS or GS with every check (SDM vol. 2, MOV). `cpl`: the privilege level that counts, if not the current one (returns to outer
    levels)."""
    target = cpu.state.seg[seg]
    if not cpu.protected or cpu.state.rflags & Rflags.VM:
        target.selector, target.base = selector, selector << 4
        return
    level = cpu.cpl if cpl is None else cpl
    if not selector & ~3:
        if seg == Seg.SS:
            # A null SS is allowed in 64-bit mode below ring 3, with RPL = CPL (SDM vol. 3 §5.4.1.1).
            if not cpu.long_mode or level == 3 or selector & 3 != level:
                raise fault(Vector.GP, 0)
            target.set(selector, 0, 0, AR_UNUSABLE | level << 5)
        else:
            target.set(selector, 0 if cpu.model.vendor == "intel" else target.base, 0, AR_UNUSABLE)
        return
    low = read_descriptor(cpu, selector)
    ar = descriptor_ar(low)
    dpl, rpl = (ar & AR_DPL) >> 5, selector & 3
    code = ar & TYPE_CODE
    if seg == Seg.SS:
        bad = not ar & AR_S or code or not ar & TYPE_WRITABLE or rpl != level or dpl != level
    else:
        conforming = code and ar & TYPE_EXPAND_DOWN
        bad = not ar & AR_S or (code and not ar & TYPE_WRITABLE) or (not conforming and dpl < max(level, rpl))
    if bad:
        raise fault(Vector.GP, selector & ~3)
    if not ar & AR_P:
        raise fault(Vector.SS if seg == Seg.SS else Vector.NP, selector & ~3)
    _mark_accessed(cpu, selector, low)
    target.set(selector, descriptor_base(low), descriptor_limit(low), ar | TYPE_ACCESSED)


def _mark_accessed(cpu: Processor, selector: int, low: int) -> None:
    if not low >> 40 & TYPE_ACCESSED:
        base = cpu.state.ldtr.base if selector & 4 else cpu.state.gdtr_base
        cpu.mmu.store_system((base + (selector & ~7) + 5) & MASK64, 1, low >> 40 & 0xFF | TYPE_ACCESSED)


def _loaded(cpu: Processor, seg: int) -> None:
    if seg == Seg.SS:
        cpu.shadow = Interruptibility.BLOCKING_BY_MOV_SS  # SDM vol. 3 §6.8.3
        cpu.context_changed()


def mov_segment(cpu: Processor, ins: Decoded) -> None:
    """MOV to or from a segment register."""
    first = operand(ins, 0)
    if getattr(first, "kind", "") == "seg":
        if first.index == Seg.CS:
            raise fault(Vector.UD)
        load_segment(cpu, first.index, value(ins, 1) & 0xFFFF)
        _loaded(cpu, first.index)
    else:
        first.store(cpu.core.const(first.bits, value(ins, 1)))


def pop_segment(cpu: Processor, ins: Decoded) -> None:
    """POP of a segment register."""
    core = cpu.core
    top = core.get(Gpr.RSP, core.stack_bits)
    selector = core.load_stack(top, ins.operand_bits).v & 0xFFFF
    seg = operand(ins, 0).index
    load_segment(cpu, seg, selector)
    core.set(Gpr.RSP, top + ins.operand_bits // 8)
    _loaded(cpu, seg)


@microcode("LES", "LDS", "LSS", "LFS", "LGS")
def load_far_pointer(cpu: Processor, ins: Decoded) -> None:
    target, memory = operand(ins, 0), operand(ins, 1)
    size = target.bits // 8
    linear = cpu.mmu.linear(memory.seg, memory.offset(), size + 2, Access.READ)
    offset, selector = cpu.mmu.load(linear, size), cpu.mmu.load(linear + size & MASK64, 2)
    seg = {"LES": Seg.ES, "LDS": Seg.DS, "LSS": Seg.SS, "LFS": Seg.FS, "LGS": Seg.GS}[ins.name]
    load_segment(cpu, seg, selector)
    target.store(cpu.core.const(target.bits, offset))
    if seg == Seg.SS:
        cpu.context_changed()


@microcode("LTR", "LLDT")
def load_system_segment(cpu: Processor, ins: Decoded) -> None:
    if not cpu.protected:
        raise fault(Vector.UD)
    require_cpl0(cpu)
    memory = operand(ins, 0)
    intercepted(cpu, Intercept.LTR if ins.name == "LTR" else Intercept.LLDT, memory.displacement if memory.is_memory else 0)
    selector = value(ins, 0) & 0xFFFF
    target = cpu.state.tr if ins.name == "LTR" else cpu.state.ldtr
    if not selector & ~3:
        if ins.name == "LTR":
            raise fault(Vector.GP, 0)
        target.set(selector, 0, 0, AR_UNUSABLE)
        return
    if selector & 4:
        raise fault(Vector.GP, selector & ~3)
    low = read_descriptor(cpu, selector)
    ar = descriptor_ar(low)
    wanted = (SystemType.TSS_AVAILABLE,) if ins.name == "LTR" else (SystemType.LDT,)
    if ar & AR_S or ar & 0xF not in wanted:
        raise fault(Vector.GP, selector & ~3)
    if not ar & AR_P:
        raise fault(Vector.NP, selector & ~3)
    base = descriptor_base(low)
    if cpu.long_mode:
        if (selector & ~7) + 15 > cpu.state.gdtr_limit:
            raise fault(Vector.GP, selector & ~3)
        high = cpu.mmu.load_system(cpu.state.gdtr_base + (selector & ~7) + 8 & MASK64, 8)
        base |= (high & 0xFFFFFFFF) << 32
        if not cpu.mmu.canonical(base):
            raise fault(Vector.GP, selector & ~3)
    if ins.name == "LTR":
        ar |= 2  # busy
        cpu.mmu.store_system(cpu.state.gdtr_base + (selector & ~7) + 5 & MASK64, 1, ar & 0xFF)
    target.set(selector, base, descriptor_limit(low), ar)


@microcode("SLDT", "STR")
def store_system_segment(cpu: Processor, ins: Decoded) -> None:
    if not cpu.protected:
        raise fault(Vector.UD)
    if cpu.state.cr4 & Cr4.UMIP and cpu.cpl:
        raise fault(Vector.GP, 0)
    target = operand(ins, 0)
    intercepted(cpu, Intercept.SLDT if ins.name == "SLDT" else Intercept.STR, target.displacement if target.is_memory else 0)
    source = cpu.state.ldtr if ins.name == "SLDT" else cpu.state.tr
    target.store(cpu.core.const(target.bits, source.selector))
