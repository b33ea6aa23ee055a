"""The event queue: order, cancelling, and whose clock fires what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.board import EventQueue, Timer


def logged(queue: EventQueue, times: list[int]) -> list[tuple[int, int]]:
    """Schedules one event for each time; the list gets (number, time at which it was called)."""
    log: list[tuple[int, int]] = []
    for number, time in enumerate(times):
        queue.schedule(time, noting(log, number), f"event {number}")
    return log


def noting(log: list[tuple[int, int]], number: int) -> Callable[[int], None]:
    return lambda at: log.append((number, at))


def test_time_first_then_the_order_of_scheduling() -> None:
    queue = EventQueue()
    log = logged(queue, [30, 10, 20, 10, 10])
    queue.run_until(20)
    assert log == [(1, 10), (3, 10), (4, 10), (2, 20)]
    assert queue.next_time() == 30
    queue.run_until(29)
    assert len(log) == 4
    queue.run_until(1 << 64)
    assert log[-1] == (0, 30)
    assert queue.next_time() is None


def test_an_event_in_the_past_is_due() -> None:
    queue = EventQueue()
    queue.run_until(100)
    log = logged(queue, [50])
    queue.run_until(100)
    assert log == [(0, 50)]


def test_a_cancelled_event_does_not_fire() -> None:
    queue = EventQueue()
    log: list[int] = []
    timers = [queue.schedule(time, log.append, "x") for time in (1, 2, 3)]
    queue.cancel(timers[0])
    queue.cancel(timers[0])
    assert [t.pending for t in timers] == [False, True, True]
    assert queue.next_time() == 2
    queue.run_until(2)
    queue.cancel(timers[1])  # fired already: harmless
    queue.run_until(10)
    assert log == [2, 3]
    assert not any(t.pending for t in timers)


def test_events_may_schedule_and_cancel_events() -> None:
    queue = EventQueue()
    log: list[tuple[str, int]] = []
    victim = queue.schedule(15, lambda at: log.append(("victim", at)), "victim")

    def first(at: int) -> None:
        log.append(("first", at))
        queue.cancel(victim)
        queue.schedule(at, lambda t: log.append(("now", t)), "now")
        queue.schedule(at + 5, lambda t: log.append(("later", t)), "later")
        queue.schedule(at + 500, lambda t: log.append(("too late", t)), "too late")

    queue.schedule(10, first, "first")
    queue.schedule(10, lambda at: log.append(("second", at)), "second")
    queue.run_until(20)
    assert log == [("first", 10), ("second", 10), ("now", 10), ("later", 15)]


def test_a_callback_sees_its_timer_spent() -> None:
    queue = EventQueue()
    seen: list[bool] = []
    timers: list[Timer] = []
    timers.append(queue.schedule(1, lambda _: seen.append(timers[0].pending), "x"))
    assert "at 1" in repr(timers[0])
    queue.run_until(1)
    assert seen == [False]


@pytest.mark.parametrize(
    ("lane", "fired"),
    [(0, ["own 0", "shared"]), (1, ["shared", "own 1"]), (2, ["shared"]), (None, ["own 0", "shared", "own 1"])],
)
def test_a_lane_waits_for_its_own_clock(lane: int | None, fired: list[str]) -> None:
    queue = EventQueue()
    log: list[str] = []
    queue.schedule(10, lambda _: log.append("own 0"), "a", 0)
    queue.schedule(10, lambda _: log.append("shared"), "b")
    queue.schedule(10, lambda _: log.append("own 1"), "c", 1)
    queue.schedule(5, lambda _: log.append("never"), "d", 7)
    assert queue.next_time(lane) == (5 if lane is None else 10)
    queue.run_until(10, lane)
    assert [name for name in log if name != "never"] == fired
    assert ("never" in log) == (lane is None)


def test_cancelled_events_do_not_pile_up() -> None:
    queue = EventQueue()
    log = logged(queue, [500_000 + i for i in range(10)])
    for i in range(5000):
        queue.cancel(queue.schedule(1_000_000 + i, lambda _: None, "deadline"))
    assert sum(len(events.heap) for events in queue._lanes.values()) < 200
    queue.run_until(2_000_000)
    assert [n for n, _ in log] == list(range(10))


OPERATIONS = st.lists(
    st.tuples(st.just("schedule"), st.integers(0, 50), st.integers(-1, 2))
    | st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0))
    | st.tuples(st.just("run"), st.integers(0, 60), st.integers(-1, 2)),
    max_size=60,
)


@given(OPERATIONS)
def test_like_a_sorted_list(operations: list[tuple[str, int, int]]) -> None:
    queue = EventQueue()
    timers: list[Timer] = []
    model: list[tuple[int, int, int]] = []  # time, number, lane
    log: list[tuple[int, int]] = []
    for kind, number, lane in operations:
        if kind == "schedule":
            n = len(timers)
            timers.append(queue.schedule(number, noting(log, n), "e", lane))
            model.append((number, n, lane))
        elif kind == "cancel" and number < len(timers):
            queue.cancel(timers[number])
            model = [entry for entry in model if entry[1] != number]
        elif kind == "run":
            log.clear()
            queue.run_until(number, lane)
            due = sorted(entry for entry in model if entry[0] <= number and entry[2] in (-1, lane))
            model = [entry for entry in model if entry not in due]
            assert log == [(n, time) for time, n, _ in due]
        assert queue.next_time() == min((entry[0] for entry in model), default=None)
