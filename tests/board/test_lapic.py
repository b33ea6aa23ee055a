"""The local APIC's registers and rules, one row per rule of SDM vol. 3 ch. 11. Its timer is in test_lapic_timer.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.arch.apic import LVT_MASKED, ApicRegister, DeliveryMode, Esr, x2apic_msr
from worldswitch.arch.msr import Msr
from worldswitch.board import Ipi, LocalApic
from worldswitch.board.lapic import PAGE_BYTES, highest
from worldswitch.errors import ConfigurationError

R = ApicRegister
XAPIC, X2APIC, OFF = 0xFEE00900, 0xFEE00D00, 0xFEE00100
GP = None
FIXED, NMI, INIT = DeliveryMode.FIXED, DeliveryMode.NMI, DeliveryMode.INIT


class StillClock:
    """Time does not pass."""

    def now(self) -> int:
        return 1000

    def arm(self, time: int, callback: Callable[[int], None]) -> object:
        return None

    def disarm(self, handle: object) -> None: ...

    def tsc(self) -> int:
        return 1000


class Bench:
    """A local APIC, and what it tells its surroundings."""

    def __init__(self, apic_id: int = 0, *, base: int = XAPIC, enable: bool = True) -> None:
        self.raised = 0
        self.record: list[tuple[str, int, str]] = []
        self.sent: list[Ipi] = []
        self.eois: list[int] = []
        self.messages: list[Ipi] = []
        self.apic = LocalApic(
            apic_id,
            StillClock(),
            raised=self._raised,
            record=lambda *what: self.record.append(what),
            send=self.sent.append,
            eoi=self.eois.append,
            message=self.messages.append,
        )
        if base != XAPIC:
            assert self.apic.write_msr(Msr.IA32_APIC_BASE, base)
        if enable:
            self.apic.write(R.SVR, 0x1FF)
        self.raised = 0

    def _raised(self) -> None:
        self.raised += 1

    def deliver(self, *vectors: int, level: bool = False) -> None:
        for vector in vectors:
            assert self.apic.deliver(vector, "test", level=level)

    def serve(self, *vectors: int) -> None:
        """Brings vectors into service, lowest first."""
        for vector in sorted(vectors):
            self.deliver(vector)
            assert self.apic.acknowledge() == vector


@pytest.mark.parametrize(("bits", "expected"), [(0, -1), (1, 0), (1 << 255, 255), (1 << 32 | 1 << 31, 32)])
def test_highest(bits: int, expected: int) -> None:
    assert highest(bits) == expected


# Power-up (§11.4.7.1).


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (R.ID, 0x05000000), (R.VERSION, 0x00050014), (R.TPR, 0), (R.APR, 0), (R.PPR, 0), (R.LDR, 0), (R.DFR, 0xFFFFFFFF), (R.SVR, 0xFF), (R.ESR, 0),
        (R.ICR_LOW, 0), (R.ICR_HIGH, 0), (R.LVT_TIMER, LVT_MASKED), (R.LVT_THERMAL, LVT_MASKED), (R.LVT_PERF, LVT_MASKED), (R.LVT_LINT0, LVT_MASKED),
        (R.LVT_LINT1, LVT_MASKED), (R.LVT_ERROR, LVT_MASKED), (R.TIMER_INITIAL_COUNT, 0), (R.TIMER_CURRENT_COUNT, 0), (R.TIMER_DIVIDE, 0),
        *((base + 16 * i, 0) for base in (R.ISR, R.TMR, R.IRR) for i in range(8)),
    ],
)  # fmt: skip
def test_power_up(register: int, value: int) -> None:
    apic = Bench(5, enable=False).apic
    assert apic.mmio_read(register, 4) == value
    assert apic.read_msr(Msr.IA32_APIC_BASE) == XAPIC
    assert not apic.software_enabled
    assert apic.read_msr(Msr.IA32_TSC_DEADLINE) == 0


@pytest.mark.parametrize("base", [XAPIC, X2APIC])
def test_init_keeps_mode_and_id_and_reset_does_not(base: int) -> None:
    apic = Bench(5, base=base).apic
    apic.write(R.TPR, 0x30)
    apic.write(R.LVT_LINT0, 0x40)
    if base == XAPIC:
        apic.write(R.ID, 0x77000000)
    apic.deliver(0x50, "test")
    apic.raise_nmi()
    expected = 0x77 if base == XAPIC else 5
    apic.init()
    assert (apic.apic_id, apic.base, apic.software_enabled, apic.irr, apic.get_tpr(), apic.nmi_pending()) == (expected, base, False, 0, 0, False)
    assert apic.read(R.LVT_LINT0) == LVT_MASKED
    apic.reset()
    assert (apic.apic_id, apic.base) == (5, XAPIC)


# Priorities (§11.8.3).


@pytest.mark.parametrize(
    ("tpr", "serving", "ppr"),
    [
        (0x00, [], 0x00),
        (0x35, [], 0x35),
        (0x00, [0x41], 0x40),  # the class of the interrupt in service, without its sub-class
        (0x35, [0x41], 0x40),
        (0x45, [0x41], 0x45),  # equal classes: TPR
        (0x52, [0x41], 0x52),
        (0x3F, [0x41, 0x62], 0x60),  # the highest in service
        (0xFF, [0xEF], 0xFF),
    ],
)
def test_processor_priority(tpr: int, serving: list[int], ppr: int) -> None:
    bench = Bench()
    bench.serve(*serving)
    bench.apic.write(R.TPR, tpr)
    assert bench.apic.ppr == bench.apic.mmio_read(R.PPR, 4) == ppr


@pytest.mark.parametrize(
    ("tpr", "serving", "waiting", "apr"),
    [
        (0x00, [], [], 0x00),
        (0x23, [], [], 0x23),
        (0x23, [], [0x21], 0x23),  # TPR's class is not below IRR's and above ISR's: all of TPR
        (0x23, [], [0x31], 0x30),
        (0x33, [0x31], [0x31], 0x30),  # not above ISR's class
        (0x43, [0x31], [0x41], 0x43),
        (0x23, [0x51], [0x41], 0x50),
    ],
)
def test_arbitration_priority(tpr: int, serving: list[int], waiting: list[int], apr: int) -> None:
    bench = Bench()
    bench.serve(*serving)
    bench.deliver(*waiting)
    bench.apic.write(R.TPR, tpr)
    assert bench.apic.mmio_read(R.APR, 4) == apr


@pytest.mark.parametrize(
    ("tpr", "serving", "waiting", "pending"),
    [
        (0x00, [], [], False),
        (0x00, [], [0x10], True),
        (0x0F, [], [0x10], True),
        (0x10, [], [0x1F], False),  # the same class waits
        (0x1F, [], [0x20], True),
        (0xE0, [], [0xEF], False),
        (0xF0, [], [0xFF], False),
        (0x00, [0x40], [0x4F], False),
        (0x00, [0x4F], [0x50], True),
        (0x50, [0x40], [0x5F], False),
        (0x50, [0x40], [0x20, 0x61], True),
    ],
)
def test_what_is_pending(tpr: int, serving: list[int], waiting: list[int], pending: bool) -> None:
    bench = Bench()
    bench.serve(*serving)
    bench.deliver(*waiting)
    bench.apic.set_tpr(tpr)
    assert bench.apic.pending() is pending
    if pending:
        assert bench.apic.acknowledge() == max(waiting)


def test_interrupts_nest_and_end_in_reverse() -> None:
    bench = Bench()
    apic = bench.apic
    bench.deliver(0x31, 0x52, 0x51)
    assert apic.acknowledge() == 0x52
    assert not apic.pending()  # 51H is of the same class
    bench.deliver(0x61)
    assert apic.acknowledge() == 0x61
    apic.write(R.EOI, 0)
    assert not apic.pending()
    apic.write(R.EOI, 0)
    assert apic.acknowledge() == 0x51
    apic.write(R.EOI, 0)
    assert apic.acknowledge() == 0x31
    apic.write(R.EOI, 0)
    assert (apic.irr, apic.isr) == (0, 0)
    apic.write(R.EOI, 0)  # nothing in service: nothing happens
    assert [(what, vector) for what, vector, _ in bench.record] == [
        ("accept", 0x31), ("accept", 0x52), ("accept", 0x51), ("acknowledge", 0x52), ("accept", 0x61), ("acknowledge", 0x61), ("eoi", 0x61), ("eoi", 0x52),
        ("acknowledge", 0x51), ("eoi", 0x51), ("acknowledge", 0x31), ("eoi", 0x31),
    ]  # fmt: skip


def test_one_vector_waits_once_and_is_served_once_at_a_time() -> None:
    bench = Bench()
    apic = bench.apic
    bench.deliver(0x40, 0x40)
    assert apic.acknowledge() == 0x40
    bench.deliver(0x40)  # a second one while the first is in service: IRR and ISR both (§11.8.4)
    assert apic.irr == apic.isr == 1 << 0x40
    assert not apic.pending()
    apic.write(R.EOI, 0)
    assert apic.acknowledge() == 0x40
    apic.write(R.EOI, 0)
    assert not apic.pending()


@pytest.mark.parametrize("withdraw", [lambda a: a.set_tpr(0x40), lambda a: a.write_msr(Msr.IA32_APIC_BASE, OFF)], ids=["TPR", "disabled"])
def test_what_is_withdrawn_before_the_acknowledge_gives_the_spurious_vector(withdraw: Callable[[LocalApic], object]) -> None:
    bench = Bench()
    bench.apic.write(R.SVR, 0x1EF)
    bench.deliver(0x40)
    withdraw(bench.apic)
    assert bench.apic.acknowledge() == (0xEF if bench.apic.enabled else 0xFF)
    assert bench.apic.isr == 0
    assert ("acknowledge", 0x40, "") not in bench.record


def test_registers_of_256_bits() -> None:
    bench = Bench()
    bench.serve(0x2F, 0x5A)
    bench.deliver(0x10, 0xFF)
    bench.deliver(0x7C, level=True)
    shown = {offset: bench.apic.mmio_read(offset, 4) for offset in range(0x100, 0x280, 16)}
    expected = {R.ISR + 0x10: 1 << 15, R.ISR + 0x20: 1 << 26, R.IRR: 1 << 16, R.IRR + 0x70: 1 << 31, R.IRR + 0x30: 1 << 28, R.TMR + 0x30: 1 << 28}
    assert {offset: value for offset, value in shown.items() if value} == expected


# Software-disabling (§11.4.7.2).


def test_software_disabled() -> None:
    bench = Bench()
    apic = bench.apic
    apic.write(R.LVT_LINT0, 0x61)
    bench.serve(0x30)
    bench.deliver(0x50)
    apic.write(R.SVR, 0xFF)
    assert apic.read(R.LVT_LINT0) == 0x61 | LVT_MASKED
    assert not apic.deliver(0x60, "test")  # accepts nothing new
    apic.local_interrupt(R.LVT_LINT0)
    assert (apic.irr, apic.isr) == (1 << 0x50, 1 << 0x30)  # keeps what it had,
    assert apic.acknowledge() == 0x50  # and the processor takes it
    apic.write(R.LVT_LINT0, 0x61)
    assert apic.read(R.LVT_LINT0) == 0x61 | LVT_MASKED  # cannot be unmasked
    apic.raise_nmi()
    assert apic.nmi_pending()
    apic.write(R.ICR_LOW, 0x4040)
    assert len(bench.sent) == 1  # still sends
    apic.write(R.SVR, 0x1FF)
    assert apic.read(R.LVT_LINT0) == 0x61 | LVT_MASKED  # enabling does not unmask
    apic.write(R.LVT_LINT0, 0x61)
    assert apic.read(R.LVT_LINT0) == 0x61


# Errors (§11.5.3).


@pytest.mark.parametrize("vector", [0, 8, 15])
def test_illegal_vectors(vector: int) -> None:
    bench = Bench()
    apic = bench.apic
    apic.write(R.LVT_ERROR, 0xE0)
    assert not apic.deliver(vector, "test")
    assert apic.irr == 1 << 0xE0
    assert bench.record[-1] == ("accept", 0xE0, "error")
    apic.write(R.ICR_LOW, 0x4000 | vector)
    assert bench.sent == []
    assert apic.read(R.ESR) == 0  # nothing before a write
    apic.write(R.ESR, 0)
    assert apic.read(R.ESR) == Esr.RECEIVE_ILLEGAL_VECTOR | Esr.SEND_ILLEGAL_VECTOR
    apic.write(R.ESR, 0)
    assert apic.read(R.ESR) == 0


def test_an_error_interrupts_once_until_esr_is_written() -> None:
    bench = Bench()
    apic = bench.apic
    apic.write(R.LVT_ERROR, 0xE0)
    for _ in range(3):
        apic.deliver(3, "test")
    assert len(bench.record) == 1
    apic.write(R.ESR, 0)
    apic.deliver(3, "test")
    assert len(bench.record) == 2


def test_an_illegal_error_vector_does_not_go_round_in_circles() -> None:
    apic = Bench().apic
    apic.write(R.LVT_ERROR, 0x05)
    apic.deliver(3, "test")
    apic.write(R.ESR, 0)
    assert apic.read(R.ESR) == Esr.RECEIVE_ILLEGAL_VECTOR


# The local vector table (§11.5.1).


@pytest.mark.parametrize(
    ("register", "entry", "source", "nmi"),
    [
        (R.LVT_TIMER, 0x41, "timer", False),
        (R.LVT_TIMER, 0x10041, None, False),
        (R.LVT_ERROR, 0x41, "error", False),
        (R.LVT_THERMAL, 0x41, "thermal", False),
        (R.LVT_PERF, 0x441, None, True),
        (R.LVT_PERF, 0x10441, None, False),
        (R.LVT_LINT0, 0x41, "lint0", False),
        (R.LVT_LINT0, 0x741, None, False),  # ExtINT: the 8259's
        (R.LVT_LINT1, 0x400, None, True),
        (R.LVT_LINT1, 0x241, None, False),  # SMI
        (R.LVT_LINT1, 0x541, None, False),  # INIT
        (R.LVT_LINT0, 0x05, None, False),  # illegal vector
    ],
)
def test_local_interrupts(register: int, entry: int, source: str | None, nmi: bool) -> None:
    bench = Bench()
    bench.apic.write(register, entry)
    bench.apic.local_interrupt(register)
    assert bench.record == ([("accept", 0x41, source)] if source else [])
    assert bench.apic.nmi_pending() is nmi


def test_a_globally_disabled_apic_has_no_local_interrupts() -> None:
    bench = Bench()
    bench.apic.write_msr(Msr.IA32_APIC_BASE, OFF)
    bench.apic.local_interrupt(R.LVT_LINT0)
    assert not bench.apic.deliver(0x41, "test")
    assert bench.record == []


def test_remote_irr_of_a_level_triggered_pin() -> None:
    bench = Bench()
    apic = bench.apic
    apic.write(R.LVT_LINT0, 0x8041)
    apic.local_interrupt(R.LVT_LINT0)
    assert apic.read(R.LVT_LINT0) == 0xC041
    apic.write(R.LVT_LINT0, 0x8041)
    assert apic.read(R.LVT_LINT0) == 0xC041  # read-only
    apic.acknowledge()
    apic.write(R.EOI, 0)
    assert apic.read(R.LVT_LINT0) == 0x8041
    assert bench.eois == [0x41]


def test_eoi_messages_are_for_level_triggered_interrupts_only() -> None:
    bench = Bench()
    bench.deliver(0x41, level=True)
    bench.apic.acknowledge()
    bench.serve(0x61)
    bench.apic.write(R.EOI, 0)
    assert bench.eois == []
    bench.apic.write(R.EOI, 0)
    assert bench.eois == [0x41]
    bench.deliver(0x41)  # edge-triggered this time: TMR follows (§11.8.4)
    bench.apic.acknowledge()
    bench.apic.write(R.EOI, 0)
    assert bench.eois == [0x41]


# NMIs.


def test_nmis_merge() -> None:
    apic = Bench(enable=False).apic
    assert not apic.nmi_pending()
    apic.raise_nmi()
    apic.raise_nmi()
    assert apic.nmi_pending()
    assert [apic.take_nmi(), apic.take_nmi(), apic.nmi_pending()] == [True, False, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.deliver(0x40, "test"),
        lambda a: a.raise_nmi(),
        lambda a: a.set_tpr(0),
        lambda a: a.write(R.TPR, 0),
        lambda a: a.write(R.EOI, 0),
        lambda a: a.write(R.SVR, 0x1FF),
        lambda a: a.write_msr(Msr.IA32_APIC_BASE, X2APIC),
        lambda a: a.restore(bytes(PAGE_BYTES)),
        lambda a: a.accept_ipi(Ipi(0x40, FIXED, 0, False, 0)),
    ],
)
def test_the_surroundings_hear_of_whatever_may_matter(change: Callable[[LocalApic], object]) -> None:
    bench = Bench()
    bench.serve(0x30)
    bench.raised = 0
    change(bench.apic)
    assert bench.raised


# MSRs (§11.12.1).

M = {register.name: x2apic_msr(register) for register in R}
#: MSR, what it reads (None: #GP), a value that it takes (None: none), values that it refuses with #GP. In x2APIC mode, ID 0x123.
MSR_ROWS: list[tuple[int, int | None, int | None, list[int]]] = [
    (0x800, GP, None, [0]),
    (M["ID"], 0x123, None, [0, 0x123]),
    (M["VERSION"], 0x50014, None, [0]),
    (M["TPR"], 0, 0xFF, [0x100, 1 << 32]),
    (M["APR"], GP, None, [0]),
    (M["PPR"], 0, None, [0]),
    (M["EOI"], GP, 0, [1, 1 << 32]),
    (M["RRD"], GP, None, [0]),
    (M["LDR"], 0x12_0008, None, [0]),
    (M["DFR"], GP, None, [0, 0xFFFFFFFF]),
    (M["SVR"], 0x1FF, 0x3FF, [0x400, 0x1000, 1 << 32]),
    *((M["ISR"] + i, 0, None, [0]) for i in range(24)),
    (M["ESR"], 0, 0, [1, 1 << 63]),
    (M["LVT_CMCI"], GP, None, [0]),  # the version register announces none
    (M["ICR_LOW"], 0, 0xFFFFFFFF_000C_CFFF, [0x2000, 0x10000, 0x20000, 0x10_0000, 0x8000_0000]),
    (M["ICR_HIGH"], GP, None, [0]),
    (M["LVT_TIMER"], 0x10000, 0x7_00FF, [0x100, 0x8_0000, 0x4000, 1 << 32]),
    (M["LVT_THERMAL"], 0x10000, 0x1_07FF, [0x800, 0x2_0000, 0x8000]),
    (M["LVT_PERF"], 0x10000, 0x1_07FF, [0x800, 0x2_0000]),
    (M["LVT_LINT0"], 0x10000, 0x1_A7FF, [0x800, 0x2_0000]),
    (M["LVT_LINT1"], 0x10000, 0x1_A7FF, [0x800, 0x2_0000]),
    (M["LVT_ERROR"], 0x10000, 0x1_00FF, [0x100, 0x2_0000]),
    (M["TIMER_INITIAL_COUNT"], 0, 0xFFFFFFFF, [1 << 32]),
    (M["TIMER_CURRENT_COUNT"], 0, None, [0]),
    (M["TIMER_DIVIDE"], 0, 0xB, [4, 0x10]),
    (M["SELF_IPI"], GP, 0xFF, [0x100]),
    (0x840, GP, None, [0]),
    (0x8FF, GP, None, [0]),
    (0x7FF, GP, None, [0]),
    (0x900, GP, None, [0]),
]


@pytest.mark.parametrize(("msr", "reads", "takes", "refuses"), MSR_ROWS, ids=[hex(row[0]) for row in MSR_ROWS])
def test_x2apic_msrs(msr: int, reads: int | None, takes: int | None, refuses: list[int]) -> None:
    bench = Bench(0x123, base=X2APIC)
    apic = bench.apic
    assert apic.read_msr(msr) == reads
    before = apic.save()
    for value in refuses:
        assert apic.write_msr(msr, value) is False
    assert apic.save() == before
    assert not bench.record
    assert not bench.sent
    if takes is not None:
        assert apic.write_msr(msr, takes) is True
        if reads is not None and msr not in (M["EOI"], M["ESR"]):
            assert apic.read_msr(msr) == takes


@pytest.mark.parametrize("register", [R.LVT_TIMER, R.LVT_THERMAL, R.LVT_PERF, R.LVT_LINT0, R.LVT_LINT1, R.LVT_ERROR, R.ICR_LOW])
def test_read_only_bits_are_not_reserved(register: ApicRegister) -> None:
    apic = Bench(base=X2APIC).apic
    bits = 0x1000 | (0x4000 if register in (R.LVT_LINT0, R.LVT_LINT1) else 0)
    assert apic.write_msr(x2apic_msr(register), bits | 0x40) is True
    assert apic.read_msr(x2apic_msr(register)) == 0x40
    if not bits & 0x4000 and register != R.ICR_LOW:
        assert apic.write_msr(x2apic_msr(register), 0x4040) is False


@pytest.mark.parametrize("base", [XAPIC, OFF])
@pytest.mark.parametrize("msr", [M["ID"], M["TPR"], M["EOI"], M["ICR_LOW"], 0x8FF])
def test_no_x2apic_msrs_outside_x2apic_mode(base: int, msr: int) -> None:
    apic = Bench(base=base).apic
    assert apic.read_msr(msr) is None
    assert apic.write_msr(msr, 0) is False


@pytest.mark.parametrize(
    ("before", "value", "allowed"),
    [
        (XAPIC, XAPIC, True),
        (XAPIC, X2APIC, True),
        (XAPIC, OFF, True),
        (XAPIC, 0xFEE00500, False),  # EXTD without EN
        (X2APIC, X2APIC, True),
        (X2APIC, XAPIC, False),
        (X2APIC, OFF, True),
        (X2APIC, 0xFEE00500, False),
        (OFF, OFF, True),
        (OFF, XAPIC, True),
        (OFF, X2APIC, False),
        (OFF, 0xFEE00500, False),
        (XAPIC, 0xFFFEE00900, True),
        (XAPIC, XAPIC & ~0x100, True),
        *((XAPIC, XAPIC | 1 << bit, False) for bit in (0, 7, 9, 40, 52, 63)),
    ],
)
def test_apic_base(before: int, value: int, allowed: bool) -> None:
    apic = Bench(base=before).apic
    assert apic.write_msr(Msr.IA32_APIC_BASE, value) is allowed
    assert apic.read_msr(Msr.IA32_APIC_BASE) == (value if allowed else before)


def test_from_xapic_to_x2apic_most_survives() -> None:
    bench = Bench(0x34)
    apic = bench.apic
    bench.serve(0x30)
    bench.deliver(0x50)
    for register, value in ((R.TPR, 0x20), (R.LVT_LINT0, 0x61), (R.ID, 0x99000000), (R.LDR, 0x02000000), (R.ICR_HIGH, 0x07000000), (R.ICR_LOW, 0x4042)):
        apic.mmio_write(register, 4, value)
    assert apic.apic_id == 0x99
    apic.write_msr(Msr.IA32_APIC_BASE, X2APIC)
    assert (apic.irr, apic.isr, apic.get_tpr(), apic.read(R.LVT_LINT0), apic.software_enabled) == (1 << 0x50, 1 << 0x30, 0x20, 0x61, True)
    assert (apic.read_msr(M["ID"]), apic.read_msr(M["LDR"]), apic.read_msr(M["ICR_LOW"])) == (0x34, 0x3_0010, 0x4042)


@pytest.mark.parametrize("before", [XAPIC, X2APIC])
def test_disabling_starts_afresh_but_for_a_latched_nmi(before: int) -> None:
    bench = Bench(0x34, base=before)
    apic = bench.apic
    bench.serve(0x30)
    bench.deliver(0x50)
    apic.raise_nmi()
    apic.write_msr(Msr.IA32_APIC_BASE, OFF)
    assert not apic.pending()
    assert apic.nmi_pending()
    apic.write_msr(Msr.IA32_APIC_BASE, XAPIC)
    assert (apic.irr, apic.isr, apic.read(R.SVR), apic.read(R.ID)) == (0, 0, 0xFF, 0x34000000)


@pytest.mark.parametrize(("apic_id", "ldr"), [(0, 1), (1, 2), (15, 0x8000), (16, 0x1_0001), (0x123, 0x12_0008), (0xFFFFE, 0xFFFF_4000)])
def test_the_logical_id_follows_from_the_x2apic_id(apic_id: int, ldr: int) -> None:
    assert Bench(apic_id, base=X2APIC).apic.read_msr(M["LDR"]) == ldr


# Memory-mapped access (§11.4.1).


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [
        (R.VERSION, 4, 0x50014),
        (R.VERSION, 1, 0x14),
        (R.VERSION + 2, 1, 0x05),
        (R.VERSION, 2, 0x0014),
        (R.VERSION + 2, 2, 0x0005),
        (R.VERSION + 2, 4, 0xFFFFFFFF),  # leaves the register
        (R.VERSION + 4, 4, 0xFFFFFFFF),
        (R.VERSION, 8, (1 << 64) - 1),
        (R.EOI, 4, 0),  # write-only
        (R.LDR, 4, 0x04000000),
        (R.DFR, 4, 0x0FFFFFFF),
    ],
)
def test_mmio_reads(offset: int, size: int, value: int) -> None:
    apic = Bench().apic
    apic.mmio_write(R.LDR, 4, 0x04ABCDEF)
    apic.mmio_write(R.DFR, 4, 0)
    assert apic.mmio_read(offset, size) == value
    apic.write(R.ESR, 0)
    assert apic.read(R.ESR) == 0


@pytest.mark.parametrize(
    ("offset", "size", "value", "expected"),
    [
        (R.TPR, 4, 0xFFFFFF35, 0x35),
        (R.TPR, 1, 0x35, 0),
        (R.TPR, 8, 0x35, 0),
        (R.TPR + 1, 4, 0x35, 0),
        (R.SVR, 4, 0xFFFFFFFF, 0x3FF),
        (R.ID, 4, 0x7FFFFFFF, 0x7F000000),
        (R.VERSION, 4, 0, 0x50014),  # read-only
        (R.PPR, 4, 0xFF, 0),
        (R.ISR, 4, 0xFF, 0),
        (R.TIMER_CURRENT_COUNT, 4, 5, 0),
        (R.LVT_LINT0, 4, 0xFFFFFFFF, 0x1_A7FF),
        (R.LVT_TIMER, 4, 0xFFFFFFFF, 0x7_00FF),
        (R.ICR_HIGH, 4, 0xFFFFFFFF, 0xFF000000),
        (R.ICR_LOW, 4, 0xFFF3_33FF, 0x0000_03FF),
    ],
)
def test_mmio_writes(offset: int, size: int, value: int, expected: int) -> None:
    apic = Bench().apic
    apic.mmio_write(offset, size, value)
    assert apic.mmio_read(offset & ~15, 4) == expected


@pytest.mark.parametrize("offset", [0x00, 0x10, 0x40, 0x290, 0x2F0, 0x3A0, 0x3F0, 0x400, 0xFF0])
def test_reserved_addresses_are_errors(offset: int) -> None:
    bench = Bench()
    apic = bench.apic
    apic.write(R.LVT_ERROR, 0xE0)
    assert apic.mmio_read(offset, 4) == 0
    apic.mmio_write(offset, 4, 0x40)
    assert apic.irr == 1 << 0xE0  # once; and SELF IPI (3F0H) does not exist in xAPIC mode
    apic.write(R.ESR, 0)
    assert apic.read(R.ESR) == Esr.ILLEGAL_REGISTER


@pytest.mark.parametrize("base", [X2APIC, OFF])
def test_no_page_outside_xapic_mode(base: int) -> None:
    apic = Bench(base=base).apic
    assert apic.mmio_read(R.VERSION, 4) == 0xFFFFFFFF
    apic.mmio_write(R.TPR, 4, 0x50)
    assert apic.get_tpr() == 0


# Interprocessor interrupts (§11.6).


@pytest.mark.parametrize(
    ("base", "high", "low", "ipi"),
    [
        (XAPIC, 0x03000000, 0x4040, Ipi(0x40, FIXED, 3, False, 0)),
        (XAPIC, 0x03000000, 0x4840, Ipi(0x40, FIXED, 3, True, 0)),
        (XAPIC, 0x03000000, 0xC4040, Ipi(0x40, FIXED, 3, False, 3)),
        (XAPIC, 0xFF000000, 0x84040, Ipi(0x40, FIXED, 0xFFFFFFFF, False, 2)),
        (XAPIC, 0xFF000000, 0x4140, Ipi(0x40, DeliveryMode.LOWEST_PRIORITY, 0xFFFFFFFF, False, 0)),
        (XAPIC, 0x01000000, 0x4400, Ipi(0, NMI, 1, False, 0)),
        (XAPIC, 0x01000000, 0x4500, Ipi(0, INIT, 1, False, 0)),
        (XAPIC, 0x01000000, 0x8500, Ipi(0, INIT, 1, False, 0, level=False, level_triggered=True)),
        (XAPIC, 0x01000000, 0x4608, Ipi(8, DeliveryMode.STARTUP, 1, False, 0)),
        (XAPIC, 0x01000000, 0x4200, Ipi(0, DeliveryMode.SMI, 1, False, 0)),
        (XAPIC, 0x01000000, 0x4340, None),  # reserved mode
        (XAPIC, 0x01000000, 0x4740, None),
        (X2APIC, 0x03000000, 0x4040, Ipi(0x40, FIXED, 0x03000000, False, 0)),
        (X2APIC, 0x000000FF, 0x4040, Ipi(0x40, FIXED, 0xFF, False, 0)),
        (X2APIC, 0xFFFFFFFF, 0x4840, Ipi(0x40, FIXED, 0xFFFFFFFF, True, 0)),
    ],
)
def test_what_the_command_register_sends(base: int, high: int, low: int, ipi: Ipi | None) -> None:
    bench = Bench(base=base)
    if base == X2APIC:
        assert bench.apic.write_msr(M["ICR_LOW"], high << 32 | low)
    else:
        bench.apic.mmio_write(R.ICR_HIGH, 4, high)
        bench.apic.mmio_write(R.ICR_LOW, 4, low)
    assert bench.sent == ([] if ipi is None else [ipi])


def test_to_oneself() -> None:
    bench = Bench(base=X2APIC)
    apic = bench.apic
    assert apic.write_msr(M["SELF_IPI"], 0x41)
    assert apic.write_msr(M["ICR_LOW"], 0x4_4051)
    assert apic.irr == 1 << 0x41 | 1 << 0x51
    assert apic.write_msr(M["ICR_LOW"], 0x4_4400)
    assert apic.nmi_pending()
    assert apic.write_msr(M["SELF_IPI"], 0x0F)
    apic.write(R.ESR, 0)
    assert apic.read(R.ESR) == Esr.SEND_ILLEGAL_VECTOR
    assert bench.sent == []


#: Mode, ID, LDR, DFR of the receiver; destination, logical; is it meant.
ADDRESSING = [
    (XAPIC, 5, 0, 0xFFFFFFFF, 5, False, True),
    (XAPIC, 5, 0, 0xFFFFFFFF, 4, False, False),
    (XAPIC, 5, 0, 0xFFFFFFFF, 0xFF, False, True),
    (XAPIC, 5, 0, 0xFFFFFFFF, 0xFFFFFFFF, False, True),
    (XAPIC, 5, 0x04, 0xFFFFFFFF, 0x06, True, True),  # flat: any bit in common
    (XAPIC, 5, 0x04, 0xFFFFFFFF, 0x0A, True, False),
    (XAPIC, 5, 0x00, 0xFFFFFFFF, 0x05, True, False),
    (XAPIC, 5, 0x00, 0xFFFFFFFF, 0xFF, True, True),
    (XAPIC, 5, 0x22, 0x0FFFFFFF, 0x23, True, True),  # cluster: the same cluster, a bit in common
    (XAPIC, 5, 0x22, 0x0FFFFFFF, 0x21, True, False),
    (XAPIC, 5, 0x22, 0x0FFFFFFF, 0x32, True, False),
    (XAPIC, 5, 0x22, 0x0FFFFFFF, 0xFF, True, True),
    (X2APIC, 0x123, 0, 0, 0x123, False, True),
    (X2APIC, 0x123, 0, 0, 0x23, False, False),
    (X2APIC, 0xFF, 0, 0, 0xFF, False, True),
    (X2APIC, 0x123, 0, 0, 0xFF, False, False),  # no broadcast in x2APIC mode
    (X2APIC, 0x123, 0, 0, 0xFFFFFFFF, False, True),
    (X2APIC, 0x123, 0, 0, 0xFFFFFFFF, True, True),
    (X2APIC, 0x123, 0, 0, 0x12_0008, True, True),
    (X2APIC, 0x123, 0, 0, 0x12_FFFF, True, True),
    (X2APIC, 0x123, 0, 0, 0x12_FFF7, True, False),
    (X2APIC, 0x123, 0, 0, 0x13_0008, True, False),
]


@pytest.mark.parametrize(("base", "apic_id", "ldr", "dfr", "destination", "logical", "meant"), ADDRESSING)
def test_who_is_addressed(base: int, apic_id: int, ldr: int, dfr: int, destination: int, logical: bool, meant: bool) -> None:
    apic = Bench(apic_id, base=base).apic
    apic.mmio_write(R.LDR, 4, ldr << 24)
    apic.mmio_write(R.DFR, 4, dfr)
    assert apic.addressed_by(Ipi(0x40, FIXED, destination, logical, 0)) is meant


def test_arriving_ipis() -> None:
    bench = Bench()
    ipi = Ipi(0x40, FIXED, 0, False, 0, level_triggered=True)
    bench.apic.accept_ipi(ipi)
    bench.apic.accept_ipi(replace(ipi, vector=0x50, mode=DeliveryMode.LOWEST_PRIORITY))
    assert bench.apic.irr == 1 << 0x40 | 1 << 0x50
    assert bench.apic.tmr == 0
    assert bench.record == [("accept", 0x40, "ipi"), ("accept", 0x50, "ipi")]
    bench.apic.accept_ipi(replace(ipi, mode=NMI))
    assert bench.apic.nmi_pending()
    for mode in (INIT, DeliveryMode.STARTUP, DeliveryMode.SMI):
        bench.apic.accept_ipi(replace(ipi, mode=mode))
    assert [message.mode for message in bench.messages] == [INIT, DeliveryMode.STARTUP, DeliveryMode.SMI]


def test_a_disabled_apic_receives_no_messages() -> None:
    bench = Bench(base=OFF)
    for mode in (FIXED, NMI, INIT):
        bench.apic.accept_ipi(Ipi(0x40, mode, 0, False, 0))
    assert (bench.apic.irr, bench.apic.nmi_pending(), bench.messages) == (0, False, [])


# Snapshots.


@pytest.mark.parametrize("base", [XAPIC, X2APIC])
def test_a_register_page_restores_everything(base: int) -> None:
    bench = Bench(0x21, base=base)
    apic = bench.apic
    bench.serve(0x30, 0x52)
    bench.deliver(0x71, 0xFE)
    bench.deliver(0x44, level=True)
    values = {R.TPR: 0x15, R.SVR: 0x1EF, R.LVT_TIMER: 0x2_00EC, R.LVT_LINT0: 0x8700, R.LVT_LINT1: 0x400, R.LVT_ERROR: 0xFE, R.TIMER_DIVIDE: 3}
    for register, value in values.items():
        apic.write(register, value)
    if base == XAPIC:
        for register, value in ((R.LDR, 0x02000000), (R.DFR, 0x0FFFFFFF), (R.ID, 0x33000000)):
            apic.write(register, value)
    apic.deliver(1, "test")
    apic.write(R.ESR, 0)
    page = apic.save()
    assert len(page) == PAGE_BYTES
    assert page[0x20:0x24] == (b"\0\0\0\x33" if base == XAPIC else b"\x21\0\0\0")
    assert page[R.SVR : R.SVR + 16] == b"\xef\x01" + bytes(14)
    other = Bench(0x21, base=base).apic
    other.restore(page)
    assert other.save() == page
    assert (other.irr, other.isr, other.tmr, other.apic_id) == (apic.irr, apic.isr, apic.tmr, apic.apic_id)
    assert other.acknowledge() == apic.acknowledge() == 0xFE


def test_a_page_from_nowhere_sets_no_impossible_bits() -> None:
    apic = Bench().apic
    apic.restore(b"\xff" * PAGE_BYTES)
    for register in (R.VERSION, R.TPR, R.SVR, R.LVT_TIMER, R.LVT_LINT0, R.ICR_LOW, R.LDR, R.TIMER_DIVIDE):
        expected = {R.VERSION: 0x50014, R.TPR: 0xFF, R.SVR: 0x3FF, R.LVT_TIMER: 0x7_00FF, R.LVT_LINT0: 0x1_E7FF, R.ICR_LOW: 0xC_CFFF, R.LDR: 0xFF000000}
        assert apic.read(register) == expected.get(register, 0xB)
    assert apic.irr == apic.isr == (1 << 256) - 1


@pytest.mark.parametrize("size", [0, 1023, 1025, 4096])
def test_a_page_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="1024 bytes"):
        Bench().apic.restore(bytes(size))


# No interrupt is lost, none is delivered twice.

STEPS = st.lists(
    st.tuples(st.just("deliver"), st.integers(0, 255))
    | st.tuples(st.just("acknowledge"), st.just(0))
    | st.tuples(st.just("eoi"), st.just(0))
    | st.tuples(st.just("tpr"), st.integers(0, 255))
    | st.tuples(st.just("enable"), st.integers(0, 1))
    | st.tuples(st.just("snapshot"), st.just(0)),
    max_size=80,
)


@given(STEPS)
def test_nothing_is_lost_and_nothing_comes_twice(steps: list[tuple[str, int]]) -> None:
    bench = Bench()
    apic = bench.apic
    waiting: set[int] = set()
    serving: list[int] = []
    tpr, enabled = 0, True
    for step, value in steps:
        match step:
            case "deliver":
                accepted = enabled and value >= 16
                assert apic.deliver(value, "test") is accepted
                waiting |= {value} if accepted else set()
            case "acknowledge":
                floor = max([tpr >> 4, *(vector >> 4 for vector in serving)])
                ready = [vector for vector in waiting if vector >> 4 > floor]
                assert apic.pending() is bool(ready)
                if ready:
                    vector = apic.acknowledge()
                    assert vector == max(ready)
                    waiting.remove(vector)
                    serving.append(vector)
            case "eoi":
                apic.write(R.EOI, 0)
                if serving:
                    serving.remove(max(serving))
            case "tpr":
                apic.set_tpr(value)
                tpr = value
            case "enable":
                apic.write(R.SVR, value << 8 | 0xFF)
                enabled = bool(value)
            case "snapshot":
                page = apic.save()
                bench = Bench()
                apic = bench.apic
                apic.restore(page)
        assert apic.irr == sum(1 << vector for vector in waiting)
        assert apic.isr == sum(1 << vector for vector in serving)
