"""From a segment and an offset to bytes in memory: segmentation, paging, the second level of translation, and the caches of their results.

The caches hold translations of the current context only (address space, privilege, guest) and are dropped whenever that changes, which the
architecture allows at any
time (SDM vol. 3 §4.10.2: a processor may keep or lose a translation as it likes until it is invalidated).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Cr0, Cr4, Efer, Rflags, Seg
from worldswitch.arch.segments import AR_DB, AR_P, AR_UNUSABLE, TYPE_CODE, TYPE_EXPAND_DOWN, TYPE_WRITABLE
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Access
from worldswitch.cpu.paging import LEGACY_32, LONG_4_LEVEL, PAE, Rules, WalkFault, walk
from worldswitch.cpu.state import MASK64

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


class Mmu:
    """One processor's memory-management unit."""

    def __init__(self, cpu: Processor) -> None:
        self._cpu = cpu
        #: Linear page number to the physical address of the page, for instruction fetches in the current context.
        self.fetch_pages: dict[int, int] = {}
        self._read_pages: dict[int, int] = {}
        self._write_pages: dict[int, int] = {}

    def context_changed(self) -> None:
        """Another address space, privilege level or guest: nothing cached holds."""
        self.fetch_pages.clear()
        self._read_pages.clear()
        self._write_pages.clear()

    def invalidate(self, linear: int) -> None:
        """INVLPG: forget one page."""
        for pages in (self.fetch_pages, self._read_pages, self._write_pages):
            pages.pop(linear >> 12, None)

    # Segmentation.

    def linear(self, seg: int, offset: int, size: int, access: Access) -> int:
        """The linear address of `size` bytes at seg:offset. Raises #GP(0), or #SS(0) for the stack segment (SDM vol. 3 §3.4, §5.3; 64-bit mode: vol.
        1 §3.4.2.1)."""
        cpu = self._cpu
        if cpu.mode_bits == 64:
            base = cpu.state.seg[seg].base if seg >= Seg.FS else 0
            linear = (base + offset) & MASK64
            if not self.canonical(linear) or not self.canonical((linear + size - 1) & MASK64):
                raise fault(Vector.SS if seg == Seg.SS else Vector.GP, 0)
            return linear
        segment = cpu.state.seg[seg]
        if not self._allowed(segment.ar, segment.limit, offset, size, access):
            raise fault(Vector.SS if seg == Seg.SS else Vector.GP, 0)
        return (segment.base + offset) & 0xFFFFFFFF

    def _allowed(self, ar: int, limit: int, offset: int, size: int, access: Access) -> bool:
        if self._cpu.protected and not self._cpu.state.rflags & Rflags.VM:
            if ar & AR_UNUSABLE or not ar & AR_P:
                return False
            code = ar & TYPE_CODE
            if access is Access.WRITE and (code or not ar & TYPE_WRITABLE):
                return False
            if access is Access.READ and code and not ar & TYPE_WRITABLE:
                return False
            if not code and ar & TYPE_EXPAND_DOWN:  # valid above the limit (SDM vol. 3 §5.3)
                return limit < offset and offset + size - 1 <= (0xFFFFFFFF if ar & AR_DB else 0xFFFF)
        return offset + size - 1 <= limit

    def canonical(self, linear: int) -> bool:
        """Bits above the linear width are copies of the highest one in it (SDM vol. 1 §3.3.7.1)."""
        bits = self._cpu.model.linear_bits
        return not ((linear + (1 << bits - 1)) & MASK64) >> bits

    # Access at linear addresses.

    def load(self, linear: int, size: int) -> int:
        """Read 1..16 bytes with the current privilege. Raises #PF."""
        page = self._read_pages.get(linear >> 12)
        if page is None or (linear & 0xFFF) + size > 0x1000:
            return self._load_slowly(linear, size)
        return self._cpu.bus.read(page | linear & 0xFFF, size)

    def store(self, linear: int, size: int, value: int) -> None:
        """Write 1..16 bytes with the current privilege. Raises #PF, in which case nothing was written."""
        page = self._write_pages.get(linear >> 12)
        if page is None or (linear & 0xFFF) + size > 0x1000:
            self._store_slowly(linear, size, value)
        else:
            self._cpu.bus.write(page | linear & 0xFFF, size, value)

    def _load_slowly(self, linear: int, size: int) -> int:
        first = 0x1000 - (linear & 0xFFF)
        address = self.translate(linear, Access.READ)
        if size <= first:
            return self._cpu.bus.read(address, size)
        beyond = self.translate(linear + first & MASK64, Access.READ)
        return self._cpu.bus.read(address, first) | self._cpu.bus.read(beyond, size - first) << 8 * first

    def _store_slowly(self, linear: int, size: int, value: int) -> None:
        first = 0x1000 - (linear & 0xFFF)
        address = self.translate(linear, Access.WRITE)
        if size <= first:
            self._cpu.bus.write(address, size, value)
            return
        beyond = self.translate(linear + first & MASK64, Access.WRITE)
        self._cpu.bus.write(address, first, value & (1 << 8 * first) - 1)
        self._cpu.bus.write(beyond, size - first, value >> 8 * first)

    def load_system(self, linear: int, size: int) -> int:
        """Read as the processor itself does (descriptor tables, TSS): supervisor whatever the privilege level (SDM vol. 3 §4.6, implicit access)."""
        return self._system(linear, size, None)

    def store_system(self, linear: int, size: int, value: int) -> None:
        """Write likewise."""
        self._system(linear, size, value)

    def _system(self, linear: int, size: int, value: int | None) -> int:
        access = Access.READ if value is None else Access.WRITE
        first = min(size, 0x1000 - (linear & 0xFFF))
        pieces = [(self.translate(linear, access, system=True), 0, first)]
        if first < size:
            pieces.append((self.translate(linear + first & MASK64, access, system=True), first, size - first))
        result = 0
        for address, at, count in pieces:
            if value is None:
                result |= self._cpu.bus.read(address, count) << 8 * at
            else:
                self._cpu.bus.write(address, count, value >> 8 * at & (1 << 8 * count) - 1)
        return result

    def fetch_page(self, linear: int) -> int:
        """The physical address of the page that an instruction is fetched from. Raises #PF, #GP(0)."""
        if self._cpu.mode_bits == 64 and not self.canonical(linear):
            raise fault(Vector.GP, 0)
        return self.translate(linear, Access.EXECUTE) & ~0xFFF

    # Translation.

    def translate(self, linear: int, access: Access, *, system: bool = False) -> int:
        """The physical address of a linear address. Raises #PF; under a second level of translation may exit."""
        cpu = self._cpu
        user = cpu.cpl == 3 and not system
        dirty = True
        if not cpu.state.cr0 & Cr0.PG:
            guest_physical = linear & ~0xFFF
            writable = True
        else:
            try:
                found = walk(cpu.bus, self._rules(access, user, system), linear, lambda at, write: self._locate(at, write, linear, user))
            except WalkFault as bad:
                raise fault(Vector.PF, bad.error_code, linear) from None
            guest_physical, dirty, writable = found.page, found.dirty, found.writable
        page = guest_physical
        guest = cpu.guest
        if guest is not None and guest.second_level:
            page = guest.translate(guest_physical | linear & 0xFFF, access, linear=linear, walk=False, user=user) & ~0xFFF
        if not system:
            if access is Access.EXECUTE:
                self.fetch_pages[linear >> 12] = page
            elif access is Access.READ:
                self._read_pages[linear >> 12] = page
            elif dirty and writable:
                self._write_pages[linear >> 12] = page
        return page | linear & 0xFFF

    def _locate(self, address: int, write: bool, linear: int, user: bool) -> int:
        guest = self._cpu.guest
        if guest is None or not guest.second_level:
            return address
        return guest.translate(address, Access.WRITE if write else Access.READ, linear=linear, walk=True, user=user)

    def _rules(self, access: Access, user: bool, system: bool) -> Rules:
        state = self._cpu.state
        cr4 = state.cr4
        if state.efer & Efer.LMA:
            form, root = LONG_4_LEVEL, state.cr3 & 0x000F_FFFF_FFFF_F000
        elif cr4 & Cr4.PAE:
            form, root = PAE, state.cr3 & 0xFFFFFFE0
        else:
            form, root = LEGACY_32, state.cr3 & 0xFFFFF000
        return Rules(
            format=form,
            root=root,
            physical_bits=self._cpu.model.physical_bits,
            write=access is Access.WRITE,
            fetch=access is Access.EXECUTE,
            user=user,
            wp=bool(state.cr0 & Cr0.WP),
            nxe=bool(state.efer & Efer.NXE) and form is not LEGACY_32,
            smep=bool(cr4 & Cr4.SMEP),
            # Explicit supervisor accesses are exempt while RFLAGS.AC is 1, implicit ones never (SDM vol. 3 §4.6.1).
            smap=bool(cr4 & Cr4.SMAP) and (system or not state.rflags & Rflags.AC),
            large=form is not LEGACY_32 or bool(cr4 & Cr4.PSE),
        )
