"""Flat 64-bit programs: memory, page tables, GDT and registers by the contract of `worldswitch.guests`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worldswitch.errors import ImageError
from worldswitch.guests import LOAD_ADDRESS, MAILBOX, STACK_TOP
from worldswitch.kvm import Regs, Segment, Sregs, Vcpu, Vm

_GDT: Final = 0x1000
_PML4, _PDPT, _PD = 0x2000, 0x3000, 0x4000
_P_RW: Final = 3
_P_RW_PS: Final = 0x83
#: Null, 0x08 64-bit code, 0x10 data (SDM vol. 3 §3.4.5).
_DESCRIPTORS: Final = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)


@dataclass(slots=True)
class FlatGuest:
    """A loaded program."""

    vm: Vm
    vcpu: Vcpu
    memory: bytearray

    def mailbox(self, offset: int) -> int:
        """Eight bytes of the mailbox page."""
        at = MAILBOX + offset
        return int.from_bytes(self.memory[at : at + 8], "little")

    def set_mailbox(self, offset: int, value: int) -> None:
        """Write eight bytes of the mailbox page."""
        at = MAILBOX + offset
        self.memory[at : at + 8] = value.to_bytes(8, "little")


def load_flat(vm: Vm, program: bytes, *, memory_bytes: int = 4 << 20, vcpu_id: int = 0) -> FlatGuest:
    """Put a flat program into a new memory slot of the VM and a new vCPU at its start. ImageError if it does not fit."""
    if memory_bytes % 4096 or LOAD_ADDRESS + len(program) > min(memory_bytes, MAILBOX) or memory_bytes < MAILBOX + 0x20000:
        raise ImageError("flat program", f"{len(program)} bytes do not fit at {LOAD_ADDRESS:#x} in {memory_bytes} bytes of memory")
    memory = bytearray(memory_bytes)

    def words(address: int, *values: int) -> None:
        for i, value in enumerate(values):
            memory[address + 8 * i : address + 8 * i + 8] = value.to_bytes(8, "little")

    words(_GDT, *_DESCRIPTORS)
    words(_PML4, _PDPT | _P_RW)
    words(_PDPT, _PD | _P_RW)
    words(_PD, *(i << 21 | _P_RW_PS for i in range(512)))
    memory[LOAD_ADDRESS : LOAD_ADDRESS + len(program)] = program
    vm.set_user_memory_region(0, 0, memory)
    vcpu = vm.create_vcpu(vcpu_id)
    old = vcpu.get_sregs()
    code, data = Segment(0x08, 0, 0xFFFFFFFF, 0xA09B), Segment(0x10, 0, 0xFFFFFFFF, 0xC093)
    vcpu.set_sregs(
        Sregs(
            cs=code, ds=data, es=data, fs=data, gs=data, ss=data, tr=old.tr, ldt=old.ldt, gdt=(_GDT, 8 * len(_DESCRIPTORS) - 1), idt=(0, 0),
            cr0=0x80000033, cr2=0, cr3=_PML4, cr4=0x20, cr8=0, efer=0x500, apic_base=old.apic_base,
        )
    )  # fmt: skip
    vcpu.set_regs(Regs(rip=LOAD_ADDRESS, rsp=STACK_TOP))
    return FlatGuest(vm, vcpu, memory)
