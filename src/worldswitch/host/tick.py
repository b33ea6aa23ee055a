"""The tick: the periodic moment at which the kernel looks who has the processor, accounts its time, and asks the scheduler whether that
should go on.

A task that computes never calls the kernel; without this interrupt it would keep the processor for good. For a vCPU thread it is the same,
only that the interrupt first has to get the processor out of the guest.

The tick is an ordinary high-resolution timer (`tick_sched_timer`). A processor that has nothing to do stops it, so as not to be woken for
nothing (NO_HZ), and starts it again when it has. It relies on `hrtimer` and leaves the decision to `fair`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.host.hrtimer import Hrtimer
from worldswitch.trace.events import TickStop

if TYPE_CHECKING:
    from worldswitch.host.kernel import KernelCpu


class Tick:
    """One processor's tick, every `period` cycles."""

    def __init__(self, cpu: KernelCpu, period: int) -> None:
        self._cpu = cpu
        self.period = period
        #: Periods since boot, those included in which the tick was stopped or late.
        self.jiffies = 0
        #: Ticks handled. Each is also counted by the task that it found (`Task.ticks`).
        self.count = 0
        self.stopped = False
        self._last = 0
        self._timer = Hrtimer("tick_sched_timer", self._handler, cpu.hrtimers)

    def start(self) -> None:
        """First tick one period from now."""
        self._last = self._cpu.now()
        self._timer.start(self._last + self.period)

    def stop(self) -> None:
        """tick_nohz_stop_tick: nothing runs here, nobody needs the tick."""
        if self.stopped:
            return
        self.stopped = True
        self._timer.cancel()
        if self._cpu.trace.on:
            self._cpu.trace.emit(TickStop(self._cpu.index, self._cpu.now(), 1))

    def restart(self) -> None:
        """tick_nohz_idle_exit: on again in the same phase; the jiffies of the time without are made up."""
        if self.stopped:
            self.stopped = False
            self._advance(self._last)

    def _advance(self, due: int) -> None:
        """Arm for the next tick of the phase that `due` is in."""
        missed = self._timer.forward(due, self.period) - 1
        self._last = due + missed * self.period
        self.jiffies += missed

    def _handler(self, due: int) -> None:
        """tick_sched_timer's function."""
        self.jiffies += 1
        self.count += 1
        self._cpu.charge_irqoff("tick")
        self._cpu.current.ticks += 1
        self._cpu.task_tick()
        self._advance(due)
