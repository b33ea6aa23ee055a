"""High-resolution timers and the clock event device under them.

Each processor's local APIC timer is the device, in TSC-deadline mode: one shot, programmed for the earliest timer. `hrtimer_interrupt` runs what has
expired and programs the next.
If that interrupt never reaches this kernel -- because a guest took it -- the device stays silent: nobody programs it again, and time stands still for
everything that waits on a timer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

from worldswitch.arch.msr import Msr
from worldswitch.cpu.state import MASK64
from worldswitch.trace.events import HrtimerExpireEntry, HrtimerStart

if TYPE_CHECKING:
    from worldswitch.host.kernel import KernelCpu


class Hrtimer:
    """A timer on one processor's queue. Its function gets the time for which it was armed, in cycles, and may start it again."""

    def __init__(self, name: str, function: Callable[[int], None], base: HrtimerBase) -> None:
        self.name = name
        self.function = function
        self._base = base
        self.expires: int | None = None

    def start(self, expires: int) -> None:
        """Arm for this time on the processor's clock; a timer that is armed already moves."""
        self.expires = expires
        self._base.enqueue(self)

    def cancel(self) -> None:
        """Disarm; harmless if not armed. The device is left as it is: an early interrupt finds nothing and programs the next."""
        self.expires = None

    def migrate(self, base: HrtimerBase) -> None:
        """Move to another processor's queue, armed as before."""
        expires = self.expires
        self.cancel()
        self._base = base
        if expires is not None:
            self.start(expires)


class HrtimerBase:
    """One processor's timers."""

    def __init__(self, cpu: KernelCpu) -> None:
        self._cpu = cpu
        self._heap: list[tuple[int, int, Hrtimer]] = []
        self._count = 0
        self._programmed: int | None = None
        self.interrupts = 0

    def enqueue(self, timer: Hrtimer) -> None:
        """Put an armed timer where it belongs."""
        assert timer.expires is not None
        self._count += 1
        heapq.heappush(self._heap, (timer.expires, self._count, timer))
        if self._cpu.trace.on:
            self._cpu.trace.emit(HrtimerStart(self._cpu.index, self._cpu.now(), timer.name, timer.expires))
        if self._programmed is None or timer.expires < self._programmed:
            self.program()

    def next_expiry(self) -> int | None:
        """When the earliest armed timer is due."""
        heap = self._heap
        while heap and heap[0][2].expires != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def program(self) -> None:
        """Set the device for the earliest timer: IA32_TSC_DEADLINE (SDM vol. 3 §11.5.4.1); 0 disarms it."""
        due = self.next_expiry()
        self._programmed = due
        processor = self._cpu.processor
        tsc_minus_clock = processor.state.tsc_adjust
        processor.msrs.write(Msr.IA32_TSC_DEADLINE, 0 if due is None else max(1, due + tsc_minus_clock & MASK64))

    def interrupt(self) -> None:
        """hrtimer_interrupt: run what has expired, then program the device."""
        self.interrupts += 1
        self._programmed = None
        while (due := self.next_expiry()) is not None and due <= self._cpu.now():
            timer = heapq.heappop(self._heap)[2]
            timer.expires = None
            if self._cpu.trace.on:
                self._cpu.trace.emit(HrtimerExpireEntry(self._cpu.index, self._cpu.now(), timer.name, due))
            timer.function(due)
        self.program()
