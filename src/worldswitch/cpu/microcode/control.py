"""Control and debug registers: MOV CR, MOV DR, CLTS, LMSW, SMSW (SDM vol. 2; vol. 3 §2.5), with the checks on what may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import CR0_DEFINED, DR6_FIXED, DR7_DEFINED, DR7_FIXED, Cr0, Cr4, Efer
from worldswitch.arch.segments import AR_L
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Intercept
from worldswitch.cpu.microcode.registry import intercepted, microcode, operand, require_cpl0, value

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


def cr4_supported(cpu: Processor) -> int:
    """The CR4 bits that this processor has."""
    bits = (
        Cr4.TSD | Cr4.DE | Cr4.PSE | Cr4.PAE | Cr4.MCE | Cr4.PGE | Cr4.PCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.SMEP | Cr4.SMAP
    )  # fmt: skip
    return int(bits | (Cr4.VMXE if cpu.model.vendor == "intel" else 0))


def set_cr0(cpu: Processor, new: int) -> None:
    """MOV to CR0 (SDM vol. 2, MOV CR): faults on what cannot be, and long mode comes and goes with paging (vol. 3 §10.8.5)."""
    s = cpu.state
    if new >> 32 or (new & Cr0.PG and not new & Cr0.PE) or (new & Cr0.NW and not new & Cr0.CD):
        raise fault(Vector.GP, 0)
    new = new & CR0_DEFINED | Cr0.ET
    cpu.vmx.check_fixed_cr0(new)
    turning_on = new & Cr0.PG and not s.cr0 & Cr0.PG
    if turning_on and s.efer & Efer.LME:
        if not s.cr4 & Cr4.PAE or s.cs.ar & AR_L:
            raise fault(Vector.GP, 0)
        s.efer |= Efer.LMA
    elif not new & Cr0.PG and s.cr0 & Cr0.PG:
        if cpu.mode_bits == 64:
            raise fault(Vector.GP, 0)
        s.efer &= ~Efer.LMA
    s.cr0 = new
    cpu.context_changed()


def set_cr4(cpu: Processor, new: int) -> None:
    """MOV to CR4."""
    if new & ~cr4_supported(cpu) or (cpu.long_mode and not new & Cr4.PAE):
        raise fault(Vector.GP, 0)
    cpu.vmx.check_fixed_cr4(new)
    cpu.state.cr4 = new
    cpu.context_changed()


def set_cr3(cpu: Processor, new: int) -> None:
    """MOV to CR3."""
    if cpu.long_mode and new >> cpu.model.physical_bits:
        raise fault(Vector.GP, 0)
    cpu.state.cr3 = new
    cpu.context_changed()


def set_cr8(cpu: Processor, new: int) -> None:
    """MOV to CR8: the task priority (SDM vol. 3 §11.8.6.1)."""
    if new >> 4:
        raise fault(Vector.GP, 0)
    if not cpu.svm.set_virtual_tpr(new):
        cpu.apic.set_tpr(new << 4)
    cpu.attend()


def _set_cr2(cpu: Processor, new: int) -> None:
    cpu.state.cr2 = new


_WRITE = {0: set_cr0, 2: _set_cr2, 3: set_cr3, 4: set_cr4, 8: set_cr8}


def _read(cpu: Processor, cr: int) -> int:
    match cr:
        case 0:
            return cpu.state.cr0
        case 2:
            return cpu.state.cr2
        case 3:
            return cpu.state.cr3
        case 4:
            return cpu.state.cr4
    virtual = cpu.svm.virtual_tpr()
    return cpu.apic.get_tpr() >> 4 if virtual is None else virtual


def mov_control(cpu: Processor, ins: Decoded) -> None:
    """MOV to or from a control register."""
    reading = operand(ins, 0).__class__.__name__ == "RegisterOperand"
    register, special = (operand(ins, 0), operand(ins, 1)) if reading else (operand(ins, 1), operand(ins, 0))
    if special.index not in _WRITE:
        raise fault(Vector.UD)
    require_cpl0(cpu)
    if reading:
        seen = cpu.guest.cr_read(special.index, register.index) if cpu.guest is not None else None
        register.store(cpu.core.const(register.bits, _read(cpu, special.index) if seen is None else seen))
        return
    new = register.load().v
    if cpu.guest is not None:
        new = cpu.guest.cr_write(special.index, register.index, new)
    _WRITE[special.index](cpu, new)


@microcode("CLTS")
def clts(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    intercepted(cpu, Intercept.CLTS)
    cpu.state.cr0 &= ~Cr0.TS


@microcode("LMSW")
def lmsw(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    source = value(ins, 0) & 0xFFFF
    if cpu.guest is not None:
        memory = operand(ins, 0).is_memory
        source = cpu.guest.lmsw(source, memory, operand(ins, 0).offset() if memory else 0)
    old = cpu.state.cr0
    set_cr0(cpu, old & ~0xE | source & 0xF | old & Cr0.PE)  # PE can be set, not cleared (SDM vol. 2, LMSW)


@microcode("SMSW")
def smsw(cpu: Processor, ins: Decoded) -> None:
    if cpu.state.cr4 & Cr4.UMIP and cpu.cpl:
        raise fault(Vector.GP, 0)
    intercepted(cpu, Intercept.SMSW)
    target = operand(ins, 0)
    seen = cpu.guest.cr_read(0, 0) if cpu.guest is not None and cpu.model.vendor == "intel" else None
    image = cpu.state.cr0 if seen is None else seen
    target.store(cpu.core.const(target.bits, image))


def mov_debug(cpu: Processor, ins: Decoded) -> None:
    """MOV to or from a debug register (SDM vol. 3 §18.2)."""
    reading = operand(ins, 0).__class__.__name__ == "RegisterOperand"
    register, special = (operand(ins, 0), operand(ins, 1)) if reading else (operand(ins, 1), operand(ins, 0))
    number = special.index
    if number in (4, 5):
        if cpu.state.cr4 & Cr4.DE:
            raise fault(Vector.UD)
        number += 2
    elif number > 7:
        raise fault(Vector.UD)
    require_cpl0(cpu)
    if cpu.guest is not None:
        cpu.guest.dr_access(number, register.index, not reading)
    names = {0: "dr0", 1: "dr1", 2: "dr2", 3: "dr3", 6: "dr6", 7: "dr7"}
    if reading:
        register.store(cpu.core.const(register.bits, int(getattr(cpu.state, names[number]))))
        return
    new = register.load().v
    if number >= 6:
        if new >> 32:
            raise fault(Vector.GP, 0)
        new = new & 0xE00F | DR6_FIXED if number == 6 else new & DR7_DEFINED | DR7_FIXED
    setattr(cpu.state, names[number], new)
