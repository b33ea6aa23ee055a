"""Tasks without a stack: what runs until it parks at a named point, and the small record from which it goes on.

A kernel thread usually keeps its place on a stack of its own. Here its `body` is kernel code as a function: `run` executes until it must
wait, be preempted, or has entered a guest, and says which. Nothing of it stays on Python's stack in between, so that the whole host can be
saved, copied and continued at any moment. A task parks with interrupts on; the exceptions are the guest, which is entered with them off,
and the idle task's halt.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from worldswitch.errors import ConfigurationError, SimulationError
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
    """Out in user space: `TaskBody.user` decides. If the scheduler wants the processor, another task comes first, as on every way out of the kernel."""
    EXITED = "exited"
    """Done for good."""
    IDLE = "idle"
    """The idle task waits for an interrupt; no other task parks here."""


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
        #: How often it got the processor.
        self.nr_switches = 0
        #: Cycles spent in its guest.
        self.guest_cycles = 0
        #: Host ticks that found this task on the processor.
        self.ticks = 0

    @property
    def sum_exec_runtime(self) -> int:
        """Cycles it has had the processor, as of the last time its run time was accounted (tick, wake-up, switch)."""
        return self.se.sum_exec

    def __repr__(self) -> str:
        return f"<task {self.comm} pid {self.pid} {self.state.value}>"


class Computation:
    """A user program that computes: `cycles` of it, or without end. It makes no system call; only interrupts bring the kernel back."""

    def __init__(self, cycles: int | None = None) -> None:
        if cycles is not None and cycles < 1:
            raise ConfigurationError("cycles", cycles, "at least 1, or None")
        self.cycles = cycles
        #: Cycles computed so far.
        self.done = 0

    def run(self, cpu: KernelCpu) -> Park:
        """Nothing to do in the kernel."""
        return Park.USER

    def resume_guest(self, cpu: KernelCpu) -> Park:
        """Never called."""
        raise SimulationError("a computation has no guest")

    def user(self, cpu: KernelCpu) -> Park:
        """Compute until somebody else wants the processor; a tick's length at a time, so that the machine's loop can look in between."""
        piece = cpu.tick.period
        self.done += cpu.spend(piece if self.cycles is None else min(piece, self.cycles - self.done))
        return Park.EXITED if self.done == self.cycles else Park.USER
