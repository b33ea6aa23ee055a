"""Instructions on single flags (SDM vol. 2: CLC, CLD, CMC, LAHF, SAHF, STC, STD). CLI and STI are microcode."""

from __future__ import annotations

from worldswitch.arch.registers import Gpr
from worldswitch.cpu.semantics.registry import instruction
from worldswitch.cpu.value import Core, Flag


@instruction("CLC")
def clc(c: Core) -> None:
    c.set_flags(CF=0)


@instruction("STC")
def stc(c: Core) -> None:
    c.set_flags(CF=1)


@instruction("CMC")
def cmc(c: Core) -> None:
    c.set_flags(CF=~c.flag(Flag.CF))


@instruction("CLD")
def cld(c: Core) -> None:
    c.set_flags(DF=0)


@instruction("STD")
def std(c: Core) -> None:
    c.set_flags(DF=1)


_LAHF = (Flag.CF, Flag.PF, Flag.AF, Flag.ZF, Flag.SF)


@instruction("LAHF")
def lahf(c: Core) -> None:
    value = c.const(8, 2)
    for flag in _LAHF:
        value = value | c.flag(flag).zext(8) << int(flag)
    c.set_high_byte(Gpr.RAX, value)


@instruction("SAHF")
def sahf(c: Core) -> None:
    value = c.get_high_byte(Gpr.RAX)
    c.set_flags(**{flag.name: value.bit(int(flag)) for flag in _LAHF})
