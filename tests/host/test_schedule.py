"""Tasks without a stack: who runs when, what the notifiers see, who is woken, and how the machine's loop ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from worldswitch.arch.vmx import ActivityState
from worldswitch.board import Board
from worldswitch.cpu.processor import Processor, Stop
from worldswitch.errors import ConfigurationError, SimulationError
from worldswitch.host import Computation, Kernel, KernelCpu, Park, RunEnd, Task, TaskState, WaitQueue
from worldswitch.trace.events import (
    IrqDisable,
    LocalTimerEntry,
    LocalTimerExit,
    RescheduleEntry,
    SchedSetNeedResched,
    SchedStatRuntime,
    SchedSwitch,
    SchedWakeup,
)  # fmt: skip

TICK = 4000
Boot = Callable[..., Kernel]
Step = Callable[[KernelCpu], Park]


class Script:
    """A body that does one step after the other, then exits. `log` gets "run" or "user" for each."""

    def __init__(self, *steps: Step) -> None:
        self.steps = deque(steps)
        self.log: list[tuple[str, int]] = []

    def _next(self, how: str, cpu: KernelCpu) -> Park:
        self.log.append((how, cpu.now()))
        return self.steps.popleft()(cpu) if self.steps else Park.EXITED

    def run(self, cpu: KernelCpu) -> Park:
        return self._next("run", cpu)

    def resume_guest(self, cpu: KernelCpu) -> Park:
        return self._next("guest", cpu)

    def user(self, cpu: KernelCpu) -> Park:
        return self._next("user", cpu)


def alarm(kernel: Kernel, at: int, queue: WaitQueue) -> None:
    """Wake everything on the queue at this time."""

    def rings(due: int) -> None:
        queue.wake_up()

    kernel.hrtimer("alarm", rings).start(at)


def spends(cycles: int, park: Park) -> Step:
    def step(cpu: KernelCpu) -> Park:
        cpu.spend(cycles)
        return park

    return step


def parks(park: Park) -> Step:
    return lambda cpu: park


def sleeps_on(queue: WaitQueue) -> Step:
    def step(cpu: KernelCpu) -> Park:
        queue.prepare_to_wait(cpu.current)
        return Park.BLOCKED

    return step


def does(action: Callable[[], object], park: Park = Park.PREEMPTED) -> Step:
    def step(cpu: KernelCpu) -> Park:
        action()
        return park

    return step


def switches(kernel: Kernel) -> list[tuple[str, str, str]]:
    return [(e.prev_comm, e.prev_state, e.next_comm) for e in kernel.trace.of(SchedSwitch)]


# Sharing one processor.


def test_two_busy_tasks_alternate_at_the_tick(boot: Boot) -> None:
    kernel = boot()
    kernel.spawn("a", Computation(None))
    kernel.spawn("b", Computation(None))
    kernel.run(max_time=20 * TICK)
    found = list(kernel.trace.of(SchedSwitch))
    assert [e.next_comm for e in found][:6] == ["a", "b", "a", "b", "a", "b"]
    handlers = [e.time for e in kernel.trace.of(LocalTimerExit)]
    for switch in found[1:]:
        assert switch.prev_state == "R+"
        assert any(0 <= switch.time - at <= 1000 for at in handlers), "what switches is the timer's handler, at once after it"


@pytest.mark.parametrize(("nice_a", "nice_b"), [(0, 0), (0, 5), (-5, 5), (10, -10)])
def test_shares_follow_weights(boot: Boot, nice_a: int, nice_b: int) -> None:
    kernel = boot()
    a, b = kernel.spawn("a", Computation(None), nice=nice_a), kernel.spawn("b", Computation(None), nice=nice_b)
    kernel.run(max_time=500 * TICK)
    kernel.cpus[0].update_curr()
    total = a.sum_exec_runtime + b.sum_exec_runtime
    share = total * a.se.weight // (a.se.weight + b.se.weight)
    assert abs(a.sum_exec_runtime - share) <= 2 * TICK


def test_all_time_is_somebodys(boot: Boot) -> None:
    """Run time as traced, as kept, and as the clock says is the same."""
    kernel = boot()
    queue = kernel.wait_queue()
    alarm(kernel, 30_500, queue)
    kernel.spawn("sleeper", Script(sleeps_on(queue), parks(Park.YIELD), parks(Park.USER)))
    kernel.spawn("busy", Computation(60_000))
    tasks = dict(kernel.cpus[0].tasks)
    kernel.run()
    kernel.cpus[0].update_curr()
    for task in tasks.values():
        assert task.sum_exec_runtime == sum(e.runtime for e in kernel.trace.of(SchedStatRuntime) if e.pid == task.pid) > 0
    assert sum(t.sum_exec_runtime for t in tasks.values()) + kernel.cpus[0].idle.sum_exec_runtime == kernel.now()


def test_a_lone_task_is_not_disturbed(boot: Boot) -> None:
    kernel = boot()
    program = Computation(50 * TICK)
    task = kernel.spawn("a", program)
    kernel.run()
    assert switches(kernel) == [("swapper/0", "R", "a"), ("a", "X", "swapper/0")]
    assert task.state is TaskState.DEAD
    assert task.pid not in kernel.cpus[0].tasks
    assert task.nr_switches == 1


def test_yield_lets_the_other_go_first(boot: Boot) -> None:
    kernel = boot()
    kernel.spawn("a", Script(parks(Park.YIELD)))
    kernel.spawn("b", Script())
    kernel.run()
    assert switches(kernel) == [("swapper/0", "R", "a"), ("a", "R+", "b"), ("b", "X", "a"), ("a", "X", "swapper/0")]


def test_the_way_out_to_user_space_asks_the_scheduler(boot: Boot) -> None:
    """Returns to user space with need-resched set: another task comes first, then user space, not the kernel again."""
    kernel = boot()
    body = Script(spends(2 * TICK, Park.USER), parks(Park.USER))
    kernel.spawn("a", body)
    kernel.spawn("b", Computation(100))
    kernel.run()
    assert [how for how, _ in body.log] == ["run", "user", "user"]
    assert [new for _, _, new in switches(kernel)] == ["a", "b", "a", "swapper/0"]


def test_pids_are_given_in_order(boot: Boot) -> None:
    kernel = boot()
    tasks = [kernel.spawn(f"a-very-long-name-{i}", Script()) for i in range(3)]
    assert [t.pid for t in tasks] == [100, 101, 102]
    assert tasks[0].comm == "a-very-long-nam"
    assert kernel.cpus[0].idle.pid == 0


# Sleeping and waking.


def test_a_sleeper_leaves_and_comes_back(boot: Boot) -> None:
    kernel = boot()
    queue = kernel.wait_queue()
    task = kernel.spawn("sleeper", Script(sleeps_on(queue)))
    assert kernel.run() is RunEnd.QUIET
    assert task.state is TaskState.INTERRUPTIBLE
    alarm(kernel, 50_000, queue)
    assert kernel.run() is RunEnd.QUIET
    assert switches(kernel) == [
        ("swapper/0", "R", "sleeper"),
        ("sleeper", "S", "swapper/0"),
        ("swapper/0", "R", "sleeper"),
        ("sleeper", "X", "swapper/0"),
    ]
    assert [(e.comm, e.target_cpu) for e in kernel.trace.of(SchedWakeup)] == [("sleeper", 0)]


def test_a_wake_up_between_prepare_and_park_is_not_lost(boot: Boot) -> None:
    kernel = boot()
    queue = kernel.wait_queue()

    def wait(cpu: KernelCpu) -> Park:
        queue.prepare_to_wait(cpu.current)
        cpu.spend(2000)  # the alarm rings in here
        return Park.BLOCKED

    alarm(kernel, 1500, queue)
    body = Script(wait)
    task = kernel.spawn("sleeper", body)
    kernel.run()
    assert len(body.log) == 2
    assert task.state is TaskState.DEAD


def test_a_wake_up_while_the_idle_task_is_on_its_way_to_halt_is_not_lost(boot: Boot) -> None:
    """Whatever moment the alarm hits -- switch, idle entry, halt -- the sleeper runs soon after."""
    for at in range(1000, 3000, 7):
        kernel = boot()
        queue = kernel.wait_queue()
        body = Script(sleeps_on(queue))
        kernel.spawn("sleeper", body)
        alarm(kernel, at, queue)
        assert kernel.run() is RunEnd.QUIET
        if list(kernel.trace.of(SchedWakeup)):
            assert body.log[1][1] - at < 5000
        else:
            assert at <= body.log[0][1], "it rang before anybody slept"


def test_wake_up_wakes_all_in_order_and_says_whether_any(boot: Boot) -> None:
    kernel = boot()
    queue = kernel.wait_queue()
    for name in "abc":
        kernel.spawn(name, Script(sleeps_on(queue)))
    kernel.run()
    assert queue.wake_up()
    assert not queue.wake_up()
    kernel.run()
    assert [e.comm for e in kernel.trace.of(SchedWakeup)] == ["a", "b", "c"]


def test_finish_wait(boot: Boot) -> None:
    kernel = boot()
    queue = kernel.wait_queue()
    task = kernel.spawn("a", Script())
    queue.prepare_to_wait(task)
    queue.prepare_to_wait(task)
    queue.finish_wait(task)
    assert task.state is TaskState.RUNNING
    assert not queue.wake_up()


def test_a_sleeper_that_is_owed_time_preempts(boot: Boot) -> None:
    kernel = boot()
    queue = kernel.wait_queue()
    body = Script(parks(Park.PREEMPTED), sleeps_on(queue))
    kernel.spawn("busy", Computation(None))
    sleeper = kernel.spawn("sleeper", body)
    kernel.run(lambda: sleeper.state is TaskState.INTERRUPTIBLE and not sleeper.se.on_rq)
    assert sleeper.se.vlag > 0
    rings = kernel.now() + 1000
    alarm(kernel, rings, queue)
    kernel.run(lambda: sleeper.state is TaskState.DEAD)
    assert body.log[-1][1] - rings < 3000, "long before the next tick would have made room"
    assert any(e.caller == "check_preempt_wakeup_fair" and e.comm == "busy" for e in kernel.trace.of(SchedSetNeedResched))


# Notifiers and rules of the switch.


class Notifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.seen: list[tuple[str, str, bool, int]] = []

    def _note(self, what: str, cpu: KernelCpu) -> None:
        self.seen.append((what, cpu.current.comm, cpu.irq.disabled(), len(list(self.kernel.trace.of(SchedSwitch)))))

    def sched_out(self, cpu: KernelCpu) -> None:
        self._note("out", cpu)

    def sched_in(self, cpu: KernelCpu) -> None:
        self._note("in", cpu)


def test_notifiers_see_the_switch_from_both_sides(boot: Boot) -> None:
    """Out: before sched_switch, still current, interrupts off. In: current again, interrupts on (as fire_sched_out/in_preempt_notifiers)."""
    kernel = boot()
    notifier = Notifier(kernel)
    a = kernel.spawn("a", Computation(None))
    a.preempt_notifiers.append(notifier)
    kernel.spawn("b", Computation(None))
    kernel.run(lambda: len(notifier.seen) >= 4)
    assert notifier.seen[:4] == [("in", "a", False, 1), ("out", "a", True, 1), ("in", "a", False, 3), ("out", "a", True, 3)]


def test_what_interrupts_a_switch_waits_for_its_end(boot: Boot) -> None:
    """A timer that expires while the notifier works is handled by the next task, and what it wants is not forgotten."""
    kernel = boot()
    queue = kernel.wait_queue()
    order: list[str] = []

    def rings(due: int) -> None:
        order.append("alarm")
        queue.wake_up()

    class Slow(Notifier):
        def sched_out(self, cpu: KernelCpu) -> None:
            order.append("out begins")
            kernel.hrtimer("alarm", rings).start(cpu.now() + 10)
            cpu.charge("emulate")
            order.append("out ends")

    waiting = kernel.spawn("waiting", Script(sleeps_on(queue)))
    a = kernel.spawn("a", Script(parks(Park.YIELD)))
    a.preempt_notifiers.append(Slow(kernel))
    kernel.spawn("b", Computation(500))
    kernel.run(lambda: waiting.state is TaskState.DEAD)
    assert order[:3] == ["out begins", "out ends", "alarm"]
    assert waiting.state is TaskState.DEAD


def test_a_notifier_may_remove_itself(boot: Boot) -> None:
    kernel = boot()
    task = kernel.spawn("a", Script(parks(Park.YIELD)))

    class Once(Notifier):
        def sched_in(self, cpu: KernelCpu) -> None:
            super().sched_in(cpu)
            task.preempt_notifiers.remove(self)

    once, other = Once(kernel), Notifier(kernel)
    task.preempt_notifiers += [once, other]
    kernel.run()
    assert [what for what, *_ in once.seen] == ["in"]
    assert [what for what, *_ in other.seen] == ["in", "out"]


def _atomic(cpu: KernelCpu) -> None:
    cpu.preempt_disable()


def _irqs_off(cpu: KernelCpu) -> None:
    cpu.local_irq_disable("test")


def _unbalanced(cpu: KernelCpu) -> None:
    cpu.preempt_enable()


@pytest.mark.parametrize(
    ("broken", "park", "message"),
    [
        (_atomic, Park.PREEMPTED, "while atomic"),
        (_atomic, Park.BLOCKED, "while atomic"),
        (_atomic, Park.EXITED, "while atomic"),
        (_irqs_off, Park.PREEMPTED, "with interrupts disabled"),
        (_irqs_off, Park.BLOCKED, "with interrupts disabled"),
        (_irqs_off, Park.USER, "with interrupts disabled"),
        (_unbalanced, Park.PREEMPTED, "without preempt_disable"),
    ],
)
def test_rules_of_parking(boot: Boot, broken: Callable[[KernelCpu], None], park: Park, message: str) -> None:
    kernel = boot()

    def step(cpu: KernelCpu) -> Park:
        broken(cpu)
        return park

    kernel.spawn("bad", Script(step))
    with pytest.raises(SimulationError, match=message):
        kernel.run(max_time=100_000)


def test_balanced_preempt_count_may_schedule(boot: Boot) -> None:
    kernel = boot()

    def step(cpu: KernelCpu) -> Park:
        cpu.preempt_disable()
        cpu.preempt_enable()
        return Park.PREEMPTED

    kernel.spawn("good", Script(step))
    assert kernel.run() is RunEnd.QUIET


# Guests.


class GuestBoard(Board):
    """A board whose processors, in a guest, let time pass until a physical interrupt makes them exit: external-interrupt exiting, and nothing else."""

    def run_guest_slice(self, cpu: Processor, limit: int) -> Stop:
        while not cpu.apic.pending():
            due = self.events.next_time()
            if due is None or due >= limit:
                cpu.cycles = limit
                return Stop.BUDGET
            self.advance(cpu, max(0, due - cpu.cycles))
        return Stop.VM_EXIT


class GuestThread:
    """The skeleton of KVM's run loop: enter with interrupts off, exit with them off, let the handler run, look at need-resched."""

    def __init__(self) -> None:
        self.exits: list[int] = []

    def run(self, cpu: KernelCpu) -> Park:
        if cpu.need_resched():
            return Park.PREEMPTED
        cpu.local_irq_disable("vcpu_enter_guest")
        return Park.GUEST

    def resume_guest(self, cpu: KernelCpu) -> Park:
        assert cpu.irq.disabled()
        assert cpu.processor.apic.pending(), "the exit has not taken the interrupt, only left because of it"
        self.exits.append(cpu.now())
        cpu.local_irq_enable("vcpu_enter_guest")
        return self.run(cpu)

    def user(self, cpu: KernelCpu) -> Park:
        raise AssertionError("never goes there")


def test_the_tick_gets_the_processor_back_from_guests(boot: Boot) -> None:
    """The question that this project was born from: guest, interrupt, exit, handler, need-resched, another guest."""
    kernel = boot(board=GuestBoard)
    bodies = [GuestThread(), GuestThread()]
    a, b = kernel.spawn("vcpu-0", bodies[0]), kernel.spawn("vcpu-1", bodies[1])
    kernel.run(max_time=40 * TICK)
    entries = [e.time for e in kernel.trace.of(LocalTimerEntry)]
    exits = sorted(bodies[0].exits + bodies[1].exits)
    assert len(exits) >= 35
    assert all(any(at <= entry <= at + 200 for entry in entries) for at in exits), "each exit's interrupt is handled right after it"
    assert [new for _, _, new in switches(kernel)][:4] == ["vcpu-0", "vcpu-1", "vcpu-0", "vcpu-1"]
    assert abs(a.guest_cycles - b.guest_cycles) <= 2 * TICK
    assert a.guest_cycles < a.sum_exec_runtime
    assert a.ticks + b.ticks == kernel.cpus[0].tick.count


def test_a_lone_guest_goes_on_after_each_tick(boot: Boot) -> None:
    kernel = boot(board=GuestBoard)
    body = GuestThread()
    kernel.spawn("vcpu-0", body)
    kernel.run(max_time=40 * TICK)
    assert len(body.exits) == 39
    assert len(switches(kernel)) == 1


# Several processors.


def test_each_processor_has_its_own_queue(boot: Boot) -> None:
    kernel = boot(processors=2)
    a, b = kernel.spawn("a", Computation(None), cpu=0), kernel.spawn("b", Computation(None), cpu=1)
    assert kernel.run(max_time=50 * TICK) is RunEnd.TIME
    assert (a.nr_switches, b.nr_switches) == (1, 1)
    assert [cpu.tick.count for cpu in kernel.cpus] == [a.ticks, b.ticks]
    assert all(abs(cpu.tick.count - 49) <= 1 for cpu in kernel.cpus)
    assert all(e.function == "tick_sched_timer" for e in kernel.trace if hasattr(e, "function"))


def test_no_timer_interrupt_comes_early_on_several_processors(boot: Boot) -> None:
    kernel = boot(processors=3)
    for index in range(3):
        kernel.spawn(f"t{index}", Computation(None), cpu=index)
    kernel.run(max_time=100 * TICK)
    for cpu in kernel.cpus:
        assert cpu.hrtimers.interrupts == cpu.tick.count, "each found an expired timer"


@pytest.mark.parametrize("board", [Board, GuestBoard])
def test_waking_on_another_processor_sends_an_ipi(boot: Boot, board: type[Board]) -> None:
    kernel = boot(processors=2, board=board)
    queue = kernel.wait_queue()
    body = Script(sleeps_on(queue))
    kernel.spawn("sleeper", body, cpu=1)
    kernel.spawn("waker", Script(spends(10_000, Park.PREEMPTED), does(queue.wake_up)), cpu=0)
    kernel.run()
    (wakeup,) = kernel.trace.of(SchedWakeup)
    assert (wakeup.cpu, wakeup.target_cpu) == (0, 1)
    ipis = [e for e in kernel.trace.of(RescheduleEntry) if e.time >= wakeup.time - 1000]
    assert [e.cpu for e in ipis] == [1]
    assert abs(body.log[1][1] - wakeup.time) < 4000


def test_spawning_on_another_processor_preempts_its_idle_task(boot: Boot) -> None:
    kernel = boot(processors=2)
    kernel.run()
    program = Computation(100)
    other = 1 - kernel.cpu_running().index
    kernel.spawn("a", program, cpu=other)
    kernel.run()
    assert program.done == 100
    assert [e.cpu for e in kernel.trace.of(RescheduleEntry)] == [other]


def test_a_guest_on_another_processor_is_kicked_out(boot: Boot) -> None:
    kernel = boot(processors=2, board=GuestBoard)
    body = GuestThread()
    kernel.spawn("vcpu-0", body, cpu=1)
    kernel.run(max_time=1500)
    before = len(body.exits)
    kernel.cpus[0].send_reschedule(1)
    kernel.run(max_time=3500)
    assert len(body.exits) == before + 1
    assert kernel.cpus[1].irq.counts[0xFD] >= 1


@pytest.mark.parametrize("cpu", [-1, 2])
def test_there_is_no_such_processor(boot: Boot, cpu: int) -> None:
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        boot(processors=2).spawn("a", Script(), cpu=cpu)


# The machine's loop.


@pytest.mark.parametrize("processors", [1, 2])
def test_ends(boot: Boot, processors: int) -> None:
    kernel = boot(processors=processors)
    program = Computation(30_000)
    kernel.spawn("a", program)
    assert kernel.run(lambda: program.done > 0) is RunEnd.DONE
    assert kernel.run(max_time=20_000) is RunEnd.TIME
    assert all(20_000 <= cpu.now() < 22_000 for cpu in kernel.cpus)
    assert program.done < 20_000
    assert kernel.run(max_time=1_000_000) is RunEnd.QUIET
    assert program.done == 30_000
    assert kernel.now() < 50_000, "a clock does not run on where nothing can happen"
    assert kernel.run() is RunEnd.QUIET


def test_a_quiet_machine_can_be_given_work(boot: Boot) -> None:
    kernel = boot()
    for round_ in range(1, 4):
        program = Computation(1000)
        kernel.spawn("a", program)
        assert kernel.run() is RunEnd.QUIET
        assert program.done == 1000
        assert kernel.now() < 10_000 * round_


def test_an_event_that_interrupts_nobody_does_not_let_time_run_away(boot: Boot) -> None:
    kernel = boot()
    happened: list[int] = []
    kernel.board.events.schedule(70_000, happened.append, "device")
    assert kernel.run() is RunEnd.QUIET
    assert happened == [70_000]
    assert kernel.now() == 70_000


def test_a_halted_processor_costs_no_trace(boot: Boot) -> None:
    kernel = boot(processors=2)
    kernel.spawn("a", Computation(100 * TICK), cpu=0)
    kernel.run()
    assert len([e for e in kernel.trace.of(IrqDisable) if e.cpu == 1]) == 1


def scenario(boot: Boot) -> list[str]:
    kernel = boot(processors=2)
    queue = kernel.wait_queue()
    tasks: list[Task] = []
    for index in range(6):
        script = Script(parks(Park.USER), sleeps_on(queue), parks(Park.YIELD), spends(5000, Park.PREEMPTED))
        tasks.append(kernel.spawn(f"s{index}", script, cpu=index % 2, nice=index - 3))
        tasks.append(kernel.spawn(f"c{index}", Computation(7000 + 1000 * index), cpu=(index + 1) % 2))
    for at in range(9000, 90_000, 9000):
        alarm(kernel, at, queue)
    kernel.run()
    assert all(task.state is TaskState.DEAD for task in tasks)
    return list(kernel.trace.lines())


def test_same_inputs_same_trace(boot: Boot) -> None:
    first = scenario(boot)
    assert len(first) > 500
    assert scenario(boot) == first


def test_nobody_is_woken_before_the_waker_did_it(boot: Boot) -> None:
    """A halted processor's clock may be far behind; what another one does to it happens at the other's time."""
    kernel = boot(processors=2)
    queue = kernel.wait_queue()
    body = Script(sleeps_on(queue))
    kernel.spawn("sleeper", body, cpu=1)
    kernel.spawn("waker", Script(spends(60_000, Park.PREEMPTED), spends(60_000, Park.PREEMPTED), does(queue.wake_up)), cpu=0)
    kernel.run()
    (wakeup,) = kernel.trace.of(SchedWakeup)
    assert wakeup.cpu == 0
    assert wakeup.time <= body.log[1][1] < wakeup.time + 3000


def test_halted_processors_keep_up_with_the_time(boot: Boot) -> None:
    kernel = boot(processors=3)
    kernel.spawn("a", Computation(30_000), cpu=1)
    kernel.run(max_time=20_000)
    assert all(cpu.now() >= 20_000 for cpu in kernel.cpus)
    kernel.run()
    assert len({cpu.now() for cpu in kernel.cpus}) == 1


def test_a_long_sleep_of_several_processors_is_short_work(boot: Boot) -> None:
    kernel = boot(processors=4)
    rang: list[int] = []
    kernel.run()
    for cpu in range(4):
        with kernel.executing_on(cpu):
            kernel.hrtimer("alarm", rang.append).start(10**12 + cpu)
    turns = 0

    def until() -> bool:
        nonlocal turns
        turns += 1
        return False

    assert kernel.run(until) is RunEnd.QUIET
    assert rang == [10**12 + cpu for cpu in range(4)]
    assert turns < 100


def test_a_guest_that_halts_for_good_leaves_the_machine_quiet(boot: Boot) -> None:
    """HLT that does not exit, interrupts masked, one pending: nothing will ever happen."""

    class Halting(GuestBoard):
        def run_guest_slice(self, cpu: Processor, limit: int) -> Stop:
            cpu.state.activity = ActivityState.HLT
            cpu.attention = False
            return Stop.HALTED

    kernel = boot(board=Halting)
    kernel.spawn("vcpu-0", GuestThread())
    assert kernel.run() is RunEnd.QUIET
    assert kernel.board.processors[0].apic.pending(), "the tick's interrupt waits"
    assert kernel.cpus[0].tick.count == 0
