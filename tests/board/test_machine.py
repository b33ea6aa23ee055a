"""The board: processors, their clocks, interrupts between them, waiting. The processors here run a few bytes of real-mode code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worldswitch.arch.apic import ApicRegister, TimerMode, x2apic_msr
from worldswitch.arch.msr import Msr
from worldswitch.arch.registers import Rflags
from worldswitch.arch.vmx import ActivityState, Interruptibility
from worldswitch.board import Board
from worldswitch.cpu.model import model_named
from worldswitch.cpu.processor import NEVER, Processor, Stop
from worldswitch.errors import ConfigurationError
from worldswitch.trace import Recorder
from worldswitch.trace.events import HwApicAccept, HwApicAcknowledge, HwApicEoi

R = ApicRegister
ICR, SVR, LVT_TIMER, EOI, TPR = (x2apic_msr(r) for r in (R.ICR_LOW, R.SVR, R.LVT_TIMER, R.EOI, R.TPR))
CODE = 0x1000
LOOP, HLT, NOP = b"\xeb\xfe", b"\xf4", b"\x90"
IF = int(Rflags.IF)


def board(processors: int = 1, **options: int) -> Board:
    made = Board(model_named("intel"), processors=processors, memory_bytes=options.pop("memory_bytes", 1 << 16), trace=Recorder(), **options)
    for cpu in made.processors:
        cpu.msrs.write(Msr.IA32_APIC_BASE, cpu.msrs.read(Msr.IA32_APIC_BASE) | 0x400)
        cpu.msrs.write(SVR, 0x1FF)
        load(made, cpu, LOOP)
    return made


def load(made: Board, cpu: Processor, code: bytes) -> None:
    made.memory.load(CODE + 0x100 * cpu.index, code)
    cpu.state.cs.set(0, 0, 0xFFFF, 0x9B)
    cpu.state.rip = CODE + 0x100 * cpu.index
    cpu.context_changed()


def set_deadline(cpu: Processor, tsc: int, vector: int = 0xEC) -> None:
    cpu.msrs.write(LVT_TIMER, vector | TimerMode.TSC_DEADLINE << 17)
    cpu.msrs.write(Msr.IA32_TSC_DEADLINE, tsc)


@pytest.mark.parametrize(
    "options",
    [
        {"frequency_hz": 999},
        {"frequency_hz": 0},
        {"frequency_hz": 100_000_000_001},
        {"processors": 0},
        {"processors": 65},
        {"memory_bytes": 0},
        {"memory_bytes": -4096},
        {"memory_bytes": 4097},
        {"memory_bytes": 0xFEC01000},
    ],
    ids=str,
)
def test_a_board_that_cannot_be(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError) as error:
        Board(model_named("intel"), **options)  # type: ignore[arg-type]
    assert error.value.parameter == name
    assert error.value.value == options[name]


@pytest.mark.parametrize("vendor", ["intel", "amd"])
def test_processors_have_numbers_apics_and_one_boot_processor(vendor: str) -> None:
    made = Board(model_named(vendor), processors=3, memory_bytes=4096)
    assert [cpu.index for cpu in made.processors] == [apic.apic_id for apic in made.apics] == [0, 1, 2]
    assert [cpu.msrs.read(Msr.IA32_APIC_BASE) for cpu in made.processors] == [0xFEE00900, 0xFEE00800, 0xFEE00800]
    assert all(cpu.apic is apic and cpu.bus is made.memory for cpu, apic in zip(made.processors, made.apics, strict=True))
    assert len(made.memory.dump(0, 4096)) == made.memory_bytes == 4096


def test_an_apic_reaches_its_own_processor() -> None:
    made = board(2)
    for cpu in made.processors:
        cpu.attention = False
    made.apics[1].deliver(0x40, "test")
    assert [cpu.attention for cpu in made.processors] == [False, True]
    made.processors[1].attention = False
    made.apics[0].raise_nmi()
    assert [cpu.attention for cpu in made.processors] == [True, False]


def test_apic_events_are_recorded_at_their_processors_time() -> None:
    made = board(2)
    cpu = made.processors[1]
    cpu.cycles = 500
    made.apics[1].deliver(0x41, "msi")
    cpu.cycles = 510
    cpu.apic.acknowledge()
    cpu.cycles = 520
    cpu.msrs.write(EOI, 0)
    assert list(made.trace) == [HwApicAccept(1, 500, 0x41, "msi"), HwApicAcknowledge(1, 510, 0x41), HwApicEoi(1, 520, 0x41)]
    made.trace.clear()
    made.trace.on = False
    made.apics[1].deliver(0x41, "msi")
    assert len(made.trace) == 0


# Time.


def test_advance_fires_what_becomes_due() -> None:
    made = board()
    cpu = made.processors[0]
    set_deadline(cpu, 100)
    made.advance(cpu, 99)
    assert not cpu.apic.pending()
    made.advance(cpu, 1)
    assert cpu.apic.pending()
    assert [(e.time, e.vector, e.source) for e in made.trace.of(HwApicAccept)] == [(100, 0xEC, "timer")]


def test_a_slice_ends_at_its_limit_with_every_event_on_time() -> None:
    made = board()
    cpu = made.processors[0]
    fired: list[tuple[int, int]] = []
    for time in (10, 10, 37, 200, 201):
        made.events.schedule(time, lambda at: fired.append((at, cpu.cycles)), "device")
    assert made.run_guest_slice(cpu, 200) is Stop.BUDGET
    assert (cpu.cycles, cpu.retired) == (200, 200)
    assert fired == [(10, 10), (10, 10), (37, 37), (200, 200)]
    assert made.run_guest_slice(cpu, 200) is Stop.BUDGET
    assert (cpu.cycles, len(fired)) == (200, 4)


def test_an_event_fires_before_the_instruction_at_its_time() -> None:
    made = board()
    cpu = made.processors[0]
    load(made, cpu, NOP * 8 + LOOP)
    made.events.schedule(3, lambda at: made.memory.load(CODE + 3, HLT), "writes code")
    assert made.run_guest_slice(cpu, 100) is Stop.HALTED
    assert (cpu.cycles, cpu.state.rip) == (4, CODE + 4)


def test_a_shutdown_is_reported() -> None:
    made = board()
    cpu = made.processors[0]
    cpu.state.activity = ActivityState.SHUTDOWN
    assert made.run_guest_slice(cpu, 100) is Stop.SHUTDOWN
    assert made.idle(cpu, 100) is False


def test_a_processors_timer_waits_for_its_own_clock() -> None:
    made = board(2)
    first, second = made.processors
    set_deadline(second, 300)
    made.run_guest_slice(first, 1000)
    assert not second.apic.pending()
    made.run_guest_slice(second, 299)
    assert not second.apic.pending()
    made.advance(second, 1)
    assert second.apic.pending()


def test_what_belongs_to_no_processor_waits_for_the_first_clock() -> None:
    made = board(2)
    fired: list[int] = []
    made.events.schedule(300, fired.append, "device")
    made.run_guest_slice(made.processors[1], 300)
    assert fired == [300]


def test_the_deadline_follows_the_tsc_and_no_guests_offset() -> None:
    made = board()
    cpu = made.processors[0]
    made.advance(cpu, 50)
    cpu.msrs.write(Msr.IA32_TSC, 10_000)
    set_deadline(cpu, 10_100)
    made.advance(cpu, 99)
    assert not cpu.apic.pending()
    made.advance(cpu, 1)
    assert cpu.apic.pending()


# Interrupts between processors.


@pytest.mark.parametrize(
    ("command", "receivers"),
    [
        (2 << 32 | 0x4040, [2]),
        (1 << 32 | 0x4040, [1]),
        (9 << 32 | 0x4040, []),
        (0xFFFFFFFF << 32 | 0x4040, [0, 1, 2, 3]),
        (0b1010 << 32 | 0x4840, [1, 3]),  # logical, cluster 0
        (0x1_0001 << 32 | 0x4840, []),
        (0x4_4040, [1]),  # self
        (0x8_4040, [0, 1, 2, 3]),
        (0xC_4040, [0, 2, 3]),
        (0b1101 << 32 | 0x4940, [3]),  # lowest priority: 0 and 2 are busier
        (0xC_4140, [3]),
    ],
)
def test_ipis_reach_those_addressed(command: int, receivers: list[int]) -> None:
    made = board(4)
    made.processors[0].msrs.write(TPR, 0x20)
    made.processors[2].msrs.write(TPR, 0x30)
    made.processors[1].msrs.write(ICR, command)
    assert [i for i, apic in enumerate(made.apics) if apic.irr >> 0x40 & 1] == receivers
    assert {event.source for event in made.trace.of(HwApicAccept)} <= {"ipi"}


def test_nmi_ipis() -> None:
    made = board(3)
    made.processors[0].msrs.write(ICR, 0xC_4400)
    assert [cpu.apic.nmi_pending() for cpu in made.processors] == [False, True, True]


def test_lowest_priority_passes_over_a_disabled_apic() -> None:
    made = board(3)
    made.processors[0].msrs.write(SVR, 0xFF)
    made.processors[1].msrs.write(TPR, 0x30)
    made.processors[2].msrs.write(ICR, 0b0011 << 32 | 0x4940)
    assert [apic.irr for apic in made.apics] == [0, 1 << 0x40, 0]


def test_an_ipi_arrives_no_earlier_than_it_was_sent() -> None:
    made = board(3)
    behind, sender, ahead = made.processors
    behind.cycles, sender.cycles, ahead.cycles = 100, 500, 900
    sender.msrs.write(ICR, 0xC_4040)
    assert [cpu.apic.pending() for cpu in made.processors] == [False, False, True]
    made.run_guest_slice(behind, 499)
    assert not behind.apic.pending()
    assert made.idle(behind, 2000)
    assert [(e.cpu, e.time) for e in made.trace.of(HwApicAccept)] == [(2, 900), (0, 500)]


# Waiting.


def test_idle_stops_at_the_event_that_brings_an_interrupt() -> None:
    made = board()
    cpu = made.processors[0]
    fired: list[int] = []
    made.events.schedule(40, fired.append, "device")
    set_deadline(cpu, 100)
    assert made.idle(cpu, 1000) is True
    assert (cpu.cycles, fired) == (100, [40])
    assert made.idle(cpu, 1000) is True
    assert cpu.cycles == 100


def test_idle_stops_at_the_limit() -> None:
    made = board()
    cpu = made.processors[0]
    set_deadline(cpu, 100)
    assert made.idle(cpu, 100) is False
    assert cpu.cycles == 100
    assert made.idle(cpu, 101) is True


def test_idle_without_limit_does_not_run_to_the_end_of_time() -> None:
    made = board()
    cpu = made.processors[0]
    made.events.schedule(40, lambda at: None, "device")
    assert made.idle(cpu, NEVER) is False
    assert cpu.cycles == 40


def test_an_interrupt_below_the_task_priority_does_not_wake() -> None:
    made = board()
    cpu = made.processors[0]
    cpu.msrs.write(TPR, 0xF0)
    set_deadline(cpu, 100)
    assert made.idle(cpu, 1000) is False
    assert cpu.cycles == 1000
    made.apics[0].raise_nmi()
    assert made.idle(cpu, 2000) is True


def _mask_nmis(cpu: Processor) -> None:
    cpu.state.interruptibility |= Interruptibility.BLOCKING_BY_NMI


#: RFLAGS.IF, what comes, what else; does it end HLT.
WAKING: list[tuple[int, str, Callable[[Processor], None] | None, bool]] = [
    (IF, "interrupt", None, True),
    (0, "interrupt", None, False),
    (0, "nmi", None, True),
    (IF, "nmi", None, True),
    (IF, "nmi", _mask_nmis, False),
    (IF, "interrupt", _mask_nmis, True),
    (IF, "interrupt", lambda cpu: setattr(cpu.state, "gif", 0), False),
    (IF, "nmi", lambda cpu: setattr(cpu.state, "gif", 0), False),
    (IF | Rflags.TF, "nothing", None, False),
    (IF, "nothing", None, False),
]


@pytest.mark.parametrize(("flags", "what", "prepare", "wakes"), WAKING)
def test_what_wakes_a_processor_from_hlt(flags: int, what: str, prepare: Callable[[Processor], None] | None, wakes: bool) -> None:
    made = board()
    cpu, apic = made.processors[0], made.apics[0]
    load(made, cpu, HLT)
    assert made.run_guest_slice(cpu, 1000) is Stop.HALTED
    cpu.state.rflags |= flags
    if prepare is not None:
        prepare(cpu)

    def happens(at: int) -> None:
        if what == "interrupt":
            apic.deliver(0x40, "test")
        elif what == "nmi":
            apic.raise_nmi()
        else:
            cpu.attend()

    made.events.schedule(50, happens, what)
    assert made.idle(cpu, 1000) is wakes
    assert cpu.cycles == (50 if wakes else 1000)
    assert cpu.state.activity == ActivityState.HLT  # until the event is delivered


def test_what_a_halted_processor_has_looked_at_does_not_wake_it_again() -> None:
    made = board()
    cpu = made.processors[0]
    load(made, cpu, HLT)
    made.run_guest_slice(cpu, 1000)
    cpu.state.rflags |= IF
    made.apics[0].deliver(0x40, "test")
    cpu.attention = False  # a boundary left it where it is
    assert made.idle(cpu, 1000) is False
    cpu.attend()
    assert made.idle(cpu, 1000) is True


def test_a_processor_halted_with_interrupts_off_and_a_periodic_timer_does_not_spin() -> None:
    made = board()
    cpu = made.processors[0]
    load(made, cpu, HLT)
    cpu.msrs.write(LVT_TIMER, 0xEC | TimerMode.PERIODIC << 17)
    cpu.msrs.write(x2apic_msr(R.TIMER_INITIAL_COUNT), 1)
    assert made.run_guest_slice(cpu, NEVER) is Stop.HALTED
    assert made.idle(cpu, NEVER) is False
    assert cpu.cycles < 10


# The local APIC's page.


def test_each_processor_finds_its_own_apic_at_the_same_address() -> None:
    made = board(2)
    for cpu in made.processors:
        cpu.apic.write_msr(Msr.IA32_APIC_BASE, 0xFEE00000)
        cpu.apic.write_msr(Msr.IA32_APIC_BASE, 0xFEE00800)
        # mov eax, [0x20]; mov dword [0x80], 0x50; hlt -- with DS based at the page.
        load(made, cpu, bytes.fromhex("66 a1 20 00  66 c7 06 80 00 50 00 00 00  f4"))
        cpu.state.ds.set(0, 0xFEE00000, 0xFFFF, 0x93)
    assert made.run_guest_slice(made.processors[1], 100) is Stop.HALTED
    assert made.processors[1].state.rax & 0xFFFFFFFF == 1 << 24
    assert [apic.get_tpr() for apic in made.apics] == [0, 0x50]
    assert made.run_guest_slice(made.processors[0], 100) is Stop.HALTED
    assert made.processors[0].state.rax & 0xFFFFFFFF == 0
    assert [apic.get_tpr() for apic in made.apics] == [0x50, 0x50]
    # Nobody's outside of execution, and not where it was once it has been moved.
    assert made.memory.read(0xFEE00020, 4) == 0xFFFFFFFF
    made.memory.write(0xFEE00080, 4, 0)
    made.apics[0].write_msr(Msr.IA32_APIC_BASE, 0xFED00900)
    load(made, made.processors[0], bytes.fromhex("66 a1 20 00  66 c7 06 80 00 00 00 00 00  f4"))
    made.processors[0].state.activity = ActivityState.ACTIVE
    assert made.run_guest_slice(made.processors[0], 200) is Stop.HALTED
    assert made.processors[0].state.rax & 0xFFFFFFFF == 0xFFFFFFFF
    assert made.apics[0].get_tpr() == 0x50


# Determinism.


def test_the_same_inputs_give_the_same_trace() -> None:
    def run() -> list[str]:
        made = board(3)
        for cpu in made.processors:
            cpu.msrs.write(LVT_TIMER, 0xE0 + cpu.index | TimerMode.PERIODIC << 17)
            cpu.msrs.write(x2apic_msr(R.TIMER_INITIAL_COUNT), 37 + cpu.index)
        while min(cpu.cycles for cpu in made.processors) < 2000:
            cpu = min(made.processors, key=lambda c: (c.cycles, c.index))
            made.run_guest_slice(cpu, cpu.cycles + 50)
            if cpu.apic.pending():
                vector = cpu.apic.acknowledge()
                cpu.msrs.write(ICR, (cpu.index + 1) % 3 << 32 | 0x4000 | vector - 0x40)
                cpu.msrs.write(EOI, 0)
        return list(made.trace.lines())

    once = run()
    assert len(once) > 300
    assert once == run()
