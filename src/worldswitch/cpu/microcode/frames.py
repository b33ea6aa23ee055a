"""ENTER (SDM vol. 2): a stack frame with up to 31 levels of display.

Its loop runs over a value of the instruction, which makes it microcode; LEAVE is in `cpu.semantics.stack`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.registers import Gpr, Seg
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.intercept import Access
from worldswitch.cpu.microcode.registry import microcode, value

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


@microcode("ENTER")
def enter(cpu: Processor, ins: Decoded) -> None:
    core, size = cpu.core, ins.operand_bits // 8
    allocate, level = value(ins, 0), value(ins, 1) % 32
    mask = (1 << core.stack_bits) - 1
    sp, frame = core.get(Gpr.RSP, core.stack_bits).v, core.get(Gpr.RBP, core.stack_bits).v
    frame_pointer = sp - size & mask
    writes = [core.get(Gpr.RBP, ins.operand_bits).v]
    writes += [core.load_stack(core.const(core.stack_bits, frame - i * size), ins.operand_bits).v for i in range(1, level)]
    if level:
        writes.append(frame_pointer & (1 << ins.operand_bits) - 1)
    for written in writes:
        sp = sp - size & mask
        core.store_stack(core.const(core.stack_bits, sp), core.const(ins.operand_bits, written))
    top = sp - allocate & mask
    # The stack must be writable where it ends, before any register changes.
    cpu.mmu.translate(cpu.mmu.linear(Seg.SS, top, 1, Access.WRITE), Access.WRITE)
    core.set(Gpr.RBP, core.const(ins.operand_bits, frame_pointer))
    core.set(Gpr.RSP, core.const(core.stack_bits, top))
