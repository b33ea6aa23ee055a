"""Which function is the microcode of which mnemonic, and the checks that many of them begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Intercept
from worldswitch.cpu.semantics.registry import mnemonic_number

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

Microcode = Callable[["Processor", Decoded], None]
#: iced-x86 mnemonic number to microcode.
MICROCODE: Final[dict[int, Microcode]] = {}


def microcode(*names: str) -> Callable[[Microcode], Microcode]:
    """Register the decorated function for these mnemonics."""

    def register(function: Microcode) -> Microcode:
        for name in names:
            MICROCODE[mnemonic_number(name)] = function
        return function

    return register


def require_cpl0(cpu: Processor) -> None:
    """#GP(0) unless the privilege level is 0."""
    if cpu.protected and cpu.cpl:
        raise fault(Vector.GP, 0)


def intercepted(cpu: Processor, what: Intercept, linear: int = 0) -> None:
    """Ask the hypervisor, if there is one."""
    if cpu.guest is not None:
        cpu.guest.instruction(what, linear=linear)


def operand(ins: Decoded, index: int) -> Any:
    """An operand as the concrete engine made it (typed Any: its class depends on the instruction)."""
    return ins.operands[index]


def value(ins: Decoded, index: int) -> int:
    """An operand's value as an int."""
    return int(operand(ins, index).load().v)
