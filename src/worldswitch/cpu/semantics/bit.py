"""Bit tests, scans and counts (SDM vol. 2: BSF, BSR, BT, BTC, BTR, BTS, POPCNT)."""

from __future__ import annotations

from collections.abc import Callable

from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Operand, Value


def _bit_test(c: Core, base: Operand, index: Operand, change: Callable[[Value, Value], Value] | None) -> None:
    position = index.load()
    bits = base.bits
    if base.is_memory and index.bits == bits:
        # A register indexes a bit string in memory, signed (SDM vol. 2 §3.1.1.9, Bit(BitBase, BitOffset)); an immediate stays within the operand.
        words = position.sext(64).sar(bits.bit_length() - 1)
        base = base.at(words * (bits // 8))
    at = (position & (bits - 1)).zext(bits)
    value = base.load()
    if change is not None:
        base.store(change(value, c.const(bits, 1) << at))
    c.set_flags(CF=value.bit(at))


@instruction("BT")
def bt(c: Core, base: Operand, index: Operand) -> None:
    _bit_test(c, base, index, None)


@instruction("BTS")
def bts(c: Core, base: Operand, index: Operand) -> None:
    _bit_test(c, base, index, lambda value, mask: value | mask)


@instruction("BTR")
def btr(c: Core, base: Operand, index: Operand) -> None:
    _bit_test(c, base, index, lambda value, mask: value & ~mask)


@instruction("BTC")
def btc(c: Core, base: Operand, index: Operand) -> None:
    _bit_test(c, base, index, lambda value, mask: value ^ mask)


@instruction("BSF")
def bsf(c: Core, dst: Operand, src: Operand) -> None:
    value = src.load()
    zero = value.eq(0)

    # A source of 0 leaves the destination as it was (APM vol. 3, BSF; Intel documents it since 2023).
    @c.when(~zero)
    def _() -> None:
        dst.store(value.count_trailing_zeros())

    c.set_flags(ZF=zero)


@instruction("BSR")
def bsr(c: Core, dst: Operand, src: Operand) -> None:
    value = src.load()
    zero = value.eq(0)

    @c.when(~zero)
    def _() -> None:
        dst.store(c.const(value.bits, value.bits - 1) - value.count_leading_zeros())

    c.set_flags(ZF=zero)


@instruction("POPCNT")
def popcnt(c: Core, dst: Operand, src: Operand) -> None:
    value = src.load()
    dst.store(value.count_ones())
    c.set_flags(OF=0, SF=0, ZF=value.eq(0), AF=0, PF=0, CF=0)
