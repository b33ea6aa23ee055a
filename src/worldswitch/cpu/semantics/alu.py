"""Addition, subtraction, comparison and logic (SDM vol. 2: ADC, ADD, AND, CMP, DEC, INC, NEG, NOT, OR, SBB, SUB, TEST, XADD, XOR).

Memory destinations are written before the flags: a store that faults leaves the flags as they were (see `cpu.value`).
"""

from __future__ import annotations

from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Flag, Operand


@instruction("ADD")
def add(c: Core, dst: Operand, src: Operand) -> None:
    a, b = dst.load(), src.load()
    result = a + b
    dst.store(result)
    c.flags_of_add(a, b, result)


@instruction("ADC")
def adc(c: Core, dst: Operand, src: Operand) -> None:
    a, b, carry = dst.load(), src.load(), c.flag(Flag.CF)
    result = a + b + carry.zext(a.bits)
    dst.store(result)
    c.flags_of_add(a, b, result, carry)


@instruction("SUB")
def sub(c: Core, dst: Operand, src: Operand) -> None:
    a, b = dst.load(), src.load()
    result = a - b
    dst.store(result)
    c.flags_of_sub(a, b, result)


@instruction("SBB")
def sbb(c: Core, dst: Operand, src: Operand) -> None:
    a, b, borrow = dst.load(), src.load(), c.flag(Flag.CF)
    result = a - b - borrow.zext(a.bits)
    dst.store(result)
    c.flags_of_sub(a, b, result, borrow)


@instruction("CMP")
def cmp(c: Core, left: Operand, right: Operand) -> None:
    a, b = left.load(), right.load()
    c.flags_of_sub(a, b, a - b)


@instruction("INC")
def inc(c: Core, dst: Operand) -> None:
    a = dst.load()
    result = a + 1
    dst.store(result)
    c.flags_of_add(a, c.const(a.bits, 1), result, keep_cf=True)


@instruction("DEC")
def dec(c: Core, dst: Operand) -> None:
    a = dst.load()
    result = a - 1
    dst.store(result)
    c.flags_of_sub(a, c.const(a.bits, 1), result, keep_cf=True)


@instruction("NEG")
def neg(c: Core, dst: Operand) -> None:
    a = dst.load()
    result = -a
    dst.store(result)
    c.flags_of_sub(c.const(a.bits, 0), a, result)


@instruction("NOT")
def not_(c: Core, dst: Operand) -> None:
    dst.store(~dst.load())


@instruction("AND")
def and_(c: Core, dst: Operand, src: Operand) -> None:
    result = dst.load() & src.load()
    dst.store(result)
    c.flags_of_logic(result)


@instruction("OR")
def or_(c: Core, dst: Operand, src: Operand) -> None:
    result = dst.load() | src.load()
    dst.store(result)
    c.flags_of_logic(result)


@instruction("XOR")
def xor(c: Core, dst: Operand, src: Operand) -> None:
    result = dst.load() ^ src.load()
    dst.store(result)
    c.flags_of_logic(result)


@instruction("TEST")
def test(c: Core, left: Operand, right: Operand) -> None:
    c.flags_of_logic(left.load() & right.load())


@instruction("XADD")
def xadd(c: Core, dst: Operand, src: Operand) -> None:
    a, b = dst.load(), src.load()
    result = a + b
    # The destination last: with both the same register, the sum stays (SDM vol. 2, XADD). A memory destination must come first, because it may fault.
    if dst.is_memory:
        dst.store(result)
        src.store(a)
    else:
        src.store(a)
        dst.store(result)
    c.flags_of_add(a, b, result)
