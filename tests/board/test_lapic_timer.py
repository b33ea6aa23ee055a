"""The local APIC's timer (SDM vol. 3 §11.5.4): counting, divisors, modes, deadlines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldswitch.arch.apic import LVT_MASKED, ApicRegister, TimerMode
from worldswitch.arch.msr import Msr
from worldswitch.board import EventQueue, LocalApic, Timer

R = ApicRegister
VECTOR = 0xEC
ONE_SHOT, PERIODIC, DEADLINE = (VECTOR | mode << 17 for mode in TimerMode)
MASK64 = (1 << 64) - 1
DIVIDE_BY_1 = 0xB


class Bench:
    """A local APIC whose clock the test moves. Interrupts are taken at once, unless `taking` is off."""

    def __init__(self, *, entry: int = ONE_SHOT, divide: int = DIVIDE_BY_1, start: int = 1000, tsc_ahead: int = 0, **options: int) -> None:
        self.time = start
        self.tsc_ahead = tsc_ahead
        self.events = EventQueue()
        self.taking = True
        self.accepted: list[int] = []
        self.callbacks = 0
        self.apic = LocalApic(0, self, raised=lambda: None, record=self._record, **options)  # type: ignore[arg-type]
        self.apic.write(R.SVR, 0x1FF)
        self.apic.write(R.LVT_TIMER, entry)
        self.apic.write(R.TIMER_DIVIDE, divide)

    def now(self) -> int:
        return self.time

    def tsc(self) -> int:
        return self.time + self.tsc_ahead & MASK64

    def arm(self, time: int, callback: Callable[[int], None]) -> Timer:
        def fired(due: int) -> None:
            self.callbacks += 1
            callback(due)

        return self.events.schedule(time, fired, "timer")

    def disarm(self, handle: object) -> None:
        assert isinstance(handle, Timer)
        self.events.cancel(handle)

    def _record(self, event: str, vector: int, source: str) -> None:
        if event == "accept":
            assert (vector, source) == (VECTOR, "timer")
            self.accepted.append(self.time)

    def to(self, time: int) -> None:
        """Moves the clock through every event until this time."""
        while (due := self.events.next_time()) is not None and due <= time:
            self.time = max(self.time, due)
            self.events.run_until(self.time)
            if self.taking:
                self.take()
        self.time = time

    def take(self) -> None:
        while self.apic.pending():
            assert self.apic.acknowledge() == VECTOR
            self.apic.write(R.EOI, 0)

    def start(self, count: int) -> None:
        self.apic.write(R.TIMER_INITIAL_COUNT, count)

    @property
    def count(self) -> int:
        return self.apic.read(R.TIMER_CURRENT_COUNT)

    @property
    def deadline(self) -> int:
        value = self.apic.read_msr(Msr.IA32_TSC_DEADLINE)
        assert value is not None
        return value

    @deadline.setter
    def deadline(self, value: int) -> None:
        assert self.apic.write_msr(Msr.IA32_TSC_DEADLINE, value)


# Counting.


@pytest.mark.parametrize(("configuration", "divisor"), [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)])
@pytest.mark.parametrize("shift", [0, 3])
def test_divisors(configuration: int, divisor: int, shift: int) -> None:
    bench = Bench(divide=configuration, timer_shift=shift)
    unit = divisor << shift
    bench.start(10)
    assert bench.count == 10
    bench.to(1000 + unit - 1)
    assert bench.count == 10
    bench.to(1000 + unit)
    assert bench.count == 9
    bench.to(1000 + 10 * unit - 1)
    assert (bench.count, bench.accepted) == (1, [])
    bench.to(1000 + 10 * unit)
    assert (bench.count, bench.accepted) == (0, [1000 + 10 * unit])


def test_one_shot_fires_once() -> None:
    bench = Bench()
    bench.start(100)
    bench.to(5000)
    assert (bench.accepted, bench.count, bench.apic.read(R.TIMER_INITIAL_COUNT)) == ([1100], 0, 100)
    bench.start(50)
    bench.to(6000)
    assert bench.accepted == [1100, 5050]


def test_periodic_goes_on() -> None:
    bench = Bench(entry=PERIODIC)
    bench.start(100)
    bench.to(1250)
    assert (bench.accepted, bench.count) == ([1100, 1200], 50)
    bench.to(1300)
    assert (bench.accepted[-1], bench.count) == (1300, 100)


@pytest.mark.parametrize("entry", [ONE_SHOT, PERIODIC])
def test_an_initial_count_of_0_stops(entry: int) -> None:
    bench = Bench(entry=entry)
    bench.start(100)
    bench.to(1050)
    bench.start(0)
    bench.to(5000)
    assert (bench.accepted, bench.count, bench.events.next_time()) == ([], 0, None)


@pytest.mark.parametrize("entry", [ONE_SHOT, PERIODIC])
def test_a_new_initial_count_restarts(entry: int) -> None:
    bench = Bench(entry=entry)
    bench.start(100)
    bench.to(1099)
    bench.start(200)
    bench.to(1299)
    assert (bench.accepted, bench.count) == ([1299], 0 if entry == ONE_SHOT else 200)


def test_the_largest_count() -> None:
    bench = Bench(divide=10)
    bench.start(0xFFFFFFFF)
    bench.to(1000 + 0xFFFFFFFF * 128 - 1)
    assert (bench.count, bench.accepted) == (1, [])
    bench.to(bench.time + 1)
    assert len(bench.accepted) == 1


def test_a_new_divisor_goes_on_from_the_present_count() -> None:
    bench = Bench()
    bench.start(100)
    bench.to(1040)
    bench.apic.write(R.TIMER_DIVIDE, 0)  # by 2
    assert bench.count == 60
    bench.to(1051)
    bench.apic.write(R.TIMER_DIVIDE, 0)  # the same again: nothing changes, not even within a count
    assert bench.count == 55
    bench.to(2000)
    assert bench.accepted == [1160]


def test_a_periodic_timer_takes_the_new_divisor_for_its_next_periods() -> None:
    bench = Bench(entry=PERIODIC)
    bench.start(100)
    bench.to(1140)
    bench.apic.write(R.TIMER_DIVIDE, 0)
    bench.to(1460)
    assert bench.accepted == [1100, 1260, 1460]


# Masking.


@pytest.mark.parametrize(
    ("entry", "unmask_at", "fired"), [(ONE_SHOT, 1050, [1100]), (ONE_SHOT, 1150, []), (PERIODIC, 1050, [1100, 1200]), (PERIODIC, 1150, [1200])]
)
def test_a_masked_timer_counts_but_its_interrupts_are_gone(entry: int, unmask_at: int, fired: list[int]) -> None:
    bench = Bench(entry=entry | LVT_MASKED)
    bench.start(100)
    bench.to(unmask_at)
    assert bench.count == ({1050: 50, 1150: 0} if entry == ONE_SHOT else {1050: 50, 1150: 50})[unmask_at]
    bench.apic.write(R.LVT_TIMER, entry)
    bench.to(1210)
    assert bench.accepted == fired


def test_masking_stops_interrupts_and_not_the_count() -> None:
    bench = Bench(entry=PERIODIC)
    bench.start(100)
    bench.to(1150)
    bench.apic.write(R.LVT_TIMER, PERIODIC | LVT_MASKED)
    bench.to(1470)
    assert (bench.accepted, bench.count) == ([1100], 30)


def test_software_disabling_masks() -> None:
    bench = Bench(entry=PERIODIC)
    bench.start(100)
    bench.apic.write(R.SVR, 0xFF)
    bench.to(1230)
    assert (bench.accepted, bench.count) == ([], 70)


@pytest.mark.parametrize("entry", [ONE_SHOT | LVT_MASKED, PERIODIC | LVT_MASKED])
def test_a_masked_timer_needs_no_events(entry: int) -> None:
    bench = Bench(entry=entry)
    bench.start(1)
    assert bench.events.next_time() is None


# Modes.


@pytest.mark.parametrize(
    ("first", "second", "switch_at", "fired"),
    [
        (ONE_SHOT, PERIODIC, 1050, [1100, 1200, 1300]),  # the mode matters when the count reaches 0
        (PERIODIC, ONE_SHOT, 1050, [1100]),
        (PERIODIC, ONE_SHOT, 1150, [1100, 1200]),
        (ONE_SHOT, PERIODIC, 1150, [1100]),  # it had stopped
        (ONE_SHOT, DEADLINE, 1050, []),
        (PERIODIC, DEADLINE, 1150, [1100]),
        (PERIODIC, VECTOR | 3 << 17, 1150, [1100]),
    ],
)
def test_switching_modes(first: int, second: int, switch_at: int, fired: list[int]) -> None:
    bench = Bench(entry=first)
    bench.start(100)
    bench.to(switch_at)
    bench.apic.write(R.LVT_TIMER, second)
    bench.to(1350)
    assert bench.accepted == fired
    if second == DEADLINE:
        assert (bench.count, bench.apic.read(R.TIMER_INITIAL_COUNT)) == (0, 0)


def test_counting_does_not_resume_after_tsc_deadline_mode() -> None:
    bench = Bench(entry=PERIODIC)
    bench.start(100)
    bench.apic.write(R.LVT_TIMER, DEADLINE)
    bench.apic.write(R.LVT_TIMER, PERIODIC)
    bench.to(5000)
    assert (bench.accepted, bench.count) == ([], 0)


def test_a_masked_one_shot_that_ran_out_stays_stopped_in_periodic_mode() -> None:
    bench = Bench(entry=ONE_SHOT | LVT_MASKED)
    bench.start(100)
    bench.to(1150)
    bench.apic.write(R.LVT_TIMER, PERIODIC)
    bench.to(5000)
    assert (bench.accepted, bench.count) == ([], 0)


# TSC-deadline mode (§11.5.4.1).


@pytest.mark.parametrize("ahead", [0, 12345, MASK64 - 500])
def test_a_deadline_fires_once_and_clears_itself(ahead: int) -> None:
    bench = Bench(entry=DEADLINE, tsc_ahead=ahead, start=2000)
    bench.deadline = due = bench.tsc() + 100
    bench.to(2099)
    assert (bench.accepted, bench.deadline, bench.count) == ([], due, 0)
    bench.to(9000)
    assert (bench.accepted, bench.deadline) == ([2100], 0)


def test_a_deadline_that_has_passed_fires_at_once() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1
    assert bench.deadline == 1
    bench.to(1000)
    assert (bench.accepted, bench.deadline) == ([1000], 0)


def test_a_new_deadline_replaces_the_old_and_0_disarms() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1100
    bench.deadline = 1200
    bench.to(1150)
    assert bench.accepted == []
    bench.deadline = 0
    bench.to(9000)
    assert (bench.accepted, bench.deadline) == ([], 0)


@pytest.mark.parametrize("entry", [ONE_SHOT, PERIODIC])
def test_the_deadline_msr_is_dead_in_other_modes(entry: int) -> None:
    bench = Bench(entry=entry)
    bench.start(500)
    bench.deadline = 1100
    assert bench.deadline == 0
    bench.to(1200)
    assert (bench.accepted, bench.count) == ([], 300)


def test_initial_count_writes_are_ignored_in_tsc_deadline_mode() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1300
    bench.start(100)
    assert (bench.apic.read(R.TIMER_INITIAL_COUNT), bench.count) == (0, 0)
    bench.to(2000)
    assert bench.accepted == [1300]


@pytest.mark.parametrize("entry", [ONE_SHOT, PERIODIC])
def test_leaving_tsc_deadline_mode_disarms(entry: int) -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1100
    bench.apic.write(R.LVT_TIMER, entry)
    assert bench.deadline == 0
    bench.apic.write(R.LVT_TIMER, DEADLINE)
    bench.to(2000)
    assert (bench.accepted, bench.deadline) == ([], 0)


def test_another_vector_does_not_disarm() -> None:
    bench = Bench(entry=DEADLINE | LVT_MASKED)
    bench.deadline = 1100
    bench.apic.write(R.LVT_TIMER, DEADLINE)
    bench.to(2000)
    assert bench.accepted == [1100]


def test_a_masked_deadline_passes_without_interrupt() -> None:
    bench = Bench(entry=DEADLINE | LVT_MASKED)
    bench.deadline = 1100
    bench.to(1100)
    assert bench.deadline == 0
    bench.apic.write(R.LVT_TIMER, DEADLINE)
    bench.to(2000)
    assert bench.accepted == []


def test_the_tsc_set_back_defers_the_deadline() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1100
    bench.tsc_ahead = -500
    bench.to(1599)
    assert (bench.accepted, bench.deadline) == ([], 1100)
    bench.to(1600)
    assert bench.accepted == [1600]


def test_the_tsc_set_ahead_brings_the_deadline_nearer_once_told() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 5000
    bench.tsc_ahead = 3900
    bench.apic.tsc_changed()
    bench.to(2000)
    assert bench.accepted == [1100]


def test_a_deadline_that_never_comes_needs_no_event() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = MASK64
    assert (bench.deadline, bench.events.next_time()) == (MASK64, None)


# Storms: a timer asks for callbacks only when its interrupts could change anything.


def test_a_fast_timer_costs_one_callback_for_each_interrupt_taken() -> None:
    bench = Bench(entry=PERIODIC)
    bench.taking = False
    bench.start(1)
    bench.to(1_000_000)
    assert (bench.callbacks, bench.accepted) == (1, [1001])
    bench.take()  # the next is due one count later, in phase
    bench.to(2_000_000)
    assert bench.accepted == [1001, 1_000_001]


def test_the_phase_survives_interrupts_that_are_taken_late() -> None:
    bench = Bench(entry=PERIODIC)
    bench.taking = False
    bench.start(100)
    bench.to(1150)
    bench.take()
    bench.to(1430)
    bench.take()
    bench.to(1500)
    assert bench.accepted == [1100, 1200, 1500]


def test_a_one_shot_that_ends_while_its_vector_waits_merges() -> None:
    bench = Bench()
    bench.taking = False
    bench.start(100)
    bench.to(1100)
    bench.start(100)
    bench.to(1300)
    bench.take()
    bench.to(5000)
    assert (bench.accepted, bench.count) == ([1100], 0)


@pytest.mark.parametrize(("count", "fired"), [(1, [1100, 1200, 1300]), (30, [1120, 1240]), (99, [1198]), (100, [1100, 1200, 1300]), (150, [1150, 1300])])
def test_a_minimum_period_keeps_interrupts_apart(count: int, fired: list[int]) -> None:
    bench = Bench(entry=PERIODIC, minimum_period=100)
    bench.start(count)
    bench.to(1300)
    assert bench.accepted == fired
    assert bench.count == count - 300 % count


def test_a_minimum_period_does_not_hold_for_one_shots() -> None:
    bench = Bench(minimum_period=100)
    bench.start(5)
    bench.to(1100)
    assert bench.accepted == [1005]


# An expiry whose callback is late (a host with interrupts off) is not lost to what software writes next.

LATE: dict[str, Callable[[Bench], object]] = {
    "mask": lambda b: b.apic.write(R.LVT_TIMER, ONE_SHOT | LVT_MASKED),
    "another mode": lambda b: b.apic.write(R.LVT_TIMER, DEADLINE),
    "another count": lambda b: b.start(10_000),
    "another divisor": lambda b: b.apic.write(R.TIMER_DIVIDE, 0),
    "software-disable": lambda b: b.apic.write(R.SVR, 0xFF),
}


@pytest.mark.parametrize("write", LATE)
def test_a_late_callback_comes_before_a_write(write: str) -> None:
    bench = Bench()
    bench.start(100)
    bench.time = 1150
    LATE[write](bench)
    assert bench.accepted == [1150]
    bench.to(5000)
    assert bench.accepted == [1150]


def test_a_late_deadline_comes_before_the_next() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1100
    bench.time = 1150
    bench.deadline = 1200
    assert bench.accepted == [1150]
    bench.take()
    bench.to(5000)
    assert bench.accepted == [1150, 1200]


# Reset and snapshots.


@pytest.mark.parametrize("entry", [ONE_SHOT, PERIODIC, DEADLINE])
@pytest.mark.parametrize(
    "reset", [LocalApic.init, LocalApic.reset, lambda apic: apic.write_msr(Msr.IA32_APIC_BASE, 0xFEE00100)], ids=["INIT", "RESET", "disable"]
)
def test_reset_stops_the_timer(entry: int, reset: Callable[[LocalApic], object]) -> None:
    bench = Bench(entry=entry)
    bench.start(100)
    bench.deadline = 1100
    assert bench.events.next_time() == 1100
    reset(bench.apic)
    bench.to(5000)
    assert (bench.accepted, bench.deadline, bench.count, bench.events.next_time()) == ([], 0, 0, None)


@pytest.mark.parametrize(("entry", "fired"), [(ONE_SHOT, [7060]), (PERIODIC, [7060, 7160])])
def test_a_restored_count_goes_on(entry: int, fired: list[int]) -> None:
    bench = Bench(entry=entry)
    bench.start(100)
    bench.to(1040)
    other = Bench(start=7000)
    other.start(5)  # to be forgotten
    other.apic.restore(bench.apic.save())
    assert other.count == 60
    other.to(7200)
    assert other.accepted == fired


def test_a_restored_page_leaves_the_deadline_to_its_msr() -> None:
    bench = Bench(entry=DEADLINE)
    bench.deadline = 1100
    bench.apic.restore(bench.apic.save())
    assert bench.deadline == 1100
    bench.to(2000)
    assert bench.accepted == [1100]
    bench.deadline = 2100
    bench.apic.restore(Bench(entry=ONE_SHOT).apic.save())
    bench.to(3000)
    assert (bench.accepted, bench.deadline) == ([1100], 0)


# Against a counter that really ticks.


class Ticking:
    """The timer as the manual describes it, one count at a time at divisor 1."""

    def __init__(self) -> None:
        self.initial = self.count = 0
        self.periodic = self.masked = False
        self.fired: list[int] = []

    def tick(self, now: int) -> None:
        if self.count:
            self.count -= 1
            if not self.count:
                if not self.masked:
                    self.fired.append(now)
                if self.periodic:
                    self.count = self.initial


STEPS = st.lists(
    st.tuples(st.just("pass"), st.integers(0, 40)) | st.tuples(st.just("start"), st.integers(0, 30)) | st.tuples(st.just("entry"), st.integers(0, 3)),
    max_size=40,
)


@settings(max_examples=400)
@given(STEPS)
def test_like_a_counter_that_ticks(steps: list[tuple[str, int]]) -> None:
    bench, model = Bench(), Ticking()
    for step, value in steps:
        if step == "pass":
            for now in range(bench.time + 1, bench.time + value + 1):
                model.tick(now)
            bench.to(bench.time + value)
        elif step == "start":
            model.initial = model.count = value
            bench.start(value)
        else:
            model.periodic, model.masked = bool(value & 1), bool(value & 2)
            bench.apic.write(R.LVT_TIMER, VECTOR | model.periodic << 17 | model.masked << 16)
        assert bench.accepted == model.fired
        # A count of 0 is loaded anew in the same cycle.
        assert bench.count == model.count
