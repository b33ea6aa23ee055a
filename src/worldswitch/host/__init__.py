"""The host kernel: interrupts, timers, tick, tasks, scheduler -- what a Linux host gives a hypervisor, on simulated processors.

Read in this order: `task` (what runs), `irq` (what interrupts it), `hrtimer` and `tick` (time), `fair` (who is next), `wait` (who sleeps),
`kernel` (the whole), `costs` (how long it all takes), `mm` (pages).

A hypervisor needs little of it, and meets that through the protocols in `kvm.host`:

- of the processor it runs on (`KernelCpu`): `local_irq_disable` and `local_irq_enable`, `interrupts_arrive` after STGI,
  `handle_external_interrupt_irqoff` for what an exit has acknowledged, `need_resched`, `preempt_disable` and `preempt_enable`,
  `send_reschedule` to kick another one, `charge` and `now`;
- of the kernel (`Kernel`): `spawn`, `wait_queue`, `hrtimer`, pages and pinned user memory, `register` for a vector of its own;
- of its thread (`Task`): `preempt_notifiers`, called when it loses and regains the processor.
"""

from worldswitch.host.costs import Costs
from worldswitch.host.hrtimer import Hrtimer
from worldswitch.host.irq import LOCAL_TIMER_VECTOR, RESCHEDULE_VECTOR
from worldswitch.host.kernel import Kernel, KernelCpu, RunEnd
from worldswitch.host.task import Computation, Park, PreemptNotifier, Task, TaskBody, TaskState
from worldswitch.host.wait import WaitQueue

__all__ = [
    "LOCAL_TIMER_VECTOR",
    "RESCHEDULE_VECTOR",
    "Computation",
    "Costs",
    "Hrtimer",
    "Kernel",
    "KernelCpu",
    "Park",
    "PreemptNotifier",
    "RunEnd",
    "Task",
    "TaskBody",
    "TaskState",
    "WaitQueue",
]
