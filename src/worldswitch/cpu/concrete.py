"""The concrete engine: abstract values are Python integers. The readable reference for every other engine, and KVM's instruction emulator.

`Int` gives `cpu.value.Value` its meaning, the operand classes `Operand`, and `ConcreteCore` `Core`. `ConcreteCore.prepare` binds a decoded instruction
to its operands once; executing it is then one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from iced_x86 import Instruction, OpKind, Register

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr, Rflags, Seg
from worldswitch.cpu.decode import (
    IMMEDIATE_BITS,
    NEAR_BRANCH_BITS,
    REGISTERS,
    STRING_OPERANDS,
    Decoded,
    memory_bits,
)
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Access
from worldswitch.cpu.semantics.flags import FlagRules
from worldswitch.cpu.value import Flag, Operand, Value
from worldswitch.errors import SimulationError

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_MASKS: Final = tuple((1 << bits) - 1 for bits in range(129))
#: Flags whose change may let a waiting event through at the next boundary.
_ATTENTION: Final = int(Rflags.IF | Rflags.TF)
_FLAG_BITS: Final = {flag.name: 1 << flag for flag in Flag}


class Int:
    """An unsigned integer of a known width. Other operands are `Int`s of the same width or plain ints (typed Any: every `Value` of this engine is an Int)."""

    __slots__ = ("bits", "v")

    def __init__(self, bits: int, v: int) -> None:
        self.bits = bits
        self.v = v

    def __repr__(self) -> str:
        return f"Int({self.bits}, {self.v:#x})"

    def __index__(self) -> int:
        return self.v

    def _signed(self) -> int:
        return self.v - (self.v >> (self.bits - 1) << self.bits)

    def __add__(self, other: Any) -> Int:
        return Int(self.bits, (self.v + (other if other.__class__ is int else other.v)) & _MASKS[self.bits])

    def __sub__(self, other: Any) -> Int:
        return Int(self.bits, (self.v - (other if other.__class__ is int else other.v)) & _MASKS[self.bits])

    def __mul__(self, other: Any) -> Int:
        return Int(self.bits, (self.v * (other if other.__class__ is int else other.v)) & _MASKS[self.bits])

    def __and__(self, other: Any) -> Int:
        return Int(self.bits, self.v & (other if other.__class__ is int else other.v) & _MASKS[self.bits])

    def __or__(self, other: Any) -> Int:
        return Int(self.bits, (self.v | (other if other.__class__ is int else other.v)) & _MASKS[self.bits])

    def __xor__(self, other: Any) -> Int:
        return Int(self.bits, (self.v ^ (other if other.__class__ is int else other.v)) & _MASKS[self.bits])

    def __invert__(self) -> Int:
        return Int(self.bits, self.v ^ _MASKS[self.bits])

    def __neg__(self) -> Int:
        return Int(self.bits, -self.v & _MASKS[self.bits])

    def __lshift__(self, count: Any) -> Int:
        n = count if count.__class__ is int else count.v
        return Int(self.bits, (self.v << n) & _MASKS[self.bits] if n < self.bits else 0)

    def __rshift__(self, count: Any) -> Int:
        return Int(self.bits, self.v >> (count if count.__class__ is int else count.v))

    def sar(self, count: Any) -> Int:
        n = count if count.__class__ is int else count.v
        return Int(self.bits, (self._signed() >> n) & _MASKS[self.bits])

    def udiv(self, divisor: Any) -> Int:
        return Int(self.bits, self.v // divisor.v)

    def urem(self, divisor: Any) -> Int:
        return Int(self.bits, self.v % divisor.v)

    def sdiv(self, divisor: Any) -> Int:
        a, b = self._signed(), divisor._signed()
        quotient = abs(a) // abs(b)
        return Int(self.bits, (quotient if (a < 0) == (b < 0) else -quotient) & _MASKS[self.bits])

    def srem(self, divisor: Any) -> Int:
        a, b = self._signed(), divisor._signed()
        remainder = abs(a) % abs(b)
        return Int(self.bits, (-remainder if a < 0 else remainder) & _MASKS[self.bits])

    def eq(self, other: Any) -> Int:
        return _ONE if self.v == (other & _MASKS[self.bits] if other.__class__ is int else other.v) else _ZERO

    def ne(self, other: Any) -> Int:
        return _ZERO if self.v == (other & _MASKS[self.bits] if other.__class__ is int else other.v) else _ONE

    def ult(self, other: Any) -> Int:
        return _ONE if self.v < (other & _MASKS[self.bits] if other.__class__ is int else other.v) else _ZERO

    def ule(self, other: Any) -> Int:
        return _ONE if self.v <= (other & _MASKS[self.bits] if other.__class__ is int else other.v) else _ZERO

    def slt(self, other: Any) -> Int:
        return _ONE if self._signed() < (other if other.__class__ is int else other._signed()) else _ZERO

    def sle(self, other: Any) -> Int:
        return _ONE if self._signed() <= (other if other.__class__ is int else other._signed()) else _ZERO

    def zext(self, bits: int) -> Int:
        return self if bits == self.bits else Int(bits, self.v)

    def sext(self, bits: int) -> Int:
        return self if bits == self.bits else Int(bits, self._signed() & _MASKS[bits])

    def trunc(self, bits: int) -> Int:
        return self if bits == self.bits else Int(bits, self.v & _MASKS[bits])

    def bit(self, index: Any) -> Int:
        return _ONE if self.v >> (index if index.__class__ is int else index.v) & 1 else _ZERO

    def msb(self) -> Int:
        return _ONE if self.v >> (self.bits - 1) else _ZERO

    def parity_even(self) -> Int:
        return _ZERO if (self.v & 0xFF).bit_count() & 1 else _ONE

    def count_leading_zeros(self) -> Int:
        return Int(self.bits, self.bits - self.v.bit_length())

    def count_trailing_zeros(self) -> Int:
        return Int(self.bits, (self.v & -self.v).bit_length() - 1 if self.v else self.bits)

    def count_ones(self) -> Int:
        return Int(self.bits, self.v.bit_count())

    def byte_swap(self) -> Int:
        return Int(self.bits, int.from_bytes(self.v.to_bytes(self.bits // 8, "little"), "big"))

    def select(self, then: Any, otherwise: Any) -> Int:
        chosen, other = (then, otherwise) if self.v else (otherwise, then)
        return chosen if chosen.__class__ is Int else Int(other.bits, chosen & _MASKS[other.bits])


_ZERO: Final = Int(1, 0)
_ONE: Final = Int(1, 1)


class _NoAddress:
    """What every operand but memory shares."""

    __slots__ = ()
    is_memory = False
    based_on_stack_pointer = False

    def address(self) -> Int:
        raise SimulationError("a semantic function asked an operand that is not memory for its address")

    def at(self, displacement: Value) -> Operand:
        raise SimulationError("a semantic function displaced an operand that is not memory")


class RegisterOperand(_NoAddress):
    """A general register of 16, 32 or 64 bits, or a low byte."""

    __slots__ = ("bits", "index", "q")

    def __init__(self, q: memoryview, index: int, bits: int) -> None:
        self.q, self.index, self.bits = q, index, bits

    def load(self) -> Int:
        return Int(self.bits, self.q[self.index] & _MASKS[self.bits])

    def store(self, value: Any) -> None:
        if self.bits >= 32:
            self.q[self.index] = value.v
        else:
            self.q[self.index] = self.q[self.index] & ~_MASKS[self.bits] | value.v


class HighByteOperand(_NoAddress):
    """AH, CH, DH or BH."""

    __slots__ = ("index", "q")
    bits = 8

    def __init__(self, q: memoryview, index: int) -> None:
        self.q, self.index = q, index

    def load(self) -> Int:
        return Int(8, self.q[self.index] >> 8 & 0xFF)

    def store(self, value: Any) -> None:
        self.q[self.index] = self.q[self.index] & ~0xFF00 | value.v << 8


class ImmediateOperand(_NoAddress):
    """A constant."""

    __slots__ = ("bits", "value")

    def __init__(self, bits: int, value: int) -> None:
        self.bits = bits
        self.value = Int(bits, value & _MASKS[bits])

    def load(self) -> Int:
        return self.value

    def store(self, value: Value) -> None:
        raise SimulationError("a semantic function wrote to an immediate")


class RelativeOperand(_NoAddress):
    """The target of a near branch: an offset from the instruction's start, as it comes out of `decode` at address 0."""

    __slots__ = ("bits", "core", "displacement")

    def __init__(self, core: ConcreteCore, bits: int, displacement: int) -> None:
        self.core, self.bits, self.displacement = core, bits, displacement

    def load(self) -> Int:
        return Int(64, (self.core.cpu.state.rip + self.displacement) & _MASKS[self.bits])

    def store(self, value: Value) -> None:
        raise SimulationError("a semantic function wrote to a branch target")


class SpecialOperand(_NoAddress):
    """A segment, control, debug or other register that only microcode touches: `kind` and `index` as in `cpu.decode.REGISTERS`. An XMM register can
    be loaded and
    stored; the others have effects beyond their bits, which microcode knows."""

    __slots__ = ("bits", "index", "kind", "state")

    def __init__(self, core: ConcreteCore, kind: str, index: int, bits: int) -> None:
        self.state = core.cpu.state
        self.kind, self.index, self.bits = kind, index, bits

    def load(self) -> Int:
        if self.kind == "seg":
            return Int(16, self.state.seg[self.index].selector)
        if self.kind == "xmm":
            return Int(128, self.state.xmm(self.index))
        raise SimulationError(f"{self.kind}{self.index} was read as an ordinary operand")

    def store(self, value: Any) -> None:
        if self.kind != "xmm":
            raise SimulationError(f"{self.kind}{self.index} was written as an ordinary operand")
        self.state.set_xmm(self.index, value.v)


class MemoryOperand:
    """segment:[base + index * scale + displacement]."""

    __slots__ = ("abits", "base", "bits", "core", "displacement", "index", "q", "relative", "scale", "seg")
    is_memory = True

    def __init__(
        self, core: ConcreteCore, bits: int, abits: int, seg: int, base: int | None, index: int | None, scale: int, displacement: int, relative: bool
    ) -> None:
        self.core, self.q = core, core.cpu.state.q
        self.bits, self.abits, self.seg = bits, abits, seg
        self.base, self.index, self.scale, self.displacement, self.relative = base, index, scale, displacement, relative

    @property
    def based_on_stack_pointer(self) -> bool:
        return self.base == Gpr.RSP

    def offset(self) -> int:
        """The effective address."""
        offset = self.displacement
        if self.base is not None:
            offset += self.q[self.base]
        elif self.relative:
            offset += self.core.cpu.state.rip
        if self.index is not None:
            offset += self.q[self.index] * self.scale
        return offset & _MASKS[self.abits]

    def address(self) -> Int:
        return Int(self.abits, self.offset())

    def load(self) -> Int:
        size = self.bits >> 3
        cpu = self.core.cpu
        return Int(self.bits, cpu.mmu.load(cpu.mmu.linear(self.seg, self.offset(), size, Access.READ), size))

    def store(self, value: Any) -> None:
        size = self.bits >> 3
        cpu = self.core.cpu
        cpu.mmu.store(cpu.mmu.linear(self.seg, self.offset(), size, Access.WRITE), size, value.v)

    def at(self, displacement: Any) -> MemoryOperand:
        moved = (self.displacement + displacement.v) & _MASKS[64]
        return MemoryOperand(self.core, self.bits, self.abits, self.seg, self.base, self.index, self.scale, moved, self.relative)


class ConcreteCore(FlagRules):
    """`Core` over Python integers, for one processor."""

    def __init__(self, cpu: Processor) -> None:
        self.cpu = cpu
        self._q = cpu.state.q
        self._ins: Decoded | None = None

    # Binding an instruction.

    def prepare(self, ins: Decoded) -> tuple[Any, ...]:
        """The operands of a decoded instruction, bound to this processor's registers and memory."""
        return tuple(self._operand(ins, i) for i in range(ins.instruction.op_count))

    def _operand(self, ins: Decoded, i: int) -> object:
        x = ins.instruction
        kind = x.op_kind(i)
        if kind == OpKind.REGISTER:
            what, index, bits = REGISTERS.get(x.op_register(i), ("other", x.op_register(i), 0))
            if what == "gpr":
                return RegisterOperand(self._q, index, bits)
            return HighByteOperand(self._q, index) if what == "high" else SpecialOperand(self, what, index, bits)
        if kind == OpKind.MEMORY:
            return self._memory(x, ins.address_bits)
        if kind in IMMEDIATE_BITS:
            return ImmediateOperand(IMMEDIATE_BITS[kind], x.immediate(i))
        if kind in NEAR_BRANCH_BITS:
            return RelativeOperand(self, NEAR_BRANCH_BITS[kind], x.near_branch_target)
        if kind in STRING_OPERANDS:
            base, abits, seg = STRING_OPERANDS[kind]
            segment = REGISTERS[x.memory_segment][1] if seg is None else seg
            return MemoryOperand(self, memory_bits(x), abits, segment, base, None, 1, 0, False)
        if kind == OpKind.FAR_BRANCH16:
            return (x.far_branch_selector, x.far_branch16)
        return (x.far_branch_selector, x.far_branch32)

    def _memory(self, x: Instruction, abits: int) -> MemoryOperand:
        relative = x.memory_base in (Register.RIP, Register.EIP)
        base = None if relative or x.memory_base == Register.NONE else REGISTERS[x.memory_base][1]
        index = None if x.memory_index == Register.NONE else REGISTERS[x.memory_index][1]
        segment = REGISTERS[x.memory_segment][1]
        return MemoryOperand(self, memory_bits(x), abits, segment, base, index, x.memory_index_scale, x.memory_displacement, relative)

    # Known at decode time.

    def enter(self, ins: Decoded) -> None:
        """The instruction that is about to execute."""
        self._ins = ins

    @property
    def instruction(self) -> Decoded:
        """The instruction being executed."""
        if self._ins is None:
            raise SimulationError("no instruction is being executed")
        return self._ins

    @property
    def operand_bits(self) -> int:
        return self.instruction.operand_bits

    @property
    def address_bits(self) -> int:
        return self.instruction.address_bits

    @property
    def mode_bits(self) -> int:
        return self.instruction.mode_bits

    @property
    def stack_bits(self) -> int:
        return self.cpu.stack_bits

    @property
    def repeat(self) -> str:
        x = self.instruction.instruction
        return "repne" if x.has_repne_prefix else "rep" if x.has_rep_prefix else ""

    @property
    def next_ip(self) -> Int:
        return Int(64, self.cpu.next_rip)

    # Values and registers.

    def const(self, bits: int, value: int) -> Int:
        return Int(bits, value & _MASKS[bits])

    def get(self, register: Gpr, bits: int) -> Int:
        return Int(bits, self._q[register] & _MASKS[bits])

    def set(self, register: Gpr, value: Any) -> None:
        if value.bits >= 32:
            self._q[register] = value.v
        else:
            self._q[register] = self._q[register] & ~_MASKS[value.bits] | value.v

    def get_high_byte(self, register: Gpr) -> Int:
        return Int(8, self._q[register] >> 8 & 0xFF)

    def set_high_byte(self, register: Gpr, value: Any) -> None:
        self._q[register] = self._q[register] & ~0xFF00 | value.v << 8

    # The stack.

    def load_stack(self, offset: Any, bits: int) -> Int:
        mmu = self.cpu.mmu
        return Int(bits, mmu.load(mmu.linear(Seg.SS, offset.v, bits >> 3, Access.READ), bits >> 3))

    def store_stack(self, offset: Any, value: Any) -> None:
        mmu = self.cpu.mmu
        mmu.store(mmu.linear(Seg.SS, offset.v, value.bits >> 3, Access.WRITE), value.bits >> 3, value.v)

    # Flags.

    def flag(self, flag: Flag) -> Int:
        return _ONE if self.cpu.state.rflags >> flag & 1 else _ZERO

    def set_flags(self, **flags: Any) -> None:
        rflags = old = self.cpu.state.rflags
        for name, value in flags.items():
            bit = _FLAG_BITS[name]
            rflags = rflags | bit if (value if value.__class__ is int else value.v) else rflags & ~bit
        self.cpu.state.rflags = rflags
        if (rflags ^ old) & _ATTENTION:
            self.cpu.attend()

    # Control.

    def when(self, condition: Any) -> Callable[[Callable[[], None]], None]:
        return _do if condition.v else _skip

    def jump(self, offset: Any) -> None:
        self.cpu.jump(offset.v)

    def again(self) -> None:
        self.cpu.next_rip = self.cpu.state.rip

    def fault(self, vector: Vector, error_code: int | None = None) -> None:
        raise fault(vector, error_code)

    def fault_if(self, condition: Any, vector: Vector, error_code: int | None = None) -> None:
        if condition.v:
            raise fault(vector, error_code)


def _do(body: Callable[[], None]) -> None:
    body()


def _skip(body: Callable[[], None]) -> None:
    pass
