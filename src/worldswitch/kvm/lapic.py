"""The guest's local APIC: the board's register model in KVM's surroundings. Its timer is a host high-resolution timer, its output a request and a kick."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from worldswitch.board.lapic import LocalApic
from worldswitch.cpu.state import MASK64
from worldswitch.kvm.host import HostTimer
from worldswitch.trace.events import KvmApicAcceptIrq, KvmEoi

if TYPE_CHECKING:
    from worldswitch.kvm.vcpu import Vcpu

#: KVM's min_timer_period_us: a guest cannot make its host handle periodic timer interrupts more often than this.
MIN_TIMER_PERIOD_US: Final = 200


class GuestClock:
    """The host's clock as the guest's local APIC sees it."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu

    def now(self) -> int:
        return self._vcpu.vm.host.now()

    def arm(self, time: int, callback: Callable[[int], None]) -> object:
        timer = self._vcpu.vm.host.hrtimer("apic_timer_fn", callback)
        timer.start(time)
        return timer

    def disarm(self, handle: object) -> None:
        timer: HostTimer = handle  # type: ignore[assignment]  # what `arm` gave
        timer.cancel()

    def tsc(self) -> int:
        return self.now() + self._vcpu.tsc_offset & MASK64


class KvmLapic(LocalApic):
    """One vCPU's local APIC."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        super().__init__(
            vcpu.vcpu_id,
            GuestClock(vcpu),
            raised=self._became_pending,
            record=self._note,
            send=vcpu.vm.route_ipi,
            boot_processor=vcpu.vcpu_id == 0,
            minimum_period=vcpu.vm.host.frequency_hz * MIN_TIMER_PERIOD_US // 1_000_000,
        )

    def _became_pending(self) -> None:
        self._vcpu.kick_for_event()

    def _note(self, event: str, vector: int, source: str) -> None:
        host = self._vcpu.vm.host
        if not host.trace.on:
            return
        cpu = self._vcpu.cpu if self._vcpu.cpu >= 0 else 0
        if event == "accept":
            host.trace.emit(KvmApicAcceptIrq(cpu, host.now(), self.apic_id, 0, 0, vector))
        elif event == "eoi":
            host.trace.emit(KvmEoi(cpu, host.now(), self.apic_id, vector))
