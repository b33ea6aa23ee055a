"""EEVDF: shares follow weights, lag is bounded, nobody starves, sleepers find what they left."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.errors import ConfigurationError
from worldswitch.host.fair import NICE_TO_WEIGHT, Entity, FairQueue, weight_of

SLICE = 3000
#: Rounding of virtual times: each accounting step loses less than one unit of 1/1024 cycle.
nices = st.lists(st.integers(-20, 19), min_size=1, max_size=6)


def queue_of(nice: list[int], slice_cycles: int = SLICE) -> tuple[FairQueue, list[Entity]]:
    queue = FairQueue()
    entities = [Entity(100 + i, weight_of(n), slice=slice_cycles) for i, n in enumerate(nice)]
    for entity in entities:
        queue.enqueue(entity, new=True)
    return queue, entities


def serve(queue: FairQueue, cycles: int) -> Entity:
    """Pick somebody and let him run."""
    entity = queue.pick()
    assert entity is not None
    queue.set_curr(entity)
    queue.update_curr(cycles)
    return entity


def lag(queue: FairQueue, entity: Entity) -> Fraction:
    """What the queue owes an entity, in cycles of real time, without rounding."""
    load = sum(e.weight for e in queue.entities)
    v = Fraction(sum(e.weight * e.vruntime for e in queue.entities), load)
    return (v - entity.vruntime) * entity.weight / (1024 * 1024)


def test_weights_are_those_of_the_nice_levels() -> None:
    assert len(NICE_TO_WEIGHT) == 40
    assert (weight_of(-20), weight_of(0), weight_of(19)) == (88761, 1024, 15)
    assert all(1.15 < high / low < 1.35 for high, low in pairwise(NICE_TO_WEIGHT))


@pytest.mark.parametrize("nice", [-21, 20])
def test_nice_levels_end(nice: int) -> None:
    with pytest.raises(ConfigurationError, match="from -20 to 19"):
        weight_of(nice)


@given(nices, st.lists(st.integers(1, 4000), min_size=20, max_size=80))
def test_service_stays_within_a_request_of_the_fair_share(nice: list[int], quanta: list[int]) -> None:
    """The bound of the paper: the lag never exceeds the longest time for which anybody keeps the processor."""
    queue, entities = queue_of(nice)
    longest = SLICE + max(quanta)
    total = 0
    for quantum in quanta:
        serve(queue, quantum)
        total += quantum
        load = sum(e.weight for e in entities)
        for entity in entities:
            owed = Fraction(total * entity.weight, load) - entity.sum_exec
            assert abs(owed) <= longest + 1
            assert abs(lag(queue, entity)) <= longest + 1
    assert sum(e.sum_exec for e in entities) == total


@given(nices, st.integers(1, 4000))
def test_nobody_starves(nice: list[int], quantum: int) -> None:
    queue, entities = queue_of(nice)
    load = sum(e.weight for e in entities)
    waited = dict.fromkeys((e.key for e in entities), 0)
    for _ in range(300):
        served = serve(queue, quantum)
        for entity in entities:
            waited[entity.key] = 0 if entity is served else waited[entity.key] + quantum
            # From as far ahead as it can get to as far behind: twice the bound, at the rate of its share.
            assert waited[entity.key] * entity.weight <= 2 * (SLICE + quantum + 1) * load


@given(nices, st.lists(st.integers(1, 9000), min_size=1, max_size=40))
def test_somebody_is_always_eligible_and_is_picked(nice: list[int], quanta: list[int]) -> None:
    queue, entities = queue_of(nice)
    for quantum in quanta:
        assert queue.eligible(serve(queue, 0))
        queue.update_curr(quantum)
        assert any(queue.eligible(e) for e in entities)


@given(st.lists(st.integers(-20, 19), min_size=2, max_size=6), st.lists(st.integers(1, 4000), min_size=1, max_size=30), st.integers(0, 30), st.data())
def test_a_sleeper_finds_its_lag_again(nice: list[int], quanta: list[int], later: int, data: st.DataObject) -> None:
    queue, entities = queue_of(nice)
    for quantum in quanta:
        serve(queue, quantum)
    sleeper = data.draw(st.sampled_from(entities))
    limit = 2 * SLICE + 1
    before = max(Fraction(-limit), min(Fraction(limit), lag(queue, sleeper)))
    queue.dequeue(sleeper)
    assert not sleeper.on_rq
    for _ in range(later):
        serve(queue, 1000)
    queue.enqueue(sleeper)
    # V is rounded down to whole units, before and after; the scaling of the lag magnifies that by load / other load.
    load = sum(e.weight for e in queue.entities)
    slack = Fraction(4 * sleeper.weight * load, (load - sleeper.weight) * 1024 * 1024)
    assert abs(lag(queue, sleeper) - before) <= slack + Fraction(1, 1024)


def test_sleeping_long_earns_nothing() -> None:
    queue, (sleeper, other) = queue_of([0, 0])
    queue.dequeue(sleeper)
    queue.set_curr(other)
    queue.update_curr(1_000_000)
    queue.enqueue(sleeper)
    assert lag(queue, sleeper) <= SLICE


def test_lag_is_forgotten_where_nobody_else_is() -> None:
    queue, (a, b) = queue_of([0, 0])
    serve(queue, 2000)
    queue.dequeue(b)
    queue.dequeue(a)
    v = queue.average()
    assert b.vlag > 0
    queue.enqueue(b)
    assert b.vruntime == v


def test_lag_kept_over_sleep_is_bounded_both_ways() -> None:
    queue, (a, b) = queue_of([0, 0])
    queue.set_curr(a)
    queue.update_curr(1_000_000)
    queue.dequeue(a)
    assert a.vlag == -2 * SLICE * 1024
    queue, (a, b) = queue_of([0, 0])
    queue.set_curr(a)
    queue.update_curr(1_000_000)
    queue.dequeue(b)
    assert b.vlag == 2 * SLICE * 1024


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        pytest.param(0, False, id="the running one is eligible and finishes its request"),
        pytest.param(1000, True, id="the running one has had more than its share"),
    ],
)
def test_wakeup_preemption(ran: int, expected: bool) -> None:
    queue, (a, b) = queue_of([0, 0])
    queue.dequeue(b)
    queue.set_curr(a)
    queue.update_curr(ran)
    b.vlag = ran * 1024
    queue.enqueue(b)
    assert queue.wakeup_preempts(b) is expected
    assert (queue.pick() is b) is expected


def test_anybody_preempts_the_idle_task() -> None:
    queue, (a,) = queue_of([5])
    assert queue.wakeup_preempts(a)


def test_the_running_one_keeps_the_processor_until_its_request_is_served() -> None:
    queue, (a, b) = queue_of([0, 0])
    assert serve(queue, 0) is a
    b.deadline = a.deadline - 1
    assert queue.pick() is a
    queue.set_curr(b)
    b.protected = False
    assert queue.pick() is b


def test_yield_gives_up_the_request() -> None:
    queue, (a, b) = queue_of([0, 0])
    assert serve(queue, 0) is a
    queue.yield_curr()
    assert serve(queue, 0) is b


def test_ties_go_to_the_lower_key() -> None:
    queue = FairQueue()
    for key in (7, 3, 5):
        queue.enqueue(Entity(key, slice=SLICE))
    picked = queue.pick()
    assert picked is not None
    assert picked.key == 3


def test_a_served_request_is_reported_once() -> None:
    queue, (a, _) = queue_of([0, 0], 1000)
    queue.set_curr(a)
    assert [queue.update_curr(400) for _ in range(4)] == [False, True, False, False]  # a newcomer's first deadline is half a slice away
    assert queue.update_curr(0) is False


def test_an_empty_queue() -> None:
    queue = FairQueue()
    assert queue.pick() is None
    assert queue.update_curr(100) is False
    queue.yield_curr()
    assert queue.average() == 0
