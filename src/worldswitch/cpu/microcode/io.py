"""Port I/O: IN, OUT, INS, OUTS (SDM vol. 2; vol. 1 §19.5 on permission), one iteration of a repeated one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Gpr, Rflags
from worldswitch.arch.segments import TSS64_IO_MAP_BASE
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Access, IoAccess
from worldswitch.cpu.microcode.registry import microcode, operand, value
from worldswitch.cpu.state import MASK64

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


def _permit(cpu: Processor, port: int, size: int) -> None:
    """IOPL, then the I/O permission bitmap in the TSS (SDM vol. 1 §19.5.2)."""
    state = cpu.state
    if not cpu.protected or (cpu.cpl <= (state.rflags >> 12 & 3) and not state.rflags & Rflags.VM):
        return
    if state.tr.limit < TSS64_IO_MAP_BASE + 1:
        raise fault(Vector.GP, 0)
    at = cpu.mmu.load_system(state.tr.base + TSS64_IO_MAP_BASE & MASK64, 2) + port // 8
    if at + 1 > state.tr.limit:
        raise fault(Vector.GP, 0)
    if cpu.mmu.load_system(state.tr.base + at & MASK64, 2) >> port % 8 & (1 << size) - 1:
        raise fault(Vector.GP, 0)


@microcode("IN", "OUT")
def in_out(cpu: Processor, ins: Decoded) -> None:
    write = ins.name == "OUT"
    data, selector = (operand(ins, 1), operand(ins, 0)) if write else (operand(ins, 0), operand(ins, 1))
    port, size = selector.load().v & 0xFFFF, data.bits // 8
    _permit(cpu, port, size)
    if cpu.guest is not None:
        cpu.guest.io(IoAccess(port, size, write, immediate=selector.__class__.__name__ == "ImmediateOperand", address_bits=ins.address_bits))
    if write:
        cpu.bus.port_write(port, size, data.load().v)
    else:
        data.store(cpu.core.const(data.bits, cpu.bus.port_read(port, size)))


@microcode("INSB", "INSW", "INSD", "OUTSB", "OUTSW", "OUTSD")
def string_io(cpu: Processor, ins: Decoded) -> None:
    write = ins.name.startswith("OUTS")
    memory = operand(ins, 1 if write else 0)
    port, size = value(ins, 0 if write else 1) & 0xFFFF, memory.bits // 8
    _permit(cpu, port, size)
    core, repeat = cpu.core, bool(cpu.core.repeat)
    count = core.get(Gpr.RCX, ins.address_bits)
    if repeat and not count.v:
        return
    linear = cpu.mmu.linear(memory.seg, memory.offset(), size, Access.READ if write else Access.WRITE)
    if cpu.guest is not None:
        cpu.guest.io(IoAccess(port, size, write, True, repeat, False, ins.address_bits, memory.seg, linear))
    if write:
        cpu.bus.port_write(port, size, cpu.mmu.load(linear, size))
    else:
        cpu.mmu.translate(linear, Access.WRITE)  # fault before the port is read
        cpu.mmu.store(linear, size, cpu.bus.port_read(port, size))
    index = Gpr.RSI if write else Gpr.RDI
    old = core.get(index, ins.address_bits)
    core.set(index, old - size if cpu.state.rflags & Rflags.DF else old + size)
    if repeat:
        core.set(Gpr.RCX, count - 1)
        if count.v > 1:
            core.again()
