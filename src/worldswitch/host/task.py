"""Tasks without a stack: what runs until it parks at a named point, and the small record from which it goes on.

A task's `body` is kernel code as a function: `run` executes until it must wait, be preempted, or has entered a guest, and says which. Nothing of it
stays on Python's stack
in between, so that the whole host can be saved, copied and continued at any moment.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from worldswitch.host.fair import Entity, weight_of

if TYPE_CHECKING:
    from worldswitch.host.kernel import KernelCpu


class Park(Enum):
    """Where a task has stopped."""

    PREEMPTED = "preempted"
    """Still runnable; somebody else's turn."""
    YIELD = "yield"
    """Still runnable, and gives up the rest of its slice."""
    BLOCKED = "blocked"
    """Waits on a wait queue or timer."""
    GUEST = "guest"
    """The processor is in the task's guest: the silicon runs until a VM exit."""
    USER = "user"
    """Out in user space: `TaskBody.user` decides."""
    EXITED = "exited"
    """Done for good."""


class TaskBody(Protocol):
    """The code of a task."""

    def run(self, cpu: KernelCpu) -> Park:
        """Go on from wherever the task parked last (other than in a guest)."""

    def resume_guest(self, cpu: KernelCpu) -> Park:
        """The guest has exited: go on after the vm-entry instruction, with interrupts as the exit left them."""

    def user(self, cpu: KernelCpu) -> Park:
        """What user space does, after `Park.USER`."""


class PreemptNotifier(Protocol):
    """Told when its task loses and regains the processor (KVM: kvm_sched_out, kvm_sched_in)."""

    def sched_out(self, cpu: KernelCpu) -> None: ...

    def sched_in(self, cpu: KernelCpu) -> None: ...


class TaskState(Enum):
    """Linux's letters."""

    RUNNING = "R"
    INTERRUPTIBLE = "S"
    DEAD = "X"


class Task:
    """One task. `comm` is its name (15 characters shown), `nice` -20..19."""

    def __init__(self, pid: int, comm: str, body: TaskBody, nice: int, slice_cycles: int, cpu_index: int) -> None:
        self.pid = pid
        self.comm = comm[:15]
        self.body = body
        self.nice = nice
        self.cpu_index = cpu_index
        self.se = Entity(pid, weight_of(nice), slice=slice_cycles)
        self.state = TaskState.RUNNING
        self.parked: Park | None = None
        #: TIF_NEED_RESCHED.
        self.need_resched = False
        self.preempt_notifiers: list[PreemptNotifier] = []
        self.nr_switches = 0
        #: Host ticks that found this task on the processor.
        self.ticks = 0

    def __repr__(self) -> str:
        return f"<task {self.comm} pid {self.pid} {self.state.value}>"
