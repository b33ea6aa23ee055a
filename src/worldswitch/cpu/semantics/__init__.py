"""What each instruction means, once, for every engine (see `cpu.value` for the words it is written in). Importing this package fills the registry."""

from worldswitch.cpu.semantics import alu, bit, branch, flagops, move, multiply, shift, stack, string
from worldswitch.cpu.semantics.registry import MNEMONIC_NAMES, SEMANTICS, instruction, mnemonic_number

__all__ = [
    "MNEMONIC_NAMES", "SEMANTICS", "alu", "bit", "branch", "flagops", "instruction", "mnemonic_number", "move", "multiply", "shift", "stack", "string",
]  # fmt: skip
