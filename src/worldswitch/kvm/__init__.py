"""The hypervisor: KVM's core on simulated processors, under KVM's own names and with its API.

`Kvm`, `Vm` and `Vcpu` mirror the three file descriptors, their methods the ioctls; `Vcpu.run` gives an exit record to `match` on.

>>> from worldswitch.board import Board
>>> from worldswitch.cpu.model import model_named
>>> from worldswitch.host import Kernel
>>> kvm = Kvm(Kernel(Board(model_named("intel"))))
>>> vm = kvm.create_vm()
>>> vm.set_user_memory_region(0, 0, bytearray(0x10000))
>>> vcpu = vm.create_vcpu()
>>> vcpu.get_regs().rip
65520
"""

from worldswitch.kvm.cpuid import CpuidEntry
from worldswitch.kvm.exits import (
    Exit,
    ExitFailEntry,
    ExitHlt,
    ExitInternalError,
    ExitIntr,
    ExitIo,
    ExitIrqWindowOpen,
    ExitMmio,
    ExitShutdown,
    ExitSystemEvent,
    ExitUnknown,
)  # fmt: skip
from worldswitch.kvm.stats import VcpuStat
from worldswitch.kvm.system import Kvm, Params
from worldswitch.kvm.types import MpState, Regs, Segment, Sregs
from worldswitch.kvm.vcpu import Vcpu
from worldswitch.kvm.vm import MEM_LOG_DIRTY_PAGES, MEM_READONLY, Vm

__all__ = [
    "MEM_LOG_DIRTY_PAGES", "MEM_READONLY", "CpuidEntry", "Exit", "ExitFailEntry", "ExitHlt", "ExitInternalError", "ExitIntr", "ExitIo", "ExitIrqWindowOpen",
    "ExitMmio", "ExitShutdown", "ExitSystemEvent", "ExitUnknown", "Kvm", "MpState", "Params", "Regs", "Segment", "Sregs", "Vcpu", "VcpuStat", "Vm",
]  # fmt: skip
