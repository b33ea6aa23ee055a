"""The sixteen conditions of Jcc, SETcc and CMOVcc (SDM vol. 1 appendix B)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from worldswitch.cpu.value import Core, Flag, Value


def _below(c: Core) -> Value:
    return c.flag(Flag.CF)


def _below_or_equal(c: Core) -> Value:
    return c.flag(Flag.CF) | c.flag(Flag.ZF)


def _less(c: Core) -> Value:
    return c.flag(Flag.SF) ^ c.flag(Flag.OF)


def _less_or_equal(c: Core) -> Value:
    return _less(c) | c.flag(Flag.ZF)


def _flag(flag: Flag) -> Callable[[Core], Value]:
    return lambda c: c.flag(flag)


def _not(condition: Callable[[Core], Value]) -> Callable[[Core], Value]:
    return lambda c: ~condition(c)


#: Mnemonic suffix, as iced-x86 spells it, to the condition as a 1-bit value.
CONDITIONS: Final[dict[str, Callable[[Core], Value]]] = {
    "O": _flag(Flag.OF),
    "NO": _not(_flag(Flag.OF)),
    "B": _below,
    "AE": _not(_below),
    "E": _flag(Flag.ZF),
    "NE": _not(_flag(Flag.ZF)),
    "BE": _below_or_equal,
    "A": _not(_below_or_equal),
    "S": _flag(Flag.SF),
    "NS": _not(_flag(Flag.SF)),
    "P": _flag(Flag.PF),
    "NP": _not(_flag(Flag.PF)),
    "L": _less,
    "GE": _not(_less),
    "LE": _less_or_equal,
    "G": _not(_less_or_equal),
}
