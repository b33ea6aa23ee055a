"""A vCPU: its state between VM entries, its ioctls, and the thread that runs it (KVM_RUN as a task without a stack)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from worldswitch.arch.registers import DR6_FIXED, Gpr, Seg
from worldswitch.cpu.state import MASK64
from worldswitch.host.task import Park, Task
from worldswitch.kvm import x86
from worldswitch.kvm.cpuid import CpuidEntry, supported_cpuid
from worldswitch.kvm.exits import Exit
from worldswitch.kvm.host import HostCpu
from worldswitch.kvm.lapic import KvmLapic
from worldswitch.kvm.stats import VcpuStat
from worldswitch.kvm.types import MpState, Regs, Request, Segment, Sregs, einval
from worldswitch.trace.events import KvmVcpuLoad, KvmVcpuPut

if TYPE_CHECKING:
    from worldswitch.kvm.vm import Vm


_SEGMENT_NAMES: Final = {"cs": Seg.CS, "ds": Seg.DS, "es": Seg.ES, "fs": Seg.FS, "gs": Seg.GS, "ss": Seg.SS, "tr": Seg.TR, "ldt": Seg.LDTR}
#: State slots that hold guest values only while the vCPU is loaded: neither VMCS nor run loop switches them at each exit.
LAZY_SLOTS: Final = ("star", "lstar", "cstar", "fmask", "kernel_gs_base", "tsc_aux", "dr0", "dr1", "dr2", "dr3", "dr6")


class Vcpu:
    """One virtual processor. Methods are named after the ioctls; they fail as the kernel's do, with `OSError`."""

    def __init__(self, vm: Vm, vcpu_id: int) -> None:
        self.vm = vm
        self.vcpu_id = vcpu_id
        self.ops = vm.ops
        self.stat = VcpuStat()
        self.regs = [0] * 16
        """General registers between exits; RSP's place is unused, it is in the VMCS or VMCB."""
        self.cr2 = 0
        self.lazy = dict.fromkeys(LAZY_SLOTS, 0) | {"dr6": DR6_FIXED}
        self._cr8 = 0
        self.msrs: dict[int, int] = {}
        self.tsc_offset = -vm.host.now() & MASK64
        self.requests = Request.EVENT
        self.mp_state = MpState.RUNNABLE
        self.cpu = -1
        """The processor whose VMCS pointer or caches know this vCPU; -1 if none."""
        self.loaded_on: HostCpu | None = None
        self.in_guest = False
        self.cpuid: tuple[CpuidEntry, ...] = supported_cpuid(vm.processor)
        # Events: queued ones wait for an entry, injected ones are in the VMCS/VMCB or were interrupted on their way and go in again.
        self.exception_pending: tuple[int, int | None, int] | None = None
        self.exception_injected: tuple[int, int | None] | None = None
        self.nmi_pending = 0
        self.nmi_injected = False
        self.interrupt_injected: tuple[int, bool] | None = None
        self.user_interrupt: int | None = None
        self.exit: Exit | None = None
        self.immediate_exit = False
        self.pending_input: Callable[[int], None] | None = None
        self.emulator: Any = None
        """`kvm.emulate.Emulator`, made when first needed."""
        self.reemulate = False
        """User space has answered: emulate the instruction again before anything else."""
        self.vendor: Any = None
        """What the back end keeps (`kvm.vmx`, `kvm.svm`)."""
        self.apic: KvmLapic | None = KvmLapic(self) if vm.irqchip else None
        self.wait = vm.kernel.wait_queue()
        self.thread: VcpuThread | None = None
        self._entered_at = (0, 0)
        with self._owned():
            self.ops.vcpu_create(self)

    # Loading.

    def vcpu_load(self, cpu: HostCpu) -> None:
        """The vCPU's state goes onto a processor (kvm_arch_vcpu_load)."""
        self.loaded_on = cpu
        self.vm.kvm.running_vcpu[cpu.index] = self
        state = cpu.processor.state
        self._host_lazy = {name: getattr(state, name) for name in LAZY_SLOTS}
        for name, value in self.lazy.items():
            setattr(state, name, value)
        self.ops.vcpu_load(self, cpu)
        self.cpu = cpu.index

    def vcpu_put(self) -> None:
        """... and leaves it (kvm_arch_vcpu_put)."""
        cpu = self.loaded_on
        if cpu is None:
            return
        self.ops.vcpu_put(self, cpu)
        state = cpu.processor.state
        for name in LAZY_SLOTS:
            self.lazy[name] = getattr(state, name)
            setattr(state, name, self._host_lazy[name])
        self.stat.host_state_reload += 1
        self.loaded_on = None
        self.vm.kvm.running_vcpu.pop(cpu.index, None)

    @contextmanager
    def _owned(self) -> Iterator[None]:
        """The vCPU's mutex, for an ioctl: loads the state where the call executes."""
        if self.in_guest:
            raise OSError(errno.EBUSY, f"vCPU {self.vcpu_id} is in its guest")
        if self.loaded_on is not None:
            yield
            return
        cpu = self.vm.quiet_cpu()
        # The caller is another thread on that processor: whoever is loaded there makes room meanwhile.
        displaced = self.vm.kvm.running_vcpu.get(cpu.index)
        with self.vm.kernel.executing_on(cpu.index):
            if displaced is not None:
                displaced.vcpu_put()
            self.vcpu_load(cpu)
            try:
                yield
            finally:
                self.vcpu_put()
                if displaced is not None:
                    displaced.vcpu_load(cpu)

    # Entry and exit bookkeeping.

    def entering(self, cpu: HostCpu) -> None:
        """The guest starts to run."""
        self.in_guest = True
        self._entered_at = (cpu.processor.cycles, cpu.processor.retired)

    def left(self, cpu: HostCpu) -> None:
        """The guest has stopped running."""
        self.in_guest = False
        self.stat.guest_cycles += cpu.processor.cycles - self._entered_at[0]
        self.stat.instructions += cpu.processor.retired - self._entered_at[1]

    def instructions(self) -> int:
        """Guest instructions retired, those of the run that is under way included."""
        if self.in_guest and self.loaded_on is not None:
            return self.stat.instructions + self.loaded_on.processor.retired - self._entered_at[1]
        return self.stat.instructions

    # Requests and kicks.

    def make_request(self, request: Request) -> None:
        """kvm_make_request."""
        self.requests |= request

    def check_request(self, request: Request) -> bool:
        """kvm_check_request: test and clear."""
        if self.requests & request:
            self.requests &= ~request
            return True
        return False

    def kick(self) -> None:
        """kvm_vcpu_kick: wake the thread if it blocks; force an exit if it is in its guest on another processor."""
        if self.wait.wake_up():
            self.stat.halt_wakeup += 1
            return
        cpu = self.loaded_on
        running = self.vm.kernel.cpu_running()
        if self.in_guest and cpu is not None and cpu is not running:
            running.send_reschedule(cpu.index)

    def kick_for_event(self) -> None:
        """An event for the guest has become pending."""
        self.make_request(Request.EVENT)
        if hasattr(self, "wait"):
            self.kick()

    # Events.

    def queue_exception(self, vector: int, error_code: int | None = None, payload: int = 0) -> None:
        """kvm_queue_exception: the guest gets this exception at its next entry."""
        self.exception_pending = (vector, error_code, payload)
        self.make_request(Request.EVENT)

    def has_interrupt(self) -> bool:
        """kvm_cpu_has_interrupt."""
        return self.user_interrupt is not None or (self.apic is not None and self.apic.pending())

    def get_interrupt(self) -> int:
        """kvm_cpu_get_interrupt: acknowledge it."""
        if self.user_interrupt is not None:
            vector, self.user_interrupt = self.user_interrupt, None
            return vector
        assert self.apic is not None
        return self.apic.acknowledge()

    def get_cr8(self) -> int:
        """kvm_get_cr8: the task priority, in the local APIC if there is one."""
        return self._cr8 if self.apic is None else self.apic.get_tpr() >> 4

    def set_cr8(self, value: int) -> None:
        """kvm_set_cr8."""
        if self.apic is None:
            self._cr8 = value
        elif self.apic.get_tpr() >> 4 != value:
            self.apic.set_tpr(value << 4)

    # Registers.

    def get(self, name: str) -> int:
        """A register that the VMCS or VMCB holds, by its `cpu.state` name."""
        return self.ops.get_state(self, name)

    def put(self, name: str, value: int) -> None:
        """Write one."""
        self.ops.set_state(self, name, value)

    def get_regs(self) -> Regs:
        """KVM_GET_REGS."""
        with self._owned():
            values = {g.name.lower(): self.regs[g] for g in Gpr}
            return Regs(**{**values, "rsp": self.get("rsp"), "rip": self.get("rip"), "rflags": self.get("rflags")})

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS."""
        with self._owned():
            for g in Gpr:
                self.regs[g] = getattr(regs, g.name.lower()) & MASK64
            self.put("rsp", regs.rsp & MASK64)
            self.put("rip", regs.rip & MASK64)
            self.put("rflags", regs.rflags | 2)
            self.exception_pending = None
            self.make_request(Request.EVENT)

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS."""
        with self._owned():
            segments = {
                name: Segment(*(self.get(f"{seg.name.lower()}_{part}") for part in ("selector", "base", "limit", "ar"))) for name, seg in _SEGMENT_NAMES.items()
            }
            return Sregs(
                **segments,
                gdt=(self.get("gdtr_base"), self.get("gdtr_limit")), idt=(self.get("idtr_base"), self.get("idtr_limit")),
                cr0=self.get("cr0"), cr2=self.cr2, cr3=self.get("cr3"), cr4=self.get("cr4"), cr8=self.get_cr8(),
                efer=self.get("efer"), apic_base=int(self.apic.base) if self.apic else 0,
            )  # fmt: skip

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS. EINVAL for control registers that contradict each other."""
        x86.check_sregs(self, sregs)
        with self._owned():
            for name, seg in _SEGMENT_NAMES.items():
                segment: Segment = getattr(sregs, name)
                for part in ("selector", "base", "limit", "ar"):
                    self.put(f"{seg.name.lower()}_{part}", getattr(segment, part))
            for table, (base, limit) in (("gdtr", sregs.gdt), ("idtr", sregs.idt)):
                self.put(f"{table}_base", base)
                self.put(f"{table}_limit", limit)
            self.cr2 = sregs.cr2
            for name in ("efer", "cr0", "cr3", "cr4"):
                self.put(name, getattr(sregs, name))
            self.set_cr8(sregs.cr8)

    def set_cpuid2(self, entries: tuple[CpuidEntry, ...]) -> None:
        """KVM_SET_CPUID2."""
        self.cpuid = tuple(entries)

    def get_msr(self, number: int) -> int:
        """KVM_GET_MSRS of one register. EINVAL if the guest has no such MSR."""
        with self._owned():
            value = x86.get_msr(self, number)
        if value is None:
            raise einval(f"MSR {number:#x}")
        return value

    def set_msr(self, number: int, value: int) -> None:
        """KVM_SET_MSRS of one register. EINVAL if there is no such MSR, or not with this value."""
        with self._owned():
            if not x86.set_msr(self, number, value):
                raise einval(f"MSR {number:#x} = {value:#x}")

    def interrupt(self, vector: int) -> None:
        """KVM_INTERRUPT: queue an external interrupt, for VMs without an in-kernel irqchip (else ENXIO). EEXIST if one is queued."""
        if not 0 <= vector <= 255:
            raise einval(f"vector {vector}")
        if self.apic is not None:
            raise OSError(errno.ENXIO, "the VM has an in-kernel irqchip")
        if self.user_interrupt is not None:
            raise OSError(errno.EEXIST, "an interrupt is queued already")
        self.user_interrupt = vector
        self.make_request(Request.EVENT)
        self.kick()

    def nmi(self) -> None:
        """KVM_NMI: queue an NMI."""
        self.nmi_pending = min(2, self.nmi_pending + 1)
        self.make_request(Request.EVENT)
        self.kick()

    def get_mp_state(self) -> MpState:
        """KVM_GET_MP_STATE."""
        return self.mp_state

    def set_mp_state(self, state: MpState) -> None:
        """KVM_SET_MP_STATE. EINVAL for the others than runnable and halted without an irqchip."""
        if self.apic is None and state is not MpState.RUNNABLE:
            raise einval(state.name)
        self.mp_state = state
        self.make_request(Request.EVENT)

    # Input that user space owes after an exit.

    def complete_io(self, value: int) -> None:
        """Answer an `ExitIo` or `ExitMmio` that reads."""
        if self.pending_input is None:
            raise einval("no input is waited for")
        self.pending_input(value)
        self.pending_input = None

    complete_mmio = complete_io

    # Running.

    def start(self, comm: str = "", *, nice: int = 0, cpu: int = 0, on_exit: Callable[[Vcpu, Exit], bool] | None = None) -> Task:
        """A thread that calls KVM_RUN again and again on processor `cpu`. `on_exit` gets each exit to user space and says whether to go on; without
        it any exit ends the thread."""
        if self.thread is not None:
            raise OSError(errno.EBUSY, f"vCPU {self.vcpu_id} has a thread")
        self.thread = VcpuThread(self, on_exit)
        task = self.vm.kernel.spawn(comm or f"vcpu-{self.vcpu_id}", self.thread, nice=nice, cpu=cpu)
        self.thread.task = task
        return task

    def run(self, max_time: int | None = None) -> Exit:
        """KVM_RUN: run until an exit to user space. EINTR if the host's clock reaches `max_time` first, or nothing can ever happen any more."""
        if self.immediate_exit:
            self.immediate_exit = False
            raise OSError(errno.EINTR, "immediate_exit")
        if self.pending_input is not None:
            self.complete_io(0)
        self.exit = None
        if self.thread is None:
            self.start(on_exit=None)
            assert self.thread is not None
            self.thread.synchronous = True
        else:
            self.thread.returned = False
            self.thread.user_queue.wake_up()
        thread = self.thread
        self.vm.kernel.run(lambda: thread.returned, max_time=max_time)
        if not thread.returned or self.exit is None:
            raise OSError(errno.EINTR, "KVM_RUN was interrupted")
        return self.exit


class VcpuThread:
    """KVM_RUN as a task body; also the preempt notifier that puts and loads the vCPU when its thread loses and regains the processor."""

    def __init__(self, vcpu: Vcpu, on_exit: Callable[[Vcpu, Exit], bool] | None) -> None:
        self.vcpu = vcpu
        self.on_exit = on_exit
        self.synchronous = False
        #: KVM_RUN has come back to its (synchronous) caller, and the thread sleeps.
        self.returned = False
        self.task: Task | None = None
        self._in_ioctl = False
        #: Where the thread sleeps while its caller is between two KVM_RUNs.
        self.user_queue = vcpu.vm.kernel.wait_queue()

    # Task body.

    def run(self, cpu: HostCpu) -> Park:
        """The top of `vcpu_run`: first call, after a preemption, after a wake-up."""
        if not self._in_ioctl:
            self._in_ioctl = True
            self._load(cpu)
            cpu.current.preempt_notifiers.append(self)
        return self._parked(cpu, x86.vcpu_run(self.vcpu, cpu))

    def resume_guest(self, cpu: HostCpu) -> Park:
        """After the exit: the second half of `vcpu_enter_guest`, then on with the loop."""
        return self._parked(cpu, x86.vcpu_run(self.vcpu, cpu, after_exit=True))

    def user(self, cpu: HostCpu) -> Park:
        """KVM_RUN has returned."""
        vcpu = self.vcpu
        cpu.charge("user_exit")
        if self.synchronous:
            # The caller of `Vcpu.run` goes on; the thread sleeps until it is called again.
            self.user_queue.prepare_to_wait(cpu.current)
            self.returned = True
            return Park.BLOCKED
        if self.on_exit is not None and vcpu.exit is not None and self.on_exit(vcpu, vcpu.exit):
            if vcpu.pending_input is not None:
                vcpu.complete_io(0)
            return Park.PREEMPTED if cpu.need_resched() else self.run(cpu)
        return Park.EXITED

    def _parked(self, cpu: HostCpu, park: Park) -> Park:
        if park is Park.USER:
            cpu.current.preempt_notifiers.remove(self)
            self._put(cpu)
            self._in_ioctl = False
        return park

    def _load(self, cpu: HostCpu) -> None:
        cpu.charge("vcpu_load")
        if cpu.trace.on:
            cpu.trace.emit(KvmVcpuLoad(cpu.index, cpu.now(), self.vcpu.vcpu_id, self.task.pid if self.task else 0))
        self.vcpu.vcpu_load(cpu)

    def _put(self, cpu: HostCpu) -> None:
        cpu.charge_irqoff("vcpu_put")
        if cpu.trace.on:
            cpu.trace.emit(KvmVcpuPut(cpu.index, cpu.now(), self.vcpu.vcpu_id, self.task.pid if self.task else 0))
        self.vcpu.vcpu_put()

    # Preempt notifier.

    def sched_out(self, cpu: HostCpu) -> None:
        """kvm_sched_out."""
        self.vcpu.stat.preemptions += 1
        self._put(cpu)

    def sched_in(self, cpu: HostCpu) -> None:
        """kvm_sched_in."""
        self._load(cpu)
