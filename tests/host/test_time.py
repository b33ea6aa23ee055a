"""Timers and the tick: one device, a queue before it, and a period that keeps its phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.arch.msr import Msr
from worldswitch.board import Board
from worldswitch.cpu.model import model_named
from worldswitch.errors import ConfigurationError
from worldswitch.host import Computation, Costs, Hrtimer, Kernel, RunEnd, Task
from worldswitch.trace import Recorder
from worldswitch.trace.events import HrtimerExpireEntry, HrtimerStart, LocalTimerEntry, SchedSwitch, TickStop

TICK = 4000
Boot = Callable[..., Kernel]
FREE = Costs(**dict.fromkeys(Costs.__dataclass_fields__, 0))


def timer(kernel: Kernel, name: str = "t", function: Callable[[int], None] = lambda due: None) -> Hrtimer:
    return kernel.hrtimer(name, function)


def recording(kernel: Kernel, into: list[tuple[str, int]], name: str) -> Hrtimer:
    return timer(kernel, name, lambda due: into.append((name, due)))


def test_timers_run_in_order_and_on_time(boot: Boot) -> None:
    kernel = boot()
    fired: list[tuple[str, int]] = []
    for name, expires in (("c", 9000), ("a", 1000), ("b", 9000), ("d", 9001)):
        recording(kernel, fired, name).start(expires)
    assert kernel.run(max_time=20_000) is RunEnd.QUIET
    assert fired == [("a", 1000), ("c", 9000), ("b", 9000), ("d", 9001)]
    expired = [e for e in kernel.trace.of(HrtimerExpireEntry) if e.function == "a"]
    assert [e.now for e in expired] == [1000]
    assert 1000 <= expired[0].time <= 1000 + 1000


def test_the_device_is_programmed_for_the_first(boot: Boot) -> None:
    kernel = boot()
    msrs = kernel.cpus[0].processor.msrs

    def programmed() -> int:
        return msrs.read(Msr.IA32_TSC_DEADLINE)

    assert programmed() == TICK  # the tick
    early, late = timer(kernel), timer(kernel)
    late.start(3000)
    assert programmed() == 3000
    early.start(2000)
    assert programmed() == 2000
    early.start(3500)  # moved back
    late.cancel()
    assert programmed() == 3500
    early.cancel()
    early.cancel()
    assert programmed() == TICK


def test_the_device_counts_tsc_not_clock(boot: Boot) -> None:
    kernel = boot()
    processor = kernel.cpus[0].processor
    processor.msrs.write(Msr.IA32_TSC, 1_000_000)
    fired: list[tuple[str, int]] = []
    recording(kernel, fired, "t").start(2000)
    assert processor.msrs.read(Msr.IA32_TSC_DEADLINE) == 1_002_000
    kernel.run(lambda: bool(fired))
    assert fired == [("t", 2000)]
    assert kernel.now() < 3500


@pytest.mark.parametrize("again", [1000, 2000])
def test_a_cancelled_timer_that_is_started_again_fires_once(boot: Boot, again: int) -> None:
    kernel = boot()
    fired: list[tuple[str, int]] = []
    it = recording(kernel, fired, "t")
    it.start(1000)
    it.cancel()
    assert it.expires is None
    it.start(again)
    kernel.run(max_time=9000)
    assert fired == [("t", again)]


def test_a_time_in_the_past_expires_at_once(boot: Boot) -> None:
    kernel = boot()
    kernel.board.advance(kernel.cpus[0].processor, 3000)
    fired: list[tuple[str, int]] = []
    recording(kernel, fired, "t").start(5)
    kernel.cpus[0].charge("emulate")
    assert fired == [("t", 5)]


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 30_000))), max_size=40))
def test_any_sequence_of_starts_and_cancels_leaves_the_last_word(operations: list[tuple[int, int | None]]) -> None:
    kernel = Kernel(Board(model_named("intel"), frequency_hz=1_000_000, memory_bytes=1 << 20, trace=Recorder(on=False)), costs=FREE)
    fired: list[tuple[str, int]] = []
    timers = [recording(kernel, fired, str(i)) for i in range(6)]
    last: dict[int, int | None] = {}
    for index, expires in operations:
        if expires is None:
            timers[index].cancel()
        else:
            timers[index].start(expires)
        last[index] = expires
    kernel.run(max_time=50_000)
    assert sorted(fired) == sorted((str(i), at) for i, at in last.items() if at is not None)
    assert [due for _, due in fired] == sorted(due for _, due in fired)


@pytest.mark.parametrize(
    ("now", "due", "interval", "expected", "passed"),
    [(1000, 1000, 300, 1300, 1), (1299, 1000, 300, 1300, 1), (1300, 1000, 300, 1600, 2), (2050, 1000, 300, 2200, 4), (900, 1000, 300, 1300, 1)],
)
def test_forward_keeps_the_phase(boot: Boot, now: int, due: int, interval: int, expected: int, passed: int) -> None:
    kernel = boot()
    kernel.cpus[0].processor.cycles = now
    it = timer(kernel)
    assert it.forward(due, interval) == passed
    assert it.expires == expected


def test_forward_needs_an_interval(boot: Boot) -> None:
    with pytest.raises(ConfigurationError, match="interval"):
        timer(boot()).forward(0, 0)


@pytest.mark.parametrize("costs", [None, FREE], ids=["with costs", "without"])
def test_a_timer_that_never_gives_rest_does_not_stop_the_kernel(boot: Boot, costs: Costs | None) -> None:
    """A function that starts its timer again for the past would keep hrtimer_interrupt for good."""
    kernel = boot(costs=costs)
    calls: list[int] = []

    def again(due: int) -> None:
        calls.append(due)
        nuisance.start(due)

    nuisance = timer(kernel, "nuisance", again)
    nuisance.start(1000)
    program = Computation(20_000)
    task = kernel.spawn("user", program)
    assert kernel.run(lambda: program.done == 20_000, max_time=500_000) is RunEnd.DONE
    assert kernel.cpus[0].hrtimers.hangs > 0
    assert len(calls) >= 3
    assert task.ticks > 0, "the tick, behind the nuisance in the queue, goes on too"


def test_a_stolen_timer_interrupt_leaves_the_device_silent(boot: Boot) -> None:
    """A guest without external-interrupt exiting takes the host's interrupt: nobody programs the timer again, and the host's time stands still."""
    kernel = boot()
    cpu = kernel.cpus[0]
    program = Computation(None)
    kernel.spawn("user", program)
    kernel.run(max_time=2 * TICK)
    ticks = cpu.tick.count
    cpu.local_irq_disable("guest")
    kernel.board.advance(cpu.processor, TICK)
    apic = kernel.board.apics[0]
    apic.acknowledge()  # the guest's IDT gets it, the guest's handler knows nothing of it
    apic.end_of_interrupt()
    cpu.local_irq_enable("guest")
    kernel.run(max_time=20 * TICK)
    assert cpu.tick.count == ticks
    timer(kernel).start(kernel.now() + 10)  # later than what the kernel believes is programmed: still nothing
    kernel.run(max_time=30 * TICK)
    assert cpu.tick.count == ticks


def test_a_busy_processor_ticks_hz_times_a_second(boot: Boot) -> None:
    kernel = boot()
    task = kernel.spawn("user", Computation(None))
    assert kernel.run(max_time=1_000_000 + 2000) is RunEnd.TIME
    tick = kernel.cpus[0].tick
    assert (tick.jiffies, tick.count, task.ticks) == (250, 250, 250)
    entries = [e.time for e in kernel.trace.of(LocalTimerEntry)]
    assert all(TICK * (i + 1) <= at < TICK * (i + 1) + 500 for i, at in enumerate(entries)), "late ticks do not move the next"


def test_ticks_are_accounted_to_who_was_interrupted(boot: Boot) -> None:
    kernel = boot()
    a, b = kernel.spawn("a", Computation(None)), kernel.spawn("b", Computation(None))
    kernel.run(max_time=100 * TICK)
    assert a.ticks + b.ticks == kernel.cpus[0].tick.count
    assert abs(a.ticks - b.ticks) <= 2
    assert kernel.cpus[0].idle.ticks == 0


def test_an_idle_processor_stops_its_tick(boot: Boot) -> None:
    kernel = boot()
    assert kernel.run(max_time=100 * TICK) is RunEnd.QUIET
    assert [e.success for e in kernel.trace.of(TickStop)] == [1]
    assert kernel.cpus[0].tick.count == 0
    assert kernel.cpus[0].processor.msrs.read(Msr.IA32_TSC_DEADLINE) == 0


def test_the_tick_starts_again_in_phase_and_makes_up_the_jiffies(boot: Boot) -> None:
    kernel = boot()
    cpu = kernel.cpus[0]
    program = Computation(3 * TICK)
    spawned: list[Task] = []
    timer(kernel, "alarm", lambda due: spawned.append(kernel.spawn("user", program))).start(10 * TICK + 1500)
    kernel.run(lambda: program.done == 3 * TICK)
    assert cpu.tick.jiffies == kernel.now() // TICK
    assert cpu.tick.count == cpu.tick.jiffies - 10 > 0
    starts = [e.expires for e in kernel.trace.of(HrtimerStart) if e.function == "tick_sched_timer"]
    assert all(at % TICK == 0 for at in starts)


def test_a_timer_of_an_idle_processor_does_not_start_its_tick(boot: Boot) -> None:
    kernel = boot()
    fired: list[tuple[str, int]] = []
    recording(kernel, fired, "t").start(50 * TICK)
    assert kernel.run(max_time=100 * TICK) is RunEnd.QUIET
    assert fired == [("t", 50 * TICK)]
    assert kernel.cpus[0].tick.count == 0
    assert not list(kernel.trace.of(SchedSwitch))


@pytest.mark.parametrize(("parameter", "value"), [("hz", 9), ("hz", 10_001), ("hz", 2000), ("base_slice_us", 0)])
def test_impossible_parameters(parameter: str, value: int) -> None:
    board = Board(model_named("intel"), frequency_hz=1_000_000, memory_bytes=1 << 20)
    with pytest.raises(ConfigurationError, match=parameter):
        Kernel(board, **{parameter: value})  # type: ignore[arg-type]  # each is an int


@pytest.mark.parametrize("value", [-1, 10**9 + 1])
def test_impossible_costs(value: int) -> None:
    with pytest.raises(ConfigurationError, match=r"costs\.tick"):
        Costs(tick=value)


def test_unknown_cost(boot: Boot) -> None:
    with pytest.raises(KeyError):
        boot().cpus[0].charge("coffee")
