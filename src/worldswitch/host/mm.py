"""Physical memory as the host kernel hands it out: pages for its own structures, and user memory pinned where the processor can reach it."""

from __future__ import annotations

from typing import Final

from worldswitch.board.memory import PhysicalMemory
from worldswitch.errors import ConfigurationError, SimulationError

PAGE: Final = 4096
#: User memory is mapped above this physical address, far from RAM.
_USER_BASE: Final = 1 << 34


class PageAllocator:
    """Pages of RAM, lowest first, from `first` up to `end` (physical addresses); and ranges for user memory."""

    def __init__(self, memory: PhysicalMemory, first: int, end: int) -> None:
        self.memory = memory
        self._next, self._end = first, end
        self._free: list[int] = []
        self._user = _USER_BASE
        self._mapped: dict[int, int] = {}

    def alloc_page(self) -> int:
        """A zeroed page. ConfigurationError if RAM is used up."""
        if self._free:
            page = self._free.pop()
            self.memory.write_block(page, bytes(PAGE))
            return page
        if self._next >= self._end:
            raise ConfigurationError("memory_bytes", self._end, "more: the host kernel has no page left")
        page, self._next = self._next, self._next + PAGE
        return page

    def alloc_pages(self, count: int) -> int:
        """Contiguous zeroed pages (bitmaps); never given back."""
        if self._next + count * PAGE > self._end:
            raise ConfigurationError("memory_bytes", self._end, "more: the host kernel has no pages left")
        first, self._next = self._next, self._next + count * PAGE
        return first

    def free_page(self, address: int) -> None:
        """Give a page back."""
        if address in self._free or address % PAGE:
            raise SimulationError(f"page {address:#x} freed twice, or no page")
        self._free.append(address)

    def map_user(self, buffer: bytearray | memoryview) -> int:
        """Pin a buffer of whole pages: its physical address, aligned to 2 MiB so that large pages can map it."""
        size = len(memoryview(buffer).cast("B"))
        address = self._user
        self.memory.add_ram(address, buffer)
        self._mapped[address] = size
        self._user = (address + size + 0x400000) & ~0x1FFFFF
        return address

    def unmap_user(self, address: int) -> None:
        """Unpin."""
        self.memory.remove_ram(address)
        del self._mapped[address]
