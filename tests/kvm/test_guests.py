"""The guest programs, on both vendors: what they find must be what the architecture says, however often they are interrupted."""

from __future__ import annotations

import pytest

from kvm.harness import VENDORS, guest, kvm
from worldswitch.arch.exceptions import Vector
from worldswitch.guests import COUNTER, DONE, LOG, PERIOD, TIMER_INTERRUPTS, load_guest
from worldswitch.host import RunEnd
from worldswitch.kvm import ExitHlt, ExitIo
from worldswitch.trace import events as t
from worldswitch.vmm import FlatGuest, load_flat


def until_done(made: FlatGuest) -> None:
    made.vcpu.start()
    assert made.vm.kernel.run(lambda: made.mailbox(DONE) == 1, max_time=50_000_000) is RunEnd.DONE


#: (vector, error code, CR2) in the order in which `faults` meets them; CR2 stays from the last page fault.
FAULTS = [
    (Vector.DE, 0, 0),
    (Vector.UD, 0, 0),
    (Vector.BP, 0, 0),
    (Vector.PF, 0, 0x40000000),
    (Vector.PF, 2, 0x40001000),
    (Vector.GP, 0, 0x40001000),
    (Vector.GP, 0x50, 0x40001000),
    (0x80, 0, 0x40001000),
    (Vector.NP, 0x30 * 8 + 2, 0x40001000),
    (Vector.DF, 0, 0x40001000),
]


@pytest.mark.parametrize("vendor", VENDORS)
def test_faults(vendor: str) -> None:
    made = guest(vendor, "faults")
    until_done(made)
    log = made.memory[LOG : LOG + 32 * len(FAULTS)]
    words = [int.from_bytes(log[i : i + 8], "little") for i in range(0, len(log), 8)]
    assert [(words[i], words[i + 1], words[i + 3]) for i in range(0, len(words), 4)] == FAULTS
    assert made.mailbox(COUNTER) == len(FAULTS)


@pytest.mark.parametrize("vendor", VENDORS)
def test_probe_says_hello_and_asks_a_port(vendor: str) -> None:
    made = guest(vendor, "probe", irqchip=False)
    said, asked = bytearray(), []
    while not isinstance(exit_ := made.vcpu.run(), ExitHlt):
        assert isinstance(exit_, ExitIo)
        if exit_.write:
            assert exit_.port == 0xE9
            said.append(exit_.data)
        else:
            asked.append(exit_.port)
            made.vcpu.complete_io(0x5A)
    assert said == b"hello from the guest\n"
    assert asked == [0x80]
    assert made.mailbox(0xA0) & 0xFF == 0x5A
    assert made.mailbox(COUNTER) == 1  # #GP of RDMSR
    words = [made.mailbox(0x80 + 8 * i) for i in range(2)]
    raw = b"".join(w.to_bytes(8, "little") for w in words)
    assert raw[4:8] + raw[12:16] + raw[8:12] == {"intel": b"GenuineIntel", "amd": b"AuthenticAMD"}[vendor]
    assert made.mailbox(0x98) >> 31 & 1  # a hypervisor is present


@pytest.mark.parametrize("vendor", VENDORS)
def test_halt_blocks_the_thread_and_the_timer_wakes_it(vendor: str) -> None:
    made = guest(vendor, "halt_timer")
    made.set_mailbox(PERIOD, 60_000)
    made.vcpu.start()
    made.vm.kernel.run(lambda: made.mailbox(COUNTER) >= 20, max_time=10_000_000)
    stat = made.vcpu.stat
    assert made.mailbox(TIMER_INTERRUPTS) == made.mailbox(COUNTER) == 20
    assert stat.halt_wakeup == stat.halt_exits >= 20
    assert stat.irq_injections >= 20
    trace = made.vm.kernel.trace
    assert any(e.prev_comm.startswith("vcpu") and e.prev_state == "S" and e.next_pid == 0 for e in trace.of(t.SchedSwitch))
    assert any(e.comm.startswith("vcpu") for e in trace.of(t.SchedWakeup))


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_injected_was_accepted_and_delivered_once(vendor: str) -> None:
    made = guest(vendor, "count_timer")
    made.set_mailbox(PERIOD, 30_000)
    made.vcpu.start()
    made.vm.kernel.run(lambda: made.mailbox(TIMER_INTERRUPTS) >= 25, max_time=20_000_000)
    trace = list(made.vm.kernel.trace)
    accepted = sum(isinstance(e, t.KvmApicAcceptIrq) for e in trace)
    injected = sum(isinstance(e, t.KvmInjVirq) and not e.reinjected for e in trace)
    delivered = sum(isinstance(e, t.HwEventDelivered) and e.vector == 0x40 and e.guest for e in trace)
    assert made.mailbox(TIMER_INTERRUPTS) == 25
    assert accepted - injected in (0, 1)
    assert injected == delivered == 25


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_guest_computes_the_same_however_it_is_interrupted(vendor: str) -> None:
    """`faults` alone, and beside two busy guests under a fast tick: same log, same memory, same number of instructions."""
    alone = guest(vendor, "faults")
    until_done(alone)
    crowd = kvm(vendor)
    guests = []
    for program in ("faults", "count_cli", "count_timer"):
        machine = crowd.create_vm()
        machine.create_irqchip()
        guests.append(load_flat(machine, load_guest(program).binary))
    # The interrupted one first gets the processor in the middle of a tick.
    for made in reversed(guests):
        made.vcpu.start()
    crowd.kernel.run(lambda: guests[0].mailbox(DONE) == 1, max_time=50_000_000)
    assert guests[0].memory == alone.memory


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("processors", [2, 3])
def test_several_host_processors(vendor: str, processors: int) -> None:
    host = kvm(vendor, processors=processors)
    guests = []
    for i in range(4):
        machine = host.create_vm()
        machine.create_irqchip()
        made = load_flat(machine, load_guest(("count_timer", "halt_timer", "count_cli", "count_timer")[i]).binary)
        made.vcpu.start(cpu=i % processors)
        guests.append(made)
    assert host.kernel.run(max_time=400_000) is RunEnd.TIME
    assert all(made.mailbox(COUNTER) > 0 for made in guests)
