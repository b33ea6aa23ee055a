"""The kernel: its processors, `schedule`, the idle loop, and the loop that moves the whole machine.

This is where the other files meet. An interrupt (`irq`) runs a timer (`hrtimer`), the timer is the tick (`tick`), the tick finds that the
running task's slice is used up (`fair`) and sets need-resched; at its next parking point the task (`task`) gives way, and `schedule` picks
another.

`KernelCpu` is what kernel code on one processor sees; `Kernel.run` always advances the processor that is furthest behind. Same inputs, same
trace, bit for bit.
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
#: ICR bit 14: level assert (SDM vol. 3 §11.6.1).
ICR_ASSERT: Final = 1 << 14


class RunEnd(Enum):
    """Why `Kernel.run` came back."""

    DONE = "done"
    """What was waited for has happened."""
    TIME = "time"
    """The time limit was reached."""
    QUIET = "quiet"
    """Nothing is runnable and no event will ever come."""


class _Idle:
    """The idle task, which every processor has: halts until an interrupt brings something to do."""

    def run(self, cpu: KernelCpu) -> Park:
        return cpu.do_idle()

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
        #: NMIs handled: nobody here sends them on purpose, so the handler only counts.
        self.nmis = 0
        self.idle = Task(0, f"swapper/{self.index}", _Idle(), 0, 1, self.index)
        self.current = self.idle
        #: How far this processor may go in its present turn.
        self.limit = NEVER
        #: It is in HLT, in the idle task or in a guest whose HLT does not exit.
        self.halted = False
        self._exec_start = 0

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

    def spend(self, cycles: int) -> int:
        """Compute for so many cycles, each interrupt taken when it comes (if they are on); ends early when the scheduler wants the processor back or this
        processor's turn is over. Gives the cycles really spent, without those of interrupt handlers."""
        spent = 0
        while spent < cycles and not self.need_resched() and self.now() < self.limit:
            due = self.kernel.board.events.next_time(self.index)
            end = self.limit if due is None else min(self.limit, max(due, self.now() + 1))
            step = min(end - self.now(), cycles - spent)
            self.kernel.board.advance(self.processor, step)
            spent += step
            self.irq.take_pending()
        return spent

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
        """The host's NMI handler, also for an NMI that a VM exit has taken; its IRET ends the blocking of further NMIs (SDM vol. 3 §28.5.5)."""
        self.nmis += 1
        self.charge_irqoff("irq_entry")
        self.processor.state.interruptibility &= ~Interruptibility.BLOCKING_BY_NMI
        self.processor.attend()

    def interrupts_arrive(self) -> None:
        """Something other than IF has let go of them (STGI): take what is pending, if IF is 1."""
        self.irq.take_pending()

    def send_reschedule(self, cpu_index: int) -> None:
        """smp_send_reschedule: an IPI that does nothing but bring another processor into its kernel, out of its guest or HLT."""
        self.processor.msrs.write(x2apic_msr(ApicRegister.ICR_LOW), cpu_index << 32 | ICR_ASSERT | RESCHEDULE_VECTOR)

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
        """Ask the running task to give way at its next parking point (resched_curr)."""
        task = self._owner()
        if not task.need_resched:
            task.need_resched = True
            if self.trace.on:
                self.trace.emit(SchedSetNeedResched(self.index, self.now(), task.comm, task.pid, caller))

    # The scheduler.

    def _owner(self) -> Task:
        """Linux's rq->curr: whose time it is. Differs from `current` only inside a switch."""
        return self.idle if self.rq.curr is None else self.tasks[self.rq.curr.key]

    def update_curr(self) -> None:
        """Account what the running task has used since it was last looked at; if that was its slice and others wait, ask it to give way."""
        delta = self.now() - self._exec_start
        if delta <= 0:
            return
        self._exec_start = self.now()
        task = self._owner()
        if task is self.idle:
            task.se.sum_exec += delta
            return
        if self.trace.on:
            self.trace.emit(SchedStatRuntime(self.index, self.now(), task.comm, task.pid, delta))
        if self.rq.update_curr(delta) and len(self.rq.entities) > 1:
            self.set_need_resched("update_curr")

    def task_tick(self) -> None:
        """The scheduler's part of the tick (task_tick_fair)."""
        self.update_curr()

    def enqueue(self, task: Task, *, new: bool = False) -> None:
        """Make a task compete for this processor. If it should have it at once and this is another processor's doing, an IPI says so."""
        running = self.kernel.cpu_running()
        self.follow(running.now())  # it has halted until now
        self.update_curr()
        self.tasks[task.pid] = task
        task.state = TaskState.RUNNING
        self.rq.enqueue(task.se, new=new)
        if not self._owner().need_resched and self.rq.wakeup_preempts(task.se):
            self.set_need_resched("wake_up_new_task" if new else "check_preempt_wakeup_fair")
            if running is not self:
                running.send_reschedule(self.index)

    def schedule(self) -> None:
        """Give the processor to the task that deserves it most; it may be the same. Called with interrupts on."""
        if self.preempt_count:
            raise SimulationError(f"scheduling while atomic: {self.current!r} with preemption disabled")
        if self.irq.disabled():
            raise SimulationError(f"scheduling with interrupts disabled: {self.current!r} parked as {self.current.parked}")
        self._switch()
        while self.current.need_resched:  # set by what interrupted the end of the switch
            self._switch()

    def _switch(self) -> None:
        """__schedule: interrupts are off from the choice to the moment at which the next task is the current one."""
        prev = self.current
        self.irq.disable("__schedule")
        self.update_curr()
        if prev.parked is Park.YIELD:
            prev.parked = Park.PREEMPTED
            self.rq.yield_curr()
        if prev.state is not TaskState.RUNNING and prev.se.on_rq:
            self.rq.dequeue(prev.se)
        entity = self.rq.pick()
        self.rq.set_curr(entity)
        chosen = self._owner()
        prev.need_resched = False
        if chosen is prev:
            self.irq.enable("__schedule")
            return
        for notifier in tuple(prev.preempt_notifiers):
            notifier.sched_out(self)
        self.charge_irqoff("context_switch")
        if self.trace.on:
            state = "R+" if prev.state is TaskState.RUNNING and prev is not self.idle else prev.state.value
            self.trace.emit(SchedSwitch(self.index, self.now(), prev.comm, prev.pid, state, chosen.comm, chosen.pid))
        self.current = chosen
        chosen.nr_switches += 1
        self.irq.enable("finish_task_switch")
        for notifier in tuple(chosen.preempt_notifiers):
            notifier.sched_in(self)

    # The idle task.

    def do_idle(self) -> Park:
        """One round of the idle loop: stop the tick, halt, and handle what ends the halt.

        Whether there is something to do is asked with interrupts off, and they stay off until the halt is over, which a masked interrupt ends too (SDM vol. 2,
        MWAIT, ECX bit 0): or a wake-up could slip in after the question, and the processor would halt with work to do.
        """
        if not self.halted:
            self.charge("idle_entry")
            self.irq.disable("do_idle")
            if not self.need_resched():
                self.tick.stop()
                self.halted = True
                return Park.IDLE
        elif not self.need_resched() and not self._wait_for_interrupt():
            return Park.IDLE
        self.halted = False
        self.irq.enable("do_idle")
        if not self.need_resched():
            return Park.IDLE
        self.tick.restart()
        return Park.PREEMPTED

    def _wait_for_interrupt(self) -> bool:
        """The processor halts: its clock goes on to the next event, or to its limit. True if an interrupt is pending."""
        return self.kernel.board.idle(self.processor, self.limit)

    def next_time(self) -> int:
        """When something happens here next: now, or, while it halts, at its next event; `NEVER` if none is to come."""
        apic = self.processor.apic
        if not self.halted or self.current.need_resched or apic.pending() or apic.nmi_pending():
            return self.now()
        due = self.kernel.board.events.next_time(self.index)
        return NEVER if due is None else max(due, self.now())

    def follow(self, time: int) -> None:
        """While it halts, its clock goes on with the others', up to what happens here next."""
        self.processor.cycles = max(self.now(), min(time, self.next_time()))

    # The loop.

    def advance(self, limit: int) -> None:
        """Let this processor do its next piece of work. Guests and computations stop when the clock is at `limit`, kernel code at its next parking point."""
        self.limit = limit
        task = self.current
        match task.parked:
            case Park.GUEST:
                park = self._guest(task)
            case Park.USER:
                park = task.body.user(self)
            case _:
                park = task.body.run(self)
        self._park(task, park)

    def _guest(self, task: Task) -> Park:
        """The silicon runs the guest: the entry instruction takes a very long time."""
        if self.halted:
            # Its HLT does not exit: the processor sleeps in the guest.
            if not self._wait_for_interrupt():
                return Park.GUEST
            self.halted = False
        before = self.now()
        stop = self.kernel.board.run_guest_slice(self.processor, self.limit)
        task.guest_cycles += self.now() - before
        if stop is Stop.VM_EXIT:
            return task.body.resume_guest(self)
        if stop is Stop.SHUTDOWN:
            raise SimulationError(f"processor {self.index} shut down in a guest whose triple fault is not intercepted")
        self.halted = stop is Stop.HALTED
        return Park.GUEST

    def _park(self, task: Task, park: Park) -> None:
        """The task has stopped: what that means for the processor."""
        task.parked = park
        if park is Park.GUEST or park is Park.IDLE:
            return
        if park is Park.USER and not self.irq.disabled() and not task.need_resched:
            return
        if park is Park.EXITED:
            task.state = TaskState.DEAD
        self.schedule()
        if task.state is TaskState.DEAD:
            del self.tasks[task.pid]


class Kernel:
    """The host kernel on a board. Implements `kvm.host.HostKernel`.

    `hz`: ticks a second. `base_slice_us`: what a task runs for at a time, microseconds of virtual time. ConfigurationError if the machine is too slow for `hz`.
    """

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
        self.running = self.cpus[0]

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
        running = self.cpu_running()
        running.charge_irqoff("wake_up")
        if self.trace.on:
            self.trace.emit(SchedWakeup(running.index, running.now(), task.comm, task.pid, task.cpu_index))
        if task.se.on_rq:
            task.state = TaskState.RUNNING  # it had not left yet
        else:
            self.cpus[task.cpu_index].enqueue(task)

    # The machine loop.

    def run(self, until: Callable[[], bool] | None = None, *, max_time: int | None = None) -> RunEnd:
        """Advance the machine until `until()` holds, or every processor's clock has reached `max_time`, or nothing can happen any more.

        `until` is asked between two pieces of work of any processor. May be called again, whatever it gave.
        """
        stop = self._run(until, NEVER if max_time is None else max_time)
        latest = max(cpu.now() for cpu in self.cpus)
        for cpu in self.cpus:
            cpu.follow(latest)
        return stop

    def _run(self, until: Callable[[], bool] | None, end: int) -> RunEnd:
        while True:
            if until is not None and until():
                return RunEnd.DONE
            # Who halts is where its next event is: what another processor may send it meanwhile arrives as an event, too.
            times = [cpu.next_time() for cpu in self.cpus]
            first = min(times)
            if first >= NEVER:
                return RunEnd.QUIET
            if first >= end:
                for cpu in self.cpus:
                    cpu.follow(end)
                return RunEnd.TIME
            index = times.index(first)
            cpu = self.running = self.cpus[index]
            halted_at = cpu.now() if cpu.halted else -1
            cpu.advance(min([end, *(time + _LOOKAHEAD for time in times[:index] + times[index + 1 :])]))
            if cpu.halted and cpu.now() == halted_at:
                return RunEnd.QUIET  # halted for good: what is pending is masked, and nothing else is to come


def _timer_interrupt(cpu: KernelCpu) -> None:
    """sysvec_apic_timer_interrupt."""
    cpu.charge_irqoff("timer_handler")
    cpu.hrtimers.interrupt()


def _reschedule_interrupt(cpu: KernelCpu) -> None:
    """sysvec_reschedule_ipi: need_resched is set already; the interrupt only brought the processor here."""
    cpu.charge_irqoff("reschedule_handler")
