"""Guests that mean harm, or make no sense.

Whatever they execute, the run ends in one of the API's exits, in time, or in an error of ours that says what is missing.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kvm.harness import VENDORS, vm
from worldswitch.errors import UnimplementedFeature, UnimplementedInstruction
from worldswitch.guests import COUNTER, GUESTS, LOAD_ADDRESS, PERIOD, TIMER_INTERRUPTS, load_guest
from worldswitch.host import RunEnd
from worldswitch.kvm import Regs
from worldswitch.vmm import load_flat

#: Beginnings of instructions that reach deep: descriptor tables, control registers, MSRs, IRET, virtualization, strings, far transfers.
TEETH = [
    bytes.fromhex(text)
    for text in "0f01 0f00 0f20 0f22 0f30 cd80 48cf 8ed0 0fc7 f3a4 0f78 ff2b 0f23 9d 0f01d8 0f01c2".split()  # noqa: SIM905
]


def hostile_code(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        code = bytearray(load_guest(rng.choice(list(GUESTS))).binary)
        for _ in range(rng.randrange(1, 20)):
            code[rng.randrange(len(code))] = rng.randrange(256)
        return bytes(code)
    code = bytearray(rng.randbytes(400))
    for at in range(0, 380, rng.randrange(3, 12)):
        tooth = rng.choice(TEETH)
        code[at : at + len(tooth)] = tooth
    return bytes(code)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("seed", range(8))
def test_no_guest_ends_in_a_traceback(vendor: str, seed: int) -> None:
    rng = random.Random(f"{vendor} {seed}")
    for _ in range(12):
        guest = load_flat(vm(vendor, irqchip=rng.random() < 0.5), hostile_code(rng))
        registers = [rng.choice([0, 0x200000, LOAD_ADDRESS, rng.getrandbits(64), rng.getrandbits(20)]) for _ in range(16)]
        guest.vcpu.set_regs(replace(Regs(*registers), rip=LOAD_ADDRESS, rflags=2))
        host = guest.vm.processor.state.cr3, guest.vm.processor.state.efer, guest.vm.processor.state.gdtr_base
        beside = bytearray(b"\x5a" * 0x1000)
        guest.vm.host.map_user(beside)
        try:
            for _ in range(10):
                guest.vcpu.run(max_time=guest.vm.kernel.now() + 40_000)
        except (InterruptedError, UnimplementedInstruction, UnimplementedFeature):
            pass
        assert beside == b"\x5a" * 0x1000  # memory that was not given to it
        if guest.vm.processor.guest is None:
            assert (guest.vm.processor.state.cr3, guest.vm.processor.state.efer, guest.vm.processor.state.gdtr_base) == host


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_timer_of_one_cycle_does_not_take_the_host_away(vendor: str) -> None:
    machine = vm(vendor)
    guest = load_flat(machine, load_guest("count_timer").binary)
    guest.set_mailbox(PERIOD, 1)
    guest.vcpu.start()
    assert machine.kernel.run(max_time=400_000) is RunEnd.TIME
    # No more than one interrupt in KVM's least period, and the guest still gets on between them.
    assert 0 < guest.mailbox(TIMER_INTERRUPTS) <= 400_000 // (20 * 200)
    assert guest.mailbox(COUNTER) > 100
