"""What a processor is soldered to: the protocols through which silicon reaches memory, ports and its interrupt controller.

The board implements them; the processor knows nothing else of its surroundings, and owns no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Bus(Protocol):
    """Physical memory and I/O ports. Physical addresses and ports are unsigned; values little-endian. Never raises for an address: what nothing
    answers reads as all ones and swallows writes, as on a PC."""

    def read(self, address: int, size: int) -> int:
        """`size` (1..16) bytes at a physical address. The access may cross pages only if both are RAM."""

    def write(self, address: int, size: int, value: int) -> None:
        """Write `size` bytes."""

    def read_block(self, address: int, size: int) -> bytes:
        """A run of bytes from RAM (instruction fetch, VMCS and VMCB copies); bytes that are not RAM read as 0xFF."""

    def write_block(self, address: int, data: bytes) -> None:
        """Write a run of bytes to RAM."""

    def port_read(self, port: int, size: int) -> int:
        """IN: 1, 2 or 4 bytes."""

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT: 1, 2 or 4 bytes."""

    def watch_code(self, page: int, dropped: Callable[[int], None]) -> None:
        """Call `dropped(page)` once before the next write into this physical page (number = address >> 12): it holds decoded code."""


class InterruptController(Protocol):
    """The local APIC as its processor's core sees it. The APIC, in turn, calls `Processor.attend()` whenever one of these answers may have changed."""

    def pending(self) -> bool:
        """True if a maskable interrupt of sufficient priority waits (highest IRR above PPR): the INTR line."""

    def acknowledge(self) -> int:
        """The interrupt-acknowledge cycle: moves the highest-priority vector from IRR to ISR and gives it. Only after `pending()`."""

    def take_nmi(self) -> bool:
        """True once for each latched NMI."""

    def nmi_pending(self) -> bool:
        """True if an NMI is latched."""

    def read_msr(self, msr: int) -> int | None:
        """An APIC-owned MSR (IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC 800H..8FFH); None where RDMSR raises #GP(0)."""

    def write_msr(self, msr: int, value: int) -> bool:
        """Write one; False where WRMSR raises #GP(0)."""

    def get_tpr(self) -> int:
        """Bits 7:0 of the task-priority register (CR8 is its bits 7:4)."""

    def set_tpr(self, value: int) -> None:
        """Write the task-priority register."""
