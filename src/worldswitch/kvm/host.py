"""The narrow protocol through which KVM sees its host kernel: interrupt flag, pending work, timers, kicks, parking, time, memory.

`worldswitch.host` is one host that offers it; nothing in `kvm` may rely on more than what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from worldswitch.board import PhysicalMemory
from worldswitch.cpu.processor import Processor
from worldswitch.host.kernel import RunEnd
from worldswitch.host.task import PreemptNotifier, Task, TaskBody
from worldswitch.host.wait import WaitQueue
from worldswitch.trace import Recorder


class HostTimer(Protocol):
    """A high-resolution timer."""

    def start(self, expires: int) -> None:
        """Arm (or re-arm) for this time, in cycles of the host's clock."""

    def cancel(self) -> None:
        """Disarm; harmless if not armed."""


class HostCpu(Protocol):
    """The processor that the calling kernel thread runs on."""

    @property
    def processor(self) -> Processor:
        """Its silicon: VMX and SVM instructions, MSRs, registers."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def trace(self) -> Recorder:
        """Where tracepoints go."""

    @property
    def current(self) -> Task:
        """The running thread."""

    def local_irq_disable(self, caller: str) -> None:
        """Interrupts off."""

    def local_irq_enable(self, caller: str) -> None:
        """Interrupts on; what is pending is handled before this returns."""

    def handle_external_interrupt_irqoff(self, vector: int) -> None:
        """Call the handler of an interrupt that is already acknowledged, with interrupts off."""

    def handle_nmi_irqoff(self) -> None:
        """Call the handler of an NMI that an exit has taken."""

    def preempt_disable(self) -> None:
        """No scheduling until the matching enable."""

    def preempt_enable(self) -> None:
        """The counterpart."""

    def need_resched(self) -> bool:
        """The scheduler wants this processor back."""

    def charge(self, what: str) -> None:
        """Spend the time that a piece of host work takes."""

    def charge_irqoff(self, what: str) -> None:
        """... with interrupts off."""

    def now(self) -> int:
        """This processor's clock, in cycles."""

    def send_reschedule(self, cpu_index: int) -> None:
        """Bring another processor out of its guest."""


class HostKernel(Protocol):
    """The host kernel as a whole."""

    @property
    def trace(self) -> Recorder:
        """Where tracepoints go."""

    @property
    def memory(self) -> PhysicalMemory:
        """Physical memory, for page tables, VMCSs and VMCBs."""

    @property
    def vendor(self) -> str:
        """ "intel" or "amd"."""

    @property
    def frequency_hz(self) -> int:
        """Cycles a second, of clocks and TSC alike."""

    @property
    def cpus(self) -> Sequence[HostCpu]:
        """All processors."""

    def cpu_running(self) -> HostCpu:
        """The processor whose code is executing."""

    def executing_on(self, index: int) -> AbstractContextManager[None]:
        """What is done inside happens on that processor."""

    def now(self) -> int:
        """The clock of the processor that is running."""

    def alloc_page(self) -> int:
        """A zeroed page of physical memory; its address."""

    def alloc_pages(self, count: int) -> int:
        """Contiguous zeroed pages."""

    def free_page(self, address: int) -> None:
        """Give a page back."""

    def map_user(self, buffer: bytearray | memoryview) -> int:
        """Pin user memory; the physical address of its first byte, page-aligned and contiguous."""

    def unmap_user(self, address: int) -> None:
        """Unpin it."""

    def hrtimer(self, name: str, function: Callable[[int], None]) -> HostTimer:
        """A timer whose function is called with the time at which it was due."""

    def wait_queue(self) -> WaitQueue:
        """A new wait queue."""

    def spawn(self, comm: str, body: TaskBody, *, nice: int = 0, cpu: int = 0) -> Task:
        """A new thread."""

    def run(self, until: Callable[[], bool] | None = None, *, max_time: int | None = None) -> RunEnd:
        """Let time pass until something holds (a caller of KVM_RUN waits)."""


__all__ = ["HostCpu", "HostKernel", "HostTimer", "PreemptNotifier", "Task", "TaskBody", "WaitQueue"]
