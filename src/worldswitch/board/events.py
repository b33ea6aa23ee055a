"""The event queue: what happens at which moment of virtual time, in cycles.

Each processor has its own clock, and they differ by a little. What belongs to one processor (its timer, an interrupt on the way to it) is scheduled in that
processor's lane and waits for its clock; what belongs to none happens when the first clock reaches it. So nothing is ever early for the software that sees it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

#: The lane of what belongs to no processor.
SHARED: Final = -1
#: Cancelled events are left in their heap until there are this many, and more than live ones.
_SLACK: Final = 64


class Timer:
    """One scheduled event. `time` in cycles; `lane`: the processor whose clock fires it, or `SHARED`."""

    __slots__ = ("callback", "lane", "name", "time")

    def __init__(self, time: int, callback: Callable[[int], None] | None, name: str, lane: int = SHARED) -> None:
        self.time = time
        self.callback = callback
        self.name = name
        self.lane = lane

    @property
    def pending(self) -> bool:
        """Neither fired nor cancelled."""
        return self.callback is not None

    def __repr__(self) -> str:
        return f"<{'Timer' if self.pending else 'spent Timer'} {self.name!r} at {self.time}>"


class _Lane:
    """A heap of (time, number, timer): numbers count up with every event, so one time's events keep their order."""

    __slots__ = ("cancelled", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Timer]] = []
        self.cancelled = 0

    def first(self) -> tuple[int, int, Timer] | None:
        heap = self.heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self.cancelled -= 1
        return heap[0] if heap else None

    def forget_one(self) -> None:
        self.cancelled += 1
        if self.cancelled > _SLACK and 2 * self.cancelled > len(self.heap):
            self.heap = [entry for entry in self.heap if entry[2].callback is not None]
            heapq.heapify(self.heap)
            self.cancelled = 0


class EventQueue:
    """Events in the order of their time, those of one time in the order in which they were scheduled. Scheduling and firing cost O(log n)."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {SHARED: _Lane()}
        self._count = 0

    def schedule(self, time: int, callback: Callable[[int], None], name: str, lane: int = SHARED) -> Timer:
        """Call `callback(time)` when time has come on the lane's clock; a time that has passed has come."""
        timer = Timer(time, callback, name, lane)
        self._count += 1
        if lane not in self._lanes:
            self._lanes[lane] = _Lane()
        heapq.heappush(self._lanes[lane].heap, (time, self._count, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget an event; harmless if it has fired or been cancelled."""
        if timer.callback is not None:
            timer.callback = None
            self._lanes[timer.lane].forget_one()

    def _first(self, lane: int | None) -> tuple[int, int, Timer] | None:
        earliest = None
        for key, events in self._lanes.items():
            if lane is None or key in (lane, SHARED):
                entry = events.first()
                if entry is not None and (earliest is None or entry[:2] < earliest[:2]):
                    earliest = entry
        return earliest

    def next_time(self, lane: int | None = None) -> int | None:
        """When the earliest event is due, None if there is none: of all, or of those that this processor's clock fires."""
        entry = self._first(lane)
        return entry[0] if entry is not None else None

    def run_until(self, time: int, lane: int | None = None) -> None:
        """Fire what is due at or before this time, including what those events schedule: everything, or what this processor's clock fires."""
        while (entry := self._first(lane)) is not None and entry[0] <= time:
            timer = entry[2]
            callback, timer.callback = timer.callback, None
            heapq.heappop(self._lanes[timer.lane].heap)
            if callback is not None:
                callback(timer.time)
