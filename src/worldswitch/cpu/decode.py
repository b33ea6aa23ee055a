"""From bytes to a `Decoded` record: iced-x86 decodes, this file says what of it matters to the engines.

Everything is decoded at address 0, so that a record depends on the bytes and the mode alone and can be cached by physical address: branch targets and
RIP-relative displacements are relative to the instruction's own start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iced_x86 import CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction, MemorySizeExt, OpKind, Register

from worldswitch.cpu.semantics.registry import MNEMONIC_NAMES

#: An instruction longer than this raises #GP(0) (SDM vol. 2 §2.3.11).
MAX_LENGTH: Final = 15

_FEATURE_NAMES: Final[dict[int, str]] = {number: name for name, number in vars(CpuidFeature).items() if isinstance(number, int)}


def _registers() -> dict[int, tuple[str, int, int]]:
    table: dict[int, tuple[str, int, int]] = {}
    for i in range(16):
        table[Register.RAX + i] = ("gpr", i, 64)
        table[Register.EAX + i] = ("gpr", i, 32)
        table[Register.AX + i] = ("gpr", i, 16)
        table[Register.XMM0 + i] = ("xmm", i, 128)
        table[Register.CR0 + i] = ("cr", i, 64)
        table[Register.DR0 + i] = ("dr", i, 64)
    for i, number in enumerate((Register.AL, Register.CL, Register.DL, Register.BL)):
        table[number] = ("gpr", i, 8)
    for i, number in enumerate((Register.AH, Register.CH, Register.DH, Register.BH)):
        table[number] = ("high", i, 8)
    for i in range(12):  # SPL, BPL, SIL, DIL, R8L..R15L
        table[Register.SPL + i] = ("gpr", 4 + i, 8)
    for i in range(6):
        table[Register.ES + i] = ("seg", i, 16)
    for i in range(8):
        table[Register.ST0 + i] = ("st", i, 80)
        table[Register.MM0 + i] = ("mm", i, 64)
    return table


#: iced-x86 register number to (kind, index, bits); kinds: gpr, high (AH..BH), seg, cr, dr, xmm, st, mm.
REGISTERS: Final = _registers()


class Decoded:
    """One instruction, ready to be executed any number of times."""

    __slots__ = (
        "action",
        "address_bits",
        "code",
        "features",
        "instruction",
        "length",
        "microcode",
        "mnemonic",
        "mode_bits",
        "name",
        "operand_bits",
        "operands",
    )

    def __init__(self, instruction: Instruction, code: bytes, mode_bits: int) -> None:
        self.instruction = instruction
        #: The bytes.
        self.code = code
        self.length = len(code)
        self.mode_bits = mode_bits
        self.mnemonic: int = instruction.mnemonic
        self.name = MNEMONIC_NAMES[self.mnemonic]
        #: What to call: a semantic function with the core and the operands, or microcode with the processor and this record.
        self.action: Callable[..., None] | None = None
        #: The arguments of `action`, made by the engine.
        self.operands: tuple[object, ...] = ()
        self.microcode = False
        opcode = instruction.op_code()
        #: Effective operand and address sizes in bits (SDM vol. 1 §3.6); those of the mode for instructions that have none.
        self.operand_bits: int = opcode.operand_size or mode_bits
        self.address_bits: int = opcode.address_size or address_bits(instruction, mode_bits)
        #: iced-x86's names of the CPUID features that the instruction needs.
        self.features = tuple(_FEATURE_NAMES[f] for f in instruction.cpuid_features())

    def __str__(self) -> str:
        return f"{self.instruction} ({self.code.hex(' ')})"


class Undecodable(Exception):
    """The bytes are no instruction of this mode (#UD), need more bytes than were given, or exceed 15 bytes (#GP)."""

    def __init__(self, code: bytes, truncated: bool) -> None:
        super().__init__(code, truncated)
        self.code = code
        #: True: the instruction goes on beyond the bytes given.
        self.truncated = truncated


#: Without BMI1 and LZCNT the F3 prefix of TZCNT and LZCNT is ignored and the instruction is BSF or BSR; likewise WBNOINVD (SDM vol. 2, TZCNT; APM vol. 3).
_OPTIONS: Final = DecoderOptions.NO_MPFX_0FBC | DecoderOptions.NO_MPFX_0FBD | DecoderOptions.NO_WBNOINVD


def decode(code: bytes, mode_bits: int, options: int = _OPTIONS) -> Decoded:
    """Decode the instruction at the start of `code` (up to 15 bytes) for a 16-, 32- or 64-bit code segment. Raises `Undecodable`."""
    decoder = Decoder(mode_bits, code[:MAX_LENGTH], options, 0)  # type: ignore[arg-type]  # the stub wants one enum member, flags are combined
    instruction = decoder.decode()
    if instruction.is_invalid:
        # Fifteen bytes that are no instruction yet count as going on, too.
        raise Undecodable(code, decoder.last_error == DecoderError.NO_MORE_BYTES or instruction.len >= MAX_LENGTH)
    return Decoded(instruction, bytes(code[: instruction.len]), mode_bits)


#: Immediate kinds to their width after the sign extension that the encoding says.
IMMEDIATE_BITS: Final[dict[int, int]] = {
    OpKind.IMMEDIATE8: 8,
    OpKind.IMMEDIATE8_2ND: 8,
    OpKind.IMMEDIATE16: 16,
    OpKind.IMMEDIATE32: 32,
    OpKind.IMMEDIATE64: 64,
    OpKind.IMMEDIATE8TO16: 16,
    OpKind.IMMEDIATE8TO32: 32,
    OpKind.IMMEDIATE8TO64: 64,
    OpKind.IMMEDIATE32TO64: 64,
}
#: Near branch kinds to the operand size of the jump.
NEAR_BRANCH_BITS: Final[dict[int, int]] = {OpKind.NEAR_BRANCH16: 16, OpKind.NEAR_BRANCH32: 32, OpKind.NEAR_BRANCH64: 64}
#: String operands to (base register, address bits, segment register or None for the instruction's).
STRING_OPERANDS: Final[dict[int, tuple[int, int, int | None]]] = {
    OpKind.MEMORY_SEG_SI: (6, 16, None),
    OpKind.MEMORY_SEG_ESI: (6, 32, None),
    OpKind.MEMORY_SEG_RSI: (6, 64, None),
    OpKind.MEMORY_SEG_DI: (7, 16, None),
    OpKind.MEMORY_SEG_EDI: (7, 32, None),
    OpKind.MEMORY_SEG_RDI: (7, 64, None),
    OpKind.MEMORY_ESDI: (7, 16, 0),
    OpKind.MEMORY_ESEDI: (7, 32, 0),
    OpKind.MEMORY_ESRDI: (7, 64, 0),
}


def memory_bits(instruction: Instruction) -> int:
    """Width of the memory operand in bits; 0 where it has none that matters (LEA, INVLPG)."""
    return 8 * MemorySizeExt.size(instruction.memory_size)


def address_bits(instruction: Instruction, mode_bits: int) -> int:
    """Effective address size of the instruction: from its memory operand's registers, else from the 67H prefix and the mode."""
    for register in (instruction.memory_base, instruction.memory_index):
        if register in (Register.RIP, Register.EIP):
            return 64 if register == Register.RIP else 32
        if register in REGISTERS:
            return REGISTERS[register][2]
    for i in range(instruction.op_count):
        kind = instruction.op_kind(i)
        if kind in STRING_OPERANDS:
            return STRING_OPERANDS[kind][1]
        if kind == OpKind.MEMORY and instruction.memory_displ_size:
            return 8 * instruction.memory_displ_size if instruction.memory_displ_size != 1 else mode_bits
    return mode_bits
