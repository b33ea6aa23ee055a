"""The kernel: its processors, its scheduler loop, and the loop that moves the whole machine.

`KernelCpu` is what kernel code on one processor sees; `Kernel.run` always advances the processor that is furthest behind. Same inputs, same trace, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from worldswitch.arch.apic import ApicRegister, TimerMode, x2apic_msr
from worldswitch.arch.msr import ApicBase, FeatureControl, Msr
from worldswitch.arch.registers import Cr0, Cr4, Efer, Rflags
from worldswitch.arch.segments import AR_UNUSABLE
from worldswitch.arch.vmx import Interruptibility
from worldswitch.board import Board
from worldswitch.cpu.processor import NEVER, Processor, Stop
from worldswitch.errors import ConfigurationError, SimulationError
from worldswitch.host.costs import Costs
from worldswitch.host.fair import FairQueue
from worldswitch.host.hrtimer import Hrtimer, HrtimerBase
from worldswitch.host.irq import LOCAL_TIMER_VECTOR, RESCHEDULE_VECTOR, SPURIOUS_VECTOR, Handler, Irq
from worldswitch.host.mm import PageAllocator
from worldswitch.host.task import Park, Task, TaskBody, TaskState
from worldswitch.host.tick import Tick
from worldswitch.host.wait import WaitQueue
from worldswitch.trace import Recorder
from worldswitch.trace.events import SchedSetNeedResched, SchedStatRuntime, SchedSwitch, SchedWakeup

#: The kernel's segments: __KERNEL_CS, __KERNEL_DS, the TSS.
KERNEL_CS: Final = 0x10
KERNEL_DS: Final = 0x18
KERNEL_TSS: Final = 0x40
#: Where the kernel's (symbolic) code and tables are: canonical addresses in the upper half, as on Linux.
KERNEL_TEXT: Final = 0xFFFFFFFF81000000
KERNEL_IDT: Final = 0xFFFFFE0000000000
KERNEL_GDT: Final = 0xFFFFFE0000001000
KERNEL_TSS_BASE: Final = 0xFFFFFE0000003000
KERNEL_STACK: Final = 0xFFFFC90000010000
#: Physical address of the kernel's top page table (no one walks it: kernel code is Python).
KERNEL_PGD: Final = 0x1000
_FIRST_PAGE: Final = 0x10000
#: How far one processor may run ahead of the others, in cycles.
_LOOKAHEAD: Final = 1000


class RunEnd(Enum):
    """Why `Kernel.run` came back."""

    DONE = "done"
    """What was waited for has happened."""
    TIME = "time"
    """The time limit was reached."""
    QUIET = "quiet"
    """Nothing is runnable and no event will ever come."""


class _Idle:
    """The idle task: halts until an interrupt."""

    def run(self, cpu: KernelCpu) -> Park:
        return cpu.idle_loop()

    def resume_guest(self, cpu: KernelCpu) -> Park:
        raise SimulationError("the idle task has no guest")

    def user(self, cpu: KernelCpu) -> Park:
        raise SimulationError("the idle task has no user space")


class KernelCpu:
    """One processor, as kernel code on it sees it. Implements `kvm.host.HostCpu`."""

    def __init__(self, kernel: Kernel, processor: Processor) -> None:
        self.kernel = kernel
        self.processor = processor
        self.index = processor.index
        self.trace = kernel.trace
        self.irq = Irq(self, kernel.handlers)
        self.hrtimers = HrtimerBase(self)
        self.tick = Tick(self, kernel.tick_period)
        self.rq = FairQueue()
        self.tasks: dict[int, Task] = {}
        self.preempt_count = 0
        self.nmis = 0
        self.idle = Task(0, f"swapper/{self.index}", _Idle(), 0, 1, self.index)
        self.current = self.idle
        self.limit = NEVER
        self._exec_start = 0
        self.quiet = False

    # Boot.

    def boot(self) -> None:
        """Long mode, the kernel's segments and tables, the local APIC in x2APIC mode with its timer in TSC-deadline mode, interrupts on, the tick running."""
        s, p = self.processor.state, self.processor
        s.cr0 = int(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG)
        s.cr4 = int(Cr4.PAE | Cr4.PGE | Cr4.PSE | Cr4.DE)
        s.cr3 = KERNEL_PGD
        s.efer = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)
        s.cs.set(KERNEL_CS, 0, 0xFFFFFFFF, 0xA09B)
        for segment in (s.ss, s.ds, s.es):
            segment.set(KERNEL_DS, 0, 0xFFFFFFFF, 0xC093)
        for segment in (s.fs, s.gs):
            segment.set(0, 0, 0, AR_UNUSABLE)
        s.gs.base = 0xFFFF888000000000 + (self.index << 20)
        s.ldtr.set(0, 0, 0, AR_UNUSABLE)
        s.tr.set(KERNEL_TSS, KERNEL_TSS_BASE, 0x67, 0x8B)
        s.gdtr_base, s.gdtr_limit, s.idtr_base, s.idtr_limit = KERNEL_GDT, 0x7F, KERNEL_IDT, 0xFFF
        s.rip, s.rsp, s.rflags = KERNEL_TEXT, KERNEL_STACK, int(Rflags.FIXED)
        p.context_changed()
        if p.model.vendor == "intel":
            p.msrs.write(Msr.IA32_FEATURE_CONTROL, int(FeatureControl.LOCKED | FeatureControl.VMX_OUTSIDE_SMX))  # the firmware's part
        base = p.msrs.read(Msr.IA32_APIC_BASE)
        p.msrs.write(Msr.IA32_APIC_BASE, base | ApicBase.EN | ApicBase.EXTD)
        p.msrs.write(x2apic_msr(ApicRegister.SVR), 0x100 | SPURIOUS_VECTOR)
        p.msrs.write(x2apic_msr(ApicRegister.LVT_TIMER), LOCAL_TIMER_VECTOR | TimerMode.TSC_DEADLINE << 17)
        self._exec_start = self.now()
        self.rq.set_curr(None)
        self.tick.start()
        self.irq.enable("start_secondary" if self.index else "start_kernel")

    # What kernel code uses.

    def now(self) -> int:
        """This processor's clock, in cycles."""
        return self.processor.cycles

    def charge(self, what: str) -> None:
        """Spend the time of a piece of work; an interrupt that comes meanwhile is taken if interrupts are on."""
        self.charge_irqoff(what)
        self.irq.take_pending()

    def charge_irqoff(self, what: str) -> None:
        """Spend time with interrupts off (or inside a handler)."""
        self.kernel.board.advance(self.processor, self.kernel.costs.of(what))

    def local_irq_disable(self, caller: str) -> None:
        """Interrupts off."""
        self.irq.disable(caller)

    def local_irq_enable(self, caller: str) -> None:
        """Interrupts on; what is pending is handled before this returns."""
        self.irq.enable(caller)

    def handle_external_interrupt_irqoff(self, vector: int) -> None:
        """The handler of an interrupt that a VM exit has acknowledged already."""
        self.irq.dispatch(vector)

    def handle_nmi_irqoff(self) -> None:
        """The host's NMI handler, for an NMI that a VM exit has taken; its IRET ends the blocking of further NMIs (SDM vol. 3 §28.5.5)."""
        self.nmis += 1
        self.charge_irqoff("irq_entry")
        self.processor.state.interruptibility &= ~Interruptibility.BLOCKING_BY_NMI
        self.processor.attend()

    def send_reschedule(self, cpu_index: int) -> None:
        """smp_send_reschedule: an IPI that does nothing but bring another processor out of its guest or idle."""
        self.processor.msrs.write(x2apic_msr(ApicRegister.ICR_LOW), cpu_index << 32 | RESCHEDULE_VECTOR | 1 << 14)

    def preempt_disable(self) -> None:
        """No scheduling until the matching enable."""
        self.preempt_count += 1

    def preempt_enable(self) -> None:
        """The counterpart. Code that may be preempted asks `need_resched` at its next parking point."""
        if not self.preempt_count:
            raise SimulationError("preempt_enable without preempt_disable")
        self.preempt_count -= 1

    def need_resched(self) -> bool:
        """TIF_NEED_RESCHED of the running task."""
        return self.current.need_resched

    def set_need_resched(self, caller: str) -> None:
        """Ask the running task to give way at its next parking point."""
        if not self.current.need_resched:
            self.current.need_resched = True
            if self.trace.on:
                self.trace.emit(SchedSetNeedResched(self.index, self.now(), self.current.comm, self.current.pid, caller))

    # The scheduler.

    def update_curr(self) -> bool:
        """Account what the running task has used since it was last looked at. True if its slice is used up."""
        delta = self.now() - self._exec_start
        if delta <= 0:
            return False
        self._exec_start = self.now()
        if self.current is self.idle:
            self.idle.se.sum_exec += delta
            return False
        if self.trace.on:
            self.trace.emit(SchedStatRuntime(self.index, self.now(), self.current.comm, self.current.pid, delta))
        return self.rq.update_curr(delta)

    def task_tick(self) -> None:
        """The scheduler's part of the tick (task_tick_fair)."""
        if self.update_curr() and len(self.rq.entities) > 1:
            self.set_need_resched("update_curr")
        elif self.current is self.idle and self.rq.entities:
            self.set_need_resched("task_tick_idle")

    def enqueue(self, task: Task, *, new: bool = False) -> None:
        """Make a task compete for this processor."""
        self.update_curr()
        self.tasks[task.pid] = task
        task.state = TaskState.RUNNING
        self.rq.enqueue(task.se, new=new)
        if self.current is self.idle or self.rq.wakeup_preempts(task.se):
            self.set_need_resched("check_preempt_wakeup_fair" if not new else "wake_up_new_task")

    def schedule(self) -> None:
        """Give the processor to the task that deserves it most; it may be the same."""
        prev = self.current
        if self.preempt_count:
            raise SimulationError(f"scheduling while atomic: {prev!r} with preemption disabled")
        self.update_curr()
        if prev.parked is Park.YIELD:
            self.rq.yield_curr()
        if prev is not self.idle and prev.state is not TaskState.RUNNING and prev.se.on_rq:
            self.rq.dequeue(prev.se)
        entity = self.rq.pick()
        chosen = self.idle if entity is None else self.tasks[entity.key]
        prev.need_resched = False
        if chosen is prev:
            self.rq.set_curr(entity)
            return
        for notifier in prev.preempt_notifiers:
            notifier.sched_out(self)
        self.charge_irqoff("context_switch")
        self.update_curr()
        if self.trace.on:
            state = prev.state.value if prev.state is not TaskState.RUNNING else "R+" if prev is not self.idle else "R"
            self.trace.emit(SchedSwitch(self.index, self.now(), prev.comm, prev.pid, state, chosen.comm, chosen.pid))
        self.current = chosen
        chosen.nr_switches += 1
        self._exec_start = self.now()
        self.rq.set_curr(entity)
        if prev is self.idle:
            self.tick.restart()
        for notifier in chosen.preempt_notifiers:
            notifier.sched_in(self)

    def idle_loop(self) -> Park:
        """cpu_idle: stop the tick, halt with interrupts atomically enabled, handle what woke us."""
        if self.current.need_resched or self.rq.entities:
            return Park.PREEMPTED
        self.charge("idle_entry")
        self.tick.stop()
        self.irq.disable("do_idle")
        self.quiet = False
        if not self.kernel.board.idle(self.processor, self.limit):
            self.quiet = self.kernel.board.events.next_time() is None
            self.irq.enable("do_idle")
            return Park.PREEMPTED if self.rq.entities else Park.YIELD
        self.irq.enable("do_idle")
        return Park.PREEMPTED

    # The loop.

    def advance(self, limit: int) -> None:
        """Let this processor do its next piece of work, up to about `limit` cycles."""
        self.limit = limit
        task = self.current
        match task.parked:
            case Park.GUEST:
                park = self._guest(task, limit)
                if park is None:
                    return
            case Park.USER:
                park = task.body.user(self)
            case _:
                park = task.body.run(self)
        self._park(task, park)

    def _guest(self, task: Task, limit: int) -> Park | None:
        stop = self.kernel.board.run_guest_slice(self.processor, limit)
        if stop is Stop.VM_EXIT:
            return task.body.resume_guest(self)
        if stop is Stop.HALTED:
            # The guest's HLT does not exit: the processor sleeps in the guest.
            if not self.kernel.board.idle(self.processor, limit):
                self.quiet = self.kernel.board.events.next_time() is None
            return None
        if stop is Stop.SHUTDOWN:
            raise SimulationError(f"processor {self.index} shut down in a guest whose triple fault is not intercepted")
        return None

    def _park(self, task: Task, park: Park) -> None:
        task.parked = park
        match park:
            case Park.GUEST | Park.USER:
                return
            case Park.EXITED:
                task.state = TaskState.DEAD
        self.irq.take_pending()
        self.schedule()
        if task.state is TaskState.DEAD:
            self.tasks.pop(task.pid, None)


class Kernel:
    """The host kernel on a board. `hz`: ticks a second; `base_slice_us`: what a task runs for at a time, microseconds of virtual time. Implements
    `kvm.host.HostKernel`."""

    def __init__(self, board: Board, *, hz: int = 250, base_slice_us: int = 3000, costs: Costs | None = None) -> None:
        if not 10 <= hz <= 10_000 or board.frequency_hz // hz < 1000:
            raise ConfigurationError("hz", hz, "from 10 to 10000, with at least 1000 cycles between ticks")
        if not 1 <= base_slice_us <= 10_000_000:
            raise ConfigurationError("base_slice_us", base_slice_us, "from 1 to 10000000 microseconds")
        self.board = board
        self.trace: Recorder = board.trace
        self.memory = board.memory
        self.hz = hz
        self.tick_period = board.frequency_hz // hz
        self.slice_cycles = max(1, board.frequency_hz * base_slice_us // 1_000_000)
        self.costs = costs if costs is not None else Costs()
        self.handlers: dict[int, Handler] = {}
        self.pages = PageAllocator(board.memory, _FIRST_PAGE, board.memory_bytes)
        self._pid = 100
        self.running: KernelCpu | None = None
        self.register(LOCAL_TIMER_VECTOR, _timer_interrupt)
        self.register(RESCHEDULE_VECTOR, _reschedule_interrupt)
        self.cpus = [KernelCpu(self, processor) for processor in board.processors]
        for cpu in self.cpus:
            self.running = cpu
            cpu.boot()

    # Services (see `kvm.host`).

    @property
    def vendor(self) -> str:
        """ "intel" or "amd"."""
        return self.board.model.vendor

    @property
    def frequency_hz(self) -> int:
        """Cycles a second, of clocks and TSC alike."""
        return self.board.frequency_hz

    def register(self, vector: int, handler: Handler) -> None:
        """Put a handler into the host's IDT. ConfigurationError for a vector that is taken or architectural."""
        if vector in self.handlers or not 32 <= vector <= 255:
            raise ConfigurationError("vector", vector, "a free one from 32 to 255")
        self.handlers[vector] = handler

    def now(self) -> int:
        """The clock of the processor that is running."""
        return self.cpu_running().now()

    def cpu_running(self) -> KernelCpu:
        """The processor whose code is executing."""
        return self.running if self.running is not None else self.cpus[0]

    @contextmanager
    def executing_on(self, index: int) -> Iterator[None]:
        """What is done inside happens on that processor: a system call of somebody who runs there."""
        before, self.running = self.running, self.cpus[index]
        try:
            yield
        finally:
            self.running = before

    def hrtimer(self, name: str, function: Callable[[int], None]) -> Hrtimer:
        """A timer on the running processor."""
        return Hrtimer(name, function, self.cpu_running().hrtimers)

    def wait_queue(self) -> WaitQueue:
        """A new wait queue."""
        return WaitQueue(self)

    def alloc_page(self) -> int:
        """A zeroed page of RAM."""
        return self.pages.alloc_page()

    def alloc_pages(self, count: int) -> int:
        """Contiguous zeroed pages."""
        return self.pages.alloc_pages(count)

    def free_page(self, address: int) -> None:
        """Give a page back."""
        self.pages.free_page(address)

    def map_user(self, buffer: bytearray | memoryview) -> int:
        """Pin user memory; its physical address."""
        return self.pages.map_user(buffer)

    def unmap_user(self, address: int) -> None:
        """Unpin it."""
        self.pages.unmap_user(address)

    # Tasks.

    def spawn(self, comm: str, body: TaskBody, *, nice: int = 0, cpu: int = 0) -> Task:
        """A new runnable task on processor `cpu`."""
        if not 0 <= cpu < len(self.cpus):
            raise ConfigurationError("cpu", cpu, f"from 0 to {len(self.cpus) - 1}")
        task = Task(self._pid, comm, body, nice, self.slice_cycles, cpu)
        self._pid += 1
        self.cpus[cpu].enqueue(task, new=True)
        return task

    def wake_up_task(self, task: Task) -> None:
        """try_to_wake_up."""
        if task.state is not TaskState.INTERRUPTIBLE:
            return
        cpu = self.cpus[task.cpu_index]
        running = self.cpu_running()
        running.charge_irqoff("wake_up")
        if self.trace.on:
            self.trace.emit(SchedWakeup(running.index, running.now(), task.comm, task.pid, cpu.index))
        if task.se.on_rq:  # it had not left yet
            task.state = TaskState.RUNNING
            return
        cpu.enqueue(task)
        if cpu is not running and cpu.current.need_resched:
            running.send_reschedule(cpu.index)

    # The machine loop.

    def run(self, until: Callable[[], bool] | None = None, *, max_time: int | None = None) -> RunEnd:
        """Advance the machine until `until()` holds, or every processor's clock has reached `max_time`, or nothing can happen any more."""
        end = NEVER if max_time is None else max_time
        while True:
            if until is not None and until():
                return RunEnd.DONE
            cpu = min(self.cpus, key=lambda c: (c.processor.cycles, c.index))
            if cpu.now() >= end:
                return RunEnd.TIME
            others = [c.now() for c in self.cpus if c is not cpu]
            limit = min(end, min(others) + _LOOKAHEAD) if others else end
            self.running = cpu
            cpu.quiet = False
            cpu.advance(limit)
            if all(c.quiet for c in self.cpus):
                return RunEnd.QUIET


def _timer_interrupt(cpu: KernelCpu) -> None:
    """sysvec_apic_timer_interrupt."""
    cpu.charge_irqoff("timer_handler")
    cpu.hrtimers.interrupt()


def _reschedule_interrupt(cpu: KernelCpu) -> None:
    """sysvec_reschedule_ipi: need_resched is set already; the interrupt only brought the processor here."""
    cpu.charge_irqoff("reschedule_handler")
