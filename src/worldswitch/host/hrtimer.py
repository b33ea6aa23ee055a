"""High-resolution timers and the clock event device under them.

Everything in a kernel that happens "later" is a timer, and all timers of a processor share one piece of hardware: its local APIC's timer in
TSC-deadline mode, which fires once, at the time written into IA32_TSC_DEADLINE (SDM vol. 3 §11.5.4.1). So timers stand in a queue, the
device is programmed for the first, and `hrtimer_interrupt` runs what has expired and programs the next.

If that interrupt never reaches this kernel -- because a guest took it -- the device stays silent: nobody programs it again for what is
overdue, and time stands still for everything that waits on a timer. That is what happens on real hardware too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from worldswitch.arch.msr import Msr
from worldswitch.cpu.state import MASK64
from worldswitch.errors import ConfigurationError
from worldswitch.trace.events import HrtimerExpireEntry, HrtimerStart

if TYPE_CHECKING:
    from worldswitch.host.kernel import KernelCpu

#: How often one interrupt looks for timers that have expired meanwhile, before it lets the rest of the kernel go on.
_RETRIES: Final = 3


class Hrtimer:
    """A timer on one processor's queue. Its function gets the time for which it was armed, in cycles, runs with interrupts off, and may start it again."""

    def __init__(self, name: str, function: Callable[[int], None], base: HrtimerBase) -> None:
        self.name = name
        self.function = function
        self._base = base
        #: When it is due, in cycles; None if it is not armed.
        self.expires: int | None = None
        #: Which of the queue's entries is this timer's: one that was cancelled or moved leaves its old entry behind.
        self.entry = 0

    def start(self, expires: int) -> None:
        """Arm for this time on the processor's clock; a timer that is armed already moves. A time in the past expires at once."""
        self.expires = expires
        self._base.enqueue(self)

    def cancel(self) -> None:
        """Disarm; harmless if not armed."""
        if self.expires is not None:
            self.expires, self.entry = None, 0
            self._base.removed()

    def forward(self, due: int, interval: int) -> int:
        """hrtimer_forward_now: arm for the first of `due` + 1, 2, 3, ... `interval`s (cycles) that is still to come, so that a late timer keeps its phase.
        Gives how many intervals that were; more than 1 means that expiries were missed. ConfigurationError for an interval below 1."""
        if interval < 1:
            raise ConfigurationError("interval", interval, "at least 1 cycle")
        passed = max(self._base.now() - due, 0) // interval + 1
        self.start(due + passed * interval)
        return passed

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
        self._in_interrupt = False
        #: Timer interrupts handled, and how many of them found no end of expired timers.
        self.interrupts = 0
        self.hangs = 0

    def now(self) -> int:
        """The processor's clock, in cycles."""
        return self._cpu.now()

    def enqueue(self, timer: Hrtimer) -> None:
        """Put an armed timer where it belongs."""
        assert timer.expires is not None
        self._count += 1
        timer.entry = self._count
        heapq.heappush(self._heap, (timer.expires, self._count, timer))
        if self._cpu.trace.on:
            self._cpu.trace.emit(HrtimerStart(self._cpu.index, self._cpu.now(), timer.name, timer.expires))
        if not self._in_interrupt and (self._programmed is None or timer.expires < self._programmed):
            self.program()

    def removed(self) -> None:
        """A timer was disarmed: if the device was programmed for it, it is programmed anew."""
        if not self._in_interrupt and self._programmed is not None and self.next_expiry() != self._programmed:
            self.program()

    def next_expiry(self) -> int | None:
        """When the earliest armed timer is due."""
        heap = self._heap
        while heap and heap[0][2].entry != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def program(self, not_before: int = 0) -> None:
        """Set the device for the earliest timer, but not before a time: IA32_TSC_DEADLINE (SDM vol. 3 §11.5.4.1); 0 disarms it."""
        due = self.next_expiry()
        if due is not None:
            due = max(due, not_before)
        self._programmed = due
        processor = self._cpu.processor
        processor.msrs.write(Msr.IA32_TSC_DEADLINE, 0 if due is None else max(1, due + processor.state.tsc_adjust & MASK64))

    def interrupt(self) -> None:
        """hrtimer_interrupt: run what has expired, then program the device.

        Timers that their functions start again for a time that is over wait for the next look; after a few of those the device is programmed for as much
        later as this interrupt has taken, so that timers can use up half of the processor at most.
        """
        self.interrupts += 1
        self._programmed = None  # the shot is fired
        entered = self._cpu.now()
        self._in_interrupt = True
        for _ in range(_RETRIES):
            self._run_expired(self._cpu.now())
            due = self.next_expiry()
            if due is None or due > self._cpu.now():
                break
        self._in_interrupt = False
        now = self._cpu.now()
        due = self.next_expiry()
        if due is not None and due <= now:
            self.hangs += 1
            self.program(not_before=now + max(1, now - entered))
        else:
            self.program()

    def _run_expired(self, now: int) -> None:
        last = self._count
        again: list[tuple[int, int, Hrtimer]] = []
        while (due := self.next_expiry()) is not None and due <= now:
            entry = heapq.heappop(self._heap)
            if entry[1] > last:
                again.append(entry)
                continue
            timer = entry[2]
            timer.expires, timer.entry = None, 0
            if self._cpu.trace.on:
                self._cpu.trace.emit(HrtimerExpireEntry(self._cpu.index, self._cpu.now(), timer.name, due))
            timer.function(due)
        for entry in again:
            heapq.heappush(self._heap, entry)
