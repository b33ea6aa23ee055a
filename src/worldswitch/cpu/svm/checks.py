"""The consistency checks of VMRUN, one row each (APM vol. 2 §15.5.1, "Canonicalization and Consistency Checks"). A guest that fails one exits with
VMEXIT_INVALID.

A predicate tells whether the VMCB is *good*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import EXCEPTIONS, Vector
from worldswitch.arch.msr import PAT_TYPES
from worldswitch.arch.registers import Cr0, Cr4, Efer
from worldswitch.arch.segments import AR_DB, AR_L
from worldswitch.arch.svm import EVENT_ERROR_CODE_VALID, EVENT_VALID, IOPM_BYTES, MSRPM_BYTES, InterceptMisc1, InterceptMisc2, Save
from worldswitch.arch.svm import Vmcb as V
from worldswitch.cpu.microcode.control import cr4_supported
from worldswitch.cpu.msrs import efer_supported
from worldswitch.cpu.svm.vmcb import Vmcb

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


@dataclass(frozen=True, slots=True)
class Check:
    """One rule."""

    name: str
    good: Callable[[Processor, Vmcb], bool]
    section: str = "APM vol. 2 §15.5.1"


def _long(v: Vmcb) -> bool:
    return bool(v[Save.EFER] & Efer.LME and v[Save.CR0] & Cr0.PG)


def _event_good(cpu: Processor, v: Vmcb) -> bool:
    """APM vol. 2 §15.20: a type that exists, an exception that is one, an error code where there can be one."""
    event = v[V.EVENTINJ]
    if not event & EVENT_VALID:
        return True
    kind, vector = event >> 8 & 7, event & 0xFF
    if kind not in (0, 2, 3, 4):
        return False
    if kind == 3 and (vector > 31 or vector == Vector.NMI or (vector == Vector.OF and _long(v) and bool(v.segment(Save.CS)[3] & AR_L))):
        return False
    return not (event & EVENT_ERROR_CODE_VALID and kind == 3 and vector in EXCEPTIONS and not EXCEPTIONS[vector].error_code)


def _within(cpu: Processor, address: int, size: int) -> bool:
    return not (address & ~0xFFF) + size - 1 >> cpu.model.physical_bits


_NESTED: Final = 1
CHECKS: Final[tuple[Check, ...]] = (
    Check("the VMRUN intercept is set", lambda cpu, v: bool(v[V.INTERCEPT_MISC2] & InterceptMisc2.VMRUN)),
    Check("ASID is not 0", lambda cpu, v: v[V.GUEST_ASID] != 0),
    Check("EFER.SVME is set", lambda cpu, v: bool(v[Save.EFER] & Efer.SVME)),
    Check("EFER: reserved bits", lambda cpu, v: not v[Save.EFER] & ~efer_supported(cpu)),
    Check("CR0: NW without CD", lambda cpu, v: bool(v[Save.CR0] & Cr0.CD) or not v[Save.CR0] & Cr0.NW),
    Check("CR0 bits 63:32", lambda cpu, v: not v[Save.CR0] >> 32),
    Check("CR3: reserved bits", lambda cpu, v: not _long(v) or not v[Save.CR3] >> cpu.model.physical_bits),
    Check("CR4: reserved bits", lambda cpu, v: not v[Save.CR4] & ~cr4_supported(cpu)),
    Check("DR6 bits 63:32", lambda cpu, v: not v[Save.DR6] >> 32),
    Check("DR7 bits 63:32", lambda cpu, v: not v[Save.DR7] >> 32),
    Check("long mode needs CR4.PAE", lambda cpu, v: not _long(v) or bool(v[Save.CR4] & Cr4.PAE)),
    Check("long mode needs CR0.PE", lambda cpu, v: not _long(v) or bool(v[Save.CR0] & Cr0.PE)),
    Check(
        "long mode: not both CS.L and CS.D",
        lambda cpu, v: not (_long(v) and v[Save.CR4] & Cr4.PAE and v.segment(Save.CS)[3] & AR_L and v.segment(Save.CS)[3] & AR_DB),
    ),
    Check(
        "MSRPM within the physical width", lambda cpu, v: not v[V.INTERCEPT_MISC1] & InterceptMisc1.MSR_PROT or _within(cpu, v[V.MSRPM_BASE_PA], MSRPM_BYTES)
    ),
    Check("IOPM within the physical width", lambda cpu, v: not v[V.INTERCEPT_MISC1] & InterceptMisc1.IOIO_PROT or _within(cpu, v[V.IOPM_BASE_PA], IOPM_BYTES)),
    Check("EVENTINJ", _event_good, "APM vol. 2 §15.20"),
    Check("N_CR3: reserved bits", lambda cpu, v: not v[V.NP_ENABLE] & _NESTED or not v[V.N_CR3] >> cpu.model.physical_bits, "APM vol. 2 §15.25.4"),
    Check(
        "G_PAT: memory types",
        lambda cpu, v: not v[V.NP_ENABLE] & _NESTED or all(v[Save.G_PAT] >> 8 * i & 0xFF in PAT_TYPES for i in range(8)),
        "APM vol. 2 §15.25.4",
    ),
)


def first_failure(cpu: Processor, vmcb: Vmcb) -> Check | None:
    """The first rule that the VMCB breaks."""
    for check in CHECKS:
        if not check.good(cpu, vmcb):
            return check
    return None
