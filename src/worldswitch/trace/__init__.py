"""Tracepoints: what can be seen of a world switch, and a recorder that costs next to nothing when off.

Names and fields are Linux's where Linux has the tracepoint; those of the hardware level (`Hw...`), which no operating system can see, are ours.
Relies on `arch` for the names of numbers; leaves every way of showing a trace to `view` and `cli`.
"""

from worldswitch.trace.events import EVENTS, TraceEvent
from worldswitch.trace.recorder import Recorder

__all__ = ["EVENTS", "Recorder", "TraceEvent"]
