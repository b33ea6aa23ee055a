"""Wait queues: where a task says that it waits, so that whoever makes its condition true can wake it up.

The order matters as in any kernel: first `prepare_to_wait`, then look at the condition, then park. A wake-up in between is not lost,
because it makes the task runnable again; a task that looks first and says so afterwards may sleep for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.host.task import Task, TaskState

if TYPE_CHECKING:
    from worldswitch.host.kernel import Kernel


class WaitQueue:
    """Tasks that wait for one thing, in the order in which they came."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiters: list[Task] = []

    def prepare_to_wait(self, task: Task) -> None:
        """The task is about to sleep here."""
        if task not in self._waiters:
            self._waiters.append(task)
        task.state = TaskState.INTERRUPTIBLE

    def finish_wait(self, task: Task) -> None:
        """The task does not wait (any more)."""
        if task in self._waiters:
            self._waiters.remove(task)
        task.state = TaskState.RUNNING

    def wake_up(self) -> bool:
        """Wake everything that waits; True if anything did."""
        waiters, self._waiters = self._waiters, []
        for task in waiters:
            self._kernel.wake_up_task(task)
        return bool(waiters)
