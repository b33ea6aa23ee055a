"""The VMX instructions as machine code reaches them (SDM vol. 3 §31.3): operands in, `cpu.vmx` does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Access
from worldswitch.cpu.microcode.registry import microcode, operand, value
from worldswitch.cpu.state import MASK64

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


def _enabled(cpu: Processor) -> None:
    """#UD before any operand is read, and the exit of a guest hypervisor before its operand is (SDM vol. 3 §26.1.1)."""
    if not cpu.state.vmx_operation:
        raise fault(Vector.UD)


@microcode("VMXON", "VMCLEAR", "VMPTRLD")
def with_pointer(cpu: Processor, ins: Decoded) -> None:
    if ins.name != "VMXON":
        _enabled(cpu)
    pointer = value(ins, 0) if cpu.state.vmx_operation != 2 else 0
    {"VMXON": cpu.vmx.vmxon, "VMCLEAR": cpu.vmx.vmclear, "VMPTRLD": cpu.vmx.vmptrld}[ins.name](pointer)


@microcode("VMPTRST")
def vmptrst(cpu: Processor, ins: Decoded) -> None:
    target = operand(ins, 0)
    flags = cpu.state.rflags
    pointer = cpu.vmx.vmptrst()
    after, cpu.state.rflags = cpu.state.rflags, flags  # a store that faults changes no flag
    target.store(cpu.core.const(64, pointer))
    cpu.state.rflags = after


@microcode("VMREAD")
def vmread(cpu: Processor, ins: Decoded) -> None:
    target = operand(ins, 0)
    if target.is_memory and cpu.state.vmx_operation == 1:
        cpu.mmu.linear(target.seg, target.offset(), target.bits // 8, Access.WRITE)
    result, found = cpu.vmx.vmread(value(ins, 1))
    if result == 0:
        target.store(cpu.core.const(target.bits, found))


@microcode("VMWRITE")
def vmwrite(cpu: Processor, ins: Decoded) -> None:
    _enabled(cpu)
    encoding, new = (value(ins, 0), value(ins, 1)) if cpu.state.vmx_operation == 1 else (0, 0)
    cpu.vmx.vmwrite(encoding, new)


@microcode("VMLAUNCH", "VMRESUME")
def vm_entry(cpu: Processor, ins: Decoded) -> None:
    back = cpu.next_rip
    enter = cpu.vmx.vmlaunch if ins.name == "VMLAUNCH" else cpu.vmx.vmresume
    cpu.next_rip = back if enter(python=False) else cpu.state.rip


@microcode("VMXOFF", "VMCALL")
def without_operand(cpu: Processor, ins: Decoded) -> None:
    (cpu.vmx.vmxoff if ins.name == "VMXOFF" else cpu.vmx.vmcall)()


@microcode("INVEPT", "INVVPID")
def invalidate(cpu: Processor, ins: Decoded) -> None:
    _enabled(cpu)
    kind, memory = value(ins, 0), operand(ins, 1)
    descriptor = 0
    if cpu.state.vmx_operation == 1:
        linear = cpu.mmu.linear(memory.seg, memory.offset(), 16, Access.READ)
        descriptor = cpu.mmu.load(linear, 8) | cpu.mmu.load(linear + 8 & MASK64, 8) << 64
    (cpu.vmx.invept if ins.name == "INVEPT" else cpu.vmx.invvpid)(kind, descriptor)
