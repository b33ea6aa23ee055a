"""Physical memory and ports: who answers, edges, and the watch on decoded code."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.board import PhysicalMemory
from worldswitch.errors import ConfigurationError, MemoryAccessError

PAGE = 4096
#: The layout of `machine`: two RAM regions side by side, a hole, a device directly above RAM, another device above a hole.
RAM_A, RAM_B, RAM_C, DEVICE, LONE = 0x0000, 0x1000, 0x4000, 0x5000, 0x8000


class Device:
    """Answers reads with bytes that name their offset; keeps what is written."""

    def __init__(self) -> None:
        self.log: list[tuple[int, ...]] = []

    def mmio_read(self, offset: int, size: int) -> int:
        self.log.append((offset, size))
        return sum((0x80 + offset + i & 0xFF) << 8 * i for i in range(size)) | 0xABCD << 8 * size  # too wide on purpose

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.log.append((offset, size, value))

    port_read = mmio_read
    port_write = mmio_write


def machine() -> tuple[PhysicalMemory, Device, Device]:
    memory, device, lone = PhysicalMemory(), Device(), Device()
    for start in (RAM_B, RAM_A, RAM_C):  # out of order
        memory.add_ram(start, bytearray(i & 0x3F for i in range(PAGE)))
    memory.add_mmio(DEVICE, 0x10, device)
    memory.add_mmio(LONE, 0x10, lone)
    return memory, device, lone


@pytest.mark.parametrize("size", range(1, 17))
def test_ram_is_little_endian_at_every_size(size: int) -> None:
    memory, _, _ = machine()
    value = int.from_bytes(bytes(range(0xF0, 0xF0 + size)), "little")
    memory.write(0x123, size, value)
    assert memory.read(0x123, size) == value
    assert memory.read_block(0x122, size + 2) == bytes([0x22, *range(0xF0, 0xF0 + size), 0x23 + size])
    memory.write_block(0x200, bytes(range(size)))
    assert memory.read(0x200, size) == int.from_bytes(bytes(range(size)), "little")


#: Address, size, the bytes that come back. "ff" is nobody; RAM holds its offset's low six bits; devices answer 0x80 + offset.
EDGES = [
    (RAM_B - 2, 4, "3e 3f 00 01"),  # RAM and RAM
    (RAM_B + PAGE - 2, 4, "3e 3f ff ff"),  # RAM and nobody
    (RAM_C - 2, 4, "ff ff 00 01"),  # nobody and RAM
    (RAM_C + PAGE - 2, 4, "3e 3f 80 81"),  # RAM and device
    (DEVICE + 0xE, 4, "8e 8f ff ff"),  # device and nobody
    (LONE - 1, 2, "ff 80"),  # nobody and device
    (RAM_C + PAGE - 1, 16, "3f 80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e"),
    (0x3000, 8, "ff ff ff ff ff ff ff ff"),
    (0xFFFF_FFFF_F000, 4, "ff ff ff ff"),
    ((1 << 64) - 2, 4, "ff ff ff ff"),
]


@pytest.mark.parametrize(("address", "size", "expected"), EDGES)
def test_an_access_across_an_edge_goes_byte_by_byte(address: int, size: int, expected: str) -> None:
    memory, _, _ = machine()
    memory.read(max(address - 8, 0), 1)  # so that the region before the edge may be the one used last
    assert memory.read(address, size) == int.from_bytes(bytes.fromhex(expected), "little")


@pytest.mark.parametrize(("address", "size", "expected"), EDGES)
def test_a_write_across_an_edge_goes_byte_by_byte(address: int, size: int, expected: str) -> None:
    memory, device, lone = machine()
    memory.read(max(address - 8, 0), 1)
    device.log.clear()
    memory.write(address, size, int.from_bytes(bytes(range(0x61, 0x61 + size)), "little"))
    reached = {DEVICE + at: value for at, _, value in device.log} | {LONE + at: value for at, _, value in lone.log}
    for i, old in enumerate(bytes.fromhex(expected)):
        if old == 0xFF:
            assert memory.read(address + i, 1) == 0xFF
        elif old >= 0x80:
            assert reached[address + i] == 0x61 + i
        else:
            assert memory.dump(address + i, 1) == bytes([0x61 + i])


def test_a_device_gets_offset_and_size_and_its_answer_is_cut_to_size() -> None:
    memory, device, _ = machine()
    assert memory.read(DEVICE + 4, 4) == 0x87868584
    memory.write(DEVICE + 8, 2, 0x1234)
    assert device.log == [(4, 4), (8, 2, 0x1234)]


def test_blocks_leave_devices_alone() -> None:
    memory, device, _ = machine()
    assert memory.read_block(DEVICE - 2, 6) == bytes.fromhex("3e 3f ff ff ff ff")
    memory.write_block(DEVICE - 2, b"abcdef")
    assert memory.dump(DEVICE - 2, 2) == b"ab"
    assert device.log == []
    assert memory.read_block(0, 0) == b""


def test_memory_belongs_to_others() -> None:
    memory = PhysicalMemory()
    own = bytearray(3 * PAGE)
    with mmap.mmap(-1, PAGE) as mapped:
        memory.add_ram(0x10000, memoryview(own)[PAGE : 2 * PAGE])
        memory.add_ram(0x20000, memoryview(mapped))
        memory.write(0x10004, 2, 0x6261)
        memory.write(0x20008, 2, 0x6463)
        assert own[PAGE + 4 : PAGE + 6] == b"ab"
        assert mapped[8:10] == b"cd"
        own[PAGE] = 0x77
        assert memory.read(0x10000, 1) == 0x77
        memory.remove_ram(0x20000)


@pytest.mark.parametrize(
    ("start", "pages"),
    [(RAM_A, 1), (RAM_B, 1), (RAM_B, 2), (0x3000, 2), (0x3000, 4), (DEVICE, 1), (0x7000, 2), (RAM_A, 16)],
)
def test_regions_may_not_overlap(start: int, pages: int) -> None:
    memory, _, _ = machine()
    with pytest.raises(ConfigurationError, match="physical range"):
        memory.add_ram(start, bytearray(pages * PAGE))
    with pytest.raises(ConfigurationError, match="physical range"):
        memory.add_mmio(start, pages * PAGE, Device())


@pytest.mark.parametrize(
    ("start", "buffer"),
    [
        (0x10001, memoryview(bytearray(PAGE))),
        (0x10000, memoryview(bytearray(PAGE + 1))),
        (0x10000, memoryview(bytearray(0))),
        (0x10000, memoryview(bytes(PAGE))),
        (0x10000, memoryview(bytearray(2 * PAGE))[::2]),
    ],
    ids=["address", "size", "empty", "read-only", "strided"],
)
def test_ram_is_whole_writable_pages(start: int, buffer: memoryview) -> None:
    with pytest.raises(ConfigurationError, match="RAM region"):
        PhysicalMemory().add_ram(start, buffer)


@pytest.mark.parametrize(("start", "size"), [(-PAGE, PAGE), (0, 0), (0, -1), ((1 << 64) - PAGE, 2 * PAGE)])
def test_ranges_lie_within_64_bits(start: int, size: int) -> None:
    with pytest.raises(ConfigurationError, match="physical range"):
        PhysicalMemory().add_mmio(start, size, Device())


def test_a_removed_region_is_gone_and_its_place_free() -> None:
    memory, _, _ = machine()
    assert memory.read(RAM_C + 1, 1) == 1
    memory.remove_ram(RAM_C)
    assert memory.read(RAM_C + 1, 1) == 0xFF
    memory.write(RAM_C, 4, 0)
    memory.add_ram(RAM_C, bytearray(b"\x55" * PAGE))
    assert memory.read(RAM_C + 1, 1) == 0x55


@pytest.mark.parametrize("address", [RAM_C + PAGE // 2, 0x3000, DEVICE])
def test_only_the_start_of_ram_can_be_removed(address: int) -> None:
    memory, _, _ = machine()
    with pytest.raises(ConfigurationError, match="RAM region"):
        memory.remove_ram(address)


# Ports.


def test_ports() -> None:
    memory, device = PhysicalMemory(), Device()
    memory.add_ports(0x70, 4, device)
    assert memory.port_read(0x70, 4) == 0xF3F2F1F0
    memory.port_write(0x72, 2, 0x1234)
    assert device.log == [(0x70, 4), (0x72, 2, 0x1234)]
    assert [memory.port_read(0x80, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    memory.port_write(0x80, 4, 0)
    assert len(device.log) == 2


def test_a_port_access_across_devices_goes_byte_by_byte() -> None:
    memory, one, two = PhysicalMemory(), Device(), Device()
    memory.add_ports(0x70, 2, one)
    memory.add_ports(0x72, 1, two)
    assert memory.port_read(0x71, 4) == 0xFFFFF2F1
    memory.port_write(0x71, 2, 0x6261)
    assert (one.log, two.log) == ([(0x71, 1), (0x71, 1, 0x61)], [(0x72, 1), (0x72, 1, 0x62)])
    assert memory.port_read(0xFFFF, 2) == 0xFFFF


@pytest.mark.parametrize(("first", "count"), [(0x71, 1), (0x6F, 2), (0xFFFF, 2), (-1, 1), (0x10, 0)])
def test_ports_that_cannot_be(first: int, count: int) -> None:
    memory = PhysicalMemory()
    memory.add_ports(0x70, 2, Device())
    with pytest.raises(ConfigurationError):
        memory.add_ports(first, count, Device())
    assert memory.port_read(0x6F, 1) == 0xFF


# The watch on decoded code.

#: Who changes page 4 (RAM_C), and how.
WRITERS: dict[str, Callable[[PhysicalMemory], object]] = {
    "write": lambda m: m.write(RAM_C + 8, 4, 0),
    "write in its last byte": lambda m: m.write(RAM_C + PAGE - 1, 1, 0),
    "write that ends in it": lambda m: m.write(RAM_C - 1, 2, 0),
    "write that begins in it": lambda m: m.write(RAM_C + PAGE - 1, 2, 0),
    "write_block": lambda m: m.write_block(RAM_C + 100, b"x"),
    "write_block over many pages": lambda m: m.write_block(0, bytes(64 * PAGE)),
    "load": lambda m: m.load(RAM_C + 100, b"x"),
    "written": lambda m: m.written(RAM_C, 1),
    "remove_ram": lambda m: m.remove_ram(RAM_C),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_write_into_a_watched_page_is_announced_once_to_all(writer: str) -> None:
    memory, _, _ = machine()
    calls: list[tuple[str, int, bytes]] = []
    # Two processors, one of which asks twice; what they find is what was there before the write.
    first, second = (lambda page, n=name: calls.append((n, page, memory.dump(RAM_C, PAGE))) for name in ("first", "second"))
    before = memory.dump(RAM_C, PAGE)
    for watcher in (first, second, first):
        memory.watch_code(RAM_C >> 12, watcher)
    WRITERS[writer](memory)
    assert calls == [("first", RAM_C >> 12, before), ("second", RAM_C >> 12, before)]
    if writer != "remove_ram":
        WRITERS[writer](memory)
        assert len(calls) == 2


def test_other_pages_are_not_announced() -> None:
    memory, _, _ = machine()
    calls: list[int] = []
    for page in (0, 1, 4):
        memory.watch_code(page, calls.append)
    memory.read(0, 8)
    memory.write(0x3000, 8, 0)
    memory.write(DEVICE, 4, 0)
    assert calls == []
    memory.write(RAM_B - 4, 8, 0)
    assert calls == [0, 1]
    memory.write(RAM_C, 1, 0)
    assert calls == [0, 1, 4]


def test_a_watcher_may_watch_again_from_within() -> None:
    memory, _, _ = machine()
    calls: list[int] = []

    def dropped(page: int) -> None:
        calls.append(page)
        memory.watch_code(page, dropped)

    memory.watch_code(0, dropped)
    memory.write(0, 1, 0)
    memory.write(0, 1, 0)
    assert calls == [0, 0]


def test_ram_that_appears_under_decoded_code_drops_it() -> None:
    memory = PhysicalMemory()
    calls: list[int] = []
    memory.watch_code(7, calls.append)
    memory.add_ram(0x7000, bytearray(PAGE))
    assert calls == [7]


# Host-side access.


@pytest.mark.parametrize(("address", "size"), [(RAM_B + PAGE - 1, 2), (RAM_C - 1, 1), (DEVICE - 1, 2), (DEVICE, 1), (-1, 1), (1 << 70, 1), (0, 16 * PAGE)])
def test_load_and_dump_want_ram_and_write_nothing_by_halves(address: int, size: int) -> None:
    memory, _, _ = machine()
    before = memory.dump(RAM_A, 2 * PAGE)
    with pytest.raises(MemoryAccessError) as error:
        memory.load(address, b"\xee" * size)
    assert (error.value.address, error.value.size) == (address, size)
    with pytest.raises(MemoryAccessError):
        memory.dump(address, size)
    assert memory.dump(RAM_A, 2 * PAGE) == before


def test_load_and_dump_cross_regions() -> None:
    memory, _, _ = machine()
    memory.load(RAM_B - 2, b"abcd")
    assert memory.dump(RAM_B - 2, 4) == b"abcd"
    assert memory.dump(RAM_B, 0) == b""


ACCESSES = st.tuples(st.integers(0, 6 * PAGE), st.sampled_from([1, 2, 4, 8, 16]), st.none() | st.integers(0, (1 << 128) - 1))


@given(st.sets(st.integers(0, 5)), st.lists(ACCESSES, max_size=30))
def test_any_layout_behaves_like_bytes(pages: set[int], accesses: list[tuple[int, int, int | None]]) -> None:
    memory = PhysicalMemory()
    for page in pages:
        memory.add_ram(page * PAGE, bytearray(PAGE))
    model = {page * PAGE + i: 0 for page in pages for i in range(PAGE)}
    for address, size, value in accesses:
        if value is None:
            assert memory.read(address, size) == sum(model.get(address + i, 0xFF) << 8 * i for i in range(size))
        else:
            value &= (1 << 8 * size) - 1
            memory.write(address, size, value)
            for i in range(size):
                if address + i in model:
                    model[address + i] = value >> 8 * i & 0xFF
