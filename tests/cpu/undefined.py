"""What the manuals leave undefined after an instruction, by mnemonic (SDM vol. 2, "Flags Affected"; vol. 1 appendix A).

Comparisons with other processors leave these bits out.
"""

from __future__ import annotations

from iced_x86 import Instruction

from worldswitch.arch.registers import Rflags
from worldswitch.cpu.semantics import MNEMONIC_NAMES

CF, PF, AF, ZF, SF, OF = (int(flag) for flag in (Rflags.CF, Rflags.PF, Rflags.AF, Rflags.ZF, Rflags.SF, Rflags.OF))

#: Always undefined.
FLAGS: dict[str, int] = {
    **dict.fromkeys(("AND", "OR", "XOR", "TEST"), AF),
    **dict.fromkeys(("MUL", "IMUL"), SF | ZF | AF | PF),
    **dict.fromkeys(("DIV", "IDIV"), CF | OF | SF | ZF | AF | PF),
    **dict.fromkeys(("BT", "BTS", "BTR", "BTC"), OF | SF | AF | PF),
    **dict.fromkeys(("BSF", "BSR"), CF | OF | SF | AF | PF),
}
SHIFTS = ("SHL", "SAL", "SHR", "SAR")
DOUBLE_SHIFTS = ("SHLD", "SHRD")
ROTATES = ("ROL", "ROR", "RCL", "RCR")


def undefined_flags(instruction: Instruction, count: int, bits: int) -> int:
    """Mask of the flags to leave out. `count`: the shift count before masking; `bits`: the operand's width."""
    name = MNEMONIC_NAMES[instruction.mnemonic]
    masked = count & (63 if bits == 64 else 31)
    if not masked or name not in (*SHIFTS, *DOUBLE_SHIFTS, *ROTATES):
        return FLAGS.get(name, 0)
    overflow = OF if masked != 1 else 0
    if name in ROTATES:
        return overflow
    if name in DOUBLE_SHIFTS and masked > bits:
        return CF | OF | SF | ZF | AF | PF
    # CF of SHL and SHR is undefined for counts of the width and more; of SAR it is the sign.
    carry = CF if masked >= bits and name != "SAR" else 0
    return AF | overflow | carry


def undefined_result(instruction: Instruction, count: int, bits: int) -> bool:
    """The destination itself is undefined."""
    name = MNEMONIC_NAMES[instruction.mnemonic]
    return (name in DOUBLE_SHIFTS and (count & (63 if bits == 64 else 31)) > bits) or (name == "BSWAP" and bits == 16)
