"""The instruction emulator: executes one guest instruction in software, for accesses to what is no memory and for string port I/O.

It is the concrete engine on a processor of its own, whose bus is the guest's physical address space: same decoder, same semantics, same faults as
everywhere else. Where the bus
meets something that only user space can answer, the attempt ends, and is made again with the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worldswitch.arch.registers import Gpr, Seg
from worldswitch.cpu.event import Fault
from worldswitch.cpu.processor import Processor
from worldswitch.errors import UnimplementedFeature, UnimplementedInstruction
from worldswitch.kvm.exits import ExitInternalError, ExitIo, ExitMmio
from worldswitch.kvm.host import HostCpu
from worldswitch.trace import Recorder
from worldswitch.trace.events import KvmMmio, KvmPio

if TYPE_CHECKING:
    from collections.abc import Callable

    from worldswitch.kvm.vcpu import Vcpu

#: KVM_INTERNAL_ERROR_EMULATION
_EMULATION: Final = 1
_APIC_PAGE: Final = 0xFEE00
#: What an emulated instruction sees of the guest, beside general registers and segments, and what it may have changed.
_READ: Final = ("rip", "rflags", "rsp", "cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit")
_WRITTEN: Final = ("rip", "rflags", "rsp")


class _Ask(Exception):
    """User space must answer: port or address, size, whether it is a port."""

    def __init__(self, where: int, size: int, port: bool) -> None:
        super().__init__(where, size, port)
        self.where, self.size, self.port = where, size, port


class _GuestBus:
    """The guest-physical address space as a processor's bus."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.answers: list[int] = []
        self._used = 0
        #: Writes that user space must see: (is a port, where, size, value).
        self.writes: list[tuple[bool, int, int, int]] = []

    def begin(self) -> None:
        self._used = 0
        self.writes.clear()

    def _answer(self, where: int, size: int, port: bool) -> int:
        if self._used == len(self.answers):
            raise _Ask(where, size, port)
        self._used += 1
        return self.answers[self._used - 1] & (1 << 8 * size) - 1

    def _is_apic(self, address: int) -> bool:
        apic = self.vcpu.apic
        return apic is not None and apic.enabled and not apic.x2apic and address >> 12 == _APIC_PAGE

    def read(self, address: int, size: int) -> int:
        if self.vcpu.vm.slot_of(address) is not None:
            return int.from_bytes(self.read_block(address, size), "little")
        if self._is_apic(address):
            assert self.vcpu.apic is not None
            return self.vcpu.apic.mmio_read(address & 0xFFF, size)
        return self._answer(address, size, False)

    def write(self, address: int, size: int, value: int) -> None:
        slot = self.vcpu.vm.slot_of(address)
        if slot is not None and not slot.readonly:
            self.vcpu.vm.write_guest(address, value.to_bytes(size, "little"))
        elif self._is_apic(address):
            assert self.vcpu.apic is not None
            self.vcpu.apic.mmio_write(address & 0xFFF, size, value)
        else:
            self.writes.append((False, address, size, value))

    def read_block(self, address: int, size: int) -> bytes:
        try:
            return self.vcpu.vm.read_guest(address, size)
        except OSError:
            return b"\xff" * size

    def write_block(self, address: int, data: bytes) -> None:
        self.write(address, len(data), int.from_bytes(data, "little"))

    def port_read(self, port: int, size: int) -> int:
        return self._answer(port, size, True)

    def port_write(self, port: int, size: int, value: int) -> None:
        self.writes.append((True, port, size, value))

    def watch_code(self, page: int, dropped: Callable[[int], None]) -> None:
        """Nothing decoded outlives the instruction."""


class _NoApic:
    """An emulated instruction meets no interrupts, and no APIC but the guest's at its addresses."""

    def pending(self) -> bool:
        return False

    def acknowledge(self) -> int:
        return 0

    def take_nmi(self) -> bool:
        return False

    def nmi_pending(self) -> bool:
        return False

    def read_msr(self, msr: int) -> int | None:
        return None

    def write_msr(self, msr: int, value: int) -> bool:
        return False

    def get_tpr(self) -> int:
        return 0

    def set_tpr(self, value: int) -> None:
        pass


class Emulator:
    """One vCPU's emulator."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.bus = _GuestBus(vcpu)
        self.processor = Processor(vcpu.vm.processor.model, self.bus, _NoApic(), Recorder(on=False), vcpu.vcpu_id)


def emulate_instruction(vcpu: Vcpu, cpu: HostCpu) -> int:
    """x86_emulate_instruction: execute the instruction at the guest's RIP. 1: back to the guest; 0: user space has something to do first."""
    if vcpu.emulator is None:
        vcpu.emulator = Emulator(vcpu)
    emulator: Emulator = vcpu.emulator
    bus, processor = emulator.bus, emulator.processor
    cpu.charge("emulate")
    _take_state(vcpu, processor)
    bus.begin()
    try:
        processor.step()
    except Fault as raised:
        event = raised.event
        bus.answers.clear()
        vcpu.queue_exception(event.vector, event.error_code, event.payload)
        return 1
    except _Ask as ask:
        return _ask_user(vcpu, bus, ask)
    except (UnimplementedInstruction, UnimplementedFeature):
        bus.answers.clear()
        code = bus.read_block(processor.state.rip, 15)
        vcpu.exit = ExitInternalError(_EMULATION, (processor.state.rip, int.from_bytes(code, "little")))
        return 0
    bus.answers.clear()
    _give_state(vcpu, processor)
    return _tell_user(vcpu, cpu, bus)


def _take_state(vcpu: Vcpu, processor: Processor) -> None:
    state = processor.state
    for g in Gpr:
        state.q[g] = vcpu.regs[g]
    for seg in Seg:
        name = seg.name.lower()
        state.seg[seg].set(*(vcpu.get(f"{name}_{part}") for part in ("selector", "base", "limit", "ar")))
    for name in _READ:
        setattr(state, name, vcpu.get(name))
    state.interruptibility = state.pending_debug = state.activity = 0
    processor.shadow = 0
    processor.delivering = None
    processor.forget_code()
    processor.context_changed()
    processor.stepping = False


def _give_state(vcpu: Vcpu, processor: Processor) -> None:
    for g in Gpr:
        if g is not Gpr.RSP:
            vcpu.regs[g] = processor.state.q[g]
    for name in _WRITTEN:
        vcpu.put(name, getattr(processor.state, name))
    vcpu.ops.clear_shadow(vcpu)


def _ask_user(vcpu: Vcpu, bus: _GuestBus, ask: _Ask) -> int:
    vcpu.exit = ExitIo(ask.where, ask.size, False, 0) if ask.port else ExitMmio(ask.where, ask.size, False, 0)

    def answer(value: int) -> None:
        bus.answers.append(value)
        vcpu.reemulate = True

    vcpu.pending_input = answer
    return 0


def _tell_user(vcpu: Vcpu, cpu: HostCpu, bus: _GuestBus) -> int:
    if not bus.writes:
        return 1
    port, where, size, value = bus.writes[0]
    if cpu.trace.on:
        event = KvmPio(cpu.index, cpu.now(), 1, where, size, 1, value) if port else KvmMmio(cpu.index, cpu.now(), 2, size, where, value)
        cpu.trace.emit(event)
    vcpu.exit = ExitIo(where, size, True, value) if port else ExitMmio(where, size, True, value)
    return 0
