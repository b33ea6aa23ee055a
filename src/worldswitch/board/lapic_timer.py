"""The local APIC's timer (SDM vol. 3 §11.5.4): a 32-bit count that runs out once or again and again, or a TSC value to wait for.

Nothing here ticks: what the counter holds follows from when it was loaded, and the clock is asked for a callback only when an interrupt could change anything.
Leaves the interrupt itself, and the LVT entry that masks it, to `board.lapic`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from worldswitch.arch.apic import TimerMode, timer_divisor

#: A TSC deadline that is further away than this, in cycles, never comes.
_HORIZON: Final = 1 << 62


class ApicClock(Protocol):
    """Time as a local APIC sees it. The TSC counts at the rate of `now()`."""

    def now(self) -> int:
        """The timer's input clock, in cycles."""

    def arm(self, time: int, callback: Callable[[int], None]) -> object:
        """Call `callback(time)` when `now()` has reached `time`, never from inside this call; a handle for `disarm`."""

    def disarm(self, handle: object) -> None:
        """Forget a callback; harmless if it has come."""

    def tsc(self) -> int:
        """The TSC with which TSC-deadline mode compares: 64 bits."""


class ApicTimer:
    """The counter, its divider and the deadline.

    `fire`: called when the timer raises its interrupt. `useful`: whether an interrupt would change anything now -- it is not masked, and does not
    wait in IRR already,
    where the next would merge with it. Whoever changes that answer calls `arm`. A timer, however fast it is set, so calls back no oftener than its
    interrupts are taken.
    `shift`: one count at divisor 1 is `2**shift` cycles. `minimum_period`: cycles from one periodic interrupt to the next, at least.
    """

    def __init__(self, clock: ApicClock, fire: Callable[[], None], useful: Callable[[], bool], *, shift: int, minimum_period: int) -> None:
        self._clock, self._fire, self._useful = clock, fire, useful
        self._shift, self._minimum_period = shift, minimum_period
        self._handle: object | None = None
        self.reset()

    def reset(self) -> None:
        """As after power-up: one-shot mode, stopped."""
        self._disarm()
        self.mode = int(TimerMode.ONE_SHOT)
        self.initial = self.divide = 0
        #: IA32_TSC_DEADLINE: 0 unless armed.
        self.deadline = 0
        self._due = 0
        #: When the running count was loaded, in cycles; None if it is not running.
        self._start: int | None = None

    # What software does.

    @property
    def armed(self) -> bool:
        """A callback is on its way."""
        return self._handle is not None

    def set_mode(self, mode: int) -> None:
        """Bits 18:17 of the LVT entry; 3 is reserved and stops the timer. To and from TSC-deadline mode disarms (§11.5.4.1); between one-shot and
        periodic the count goes
        on, as it does in hardware: the mode matters when it reaches 0. `overdue` comes first, `arm` must follow."""
        self._settle()
        if (mode == TimerMode.TSC_DEADLINE) != (self.mode == TimerMode.TSC_DEADLINE):
            self._disarm()
            self._start, self.deadline, self.initial = None, 0, 0
        self.mode = mode

    def set_initial(self, count: int) -> None:
        """Load the count and start; 0 stops. Ignored in TSC-deadline mode."""
        if self.mode != TimerMode.TSC_DEADLINE:
            self.overdue()
            self.initial = count
            self.continue_from(count)

    def set_divide(self, configuration: int) -> None:
        """The divide configuration register: the count goes on from where it is at the new speed."""
        self.overdue()
        before, count = self._unit(), self.current()
        self.divide = configuration
        if self._unit() != before:
            self.continue_from(count)

    def set_deadline(self, tsc: int) -> None:
        """IA32_TSC_DEADLINE: arm for this TSC value, 0 disarms. Ignored in other modes."""
        if self.mode == TimerMode.TSC_DEADLINE:
            self.overdue()
            self.deadline = tsc
            self.arm()

    def current(self) -> int:
        """The current-count register: 0 in TSC-deadline mode."""
        if self._start is None or not self.initial:
            return 0
        counted = max(0, self._clock.now() - self._start) // self._unit()
        return self.initial - counted % self.initial if self.mode == TimerMode.PERIODIC else max(0, self.initial - counted)

    def continue_from(self, count: int) -> None:
        """The count goes on from here, as if it had been loaded with `initial` and counted down so far; 0 stops it."""
        self._start = self._clock.now() - (self.initial - count) * self._unit() if count else None
        self.arm()

    # How it comes about.

    def _unit(self) -> int:
        """Cycles in one count."""
        return timer_divisor(self.divide) << self._shift

    def _disarm(self) -> None:
        if self._handle is not None:
            self._clock.disarm(self._handle)
            self._handle = None

    def _settle(self) -> None:
        """Bring `_start` up to date: a one-shot count that has run out stops, a periodic one was loaded anew."""
        if self._start is None:
            return
        period, elapsed = self.initial * self._unit(), self._clock.now() - self._start
        if elapsed >= period:
            self._start = self._start + elapsed // period * period if self.mode == TimerMode.PERIODIC else None

    def arm(self) -> None:
        """Ask for the next expiry, if one is to come and would be of use."""
        self._disarm()
        self._settle()
        if self.deadline:
            # Even if masked: the MSR is cleared when the time has come. One that has passed fires at once.
            ahead = self.deadline - self._clock.tsc()
            if ahead < _HORIZON:
                self._arm_at(self._clock.now() + max(0, ahead))
        elif self._start is not None and self.mode in (TimerMode.ONE_SHOT, TimerMode.PERIODIC) and self._useful():
            wait = period = self.initial * self._unit()
            if self.mode == TimerMode.PERIODIC and period < self._minimum_period:
                wait = -(-self._minimum_period // period) * period
            self._arm_at(self._start + wait)

    def _arm_at(self, due: int) -> None:
        self._due = due
        self._handle = self._clock.arm(due, self._expired)

    def _expired(self, time: int) -> None:
        self._handle = None
        if self.mode != TimerMode.TSC_DEADLINE:
            self._settle()
        elif self.deadline > self._clock.tsc() + max(0, time - self._clock.now()):
            self.arm()  # the TSC was set back meanwhile
            return
        else:
            self.deadline = 0  # "disarms itself and clears the MSR" (§11.5.4.1)
        self._fire()
        self.arm()

    def overdue(self) -> None:
        """Before software changes anything: an expiry whose time has come but whose callback has not comes first."""
        if self._handle is not None and self._due <= self._clock.now():
            self._disarm()
            self._expired(self._due)
