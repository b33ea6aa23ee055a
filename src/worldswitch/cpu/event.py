"""Events as records: exceptions, interrupts and NMIs on their way to a handler, and the two ways an instruction can end early.

Delivery and priority are in `cpu.events`. Numbers are those of VMX's interruption-information field (SDM vol. 3 §25.8.3), of which SVM's EVENTINJ
types (APM vol. 2 §15.20) are the subset 0, 2, 3, 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worldswitch.arch.vmx import INTR_INFO_ERROR_CODE, INTR_INFO_TYPE_SHIFT, INTR_INFO_VALID, INTR_INFO_VECTOR, InterruptionType

#: Software events return to after the instruction and never set EXT in an error code (SDM vol. 3 §6.13).
SOFTWARE: Final = frozenset({
    InterruptionType.SOFTWARE_INTERRUPT, InterruptionType.PRIVILEGED_SOFTWARE_EXCEPTION, InterruptionType.SOFTWARE_EXCEPTION,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """Something to be delivered through the IDT."""

    vector: int
    type: InterruptionType
    #: Error code to push, None if the event has none.
    error_code: int | None = None
    #: Bytes of the instruction, for software interrupts and exceptions, whose return address is the next instruction; 0 otherwise.
    length: int = 0
    #: #PF: the linear address for CR2. #DB: the bits for DR6 (as in pending debug exceptions). 0 otherwise.
    payload: int = 0


def event_of(info: int, error_code: int, length: int) -> Event:
    """The event that interruption information (VMX format, or EVENTINJ's low half) describes."""
    kind = InterruptionType(info >> INTR_INFO_TYPE_SHIFT & 7)
    return Event(info & INTR_INFO_VECTOR, kind, error_code if info & INTR_INFO_ERROR_CODE else None, length if kind in SOFTWARE else 0)


def info_of(event: Event) -> int:
    """The interruption information of an event, valid bit set (SDM vol. 3 table 25-17)."""
    return event.vector | event.type << INTR_INFO_TYPE_SHIFT | (INTR_INFO_ERROR_CODE if event.error_code is not None else 0) | INTR_INFO_VALID


class Fault(Exception):
    """An exception raised by the instruction being executed, not yet delivered. State is as before the instruction."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.event = event


class VmExit(Exception):
    """Raised when a VM exit has been *completed* (guest state saved, host state loaded): unwinds whatever was executing in the guest, up to
    `Processor.run`. Nothing may catch it on the way and nothing of the interrupted operation may happen after it."""


class TripleFault(Exception):
    """An exception while delivering a double fault, outside of a guest whose host intercepts it: the processor shuts down."""


def fault(vector: int, error_code: int | None = None, payload: int = 0) -> Fault:
    """A hardware exception as something to raise."""
    return Fault(Event(vector, InterruptionType.HARDWARE_EXCEPTION, error_code, 0, payload))
