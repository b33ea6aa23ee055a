"""Moves, extensions, exchanges (SDM vol. 2: BSWAP, CBW, CMOVcc, CMPXCHG, CWD, LEA, MOV, MOVBE, MOVSX, MOVZX, SETcc, XCHG).

MOV to and from segment, control and debug registers is microcode.
"""

from __future__ import annotations

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr
from worldswitch.cpu.semantics.conditions import CONDITIONS
from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Operand


@instruction("MOV")
def mov(c: Core, dst: Operand, src: Operand) -> None:
    dst.store(src.load())


@instruction("MOVZX")
def movzx(c: Core, dst: Operand, src: Operand) -> None:
    dst.store(src.load().zext(dst.bits))


@instruction("MOVSX", "MOVSXD")
def movsx(c: Core, dst: Operand, src: Operand) -> None:
    dst.store(src.load().sext(dst.bits))


@instruction("MOVBE")
def movbe(c: Core, dst: Operand, src: Operand) -> None:
    dst.store(src.load().byte_swap())


@instruction("BSWAP")
def bswap(c: Core, dst: Operand) -> None:
    dst.store(dst.load().byte_swap())


@instruction("LEA")
def lea(c: Core, dst: Operand, src: Operand) -> None:
    address = src.address()
    dst.store(address.trunc(dst.bits) if dst.bits < address.bits else address.zext(dst.bits))


@instruction("XCHG")
def xchg(c: Core, left: Operand, right: Operand) -> None:
    a, b = left.load(), right.load()
    # Memory first: it may fault, and then neither may have changed.
    first, second = (right, left) if right.is_memory else (left, right)
    first.store(a if first is right else b)
    second.store(b if second is left else a)


@instruction("CMPXCHG")
def cmpxchg(c: Core, dst: Operand, src: Operand) -> None:
    old, accumulator = dst.load(), c.get(Gpr.RAX, dst.bits)
    new = src.load()
    equal = accumulator.eq(old)
    if dst.is_memory:
        dst.store(equal.select(new, old))  # memory is written either way (SDM vol. 2, CMPXCHG)
    else:

        @c.when(equal)
        def _() -> None:
            dst.store(new)

    # The one that is not written keeps its upper half, too, for 32-bit operands.
    @c.when(~equal)
    def _() -> None:
        c.set(Gpr.RAX, old)

    c.flags_of_sub(accumulator, old, accumulator - old)


@instruction("CMPXCHG8B", "CMPXCHG16B")
def cmpxchg8b(c: Core, dst: Operand) -> None:
    half = dst.bits // 2
    if half == 64:
        c.fault_if((dst.address() & 15).ne(0), Vector.GP, 0)  # 16-byte alignment (SDM vol. 2, CMPXCHG16B)
    old = dst.load()
    expected = c.get(Gpr.RDX, half).zext(dst.bits) << half | c.get(Gpr.RAX, half).zext(dst.bits)
    desired = c.get(Gpr.RCX, half).zext(dst.bits) << half | c.get(Gpr.RBX, half).zext(dst.bits)
    equal = old.eq(expected)
    dst.store(equal.select(desired, old))

    @c.when(~equal)
    def _() -> None:
        c.set(Gpr.RAX, old.trunc(half))
        c.set(Gpr.RDX, (old >> half).trunc(half))

    c.set_flags(ZF=equal)


@instruction("CBW", "CWDE", "CDQE")
def cbw(c: Core) -> None:
    c.set(Gpr.RAX, c.get(Gpr.RAX, c.operand_bits // 2).sext(c.operand_bits))


@instruction("CWD", "CDQ", "CQO")
def cwd(c: Core) -> None:
    c.set(Gpr.RDX, c.get(Gpr.RAX, c.operand_bits).sar(c.operand_bits - 1))


@instruction("NOP", "PREFETCHW", "ENDBR64", "ENDBR32", "LFENCE", "MFENCE", "SFENCE", "CLFLUSH")
def nop(c: Core, *operands: Operand) -> None:
    pass


def _setcc(name: str) -> None:
    condition = CONDITIONS[name]

    @instruction(f"SET{name}")
    def setcc(c: Core, dst: Operand) -> None:
        dst.store(condition(c).zext(8))


def _cmovcc(name: str) -> None:
    condition = CONDITIONS[name]

    @instruction(f"CMOV{name}")
    def cmovcc(c: Core, dst: Operand, src: Operand) -> None:
        # The source is read, and a 32-bit destination zero-extended, whatever the condition (SDM vol. 2, CMOVcc).
        dst.store(condition(c).select(src.load(), dst.load()))


for _name in CONDITIONS:
    _setcc(_name)
    _cmovcc(_name)
