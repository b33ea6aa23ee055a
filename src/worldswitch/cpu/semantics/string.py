"""String instructions and their repetition (SDM vol. 2: CMPS, LODS, MOVS, SCAS, STOS, REP). INS and OUTS are microcode.

One execution is one iteration: with a repeat prefix the instruction goes on by staying where it is (`Core.again`), so that interrupts, page faults and
budgets find exact registers between any two iterations.
"""

from __future__ import annotations

from collections.abc import Callable

from worldswitch.arch.registers import Gpr
from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Flag, Operand


def _repeat(c: Core, body: Callable[[], None], *, compares: bool = False) -> None:
    if not c.repeat:
        body()
        return
    count = c.get(Gpr.RCX, c.address_bits)

    @c.when(count.ne(0))
    def _() -> None:
        body()
        left = count - 1
        c.set(Gpr.RCX, left)
        more = left.ne(0)
        if compares:
            equal = c.flag(Flag.ZF)
            more = more & (equal if c.repeat == "rep" else ~equal)

        @c.when(more)
        def _() -> None:
            c.again()


def _advance(c: Core, register: Gpr, bits: int) -> None:
    old = c.get(register, c.address_bits)
    size = bits // 8
    c.set(register, c.flag(Flag.DF).select(old - size, old + size))


@instruction("MOVSB", "MOVSW", "MOVSD", "MOVSQ")
def movs(c: Core, dst: Operand, src: Operand) -> None:
    def body() -> None:
        dst.store(src.load())
        _advance(c, Gpr.RSI, dst.bits)
        _advance(c, Gpr.RDI, dst.bits)

    _repeat(c, body)


@instruction("STOSB", "STOSW", "STOSD", "STOSQ")
def stos(c: Core, dst: Operand, src: Operand) -> None:
    def body() -> None:
        dst.store(src.load())
        _advance(c, Gpr.RDI, dst.bits)

    _repeat(c, body)


@instruction("LODSB", "LODSW", "LODSD", "LODSQ")
def lods(c: Core, dst: Operand, src: Operand) -> None:
    def body() -> None:
        dst.store(src.load())
        _advance(c, Gpr.RSI, dst.bits)

    _repeat(c, body)


@instruction("SCASB", "SCASW", "SCASD", "SCASQ")
def scas(c: Core, left: Operand, right: Operand) -> None:
    def body() -> None:
        a, b = left.load(), right.load()
        c.flags_of_sub(a, b, a - b)
        _advance(c, Gpr.RDI, left.bits)

    _repeat(c, body, compares=True)


@instruction("CMPSB", "CMPSW", "CMPSD", "CMPSQ")
def cmps(c: Core, left: Operand, right: Operand) -> None:
    def body() -> None:
        a, b = left.load(), right.load()
        c.flags_of_sub(a, b, a - b)
        _advance(c, Gpr.RSI, left.bits)
        _advance(c, Gpr.RDI, left.bits)

    _repeat(c, body, compares=True)
