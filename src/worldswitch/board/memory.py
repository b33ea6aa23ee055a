"""Physical memory, memory-mapped devices and I/O ports: what answers at which address.

RAM is made of regions over buffers that others own: a memory slot's buffer belongs to its VMM. What nothing answers reads as all ones and swallows
writes, as on a PC. Relies on nothing; leaves address translation to the processors, and telling of writes that bypass it (`written`) to whoever makes them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple, Protocol

from worldswitch.errors import ConfigurationError, MemoryAccessError

_PAGE: Final = 4096
_PORTS: Final = 1 << 16
_NO_RAM: Final = memoryview(bytearray(0))
#: How the usual sizes are read and written in place: several times faster than through bytes.
_GET: Final = {size: Struct(code).unpack_from for size, code in ((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q"))}
_PUT: Final = {size: Struct(code).pack_into for size, code in ((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q"))}


class MmioDevice(Protocol):
    """Something that answers at physical addresses. Accesses that leave its range arrive as single bytes."""

    def mmio_read(self, offset: int, size: int) -> int:
        """`size` bytes (1..16), little-endian, at an offset in the device's range; bits beyond `size` bytes are ignored."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write `size` bytes at an offset in the device's range."""


class PortDevice(Protocol):
    """Something that answers at I/O ports. Accesses that reach ports of others arrive as single bytes."""

    def port_read(self, port: int, size: int) -> int:
        """IN from this port (its number on the bus): 1, 2 or 4 bytes; bits beyond are ignored."""

    def port_write(self, port: int, size: int, value: int) -> None:
        """OUT to this port: 1, 2 or 4 bytes."""


class _Region(NamedTuple):
    """A range of physical addresses and what answers there: RAM if `device` is None."""

    start: int
    end: int
    view: memoryview
    device: MmioDevice | None


def _load(view: memoryview, at: int, size: int) -> int:
    return int.from_bytes(view[at : at + size], "little")


def _store(view: memoryview, at: int, size: int, value: int) -> None:
    view[at : at + size] = value.to_bytes(size, "little")


_NOWHERE: Final = (0, 0, _NO_RAM)


class PhysicalMemory:
    """`cpu.bus.Bus` over RAM regions and devices."""

    def __init__(self) -> None:
        # Sorted by start, never overlapping.
        self._starts: list[int] = []
        self._regions: list[_Region] = []
        self._ports: dict[int, PortDevice] = {}
        self._watchers: dict[int, list[Callable[[int], None]]] = {}
        # The RAM region used last (start, end, bytes): accesses come in runs. One reference, so that a thread never sees half of a change.
        self._recent = _NOWHERE

    # Building.

    def _add(self, start: int, size: int, view: memoryview, device: MmioDevice | None) -> None:
        end = start + size
        if start < 0 or size <= 0 or end > 1 << 64:
            raise ConfigurationError("physical range", (start, size), "a start from 0 and a positive size in bytes, within 64 bits")
        at = bisect_right(self._starts, start)
        if (at and self._regions[at - 1].end > start) or (at < len(self._starts) and self._starts[at] < end):
            raise ConfigurationError("physical range", f"{start:#x}..{end - 1:#x}", "free of what is already there")
        self._starts.insert(at, start)
        self._regions.insert(at, _Region(start, end, view, device))
        self.written(start, size)

    def add_ram(self, address: int, buffer: bytearray | memoryview) -> None:
        """RAM over a writable buffer, which stays its owner's and must not be resized. ConfigurationError if the range is taken or is not whole pages."""
        view = memoryview(buffer)
        if not view.contiguous or view.readonly or not view.nbytes or view.nbytes % _PAGE or address % _PAGE:
            raise ConfigurationError("RAM region", f"{view.nbytes} bytes at {address:#x}", "a writable contiguous buffer of whole pages, at a page boundary")
        self._add(address, view.nbytes, view.cast("B"), None)

    def remove_ram(self, address: int) -> None:
        """Take a RAM region away; code decoded from it is dropped. ConfigurationError if none starts there."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or self._starts[at] != address or self._regions[at].device is not None:
            raise ConfigurationError("RAM region", hex(address), "the start of a RAM region")
        self.written(address, self._regions[at].end - address)
        del self._starts[at], self._regions[at]
        self._recent = _NOWHERE

    def add_mmio(self, address: int, size: int, device: MmioDevice) -> None:
        """A memory-mapped device. ConfigurationError if the range is taken."""
        self._add(address, size, _NO_RAM, device)

    def add_ports(self, first: int, count: int, device: PortDevice) -> None:
        """A device at I/O ports. ConfigurationError if one of them is taken; then none was added."""
        wanted = range(first, first + count)
        for port in wanted:
            if port in self._ports or not 0 <= port < _PORTS:
                raise ConfigurationError("I/O port", hex(port), "free, and from 0 to 0xffff")
        if not wanted:
            raise ConfigurationError("count", count, "at least one I/O port")
        self._ports.update(dict.fromkeys(wanted, device))

    # Bus: memory. The fast path of `read` and `write` is one comparison with the region used last.

    def read(self, address: int, size: int) -> int:
        start, end, view = self._recent
        if start <= address and address + size <= end:
            get = _GET.get(size)
            return get(view, address - start)[0] if get is not None else _load(view, address - start, size)
        region = self._region(address)
        if region is None or address + size > region.end:
            # A byte alone that nothing answers, or an edge: every byte goes where it belongs.
            if size == 1:
                return 0xFF
            return sum(self.read(address + i, 1) << 8 * i for i in range(size))
        if region.device is not None:
            return region.device.mmio_read(address - region.start, size) & (1 << 8 * size) - 1
        self._recent = region.start, region.end, region.view
        return _load(region.view, address - region.start, size)

    def write(self, address: int, size: int, value: int) -> None:
        watchers = self._watchers
        if watchers and (address >> 12 in watchers or address + size - 1 >> 12 in watchers):
            self.written(address, size)
        start, end, view = self._recent
        if start <= address and address + size <= end:
            put = _PUT.get(size)
            if put is not None:
                put(view, address - start, value)
            else:
                _store(view, address - start, size, value)
            return
        self._write_elsewhere(address, size, value)

    def _write_elsewhere(self, address: int, size: int, value: int) -> None:
        region = self._region(address)
        if region is None or address + size > region.end:
            if size > 1:
                for i in range(size):
                    self._write_elsewhere(address + i, 1, value >> 8 * i & 0xFF)
        elif region.device is not None:
            region.device.mmio_write(address - region.start, size, value)
        else:
            self._recent = region.start, region.end, region.view
            _store(region.view, address - region.start, size, value)

    def _region(self, address: int) -> _Region | None:
        """What answers at an address."""
        at = bisect_right(self._starts, address) - 1
        return self._regions[at] if at >= 0 and address < self._regions[at].end else None

    def read_block(self, address: int, size: int) -> bytes:
        result = bytearray(b"\xff" * size)
        for at, piece in self._pieces(address, size):
            result[at : at + len(piece)] = piece
        return bytes(result)

    def write_block(self, address: int, data: bytes) -> None:
        if self._watchers:
            self.written(address, len(data))
        for at, piece in self._pieces(address, len(data)):
            piece[:] = data[at : at + len(piece)]

    def _pieces(self, address: int, size: int) -> list[tuple[int, memoryview]]:
        """The RAM in a range, in order: (offset in the range, the bytes)."""
        found = []
        at = max(bisect_right(self._starts, address) - 1, 0)
        while at < len(self._regions) and self._starts[at] < address + size:
            start, end, view, device = self._regions[at]
            low, high = max(start, address), min(end, address + size)
            if device is None and low < high:
                found.append((low - address, view[low - start : high - start]))
            at += 1
        return found

    # Bus: ports.

    def port_read(self, port: int, size: int) -> int:
        device = self._ports.get(port)
        if self._alone(device, port, size):
            return (1 << 8 * size) - 1 if device is None else device.port_read(port, size) & (1 << 8 * size) - 1
        return sum(self.port_read(port + i, 1) << 8 * i for i in range(size))

    def port_write(self, port: int, size: int, value: int) -> None:
        device = self._ports.get(port)
        if self._alone(device, port, size):
            if device is not None:
                device.port_write(port, size, value)
            return
        for i in range(size):
            self.port_write(port + i, 1, value >> 8 * i & 0xFF)

    def _alone(self, device: PortDevice | None, port: int, size: int) -> bool:
        """Whether all ports of an access are one device's, or nobody's."""
        return size == 1 or all(self._ports.get(port + i) is device for i in range(1, size))

    # Decoded code.

    def watch_code(self, page: int, dropped: Callable[[int], None]) -> None:
        watchers = self._watchers.setdefault(page, [])
        if dropped not in watchers:
            watchers.append(dropped)

    def written(self, address: int, size: int) -> None:
        """These bytes are about to change: drop the code decoded from their pages. Only who writes into a region's buffer directly needs to say so."""
        first, last = address >> 12, address + size - 1 >> 12
        if last - first < len(self._watchers):
            hit = [page for page in range(first, last + 1) if page in self._watchers]
        else:
            hit = [page for page in self._watchers if first <= page <= last]
        for page in hit:
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
        if sum(len(piece) for _, piece in self._pieces(address, size)) != size:
            raise MemoryAccessError(address, size)
