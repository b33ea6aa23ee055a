"""The recorder: a list of events in the order in which they happened, bounded if asked for."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TypeVar

from worldswitch.trace.events import TraceEvent

E = TypeVar("E", bound=TraceEvent)


class Recorder:
    """Collects trace events.

    A tracepoint in a hot place is written `if trace.on: trace.emit(...)`: when off it costs one attribute and builds nothing.

    `limit`: keep only the last so many events (a flight recorder); None keeps all. `sink`: called with each event instead of keeping it.
    """

    __slots__ = ("_sink", "events", "on")

    def __init__(self, on: bool = True, limit: int | None = None, sink: Callable[[TraceEvent], None] | None = None) -> None:
        self.on = on
        self.events: deque[TraceEvent] = deque(maxlen=limit)
        self._sink = sink

    def emit(self, event: TraceEvent) -> None:
        """Record one event."""
        if self._sink is not None:
            self._sink(event)
        else:
            self.events.append(event)

    def of(self, kind: type[E]) -> Iterator[E]:
        """The recorded events of one kind, oldest first."""
        return (event for event in self.events if isinstance(event, kind))

    def __iter__(self) -> Iterator[TraceEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def clear(self) -> None:
        """Forget everything recorded."""
        self.events.clear()

    def lines(self) -> Iterator[str]:
        """Every event as one line of JSON with sorted keys, the form in which traces are compared byte for byte."""
        for event in self.events:
            yield json.dumps({"event": event.name, **asdict(event)}, sort_keys=True, separators=(",", ":"))
