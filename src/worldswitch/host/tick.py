"""The tick: the periodic moment at which the kernel looks who has the processor, accounts its time, and asks the scheduler whether that should go on.

It is an ordinary high-resolution timer (`tick_sched_timer`); an idle processor stops it (NO_HZ) and starts it again on the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.host.hrtimer import Hrtimer
from worldswitch.trace.events import TickStop

if TYPE_CHECKING:
    from worldswitch.host.kernel import KernelCpu


class Tick:
    """One processor's tick."""

    def __init__(self, cpu: KernelCpu, period: int) -> None:
        self._cpu = cpu
        self.period = period
        self.jiffies = 0
        self.stopped = False
        self._next = 0
        self._timer = Hrtimer("tick_sched_timer", self._handler, cpu.hrtimers)

    def start(self) -> None:
        """First tick one period from now."""
        self._next = self._cpu.now() + self.period
        self._timer.start(self._next)

    def stop(self) -> None:
        """tick_nohz_stop_tick: nothing runs here, nobody needs the tick."""
        if self.stopped:
            return
        self.stopped = True
        self._timer.cancel()
        self._cpu.hrtimers.program()
        if self._cpu.trace.on:
            self._cpu.trace.emit(TickStop(self._cpu.index, self._cpu.now(), 1))

    def restart(self) -> None:
        """tick_nohz_idle_exit: on again, in the same phase."""
        if not self.stopped:
            return
        self.stopped = False
        missed = max(0, self._cpu.now() - self._next) // self.period + 1 if self._cpu.now() >= self._next else 0
        self._next += missed * self.period
        self._timer.start(self._next)

    def _handler(self, due: int) -> None:
        self.jiffies += 1
        self._cpu.charge_irqoff("tick")
        self._cpu.current.ticks += 1
        self._cpu.task_tick()
        self._next = due + self.period
        while self._next <= self._cpu.now():  # late: skip what cannot be made up
            self._next += self.period
            self.jiffies += 1
        if not self.stopped:
            self._timer.start(self._next)
