"""Small guest programs: source beside the flat binary that it assembles to (`make guests` rebuilds them; see `worldswitch.guests.build`).

The contract with the loader (`worldswitch.vmm.flat`): the binary lies at guest-physical `LOAD_ADDRESS` and is entered there in 64-bit mode at CPL 0,
the first GByte mapped one to one, a GDT with null,
0x08 64-bit code, 0x10 data, RSP = `STACK_TOP`, RFLAGS = 2, no IDT. A page at `MAILBOX` is where program and host leave each other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from worldswitch.errors import ImageError

LOAD_ADDRESS: Final = 0x100000
STACK_TOP: Final = 0x90000
MAILBOX: Final = 0x200000
LOG: Final = 0x201000

# Offsets in the mailbox, eight bytes each.
COUNTER: Final = 0x00
"""Loop iterations, or what the program counts."""
TIMER_INTERRUPTS: Final = 0x08
"""Interrupts of the program's own timer."""
STRANGERS: Final = 0x10
"""Interrupts on vectors that the program did not ask for ..."""
LAST_STRANGER: Final = 0x18
"""... and the last one's vector."""
DONE: Final = 0x28
"""1 when the program has finished."""
PERIOD: Final = 0x40
"""Set by the host: the timer's period."""


@dataclass(frozen=True, slots=True)
class Guest:
    """One program."""

    name: str
    description: str

    @property
    def binary(self) -> bytes:
        """The flat binary."""
        return (files(__package__) / f"{self.name}.bin").read_bytes()

    @property
    def source(self) -> str:
        """The assembly source (GNU as, Intel syntax)."""
        return (files(__package__) / f"{self.name}.S").read_text()


GUESTS: Final[dict[str, Guest]] = {
    guest.name: guest
    for guest in (
        Guest("count_cli", "counts with interrupts disabled"),
        Guest("count_timer", "counts with interrupts enabled, beside a periodic timer of its own local APIC"),
        Guest("halt_timer", "sleeps in HLT between the interrupts of a TSC-deadline timer"),
        Guest("faults", "walks through exceptions and logs what its handlers find"),
        Guest("probe", "asks its surroundings: CPUID, ports, an MSR that does not exist"),
    )
}


def load_guest(name: str) -> Guest:
    """A program by name. ImageError if there is none of that name."""
    try:
        return GUESTS[name]
    except KeyError:
        raise ImageError(name, f"there is no such guest program; there are {', '.join(GUESTS)}") from None
