"""Named bits that are integers in all they do.

Two things about `IntFlag` do not fit registers. `~` complements within the width of the class's own highest member, so that `dr6 & ~Dr6.B0` would lose bits
31:17 of DR6; and every `&` and `|` builds a new flag object, which the processor would pay for at every instruction.
"""

from __future__ import annotations

from enum import EnumMeta, IntFlag
from typing import Any, Final

_OPERATORS: Final = ("__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__", "__invert__")


class _BitFlagType(EnumMeta):
    """Puts the integers' operators back, which `EnumMeta` overrides in every class of flags."""

    def __new__(metacls, name: str, bases: tuple[type, ...], namespace: Any, **keywords: Any) -> Any:
        cls = super().__new__(metacls, name, bases, namespace, **keywords)
        for operator in _OPERATORS:
            setattr(cls, operator, getattr(int, operator))
        return cls


class BitFlag(IntFlag, metaclass=_BitFlagType):
    """Bits of a register or field. Operators give plain integers; the complement is negative, so that `value & ~bits` clears bits in a value of any width."""
