"""A KVM on a fresh host, and small guests in it."""

from __future__ import annotations

from worldswitch.board import Board
from worldswitch.cpu.model import model_named
from worldswitch.guests import load_guest
from worldswitch.host import Kernel
from worldswitch.kvm import Kvm, Params, Vm
from worldswitch.trace import Recorder
from worldswitch.vmm import FlatGuest, load_flat

VENDORS = ("intel", "amd")


def kvm(vendor: str, *, processors: int = 1, params: Params | None = None) -> Kvm:
    return Kvm(Kernel(Board(model_named(vendor), processors=processors, trace=Recorder())), params)


def vm(vendor: str, *, irqchip: bool = True) -> Vm:
    made = kvm(vendor).create_vm()
    if irqchip:
        made.create_irqchip()
    return made


def guest(vendor: str, program: str | bytes, *, irqchip: bool = True) -> FlatGuest:
    """A guest program by name, or machine code."""
    code = load_guest(program).binary if isinstance(program, str) else program
    return load_flat(vm(vendor, irqchip=irqchip), code)
