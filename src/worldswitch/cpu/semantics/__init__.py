"""What each instruction means, once, for every engine (see `cpu.value` for the words it is written in). Importing this package fills the registry."""

from worldswitch.cpu.semantics import alu
from worldswitch.cpu.semantics.registry import MNEMONIC_NAMES, SEMANTICS, instruction, mnemonic_number

__all__ = ["MNEMONIC_NAMES", "SEMANTICS", "alu", "instruction", "mnemonic_number"]
