"""Microcode: what is rare and intricate, in ordinary Python over the processor (SDM vol. 2, by mnemonic).

A function takes the processor and the decoded instruction, whose `operands` are the concrete engine's. Same rules as for semantics: checks first,
then intercepts (after the
faults that take priority over them, SDM vol. 3 §26.1.1), then changes. RIP goes on after the instruction unless `Processor.jump` or `next_rip` says otherwise.
"""

from __future__ import annotations

from worldswitch.cpu.decode import REGISTERS, Decoded
from worldswitch.cpu.microcode import control, far, frames, interrupts, io, segments, svm, system, vmx
from worldswitch.cpu.microcode.registry import MICROCODE, Microcode

#: What MOV with a register of these kinds is.
_SPECIAL_MOVES = {"seg": segments.mov_segment, "cr": control.mov_control, "dr": control.mov_debug}
#: Direct jumps, calls and returns that are far have the near ones' mnemonic in iced-x86.
_FAR = {"JMP": far.jmp_far, "CALL": far.call_far}


def lookup(ins: Decoded) -> Microcode | None:
    """The microcode of an instruction; None if it has none (then it has semantics, or is not implemented)."""
    x = ins.instruction
    if ins.name == "MOV" or ins.name == "POP":
        for i in range(x.op_count):
            kind = REGISTERS.get(x.op_register(i), ("", 0, 0))[0] if ins.name == "MOV" or i == 0 else ""
            if kind in _SPECIAL_MOVES:
                return _SPECIAL_MOVES[kind] if ins.name == "MOV" else segments.pop_segment
    if ins.name in _FAR and (x.is_call_far or x.is_call_far_indirect or x.is_jmp_far or x.is_jmp_far_indirect):
        return _FAR[ins.name]
    return MICROCODE.get(ins.mnemonic)


__all__ = ["MICROCODE", "Microcode", "frames", "interrupts", "io", "lookup", "svm", "system", "vmx"]
