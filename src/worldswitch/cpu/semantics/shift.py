"""Shifts and rotates (SDM vol. 2: RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR, SHLD, SHRD).

A count of 0 after masking changes no flag; a 32-bit destination register is zero-extended even then. OF is defined for a count of 1 only: for others
these rules go on with the same formula, as processors do.
"""

from __future__ import annotations

from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Flag, Operand, Value


def _count(c: Core, operand: Operand, bits: int) -> Value:
    """The masked count, as wide as what is shifted: 6 bits for 64-bit operands, else 5."""
    count = operand.load() & (63 if bits == 64 else 31)
    return count.zext(bits)


def _flags(c: Core, count: Value, result: Value, carry: Value, overflow: Value) -> None:
    @c.when(count.ne(0))
    def _() -> None:
        c.set_flags(CF=carry, OF=overflow, AF=0)
        c.flags_of_result(result)


def _rotate_flags(c: Core, count: Value, carry: Value, overflow: Value) -> None:
    @c.when(count.ne(0))
    def _() -> None:
        c.set_flags(CF=carry, OF=overflow)


@instruction("SHL", "SAL")
def shl(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    wide = a.zext(128) << n.zext(128)
    result, carry = wide.trunc(dst.bits), wide.bit(dst.bits)
    dst.store(result)
    _flags(c, n, result, carry, result.msb() ^ carry)


@instruction("SHR")
def shr(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    result = a >> n
    dst.store(result)
    _flags(c, n, result, (a >> (n - 1)).bit(0), a.msb())


@instruction("SAR")
def sar(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    result = a.sar(n)
    dst.store(result)
    _flags(c, n, result, a.sar(n - 1).bit(0), c.const(1, 0))


@instruction("ROL")
def rol(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    r = n & (dst.bits - 1)
    result = a << r | a >> (c.const(dst.bits, dst.bits) - r)
    dst.store(result)
    _rotate_flags(c, n, result.bit(0), result.msb() ^ result.bit(0))


@instruction("ROR")
def ror(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    r = n & (dst.bits - 1)
    result = a >> r | a << (c.const(dst.bits, dst.bits) - r)
    dst.store(result)
    _rotate_flags(c, n, result.msb(), result.msb() ^ result.bit(dst.bits - 2))


def _with_carry(c: Core, a: Value, count: Value, left: bool) -> Value:
    """Rotate CF:a, one bit wider than the operand, in 128 bits."""
    width = a.bits + 1
    x = a.zext(128) | c.flag(Flag.CF).zext(128) << a.bits
    n = count.zext(128).urem(c.const(128, width))
    rest = c.const(128, width) - n
    return x << n | x >> rest if left else x >> n | x << rest


@instruction("RCL")
def rcl(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    wide = _with_carry(c, a, n, left=True)
    result, carry = wide.trunc(dst.bits), wide.bit(dst.bits)
    dst.store(result)
    _rotate_flags(c, n, carry, result.msb() ^ carry)


@instruction("RCR")
def rcr(c: Core, dst: Operand, src: Operand) -> None:
    a, n = dst.load(), _count(c, src, dst.bits)
    wide = _with_carry(c, a, n, left=False)
    result, carry = wide.trunc(dst.bits), wide.bit(dst.bits)
    dst.store(result)
    _rotate_flags(c, n, carry, result.msb() ^ result.bit(dst.bits - 2))


@instruction("SHLD")
def shld(c: Core, dst: Operand, src: Operand, count: Operand) -> None:
    a, b, n = dst.load(), src.load(), _count(c, count, dst.bits)
    # In 128 bits a 16-bit operand with a count above 16 shifts in its own bits again, as processors do (the manual leaves it undefined).
    bits = dst.bits
    pair = a.zext(128) << bits | b.zext(128)
    if bits == 16:
        pair = pair << 16 | a.zext(128)
        result = (pair >> (c.const(128, 32) - n.zext(128))).trunc(16)
    else:
        result = n.eq(0).select(a, a << n | b >> (c.const(bits, bits) - n))
    dst.store(result)
    carry = (a.zext(128) << n.zext(128)).bit(bits)
    _flags(c, n, result, carry, result.msb() ^ a.msb())


@instruction("SHRD")
def shrd(c: Core, dst: Operand, src: Operand, count: Operand) -> None:
    a, b, n = dst.load(), src.load(), _count(c, count, dst.bits)
    bits = dst.bits
    if bits == 16:
        triple = a.zext(128) << 32 | b.zext(128) << 16 | a.zext(128)
        result = (triple >> n.zext(128)).trunc(16)
    else:
        result = n.eq(0).select(a, a >> n | b << (c.const(bits, bits) - n))
    dst.store(result)
    _flags(c, n, result, (a >> (n - 1)).bit(0), result.msb() ^ a.msb())
