"""Near jumps, calls and returns, loops (SDM vol. 2: CALL, Jcc, JMP, LOOP, RET). Far transfers are microcode."""

from __future__ import annotations

from worldswitch.arch.registers import Gpr
from worldswitch.cpu.semantics.conditions import CONDITIONS
from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.semantics.stack import push, top_after
from worldswitch.cpu.value import Core, Flag, Operand, Value


@instruction("JMP")
def jmp(c: Core, target: Operand) -> None:
    c.jump(target.load().zext(64))


@instruction("CALL")
def call(c: Core, target: Operand) -> None:
    back = c.next_ip.trunc(c.operand_bits)
    c.jump(target.load().zext(64))  # faults, if it must, before the stack changes
    push(c, back)


@instruction("RET")
def ret(c: Core, *release: Operand) -> None:
    target = c.load_stack(c.get(Gpr.RSP, c.stack_bits), c.operand_bits)
    c.jump(target.zext(64))
    after = top_after(c, c.operand_bits // 8)
    c.set(Gpr.RSP, after + release[0].load().zext(64).trunc(after.bits) if release else after)


def _jcc(name: str) -> None:
    condition = CONDITIONS[name]

    @instruction(f"J{name}")
    def jcc(c: Core, target: Operand) -> None:
        @c.when(condition(c))
        def _() -> None:
            c.jump(target.load())


for _name in CONDITIONS:
    _jcc(_name)


@instruction("JCXZ", "JECXZ", "JRCXZ")
def jcxz(c: Core, target: Operand) -> None:
    @c.when(c.get(Gpr.RCX, c.address_bits).eq(0))
    def _() -> None:
        c.jump(target.load())


def _loop(c: Core, target: Operand, condition: Value) -> None:
    count = c.get(Gpr.RCX, c.address_bits) - 1

    @c.when(count.ne(0) & condition)
    def _() -> None:
        c.jump(target.load())

    c.set(Gpr.RCX, count)


@instruction("LOOP")
def loop(c: Core, target: Operand) -> None:
    _loop(c, target, c.const(1, 1))


@instruction("LOOPE")
def loope(c: Core, target: Operand) -> None:
    _loop(c, target, c.flag(Flag.ZF))


@instruction("LOOPNE")
def loopne(c: Core, target: Operand) -> None:
    _loop(c, target, ~c.flag(Flag.ZF))
