"""The event queue: what happens at which moment of virtual time, in cycles."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """One scheduled event."""

    __slots__ = ("callback", "name", "time")

    def __init__(self, time: int, callback: Callable[[int], None] | None, name: str) -> None:
        self.time = time
        self.callback = callback
        self.name = name

    @property
    def pending(self) -> bool:
        """Neither fired nor cancelled."""
        return self.callback is not None


class EventQueue:
    """Events in the order of their time, those of one time in the order in which they were scheduled."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._count = 0

    def schedule(self, time: int, callback: Callable[[int], None], name: str) -> Timer:
        """Call `callback(time)` when time has come."""
        timer = Timer(time, callback, name)
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, timer))
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forget an event; harmless if it has fired."""
        timer.callback = None

    def next_time(self) -> int | None:
        """When the earliest event is due; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_until(self, time: int) -> None:
        """Fire everything due at or before this time, including what those events schedule."""
        while (due := self.next_time()) is not None and due <= time:
            timer = heapq.heappop(self._heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback(due)
