"""The words in which an instruction's meaning is written: values of a known width, operands, and the core they act on.

A semantic function (`cpu/semantics/`) is ordinary Python over these three protocols. It names neither an engine nor a size: a `Value`
knows its width, so there are no masks, and the engine gives the operations their meaning -- Python integers in `cpu.concrete`,
LLVM values in a compiled engine.

Rules that make one text serve every engine:

* Python's own `if`, `for` and `while` may look only at what is known when an instruction is decoded (widths, the mnemonic, prefixes).
  What depends on a value goes through `Value.select` (choose a value) or `Core.when` (do something or not).
* Everything that can fault comes before anything that changes a register or a flag: loads, `fault_if`, then stores to memory, then
  registers and flags. So an instruction that faults has changed nothing, in every engine, without any undoing.
* A body given to `Core.when` gives its results through state (registers, flags, memory), never through Python variables.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr


class Flag(IntEnum):
    """A flag by its bit number in RFLAGS (SDM vol. 1 §3.4.3)."""

    CF = 0
    PF = 2
    AF = 4
    ZF = 6
    SF = 7
    TF = 8
    IF = 9
    DF = 10
    OF = 11
    AC = 18
    ID = 21


class Value(Protocol):
    """An unsigned value of `bits` bits. Arithmetic wraps at that width; both sides of an operation have the same width. An int beside a
    value is a constant of the value's width (taken modulo 2**bits)."""

    @property
    def bits(self) -> int:
        """Width in bits: 1, 8, 16, 32, 64 or 128."""

    def __add__(self, other: Value | int) -> Value: ...
    def __sub__(self, other: Value | int) -> Value: ...
    def __mul__(self, other: Value | int) -> Value: ...
    def __and__(self, other: Value | int) -> Value: ...
    def __or__(self, other: Value | int) -> Value: ...
    def __xor__(self, other: Value | int) -> Value: ...
    def __invert__(self) -> Value: ...
    def __neg__(self) -> Value: ...

    def __lshift__(self, count: Value | int) -> Value:
        """Shift left; a count of `bits` or more gives 0."""

    def __rshift__(self, count: Value | int) -> Value:
        """Logical shift right; a count of `bits` or more gives 0."""

    def sar(self, count: Value | int) -> Value:
        """Arithmetic shift right; a count of `bits` or more gives the sign in every bit."""

    def udiv(self, divisor: Value) -> Value:
        """Unsigned quotient. The divisor must not be 0."""

    def urem(self, divisor: Value) -> Value:
        """Unsigned remainder. The divisor must not be 0."""

    def sdiv(self, divisor: Value) -> Value:
        """Signed quotient, truncated towards zero. The divisor must not be 0; the most negative value divided by -1 wraps."""

    def srem(self, divisor: Value) -> Value:
        """Signed remainder with the dividend's sign. The divisor must not be 0."""

    # Comparisons give a 1-bit value.
    def eq(self, other: Value | int) -> Value: ...
    def ne(self, other: Value | int) -> Value: ...
    def ult(self, other: Value | int) -> Value: ...
    def ule(self, other: Value | int) -> Value: ...
    def slt(self, other: Value | int) -> Value: ...
    def sle(self, other: Value | int) -> Value: ...

    # Widths.
    def zext(self, bits: int) -> Value:
        """Zero-extend to `bits` (the same width is allowed)."""

    def sext(self, bits: int) -> Value:
        """Sign-extend to `bits` (the same width is allowed)."""

    def trunc(self, bits: int) -> Value:
        """The low `bits` bits."""

    def bit(self, index: Value | int) -> Value:
        """Bit `index` as a 1-bit value; 0 beyond the width."""

    def msb(self) -> Value:
        """The sign bit as a 1-bit value."""

    def parity_even(self) -> Value:
        """1 if the low byte has an even number of ones (what PF shows)."""

    # Bit counting (for BSF, BSR, POPCNT, LZCNT, TZCNT).
    def count_leading_zeros(self) -> Value:
        """Number of zero bits above the highest one; `bits` if the value is 0."""

    def count_trailing_zeros(self) -> Value:
        """Number of zero bits below the lowest one; `bits` if the value is 0."""

    def count_ones(self) -> Value:
        """Number of ones."""

    def byte_swap(self) -> Value:
        """The bytes in reverse order."""

    def select(self, then: Value | int, otherwise: Value | int) -> Value:
        """For a 1-bit value: `then` if it is 1, else `otherwise`. At least one of the two is a Value; an int takes the other's width."""


class Operand(Protocol):
    """One explicit or implicit operand of the instruction: a register, memory, or an immediate."""

    @property
    def bits(self) -> int:
        """Width in bits. An immediate has the width it has after the sign extension that its encoding says."""

    @property
    def is_memory(self) -> bool:
        """Known at decode time."""

    @property
    def based_on_stack_pointer(self) -> bool:
        """Known at decode time: a memory operand whose base register is RSP."""

    def load(self) -> Value:
        """The operand's value. Memory may fault."""

    def store(self, value: Value) -> None:
        """Write it. A 32-bit write to a general register clears the upper half (SDM vol. 1 §3.4.1.1). Memory may fault, in which case nothing was written."""

    def address(self) -> Value:
        """Of a memory operand: the effective address (offset in its segment), of the instruction's address size, without the segment's base (LEA)."""

    def at(self, displacement: Value) -> Operand:
        """Of a memory operand: the operand of the same width whose effective address is `displacement` bytes further (64-bit value, wraps at
        the address size); bit tests with a register index use it."""


class Core(Protocol):
    """The processor as a semantic function sees it, while it executes one instruction."""

    # Known at decode time.
    @property
    def operand_bits(self) -> int:
        """Effective operand size: 16, 32 or 64 (SDM vol. 1 §3.6)."""

    @property
    def address_bits(self) -> int:
        """Effective address size: 16, 32 or 64."""

    @property
    def mode_bits(self) -> int:
        """16, 32 or 64: the code segment's mode."""

    @property
    def stack_bits(self) -> int:
        """Width of the stack pointer: 64 in 64-bit mode, else by SS.B."""

    @property
    def repeat(self) -> str:
        """ "" or "rep" (also REPE) or "repne"."""

    @property
    def next_ip(self) -> Value:
        """Offset of the next instruction (64 bits)."""

    # Values and registers.
    def const(self, bits: int, value: int) -> Value:
        """A constant (taken modulo 2**bits)."""

    def get(self, register: Gpr, bits: int) -> Value:
        """The low `bits` of a general register (8 means the low byte)."""

    def set(self, register: Gpr, value: Value) -> None:
        """Write a general register as an instruction of that operand size does: 64 whole, 32 zero-extends, 16 and 8 keep the rest."""

    def get_high_byte(self, register: Gpr) -> Value:
        """AH, CH, DH or BH."""

    def set_high_byte(self, register: Gpr, value: Value) -> None:
        """Write AH, CH, DH or BH."""

    # Memory at a stack address: SS segment, the stack's address size. Ordinary memory goes through operands.
    def load_stack(self, offset: Value, bits: int) -> Value:
        """Read at SS:offset. Faults are #SS instead of #GP."""

    def store_stack(self, offset: Value, value: Value) -> None:
        """Write at SS:offset."""

    # Flags.
    def flag(self, flag: Flag) -> Value:
        """One flag as a 1-bit value."""

    def set_flags(self, **flags: Value | int) -> None:
        """Write flags by name: `set_flags(CF=carry, ZF=result.eq(0), OF=0)`. Those not named stay."""

    def flags_of_add(self, a: Value, b: Value, result: Value, carry_in: Value | None = None, *, keep_cf: bool = False) -> None:
        """OF SF ZF AF PF CF after `result = a + b (+ carry_in)`. INC keeps CF."""

    def flags_of_sub(self, a: Value, b: Value, result: Value, borrow_in: Value | None = None, *, keep_cf: bool = False) -> None:
        """OF SF ZF AF PF CF after `result = a - b (- borrow_in)`. DEC keeps CF."""

    def flags_of_logic(self, result: Value) -> None:
        """SF ZF PF by the result; OF = CF = 0; AF, which the manual leaves undefined, is cleared as processors do."""

    def flags_of_result(self, result: Value) -> None:
        """SF ZF PF by the result; the others stay."""

    # Control.
    def when(self, condition: Value) -> Callable[[Callable[[], None]], None]:
        """Do the decorated body if the 1-bit condition is 1:

        >>> @c.when(count.ne(0))
        ... def _() -> None:
        ...     c.set(Gpr.RAX, value)
        """

    def jump(self, offset: Value) -> None:
        """Continue at this offset in the code segment (#GP(0) if it is not canonical or beyond the limit, SDM vol. 2, JMP)."""

    def again(self) -> None:
        """Stay at this instruction: the next iteration of a repeated string instruction, at whose boundary interrupts are taken."""

    def fault(self, vector: Vector, error_code: int | None = None) -> None:
        """Raise an exception at this instruction."""

    def fault_if(self, condition: Value, vector: Vector, error_code: int | None = None) -> None:
        """Raise an exception if the 1-bit condition is 1; must come before anything the instruction changes."""
