"""Multiplication and division (SDM vol. 2: DIV, IDIV, IMUL, MUL)."""

from __future__ import annotations

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr
from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Operand, Value


def _set_pair(c: Core, wide: Value) -> None:
    """A double-width result: AX for bytes, else the high half to rDX and the low half to rAX."""
    half = wide.bits // 2
    if half == 8:
        c.set(Gpr.RAX, wide)
    else:
        c.set(Gpr.RAX, wide.trunc(half))
        c.set(Gpr.RDX, (wide >> half).trunc(half))


def _get_pair(c: Core, half: int) -> Value:
    if half == 8:
        return c.get(Gpr.RAX, 16)
    return c.get(Gpr.RDX, half).zext(2 * half) << half | c.get(Gpr.RAX, half).zext(2 * half)


def _product_flags(c: Core, fits: Value, low: Value) -> None:
    """CF = OF = the product does not fit. SF ZF AF PF are undefined; processors give SF and PF of the low half."""
    c.set_flags(CF=~fits, OF=~fits, SF=low.msb(), ZF=0, AF=0, PF=low.parity_even())


@instruction("MUL")
def mul(c: Core, src: Operand) -> None:
    bits = src.bits
    wide = c.get(Gpr.RAX, bits).zext(2 * bits) * src.load().zext(2 * bits)
    _set_pair(c, wide)
    _product_flags(c, (wide >> bits).eq(0), wide.trunc(bits))


@instruction("IMUL")
def imul(c: Core, first: Operand, *more: Operand) -> None:
    bits = first.bits
    if not more:
        a, b = c.get(Gpr.RAX, bits), first.load()
    elif len(more) == 1:
        a, b = first.load(), more[0].load()
    else:
        a, b = more[0].load(), more[1].load()
    wide = a.sext(2 * bits) * b.sext(2 * bits)
    low = wide.trunc(bits)
    if more:
        first.store(low)
    else:
        _set_pair(c, wide)
    _product_flags(c, low.sext(2 * bits).eq(wide), low)


def _set_quotient(c: Core, quotient: Value, remainder: Value) -> None:
    if quotient.bits == 8:
        c.set(Gpr.RAX, remainder.zext(16) << 8 | quotient.zext(16))
    else:
        c.set(Gpr.RAX, quotient)
        c.set(Gpr.RDX, remainder)


@instruction("DIV")
def div(c: Core, src: Operand) -> None:
    bits = src.bits
    divisor, dividend = src.load(), _get_pair(c, bits)
    # The quotient fits if and only if the high half is below the divisor; that covers a divisor of 0.
    c.fault_if(~(dividend >> bits).trunc(bits).ult(divisor), Vector.DE)
    wide = divisor.zext(2 * bits)
    _set_quotient(c, dividend.udiv(wide).trunc(bits), dividend.urem(wide).trunc(bits))


@instruction("IDIV")
def idiv(c: Core, src: Operand) -> None:
    bits = src.bits
    divisor, dividend = src.load(), _get_pair(c, bits)
    c.fault_if(divisor.eq(0), Vector.DE)
    wide = divisor.sext(2 * bits)
    quotient = dividend.sdiv(wide)
    c.fault_if(quotient.trunc(bits).sext(2 * bits).ne(quotient), Vector.DE)
    _set_quotient(c, quotient.trunc(bits), dividend.srem(wide).trunc(bits))
