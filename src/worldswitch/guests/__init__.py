"""Small guest programs: source beside the flat binary that it assembles to (`make guests` rebuilds them; see `worldswitch.guests.build`).

The contract with the loader (`worldswitch.vmm.flat`): the binary lies at guest-physical `LOAD_ADDRESS` and is entered there in 64-bit mode at CPL 0,
the first GByte mapped one to one (2-MByte pages, writable, supervisor), a GDT at 0x1000 with null, 0x08 64-bit code, 0x10 data, no task register of the
program's, RSP = `STACK_TOP`, RFLAGS = 2, an IDT of limit 0. A page at `MAILBOX` is where program and host leave each other numbers; memory up to
`MEMORY_END` is the program's. README.md beside this file says what each program does with it.
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
"""Where `faults` and `ring3` log: records of `LOG_RECORD` bytes."""
LOG_RECORD: Final = 32
"""Vector, error code (0 if there is none), RIP in the frame, CR2; eight bytes each."""
MEMORY_END: Final = 0x220000
"""Programs keep their IDT and tables below this and above the log: the least memory that a loader must give."""

# Offsets in the mailbox, eight bytes each.
COUNTER: Final = 0x00
"""Loop iterations, or what the program counts."""
TIMER_INTERRUPTS: Final = 0x08
"""Interrupts of the program's own timer."""
STRANGERS: Final = 0x10
"""Interrupts on vectors that the program did not ask for ..."""
LAST_STRANGER: Final = 0x18
"""... and the last one's vector."""
STATE: Final = 0x20
"""0; `STATE_EXCEPTION` + vector when an exception that the program did not mean to cause has stopped it."""
STATE_EXCEPTION: Final = 0x100
DONE: Final = 0x28
"""1 when the program has finished."""
PERIOD: Final = 0x40
"""Set by the host: the initial count of the program's local APIC timer (divide by 1), 32 bits; 0 for the program's default."""
DEADLINE: Final = 0x48
"""Set by the host, for `halt_timer`: TSC ticks to the deadline each time it arms its timer; 0 for the one-shot timer with `PERIOD`."""

# Results of `probe`.
CPUID_0: Final = 0x80
"""EAX, EBX, ECX, EDX of leaf 0, four bytes each."""
CPUID_1: Final = 0x90
"""The same of leaf 1."""
PORT_80: Final = 0xA0
"""The byte that IN from port 0x80 gave."""
TSC: Final = 0xA8
WRMSR_FAULTS: Final = 0xB0
"""#GP of WRMSR; those of RDMSR are in `COUNTER`."""

# Results of `ring3`.
USER_CS: Final = 0x80
"""CS in the last frame from ring 3, ..."""
USER_RSP: Final = 0x88
"""... its RSP, ..."""
USER_SS: Final = 0x90
"""... and its SS."""
RECORDS: Final = 0x98
"""Records in the log."""
USER_DS: Final = 0xA0
"""DS as ring 3 found it."""


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
        return (files(__package__) / f"{self.name}.S").read_text(encoding="utf-8")


GUESTS: Final[dict[str, Guest]] = {
    guest.name: guest
    for guest in (
        Guest("count_cli", "counts with interrupts disabled"),
        Guest("count_timer", "counts with interrupts enabled, beside a periodic timer of its own local APIC"),
        Guest("halt_timer", "sleeps in HLT between the interrupts of its own timer: one-shot, or a TSC deadline"),
        Guest("faults", "walks through exceptions and logs what its handlers find"),
        Guest("ring3", "runs a user program in two pages of its own, serves its system calls, and logs what it is stopped from doing"),
        Guest("probe", "asks its surroundings: CPUID, ports, the time-stamp counter, an MSR that does not exist"),
    )
}


def load_guest(name: str) -> Guest:
    """A program by name. ImageError if there is none of that name."""
    try:
        return GUESTS[name]
    except KeyError:
        raise ImageError(name, f"there is no such guest program; there are {', '.join(GUESTS)}") from None
