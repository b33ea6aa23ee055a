"""Physical memory, memory-mapped devices and I/O ports: what answers at which address.

RAM is made of regions over buffers that others own (a memory slot's buffer belongs to its VMM). What nothing answers reads as all ones and swallows writes, as on a PC.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Final, Protocol

from worldswitch.errors import ConfigurationError, MemoryAccessError

_PAGE: Final = 4096


class MmioDevice(Protocol):
    """Something that answers at physical addresses."""

    def mmio_read(self, offset: int, size: int) -> int:
        """`size` bytes at an offset in the device's range."""

    def mmio_write(self, offset: int, size: int, value: int) -> None: ...


class PortDevice(Protocol):
    """Something that answers at I/O ports."""

    def port_read(self, port: int, size: int) -> int: ...

    def port_write(self, port: int, size: int, value: int) -> None: ...


class PhysicalMemory:
    """`cpu.bus.Bus` over RAM regions and devices."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: list[tuple[int, int, memoryview | None, MmioDevice | None]] = []
        self._ports: dict[int, PortDevice] = {}
        self._watchers: dict[int, list[Callable[[int], None]]] = {}
        # The region used last: accesses come in runs.
        self._first = self._end = 0
        self._view = memoryview(bytearray(0))

    # Building.

    def _add(self, start: int, size: int, view: memoryview | None, device: MmioDevice | None) -> None:
        if start < 0 or size <= 0:
            raise ConfigurationError("physical range", (start, size), "a non-negative start and a positive size in bytes")
        at = bisect_right(self._starts, start)
        before = self._regions[at - 1] if at else None
        after = self._regions[at] if at < len(self._regions) else None
        if (before and before[1] > start) or (after and after[0] < start + size):
            raise ConfigurationError("physical range", f"{start:#x}..{start + size - 1:#x}", "free of what is already there")
        self._starts.insert(at, start)
        self._regions.insert(at, (start, start + size, view, device))

    def add_ram(self, address: int, buffer: bytearray | memoryview) -> None:
        """RAM over a writable buffer. ConfigurationError if the range is taken or not made of whole pages."""
        view = memoryview(buffer).cast("B")
        if address % _PAGE or len(view) % _PAGE or view.readonly:
            raise ConfigurationError("RAM region", f"{len(view)} bytes at {address:#x}", "a writable buffer of whole pages at a page boundary")
        self._add(address, len(view), view, None)

    def remove_ram(self, address: int) -> None:
        """Take a RAM region away. ConfigurationError if none starts there."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or self._starts[at] != address or self._regions[at][2] is None:
            raise ConfigurationError("RAM region", hex(address), "the start of a RAM region")
        for page in range(address // _PAGE, self._regions[at][1] // _PAGE):
            self._drop(page)
        del self._starts[at], self._regions[at]
        self._first = self._end = 0

    def add_mmio(self, address: int, size: int, device: MmioDevice) -> None:
        """A memory-mapped device."""
        self._add(address, size, None, device)

    def add_ports(self, first: int, count: int, device: PortDevice) -> None:
        """A device at I/O ports. ConfigurationError if one of them is taken."""
        for port in range(first, first + count):
            if port in self._ports or not 0 <= port <= 0xFFFF:
                raise ConfigurationError("I/O port", hex(port), "free, and at most 0xffff")
            self._ports[port] = device

    # Bus.

    def _find(self, address: int, size: int) -> bool:
        """Make the RAM region that holds all these bytes the current one."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return False
        start, end, view, _ = self._regions[at]
        if view is None or address + size > end:
            return False
        self._first, self._end, self._view = start, end, view
        return True

    def read(self, address: int, size: int) -> int:
        if (self._first <= address and address + size <= self._end) or self._find(address, size):
            at = address - self._first
            return int.from_bytes(self._view[at : at + size], "little")
        device, offset = self._device(address)
        if device is not None:
            return device.mmio_read(offset, size) & (1 << 8 * size) - 1
        return int.from_bytes(self.read_block(address, size), "little")

    def write(self, address: int, size: int, value: int) -> None:
        if self._watchers:
            self._written(address, size)
        if (self._first <= address and address + size <= self._end) or self._find(address, size):
            at = address - self._first
            self._view[at : at + size] = value.to_bytes(size, "little")
            return
        device, offset = self._device(address)
        if device is not None:
            device.mmio_write(offset, size, value)
        else:
            self._write_bytes(address, value.to_bytes(size, "little"))

    def _device(self, address: int) -> tuple[MmioDevice | None, int]:
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._regions[at][1]:
            return None, 0
        return self._regions[at][3], address - self._starts[at]

    def read_block(self, address: int, size: int) -> bytes:
        result = bytearray(b"\xff" * size)
        for at, start, count, view in self._pieces(address, size):
            result[at : at + count] = view[start : start + count]
        return bytes(result)

    def write_block(self, address: int, data: bytes) -> None:
        if self._watchers:
            self._written(address, len(data))
        self._write_bytes(address, data)

    def _write_bytes(self, address: int, data: bytes) -> None:
        for at, start, count, view in self._pieces(address, len(data)):
            view[start : start + count] = data[at : at + count]

    def _pieces(self, address: int, size: int) -> list[tuple[int, int, int, memoryview]]:
        """The RAM parts of a range: (offset in the range, offset in the region, bytes, region)."""
        found = []
        at = max(bisect_right(self._starts, address) - 1, 0)
        while at < len(self._regions) and self._starts[at] < address + size:
            start, end, view, _ = self._regions[at]
            low, high = max(start, address), min(end, address + size)
            if view is not None and low < high:
                found.append((low - address, low - start, high - low, view))
            at += 1
        return found

    def port_read(self, port: int, size: int) -> int:
        device = self._ports.get(port)
        return (1 << 8 * size) - 1 if device is None else device.port_read(port, size) & (1 << 8 * size) - 1

    def port_write(self, port: int, size: int, value: int) -> None:
        device = self._ports.get(port)
        if device is not None:
            device.port_write(port, size, value)

    # Decoded code.

    def watch_code(self, page: int, dropped: Callable[[int], None]) -> None:
        watchers = self._watchers.setdefault(page, [])
        if dropped not in watchers:
            watchers.append(dropped)

    def _written(self, address: int, size: int) -> None:
        for page in range(address >> 12, (address + size - 1 >> 12) + 1):
            if page in self._watchers:
                self._drop(page)

    def _drop(self, page: int) -> None:
        for dropped in self._watchers.pop(page, ()):
            dropped(page)

    # For software outside of the machine.

    def load(self, address: int, data: bytes) -> None:
        """Put bytes into RAM. MemoryAccessError if any of them is not RAM; then nothing was written."""
        self._require(address, len(data))
        self.write_block(address, data)

    def dump(self, address: int, size: int) -> bytes:
        """Bytes of RAM. MemoryAccessError if any of them is not RAM."""
        self._require(address, size)
        return self.read_block(address, size)

    def _require(self, address: int, size: int) -> None:
        if sum(piece[2] for piece in self._pieces(address, size)) != size:
            raise MemoryAccessError(address, size)
