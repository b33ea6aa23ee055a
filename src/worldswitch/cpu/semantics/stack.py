"""The stack (SDM vol. 2: LEAVE, POP, POPA, PUSH, PUSHA). PUSHF and POPF are microcode, as is ENTER.

`push` and `pop` are the pieces that calls and returns use too.
"""

from __future__ import annotations

from worldswitch.arch.registers import Gpr
from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Operand, Value


def push(c: Core, value: Value) -> None:
    """Write below the stack pointer, then move it: a fault leaves it where it was."""
    top = c.get(Gpr.RSP, c.stack_bits) - value.bits // 8
    c.store_stack(top, value)
    c.set(Gpr.RSP, top)


def top_after(c: Core, count: int) -> Value:
    """The stack pointer once `count` bytes are popped."""
    return c.get(Gpr.RSP, c.stack_bits) + count


@instruction("PUSH")
def push_(c: Core, src: Operand) -> None:
    push(c, src.load().zext(c.operand_bits))


@instruction("POP")
def pop(c: Core, dst: Operand) -> None:
    size = dst.bits // 8
    value = c.load_stack(c.get(Gpr.RSP, c.stack_bits), dst.bits)
    after = top_after(c, size)
    if dst.is_memory:
        # An address based on RSP is computed after the increment (SDM vol. 2, POP).
        (dst.at(c.const(64, size)) if dst.based_on_stack_pointer else dst).store(value)
        c.set(Gpr.RSP, after)
    else:
        c.set(Gpr.RSP, after)
        dst.store(value)  # POP RSP: the value popped stays


@instruction("LEAVE")
def leave(c: Core) -> None:
    frame = c.get(Gpr.RBP, c.stack_bits)
    value = c.load_stack(frame, c.operand_bits)
    c.set(Gpr.RSP, frame + c.operand_bits // 8)
    c.set(Gpr.RBP, value)


_ALL = (Gpr.RAX, Gpr.RCX, Gpr.RDX, Gpr.RBX, Gpr.RSP, Gpr.RBP, Gpr.RSI, Gpr.RDI)


@instruction("PUSHA", "PUSHAD")
def pusha(c: Core) -> None:
    size = c.operand_bits // 8
    old = c.get(Gpr.RSP, c.stack_bits)
    for i, register in enumerate(_ALL, 1):
        c.store_stack(old - i * size, c.get(register, c.operand_bits))
    c.set(Gpr.RSP, old - 8 * size)


@instruction("POPA", "POPAD")
def popa(c: Core) -> None:
    size = c.operand_bits // 8
    old = c.get(Gpr.RSP, c.stack_bits)
    values = [(register, c.load_stack(old + i * size, c.operand_bits)) for i, register in enumerate(reversed(_ALL)) if register != Gpr.RSP]
    for register, value in values:
        c.set(register, value)
    c.set(Gpr.RSP, old + 8 * size)
