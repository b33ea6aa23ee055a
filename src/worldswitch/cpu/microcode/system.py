"""Flags and processor control: CLI, STI, PUSHF, POPF, HLT, CPUID, time stamps, MSRs, descriptor-table registers, cache control, SWAPGS, SYSCALL (SDM
vol. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import Vector
from worldswitch.arch.registers import Cr4, Efer, Gpr, Rflags, Seg
from worldswitch.arch.vmx import ActivityState, Interruptibility
from worldswitch.cpu.cpuid import cpuid
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.intercept import Access, Intercept
from worldswitch.cpu.microcode.registry import intercepted, microcode, operand, require_cpl0
from worldswitch.cpu.state import MASK64

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_MASK32: Final = 0xFFFFFFFF
#: What POPF can change, before privilege narrows it (SDM vol. 2, POPF).
_POPF: Final = 0x8D5 | Rflags.TF | Rflags.IF | Rflags.DF | Rflags.IOPL | Rflags.NT | Rflags.AC | Rflags.ID


def _iopl(cpu: Processor) -> int:
    return cpu.state.rflags >> 12 & 3


def _check_iopl(cpu: Processor) -> None:
    if cpu.protected and cpu.cpl > _iopl(cpu):
        raise fault(Vector.GP, 0)


@microcode("CLI")
def cli(cpu: Processor, ins: Decoded) -> None:
    _check_iopl(cpu)
    cpu.state.rflags &= ~Rflags.IF


@microcode("STI")
def sti(cpu: Processor, ins: Decoded) -> None:
    _check_iopl(cpu)
    if not cpu.state.rflags & Rflags.IF:
        cpu.state.rflags |= Rflags.IF
        # The next instruction still runs without interruption (SDM vol. 2, STI).
        cpu.shadow = Interruptibility.BLOCKING_BY_STI
    cpu.attend()


@microcode("PUSHF", "PUSHFD", "PUSHFQ")
def pushf(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.PUSHF)
    core = cpu.core
    top = core.get(Gpr.RSP, core.stack_bits) - ins.operand_bits // 8
    core.store_stack(top, core.const(ins.operand_bits, cpu.state.rflags & ~(Rflags.RF | Rflags.VM)))
    core.set(Gpr.RSP, top)


@microcode("POPF", "POPFD", "POPFQ")
def popf(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.POPF)
    core, state = cpu.core, cpu.state
    top = core.get(Gpr.RSP, core.stack_bits)
    image = core.load_stack(top, ins.operand_bits).v
    core.set(Gpr.RSP, top + ins.operand_bits // 8)
    changeable = _POPF if ins.operand_bits != 16 else _POPF & 0xFFFF
    if cpu.protected and cpu.cpl > 0:
        changeable &= ~Rflags.IOPL
        if cpu.cpl > _iopl(cpu):
            changeable &= ~Rflags.IF
    state.rflags = (state.rflags & ~changeable | image & changeable) & ~(Rflags.RF if ins.operand_bits != 16 else 0)
    _flags_loaded(cpu)


def _flags_loaded(cpu: Processor) -> None:
    if cpu.state.cr4 & Cr4.SMAP:
        cpu.context_changed()  # RFLAGS.AC decides on supervisor access to user pages
    cpu.attend()


@microcode("CLAC", "STAC")
def stac(cpu: Processor, ins: Decoded) -> None:
    if not cpu.state.cr4 & Cr4.SMAP or cpu.cpl:
        raise fault(Vector.UD)
    cpu.state.rflags = cpu.state.rflags & ~Rflags.AC | (Rflags.AC if ins.name == "STAC" else 0)
    _flags_loaded(cpu)


@microcode("HLT")
def hlt(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    intercepted(cpu, Intercept.HLT)
    cpu.state.activity = ActivityState.HLT
    cpu.attend()


@microcode("PAUSE")
def pause(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.PAUSE)


@microcode("UD0", "UD1", "UD2")
def ud(cpu: Processor, ins: Decoded) -> None:
    raise fault(Vector.UD)


@microcode("CPUID")
def cpuid_(cpu: Processor, ins: Decoded) -> None:
    intercepted(cpu, Intercept.CPUID)
    s = cpu.state
    s.rax, s.rbx, s.rcx, s.rdx = cpuid(cpu, s.rax & _MASK32, s.rcx & _MASK32)


def _read_tsc(cpu: Processor, what: Intercept) -> None:
    if cpu.state.cr4 & Cr4.TSD and cpu.protected and cpu.cpl:
        raise fault(Vector.GP, 0)
    intercepted(cpu, what)
    tsc = cpu.tsc
    cpu.state.rax, cpu.state.rdx = tsc & _MASK32, tsc >> 32


@microcode("RDTSC")
def rdtsc(cpu: Processor, ins: Decoded) -> None:
    _read_tsc(cpu, Intercept.RDTSC)


@microcode("RDTSCP")
def rdtscp(cpu: Processor, ins: Decoded) -> None:
    _read_tsc(cpu, Intercept.RDTSCP)
    cpu.state.rcx = cpu.state.tsc_aux & _MASK32


@microcode("RDMSR")
def rdmsr(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    number = cpu.state.rcx & _MASK32
    if cpu.guest is not None:
        cpu.guest.rdmsr(number)
    value = cpu.msrs.read(number)
    cpu.state.rax, cpu.state.rdx = value & _MASK32, value >> 32


@microcode("WRMSR")
def wrmsr(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    number = cpu.state.rcx & _MASK32
    value = (cpu.state.rdx & _MASK32) << 32 | cpu.state.rax & _MASK32
    if cpu.guest is not None:
        cpu.guest.wrmsr(number, value)
    cpu.msrs.write(number, value)


@microcode("INVLPG")
def invlpg(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    memory = operand(ins, 0)
    linear = memory.offset() + (cpu.state.seg[memory.seg].base if memory.seg >= Seg.FS or cpu.mode_bits != 64 else 0) & MASK64
    if cpu.guest is not None:
        cpu.guest.invlpg(linear)
    cpu.mmu.invalidate(linear)


@microcode("INVD")
def invd(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    intercepted(cpu, Intercept.INVD)


@microcode("WBINVD")
def wbinvd(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    intercepted(cpu, Intercept.WBINVD)


_TABLES: Final = {"LGDT": Intercept.LGDT, "LIDT": Intercept.LIDT, "SGDT": Intercept.SGDT, "SIDT": Intercept.SIDT}


@microcode("LGDT", "LIDT")
def load_table(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    memory = operand(ins, 0)
    intercepted(cpu, _TABLES[ins.name], memory.displacement)
    width = 8 if cpu.mode_bits == 64 else 4
    linear = cpu.mmu.linear(memory.seg, memory.offset(), 2 + width, Access.READ)
    limit, base = cpu.mmu.load(linear, 2), cpu.mmu.load(linear + 2 & MASK64, width)
    if cpu.mode_bits == 64:
        if not cpu.mmu.canonical(base):
            raise fault(Vector.GP, 0)
    elif ins.operand_bits == 16:
        base &= 0xFFFFFF
    if ins.name == "LGDT":
        cpu.state.gdtr_base, cpu.state.gdtr_limit = base, limit
    else:
        cpu.state.idtr_base, cpu.state.idtr_limit = base, limit


@microcode("SGDT", "SIDT")
def store_table(cpu: Processor, ins: Decoded) -> None:
    if cpu.state.cr4 & Cr4.UMIP and cpu.cpl:
        raise fault(Vector.GP, 0)
    memory = operand(ins, 0)
    intercepted(cpu, _TABLES[ins.name], memory.displacement)
    s = cpu.state
    base, limit = (s.gdtr_base, s.gdtr_limit) if ins.name == "SGDT" else (s.idtr_base, s.idtr_limit)
    width = 8 if cpu.mode_bits == 64 else 4
    linear = cpu.mmu.linear(memory.seg, memory.offset(), 2 + width, Access.WRITE)
    cpu.mmu.store(linear, 2 + width, (base & (1 << 8 * width) - 1) << 16 | limit)


@microcode("SWAPGS")
def swapgs(cpu: Processor, ins: Decoded) -> None:
    require_cpl0(cpu)
    s = cpu.state
    s.gs.base, s.kernel_gs_base = s.kernel_gs_base, s.gs.base


@microcode("SYSCALL")
def syscall(cpu: Processor, ins: Decoded) -> None:
    s = cpu.state
    if not s.efer & Efer.SCE or cpu.mode_bits != 64:
        raise fault(Vector.UD)
    s.rcx, s.r11 = cpu.next_rip, s.rflags & ~Rflags.RF
    cpu.next_rip = s.lstar
    s.rflags = s.rflags & ~s.fmask & ~Rflags.RF | Rflags.FIXED
    selector = s.star >> 32 & 0xFFFC
    s.cs.set(selector, 0, _MASK32, 0xA09B)
    s.ss.set(selector + 8, 0, _MASK32, 0xC093)
    cpu.context_changed()


@microcode("SYSRETQ", "SYSRET")
def sysret(cpu: Processor, ins: Decoded) -> None:
    s = cpu.state
    if not s.efer & Efer.SCE or cpu.mode_bits != 64:
        raise fault(Vector.UD)
    require_cpl0(cpu)
    to_64 = ins.name == "SYSRETQ"
    if to_64 and not cpu.mmu.canonical(s.rcx):
        raise fault(Vector.GP, 0)
    cpu.next_rip = s.rcx if to_64 else s.rcx & _MASK32
    s.rflags = s.r11 & 0x3C7FD7 | Rflags.FIXED
    selector = (s.star >> 48) + (16 if to_64 else 0)
    s.cs.set(selector | 3, 0, _MASK32, 0xA0FB if to_64 else 0xC0FB)
    s.ss.set((s.star >> 48) + 8 | 3, 0, _MASK32, 0xC0F3)
    cpu.context_changed()
