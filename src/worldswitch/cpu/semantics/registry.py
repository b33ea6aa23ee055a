"""Which text gives which mnemonic its meaning.

Semantic functions register here by the mnemonic names that iced-x86 uses (the manuals' names). An instruction that is not found here and
not in `cpu.microcode` is not implemented, and says so by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from iced_x86 import Mnemonic

#: A semantic function takes the core and then the instruction's operands, in Intel's order.
Semantics = Callable[..., None]
F = TypeVar("F", bound=Semantics)

#: iced-x86 mnemonic number to semantic function.
SEMANTICS: Final[dict[int, Semantics]] = {}
#: iced-x86 mnemonic number to name, for messages and the generated instruction list.
MNEMONIC_NAMES: Final[dict[int, str]] = {number: name for name, number in vars(Mnemonic).items() if isinstance(number, int)}
_NUMBERS: Final[dict[str, int]] = {name: number for number, name in MNEMONIC_NAMES.items()}


def mnemonic_number(name: str) -> int:
    """iced-x86's number for a mnemonic; KeyError if there is no such instruction."""
    return _NUMBERS[name]


def instruction(*names: str) -> Callable[[F], F]:
    """Register the decorated function as the meaning of these mnemonics. ValueError if one already has a meaning."""

    def register(function: F) -> F:
        for name in names:
            number = mnemonic_number(name)
            if number in SEMANTICS:
                raise ValueError(f"{name} has two meanings: {SEMANTICS[number].__qualname__} and {function.__qualname__}")
            SEMANTICS[number] = function
        return function

    return register
