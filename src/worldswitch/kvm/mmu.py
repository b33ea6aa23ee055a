"""Two-dimensional paging (TDP): the table from guest-physical to physical addresses, filled on faults from the VM's memory slots.

The same radix tree serves EPT and nested paging; only the bits of an entry differ (SDM vol. 3 §29.3.2; APM vol. 2 §15.25).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worldswitch.arch.paging import ADDRESS_MASK, Pte
from worldswitch.arch.vmx import Ept
from worldswitch.errors import SimulationError

if TYPE_CHECKING:
    from worldswitch.kvm.vm import Vm

_LARGE: Final = 1 << 21


@dataclass(frozen=True, slots=True)
class EntryBits:
    """How entries are written."""

    table: int
    """Bits of an entry that points to a table."""
    page: int
    """Bits of a writable page."""
    writable: int
    large: int


EPT: Final = EntryBits(
    table=int(Ept.READ | Ept.WRITE | Ept.EXECUTE), page=int(Ept.READ | Ept.EXECUTE | Ept.IGNORE_PAT) | 6 << 3, writable=int(Ept.WRITE), large=int(Ept.PAGE)
)
NPT: Final = EntryBits(table=int(Pte.P | Pte.RW | Pte.US), page=int(Pte.P | Pte.US), writable=int(Pte.RW), large=int(Pte.PS))


class TdpMmu:
    """One VM's second-level page table."""

    def __init__(self, vm: Vm, bits: EntryBits) -> None:
        self._vm = vm
        self._bits = bits
        self._pages: list[int] = []
        self.root = self._table()
        #: Entries that map something.
        self.mapped = 0

    def _table(self) -> int:
        page = self._vm.host.alloc_page()
        self._pages.append(page)
        return page

    def free(self) -> None:
        """Give every page back."""
        for page in self._pages:
            self._vm.host.free_page(page)
        self._pages.clear()

    def zap_all(self) -> None:
        """Forget every mapping: memory slots have changed. The root stays, so that vCPUs need not be told."""
        for page in self._pages[1:]:
            self._vm.host.free_page(page)
        del self._pages[1:]
        self._vm.host.memory.write_block(self.root, bytes(4096))
        self.mapped = 0

    def map(self, gpa: int, physical: int, *, large: bool, writable: bool) -> None:
        """Map one 4-KByte or 2-MByte page."""
        bus = self._vm.host.memory
        table = self.root
        last = 2 if large else 1
        for level in (4, 3, 2, 1):
            where = table + 8 * (gpa >> 12 + 9 * (level - 1) & 0x1FF)
            if level == last:
                bus.write(where, 8, physical | self._bits.page | (self._bits.writable if writable else 0) | (self._bits.large if large else 0))
                self.mapped += 1
                return
            entry = bus.read(where, 8)
            if not entry & self._bits.table:
                entry = self._table() | self._bits.table
                bus.write(where, 8, entry)
            elif entry & self._bits.large:
                raise SimulationError(f"guest-physical {gpa:#x} is mapped by a large page already")
            table = entry & ADDRESS_MASK

    def page_fault(self, gpa: int, write: bool) -> bool:
        """kvm_tdp_page_fault: map what backs this address. False if no slot does (or a write meets a read-only one): then it is MMIO."""
        slot = self._vm.slot_of(gpa)
        if slot is None or (write and slot.readonly):
            return False
        at = gpa & ~(_LARGE - 1)
        inside = slot.gpa <= at and at + _LARGE <= slot.gpa + slot.size
        if inside and not (slot.physical - slot.gpa) % _LARGE and not slot.tracked:
            self.map(at, slot.physical + at - slot.gpa, large=True, writable=not slot.readonly)
        else:
            page = gpa & ~0xFFF
            self.map(page, slot.physical + page - slot.gpa, large=False, writable=not slot.readonly)
        return True
