"""The API's calls: what they give, and that they fail as the kernel's do."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from kvm.harness import VENDORS, guest, kvm, vm
from worldswitch.arch.msr import Msr
from worldswitch.errors import ConfigurationError, UnimplementedInstruction
from worldswitch.guests import LOAD_ADDRESS
from worldswitch.kvm import ExitFailEntry, ExitHlt, ExitIo, ExitMmio, ExitShutdown, Kvm, MpState, Params, Regs, Vm
from worldswitch.kvm.types import Segment
from worldswitch.vmm import load_flat

pytestmark = pytest.mark.parametrize("vendor", VENDORS)

HLT = b"\xf4"


def with_slot(machine: Vm) -> Vm:
    machine.set_user_memory_region(0, 0, bytearray(0x4000))
    return machine


#: Name to errno and the calls, of which the last must fail.
ERRORS: dict[str, tuple[int, list[Callable[[Vm], object]]]] = {
    "unaligned address": (errno.EINVAL, [lambda m: m.set_user_memory_region(0, 0x123, bytearray(4096))]),
    "unaligned size": (errno.EINVAL, [lambda m: m.set_user_memory_region(0, 0, bytearray(4097))]),
    "unknown flags": (errno.EINVAL, [lambda m: m.set_user_memory_region(0, 0, bytearray(4096), 8)]),
    "read-only user memory": (errno.EINVAL, [lambda m: m.set_user_memory_region(0, 0, memoryview(bytes(4096)))]),
    "slot out of range": (errno.EINVAL, [lambda m: m.set_user_memory_region(-1, 0, bytearray(4096))]),
    "delete what is not there": (errno.EINVAL, [lambda m: m.set_user_memory_region(3, 0, None)]),
    "overlapping slots": (errno.EEXIST, [lambda m: with_slot(m).set_user_memory_region(1, 0x3000, bytearray(4096))]),
    "another size": (errno.EINVAL, [lambda m: with_slot(m).set_user_memory_region(0, 0, bytearray(4096))]),
    "beyond the physical width": (errno.EINVAL, [lambda m: m.set_user_memory_region(0, 1 << 40, bytearray(4096))]),
    "vCPU twice": (errno.EEXIST, [lambda m: m.create_vcpu(1), lambda m: m.create_vcpu(1)]),
    "vCPU id": (errno.EINVAL, [lambda m: m.create_vcpu(1000)]),
    "irqchip twice": (errno.EEXIST, [lambda m: m.create_irqchip(), lambda m: m.create_irqchip()]),
    "irqchip after a vCPU": (errno.EINVAL, [lambda m: m.create_vcpu(), lambda m: m.create_irqchip()]),
    "MSI without irqchip": (errno.EINVAL, [lambda m: m.signal_msi(0xFEE00000, 0x40)]),
    "read outside of the slots": (errno.EFAULT, [lambda m: m.read_guest(0x5000, 1)]),
    "read past a slot": (errno.EFAULT, [lambda m: with_slot(m).read_guest(0x3FFF, 2)]),
    "interrupt twice": (errno.EEXIST, [lambda m: m.create_vcpu().interrupt(0x40), lambda m: m.vcpus[0].interrupt(0x41)]),
    "interrupt vector": (errno.EINVAL, [lambda m: m.create_vcpu().interrupt(256)]),
    "interrupt with irqchip": (errno.ENXIO, [lambda m: m.create_irqchip(), lambda m: m.create_vcpu().interrupt(0x40)]),
    "mp state without irqchip": (errno.EINVAL, [lambda m: m.create_vcpu().set_mp_state(MpState.HALTED)]),
    "unknown MSR": (errno.EINVAL, [lambda m: m.create_vcpu().get_msr(0x12345)]),
    "MSR value": (errno.EINVAL, [lambda m: m.create_vcpu().set_msr(Msr.IA32_LSTAR, 1 << 63)]),
    "CR0.PG without PE": (errno.EINVAL, [lambda m: m.create_vcpu().set_sregs(replace(m.vcpus[0].get_sregs(), cr0=0x80000000))]),
    "CR8": (errno.EINVAL, [lambda m: m.create_vcpu().set_sregs(replace(m.vcpus[0].get_sregs(), cr8=16))]),
    "input that nobody asked for": (errno.EINVAL, [lambda m: m.create_vcpu().complete_io(1)]),
    "a second thread": (errno.EBUSY, [lambda m: m.create_vcpu().start(), lambda m: m.vcpus[0].start()]),
}


@pytest.mark.parametrize(("number", "calls"), ERRORS.values(), ids=ERRORS)
def test_errors(vendor: str, number: int, calls: list[Callable[[Vm], object]]) -> None:
    machine = vm(vendor, irqchip=False)
    for call in calls[:-1]:
        call(machine)
    with pytest.raises(OSError) as failed:  # noqa: PT011
        calls[-1](machine)
    assert failed.value.errno == number


def test_system(vendor: str) -> None:
    made = kvm(vendor)
    assert made.get_api_version() == 12
    leaves = {entry.function: entry for entry in made.get_supported_cpuid()}
    assert leaves[1].ecx >> 31 & 1
    assert not leaves[1].ecx >> 5 & 1
    assert leaves[0x40000000].ebx.to_bytes(4, "little") == b"KVMK"


def test_reset_state(vendor: str) -> None:
    vcpu = vm(vendor).create_vcpu()
    sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
    assert (regs.rip, regs.rflags) == (0xFFF0, 2)
    assert (sregs.cs.selector, sregs.cs.base, sregs.cs.limit) == (0xF000, 0xFFFF0000, 0xFFFF)
    assert (sregs.cr0, sregs.cr4, sregs.efer) == (0x60000010, 0, 0)
    assert sregs.apic_base == 0xFEE00900


def test_registers_round_trip(vendor: str) -> None:
    made = guest(vendor, HLT)
    vcpu = made.vcpu
    regs = replace(Regs(*range(0x1111, 0x1111 + 16)), rip=LOAD_ADDRESS, rflags=0x202)
    vcpu.set_regs(regs)
    assert vcpu.get_regs() == regs
    sregs = replace(vcpu.get_sregs(), fs=Segment(0x10, 0x123456789000, 0xFFFFFFFF, 0xC093), gdt=(0x5000, 0x7F), idt=(0x6000, 0xFFF), cr2=0xABC)
    vcpu.set_sregs(sregs)
    assert vcpu.get_sregs() == sregs


@pytest.mark.parametrize("msr", [Msr.IA32_STAR, Msr.IA32_LSTAR, Msr.IA32_KERNEL_GS_BASE, Msr.IA32_SYSENTER_EIP, Msr.IA32_TSC_AUX, Msr.IA32_FS_BASE])
def test_msrs_round_trip_and_stay_out_of_the_host(vendor: str, msr: Msr) -> None:
    machine = vm(vendor)
    one, other = machine.create_vcpu(0), machine.create_vcpu(1)
    host = machine.processor.msrs.read(msr)
    one.set_msr(msr, 0x12345678)
    assert one.get_msr(msr) == 0x12345678
    assert other.get_msr(msr) == 0
    assert machine.processor.msrs.read(msr) == host


def test_hlt_without_irqchip_goes_to_user_space(vendor: str) -> None:
    made = guest(vendor, HLT, irqchip=False)
    assert made.vcpu.run() == ExitHlt()
    assert made.vcpu.get_regs().rip == LOAD_ADDRESS + 1


def test_hlt_with_irqchip_blocks(vendor: str) -> None:
    made = guest(vendor, HLT)
    with pytest.raises(InterruptedError):
        made.vcpu.run(max_time=1_000_000)
    assert made.vcpu.get_mp_state() is MpState.HALTED


def test_triple_fault(vendor: str) -> None:
    assert guest(vendor, b"\x0f\x0b").vcpu.run() == ExitShutdown()  # UD2 without an IDT


def test_immediate_exit(vendor: str) -> None:
    made = guest(vendor, HLT, irqchip=False)
    made.vcpu.immediate_exit = True
    with pytest.raises(InterruptedError):
        made.vcpu.run()
    assert made.vcpu.run() == ExitHlt()


# mov eax, [abs 0x30000000]; mov [abs 0x30000008], eax; hlt, through RDI
MMIO = bytes.fromhex("bf00000030 8b07 894708 f4")


def test_mmio_goes_to_user_space_and_back(vendor: str) -> None:
    made = guest(vendor, MMIO, irqchip=False)
    assert made.vcpu.run() == ExitMmio(0x30000000, 4, False, 0)
    made.vcpu.complete_mmio(0xCAFEBABE)
    assert made.vcpu.run() == ExitMmio(0x30000008, 4, True, 0xCAFEBABE)
    assert made.vcpu.run() == ExitHlt()
    assert made.vcpu.get_regs().rax == 0xCAFEBABE


def test_rep_outs_is_emulated_one_by_one(vendor: str) -> None:
    # lea rsi, [rip + data]; mov ecx, 3; mov dx, 0xe9; rep outsb; hlt; data: "abc"
    code = bytes.fromhex("488d350c000000 b903000000 66bae900 f36e f4") + b"abc"
    made = guest(vendor, code, irqchip=False)
    said = b""
    while not isinstance(exit_ := made.vcpu.run(), ExitHlt):
        said += bytes([getattr(exit_, "data", 0)])
    assert said == b"abc"


def test_an_instruction_that_is_not_implemented_is_named(vendor: str) -> None:
    # MONITOR, which CPUID does not offer: #UD, so a triple fault without an IDT.
    assert guest(vendor, bytes.fromhex("0f01c8"), irqchip=False).vcpu.run() == ExitShutdown()
    # XLATB, which every processor has and this version lacks.
    made = guest(vendor, bytes.fromhex("90 d7"), irqchip=False)
    with pytest.raises(UnimplementedInstruction) as missing:
        made.vcpu.run()
    assert missing.value.code == b"\xd7"
    assert missing.value.rip == LOAD_ADDRESS + 1
    assert "64-bit mode" in str(missing.value)


def test_user_interrupt_without_irqchip(vendor: str) -> None:
    # lidt [rip + 3]; sti; jmp $; the handler of vector 0x40 (IDT at 0x210000): hlt
    made = guest(vendor, bytes.fromhex("0f011d03000000 fb ebfe") + (0xFFF).to_bytes(2, "little") + (0x210000).to_bytes(8, "little"), irqchip=False)
    handler = 0x1FF000
    made.memory[handler : handler + 1] = HLT
    gate = handler & 0xFFFF | 8 << 16 | 0x8E00 << 32 | handler >> 16 << 48
    made.memory[0x210000 + 0x400 : 0x210000 + 0x410] = gate.to_bytes(8, "little") + bytes(8)
    made.vcpu.interrupt(0x40)
    assert made.vcpu.run(max_time=5_000_000) == ExitHlt()
    assert made.vcpu.get_regs().rip == handler + 1
    assert made.vcpu.stat.irq_window_exits == 1  # it came while IF was 0


def test_nmi(vendor: str) -> None:
    code = bytes.fromhex("0f011d02000000 ebfe") + (0xFFF).to_bytes(2, "little") + (0x210000).to_bytes(8, "little")
    made = guest(vendor, code, irqchip=False)
    handler = 0x1FF000
    made.memory[handler : handler + 1] = HLT
    gate = handler & 0xFFFF | 8 << 16 | 0x8E00 << 32 | handler >> 16 << 48
    made.memory[0x210000 + 0x20 : 0x210000 + 0x30] = gate.to_bytes(8, "little") + bytes(8)
    with pytest.raises(InterruptedError):
        made.vcpu.run(max_time=made.vm.kernel.now() + 100_000)
    made.vcpu.nmi()
    assert made.vcpu.run(max_time=5_000_000) == ExitHlt()
    assert made.vcpu.get_regs().rip == handler + 1
    assert made.vcpu.stat.nmi_injections == 1


def test_bad_guest_state_fails_the_entry(vendor: str) -> None:
    made = guest(vendor, HLT)
    sregs = made.vcpu.get_sregs()
    made.vcpu.set_sregs(replace(sregs, cs=replace(sregs.cs, ar=0xE09B)))  # L and D together
    assert isinstance(made.vcpu.run(), ExitFailEntry)


def test_slots_can_change_under_a_running_guest(vendor: str) -> None:
    made = guest(vendor, MMIO, irqchip=False)
    made.vm.set_user_memory_region(1, 0x30000000, bytearray(0x1000))
    made.vm.write_guest(0x30000000, (0x1234).to_bytes(4, "little"))
    assert made.vcpu.run() == ExitHlt()
    assert made.vm.read_guest(0x30000008, 4) == (0x1234).to_bytes(4, "little")
    made.vm.set_user_memory_region(1, 0, None)
    made.vcpu.set_regs(Regs(rip=LOAD_ADDRESS, rsp=0x90000))
    assert made.vcpu.run() == ExitMmio(0x30000000, 4, False, 0)


def test_params_of_the_other_vendor(vendor: str) -> None:
    wrong = {"intel": Params(v_intr_masking=False), "amd": Params(ack_on_exit=False)}[vendor]
    with pytest.raises(ConfigurationError):
        Kvm(kvm(vendor).kernel, wrong)


@pytest.mark.parametrize("irqchip", [False, True])
def test_cr8_is_the_guests_own(vendor: str, irqchip: bool) -> None:
    # mov eax, 9; mov cr8, rax; mov rbx, cr8; out 0x80, al; hlt
    made = guest(vendor, bytes.fromhex("b809000000 440f22c0 440f20c3 e680 f4"), irqchip=irqchip)
    assert isinstance(made.vcpu.run(), ExitIo)
    assert made.vcpu.get_regs().rbx == 9
    assert made.vcpu.get_sregs().cr8 == 9
    assert made.vm.processor.apic.get_tpr() == 0


def test_debug_registers_do_not_leak_between_vcpus(vendor: str) -> None:
    # mov eax, 0x1234; mov dr0, rax; out 0x80, al; hlt -- and: mov rbx, dr0; out 0x80, al; hlt
    made = kvm(vendor)
    read = []
    for code in ("b834120000 0f23c0 e680 f4", "0f21c3 e680 f4"):
        machine = made.create_vm()
        one = load_flat(machine, bytes.fromhex(code))
        assert isinstance(one.vcpu.run(), ExitIo)
        read.append(one.vcpu.get_regs().rbx)
    assert read == [0, 0]
    assert machine.processor.state.dr0 == 0
