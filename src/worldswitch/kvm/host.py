"""The narrow protocol through which KVM sees its host kernel: interrupt flag, pending work, timers, kicks, parking, time, memory.

`worldswitch.host` is one host that offers it; nothing in `kvm` may rely on more than what stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from worldswitch.cpu.bus import Bus
from worldswitch.cpu.processor import Processor
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

    def local_irq_disable(self, caller: str) -> None: ...

    def local_irq_enable(self, caller: str) -> None:
        """Interrupts on; what is pending is handled before this returns."""

    def handle_external_interrupt_irqoff(self, vector: int) -> None:
        """Call the handler of an interrupt that is already acknowledged, with interrupts off."""

    def preempt_disable(self) -> None: ...

    def preempt_enable(self) -> None: ...

    def need_resched(self) -> bool:
        """The scheduler wants this processor back."""

    def charge(self, what: str) -> None:
        """Spend the time that a piece of host work takes."""

    def now(self) -> int:
        """This processor's clock, in cycles."""


class WaitQueue(Protocol):
    """Where a blocked vCPU thread waits."""

    def wake_up(self) -> bool:
        """Make what waits runnable; True if anything did."""


class HostKernel(Protocol):
    """The host kernel as a whole."""

    @property
    def trace(self) -> Recorder: ...

    @property
    def memory(self) -> Bus:
        """Physical memory, for page tables, VMCSs and VMCBs."""

    @property
    def vendor(self) -> str:
        """"intel" or "amd"."""

    @property
    def frequency_hz(self) -> int:
        """TSC frequency, cycles a second."""

    def alloc_page(self) -> int:
        """A zeroed page of physical memory; its address."""

    def free_page(self, address: int) -> None: ...

    def map_user(self, buffer: bytearray | memoryview) -> int:
        """Pin user memory; the physical address of its first byte, page-aligned and contiguous."""

    def unmap_user(self, address: int) -> None: ...

    def hrtimer(self, name: str, function: Callable[[int], None]) -> HostTimer:
        """A timer whose function is called with the time at which it was due."""

    def now(self) -> int:
        """The clock of the processor that is running."""
