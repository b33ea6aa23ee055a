"""The host kernel: interrupts, timers, tick, tasks, scheduler -- what a Linux host gives a hypervisor, on simulated processors.

Read in this order: `task` (what runs), `irq` (what interrupts it), `hrtimer` and `tick` (time), `fair` (who is next), `kernel` (the whole). `kvm`
meets it through the protocol in `kvm.host` only.
"""

from worldswitch.host.costs import Costs
from worldswitch.host.kernel import Kernel, KernelCpu, RunEnd
from worldswitch.host.task import Park, PreemptNotifier, Task, TaskBody, TaskState
from worldswitch.host.wait import WaitQueue

__all__ = ["Costs", "Kernel", "KernelCpu", "Park", "PreemptNotifier", "RunEnd", "Task", "TaskBody", "TaskState", "WaitQueue"]
