"""The checks of a VM entry, one row each, in the manual's order: controls (SDM vol. 3 §27.2.1), host state (§27.2.2-27.2.4), guest state (§27.3.1).

A predicate tells whether the VMCS is *good*. A bad control fails with VM-instruction error 7, a bad host-state field with 8; bad guest state is a
failed entry with exit reason 33.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worldswitch.arch.exceptions import EXCEPTIONS, Vector
from worldswitch.arch.msr import DEBUGCTL_DEFINED, PAT_TYPES
from worldswitch.arch.registers import RFLAGS_DEFINED, Cr0, Cr4, Efer, Rflags, Seg
from worldswitch.arch.segments import AR_DB, AR_DPL, AR_G, AR_L, AR_P, AR_S, AR_UNUSABLE
from worldswitch.arch.vmcs import VMCS_REVISION_ID, Vmcs
from worldswitch.arch.vmx import (
    ENTRY_FAILURE_LINK_POINTER,
    ENTRY_FAILURE_NMI,
    EPTP_RESERVED,
    INTERRUPTIBILITY_RESERVED,
    INTR_INFO_ERROR_CODE,
    INTR_INFO_RESERVED,
    INTR_INFO_TYPE_SHIFT,
    INTR_INFO_VALID,
    ActivityState,
    EntryControls,
    ExitControls,
    InstructionError,
    Interruptibility,
    InterruptionType,
    PinBased,
    ProcBased,
    ProcBased2,
)  # fmt: skip
from worldswitch.cpu.microcode.control import cr4_supported
from worldswitch.cpu.msrs import efer_supported
from worldswitch.cpu.vmx.capability import ALLOWED, CR0_FIXED0, CR3_TARGETS, CR4_FIXED0
from worldswitch.cpu.vmx.vmcs import VmcsRegion

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor

_ONES: Final = (1 << 64) - 1


class View:
    """The VMCS under check, with the derived facts that several rows use."""

    def __init__(self, cpu: Processor, vmcs: VmcsRegion) -> None:
        self.cpu = cpu
        # One read of the whole region: the rows look at most fields, some of them often.
        self._fields = vmcs.all()
        self.pin = self[Vmcs.PIN_BASED_VM_EXEC_CONTROL]
        self.proc = self[Vmcs.CPU_BASED_VM_EXEC_CONTROL]
        self.proc2 = self[Vmcs.SECONDARY_VM_EXEC_CONTROL] if self.proc & ProcBased.SECONDARY_CONTROLS else 0
        self.exit = self[Vmcs.VM_EXIT_CONTROLS]
        self.entry = self[Vmcs.VM_ENTRY_CONTROLS]
        self.info = self[Vmcs.VM_ENTRY_INTR_INFO_FIELD]

    def __getitem__(self, field: int) -> int:
        return self._fields[field]

    @property
    def unrestricted(self) -> bool:
        return bool(self.proc2 & ProcBased2.UNRESTRICTED_GUEST)

    @property
    def long_guest(self) -> bool:
        return bool(self.entry & EntryControls.IA32E_MODE_GUEST)

    @property
    def long_host(self) -> bool:
        return bool(self.exit & ExitControls.HOST_ADDRESS_SPACE_SIZE)

    @property
    def v86(self) -> bool:
        return bool(self[Vmcs.GUEST_RFLAGS] & Rflags.VM)

    @property
    def injecting(self) -> bool:
        return bool(self.info & INTR_INFO_VALID)

    @property
    def type(self) -> int:
        return self.info >> INTR_INFO_TYPE_SHIFT & 7

    @property
    def vector(self) -> int:
        return self.info & 0xFF

    def physical(self, address: int, alignment: int = 0x1000) -> bool:
        """An aligned address within the physical-address width."""
        return not address & alignment - 1 and not address >> self.cpu.model.physical_bits

    def canonical(self, *fields: int) -> bool:
        return all(self.cpu.mmu.canonical(self[field]) for field in fields)

    def ar(self, seg: Seg) -> int:
        return self[AR[seg]]

    def usable(self, seg: Seg) -> bool:
        return not self[AR[seg]] & AR_UNUSABLE


#: Segment register to its guest-state fields: the four groups of appendix B are in the order of `Seg`.
SELECTOR: Final = {seg: Vmcs.GUEST_ES_SELECTOR + 2 * seg for seg in Seg}
BASE: Final = {seg: Vmcs.GUEST_ES_BASE + 2 * seg for seg in Seg}
LIMIT: Final = {seg: Vmcs.GUEST_ES_LIMIT + 2 * seg for seg in Seg}
AR: Final = {seg: Vmcs.GUEST_ES_AR_BYTES + 2 * seg for seg in Seg}
_DATA: Final = (Seg.SS, Seg.DS, Seg.ES, Seg.FS, Seg.GS)


@dataclass(frozen=True, slots=True)
class Check:
    """One rule."""

    name: str
    good: Callable[[View], bool]
    section: str
    #: Exit qualification if the entry fails on this rule (guest state only).
    qualification: int = 0


def _allowed(field: Vmcs, when: Callable[[View], bool] = lambda v: True) -> Check:
    ones, may = ALLOWED[field]
    section = {
        Vmcs.VM_EXIT_CONTROLS: "SDM vol. 3 §27.2.1.2",
        Vmcs.VM_ENTRY_CONTROLS: "SDM vol. 3 §27.2.1.3",
    }.get(field, "SDM vol. 3 §27.2.1.1")
    return Check(f"{field.name}: reserved bits", lambda v: not when(v) or (v[field] & ones == ones and not v[field] & ~may), section)


def _has_error_code(vector: int) -> bool:
    return vector in EXCEPTIONS and EXCEPTIONS[vector].error_code and vector != Vector.CP


def _eptp_good(v: View) -> bool:
    eptp = v[Vmcs.EPT_POINTER]
    return eptp & 7 in (0, 6) and eptp >> 3 & 7 == 3 and not eptp & (EPTP_RESERVED | 0x80) and not eptp >> v.cpu.model.physical_bits


def _injected_type_good(v: View) -> bool:
    kind = v.type
    return kind in (0, 2, 3, 4, 5, 6)  # 1 is reserved, 7 needs the monitor trap flag, which is not announced


def _injected_vector_good(v: View) -> bool:
    return not (v.type == InterruptionType.NMI and v.vector != 2) and not (v.type == InterruptionType.HARDWARE_EXCEPTION and v.vector > 31)


def _injected_error_good(v: View) -> bool:
    delivers = bool(v.info & INTR_INFO_ERROR_CODE)
    protected = not v.unrestricted or bool(v[Vmcs.GUEST_CR0] & Cr0.PE)
    return delivers == (v.type == InterruptionType.HARDWARE_EXCEPTION and protected and _has_error_code(v.vector))


def _msr_area(count: Vmcs, address: Vmcs, section: str) -> Check:
    def good(v: View) -> bool:
        entries = v[count]
        return not entries or (v.physical(v[address], 16) and not v[address] + 16 * entries - 1 >> v.cpu.model.physical_bits)

    return Check(f"{address.name}: 16-byte aligned, within the physical width", good, section)


_S = "SDM vol. 3 §27.2.1.1"
_E = "SDM vol. 3 §27.2.1.3"
CONTROL_CHECKS: Final[tuple[Check, ...]] = (
    _allowed(Vmcs.PIN_BASED_VM_EXEC_CONTROL),
    _allowed(Vmcs.CPU_BASED_VM_EXEC_CONTROL),
    _allowed(Vmcs.SECONDARY_VM_EXEC_CONTROL, lambda v: bool(v.proc & ProcBased.SECONDARY_CONTROLS)),
    Check("CR3_TARGET_COUNT at most 4", lambda v: v[Vmcs.CR3_TARGET_COUNT] <= CR3_TARGETS, _S),
    Check(
        "I/O bitmap addresses",
        lambda v: not v.proc & ProcBased.USE_IO_BITMAPS or (v.physical(v[Vmcs.IO_BITMAP_A]) and v.physical(v[Vmcs.IO_BITMAP_B])),
        _S,
    ),
    Check("MSR bitmap address", lambda v: not v.proc & ProcBased.USE_MSR_BITMAPS or v.physical(v[Vmcs.MSR_BITMAP]), _S),
    Check("virtual NMIs need NMI exiting", lambda v: bool(v.pin & PinBased.NMI_EXITING) or not v.pin & PinBased.VIRTUAL_NMIS, _S),
    Check("NMI-window exiting needs virtual NMIs", lambda v: bool(v.pin & PinBased.VIRTUAL_NMIS) or not v.proc & ProcBased.NMI_WINDOW_EXITING, _S),
    Check("VPID is not 0", lambda v: not v.proc2 & ProcBased2.ENABLE_VPID or v[Vmcs.VIRTUAL_PROCESSOR_ID] != 0, _S),
    Check("EPTP", lambda v: not v.proc2 & ProcBased2.ENABLE_EPT or _eptp_good(v), _S),
    Check("unrestricted guest needs EPT", lambda v: not v.unrestricted or bool(v.proc2 & ProcBased2.ENABLE_EPT), _S),
    _allowed(Vmcs.VM_EXIT_CONTROLS),
    _msr_area(Vmcs.VM_EXIT_MSR_STORE_COUNT, Vmcs.VM_EXIT_MSR_STORE_ADDR, "SDM vol. 3 §27.2.1.2"),
    _msr_area(Vmcs.VM_EXIT_MSR_LOAD_COUNT, Vmcs.VM_EXIT_MSR_LOAD_ADDR, "SDM vol. 3 §27.2.1.2"),
    _allowed(Vmcs.VM_ENTRY_CONTROLS),
    Check("event injection: type", lambda v: not v.injecting or _injected_type_good(v), _E),
    Check("event injection: vector", lambda v: not v.injecting or _injected_vector_good(v), _E),
    Check("event injection: deliver error code", lambda v: not v.injecting or _injected_error_good(v), _E),
    Check("event injection: reserved bits", lambda v: not v.injecting or not v.info & INTR_INFO_RESERVED, _E),
    Check(
        "event injection: error code bits 31:16",
        lambda v: not v.injecting or not v.info & INTR_INFO_ERROR_CODE or not v[Vmcs.VM_ENTRY_EXCEPTION_ERROR_CODE] >> 16,
        _E,
    ),
    Check("event injection: instruction length", lambda v: not v.injecting or v.type < 4 or 1 <= v[Vmcs.VM_ENTRY_INSTRUCTION_LEN] <= 15, _E),
    _msr_area(Vmcs.VM_ENTRY_MSR_LOAD_COUNT, Vmcs.VM_ENTRY_MSR_LOAD_ADDR, _E),
)


def _fixed(value: int, ones: int, may: int) -> bool:
    return value & ones == ones and not value & ~may


def _pat_good(value: int) -> bool:
    return all(value >> 8 * i & 0xFF in PAT_TYPES for i in range(8))


_HOST_SELECTORS: Final = (
    Vmcs.HOST_ES_SELECTOR, Vmcs.HOST_CS_SELECTOR, Vmcs.HOST_SS_SELECTOR, Vmcs.HOST_DS_SELECTOR, Vmcs.HOST_FS_SELECTOR,
    Vmcs.HOST_GS_SELECTOR, Vmcs.HOST_TR_SELECTOR,
)  # fmt: skip


def _host_efer_good(v: View) -> bool:
    efer = v[Vmcs.HOST_IA32_EFER]
    lma, lme = bool(efer & Efer.LMA), bool(efer & Efer.LME)
    return not efer & ~efer_supported(v.cpu) and lma == lme == v.long_host


_H = "SDM vol. 3 §27.2.2"
HOST_CHECKS: Final[tuple[Check, ...]] = (
    Check("HOST_CR0: fixed bits", lambda v: _fixed(v[Vmcs.HOST_CR0], CR0_FIXED0, 0xFFFFFFFF), _H),
    Check("HOST_CR4: fixed bits", lambda v: _fixed(v[Vmcs.HOST_CR4], CR4_FIXED0, cr4_supported(v.cpu)), _H),
    Check("HOST_CR3 within the physical width", lambda v: not v[Vmcs.HOST_CR3] >> v.cpu.model.physical_bits, _H),
    Check("HOST_IA32_SYSENTER addresses canonical", lambda v: v.canonical(Vmcs.HOST_IA32_SYSENTER_ESP, Vmcs.HOST_IA32_SYSENTER_EIP), _H),
    Check("HOST_IA32_PAT: memory types", lambda v: not v.exit & ExitControls.LOAD_IA32_PAT or _pat_good(v[Vmcs.HOST_IA32_PAT]), _H),
    Check("HOST_IA32_EFER: reserved bits, LMA and LME", lambda v: not v.exit & ExitControls.LOAD_IA32_EFER or _host_efer_good(v), _H),
    Check("host selectors: TI and RPL are 0", lambda v: not any(v[field] & 7 for field in _HOST_SELECTORS), "SDM vol. 3 §27.2.3"),
    Check("HOST_CS and HOST_TR selectors not null", lambda v: v[Vmcs.HOST_CS_SELECTOR] != 0 and v[Vmcs.HOST_TR_SELECTOR] != 0, "SDM vol. 3 §27.2.3"),
    Check("HOST_SS selector not null for a 32-bit host", lambda v: v.long_host or v[Vmcs.HOST_SS_SELECTOR] != 0, "SDM vol. 3 §27.2.3"),
    Check(
        "host base addresses canonical",
        lambda v: v.canonical(Vmcs.HOST_FS_BASE, Vmcs.HOST_GS_BASE, Vmcs.HOST_GDTR_BASE, Vmcs.HOST_IDTR_BASE, Vmcs.HOST_TR_BASE),
        "SDM vol. 3 §27.2.3",
    ),
    Check(
        "host address-space size as the processor is now",
        lambda v: v.long_host if v.cpu.long_mode else not v.long_host and not v.long_guest,
        "SDM vol. 3 §27.2.4",
    ),
    Check(
        "64-bit host: CR4.PAE, canonical RIP",
        lambda v: not v.long_host or (bool(v[Vmcs.HOST_CR4] & Cr4.PAE) and v.canonical(Vmcs.HOST_RIP)),
        "SDM vol. 3 §27.2.4",
    ),
    Check("32-bit host: no 64-bit guest, RIP below 4 GiB", lambda v: v.long_host or (not v.long_guest and not v[Vmcs.HOST_RIP] >> 32), "SDM vol. 3 §27.2.4"),
)


def _cr0_good(v: View) -> bool:
    ones = CR0_FIXED0 & ~(Cr0.PE | Cr0.PG) if v.unrestricted else CR0_FIXED0
    return _fixed(v[Vmcs.GUEST_CR0], ones, 0xFFFFFFFF)


def _guest_efer_good(v: View) -> bool:
    efer = v[Vmcs.GUEST_IA32_EFER]
    lma, lme = bool(efer & Efer.LMA), bool(efer & Efer.LME)
    return not efer & ~efer_supported(v.cpu) and lma == v.long_guest and (not v[Vmcs.GUEST_CR0] & Cr0.PG or lma == lme)


def _dpl(ar: int) -> int:
    return (ar & AR_DPL) >> 5


def _cs_type_good(v: View) -> bool:
    kind = v.ar(Seg.CS) & 0xF
    return kind in (9, 11, 13, 15) or (v.unrestricted and kind == 3)


def _cs_dpl_good(v: View) -> bool:
    cs, ss = v.ar(Seg.CS), v.ar(Seg.SS)
    match cs & 0xF:
        case 3:
            return _dpl(cs) == 0
        case 9 | 11:
            return _dpl(cs) == _dpl(ss)
        case _:
            return _dpl(cs) <= _dpl(ss)


def _ss_dpl_good(v: View) -> bool:
    ss = v.ar(Seg.SS)
    if not v.unrestricted and _dpl(ss) != v[SELECTOR[Seg.SS]] & 3:
        return False
    return _dpl(ss) == 0 if v.ar(Seg.CS) & 0xF == 3 or not v[Vmcs.GUEST_CR0] & Cr0.PE else True


def _data_good(v: View, seg: Seg) -> bool:
    if not v.usable(seg):
        return True
    ar = v.ar(seg)
    if not ar & 1 or (ar & 8 and not ar & 2):
        return False
    return v.unrestricted or ar & 0xF > 11 or _dpl(ar) >= v[SELECTOR[seg]] & 3


def _granularity_good(v: View, seg: Seg) -> bool:
    limit, g = v[LIMIT[seg]], bool(v.ar(seg) & AR_G)
    return (limit & 0xFFF == 0xFFF or not g) and (not limit >> 20 or g)


def _v86_segment_good(v: View, seg: Seg) -> bool:
    return v[BASE[seg]] == v[SELECTOR[seg]] << 4 and v[LIMIT[seg]] == 0xFFFF and v.ar(seg) == 0xF3


_AR_RESERVED: Final = 0xFFFE0F00
_CODE_AND_DATA: Final = (Seg.CS, *_DATA)


def _rip_good(v: View) -> bool:
    rip = v[Vmcs.GUEST_RIP]
    if v.long_guest and v.ar(Seg.CS) & AR_L:
        return v.cpu.mmu.canonical(rip)
    return not rip >> 32


def _activity_event_good(v: View) -> bool:
    """Which events may be injected into a guest that is not active (§27.3.1.5)."""
    if not v.injecting:
        return True
    match v[Vmcs.GUEST_ACTIVITY_STATE]:
        case ActivityState.HLT:
            return v.type in (0, 2) or (v.type == 3 and v.vector in (Vector.DB, Vector.MC))
        case ActivityState.SHUTDOWN:
            return v.type == 2 or (v.type == 3 and v.vector == Vector.MC)
        case ActivityState.WAIT_FOR_SIPI:
            return False
    return True


_STI, _MOV_SS = Interruptibility.BLOCKING_BY_STI, Interruptibility.BLOCKING_BY_MOV_SS


def _pending_debug_good(v: View) -> bool:
    blocked = v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & (_STI | _MOV_SS) or v[Vmcs.GUEST_ACTIVITY_STATE] == ActivityState.HLT
    if not blocked:
        return True
    single = bool(v[Vmcs.GUEST_RFLAGS] & Rflags.TF) and not v[Vmcs.GUEST_IA32_DEBUGCTL] & 2
    return bool(v[Vmcs.GUEST_PENDING_DBG_EXCEPTIONS] >> 14 & 1) == single


def _link_good(v: View) -> bool:
    pointer = v[Vmcs.VMCS_LINK_POINTER]
    if pointer == _ONES:
        return True
    return v.physical(pointer) and v.cpu.bus.read(pointer, 4) == VMCS_REVISION_ID


_CR = "SDM vol. 3 §27.3.1.1"
_SEG = "SDM vol. 3 §27.3.1.2"
_NR = "SDM vol. 3 §27.3.1.5"
GUEST_CHECKS: Final[tuple[Check, ...]] = (
    Check("GUEST_CR0: fixed bits", _cr0_good, _CR),
    Check("GUEST_CR0: PG needs PE", lambda v: not v[Vmcs.GUEST_CR0] & Cr0.PG or bool(v[Vmcs.GUEST_CR0] & Cr0.PE), _CR),
    Check("GUEST_CR4: fixed bits", lambda v: _fixed(v[Vmcs.GUEST_CR4], CR4_FIXED0, cr4_supported(v.cpu)), _CR),
    Check(
        "GUEST_IA32_DEBUGCTL: reserved bits",
        lambda v: not v.entry & EntryControls.LOAD_DEBUG_CONTROLS or not v[Vmcs.GUEST_IA32_DEBUGCTL] & ~DEBUGCTL_DEFINED,
        _CR,
    ),
    Check(
        "64-bit guest: CR0.PG and CR4.PAE",
        lambda v: not v.long_guest or (bool(v[Vmcs.GUEST_CR0] & Cr0.PG) and bool(v[Vmcs.GUEST_CR4] & Cr4.PAE)),
        _CR,
    ),
    Check("32-bit guest: no CR4.PCIDE", lambda v: v.long_guest or not v[Vmcs.GUEST_CR4] & Cr4.PCIDE, _CR),
    Check("GUEST_CR3 within the physical width", lambda v: not v[Vmcs.GUEST_CR3] >> v.cpu.model.physical_bits, _CR),
    Check("GUEST_DR7 bits 63:32", lambda v: not v.entry & EntryControls.LOAD_DEBUG_CONTROLS or not v[Vmcs.GUEST_DR7] >> 32, _CR),
    Check("GUEST_SYSENTER addresses canonical", lambda v: v.canonical(Vmcs.GUEST_SYSENTER_ESP, Vmcs.GUEST_SYSENTER_EIP), _CR),
    Check("GUEST_IA32_PAT: memory types", lambda v: not v.entry & EntryControls.LOAD_IA32_PAT or _pat_good(v[Vmcs.GUEST_IA32_PAT]), _CR),
    Check("GUEST_IA32_EFER: reserved bits, LMA and LME", lambda v: not v.entry & EntryControls.LOAD_IA32_EFER or _guest_efer_good(v), _CR),
    Check("TR selector: TI", lambda v: not v[SELECTOR[Seg.TR]] & 4, _SEG),
    Check("LDTR selector: TI", lambda v: not v.usable(Seg.LDTR) or not v[SELECTOR[Seg.LDTR]] & 4, _SEG),
    Check("SS selector: RPL is that of CS", lambda v: v.v86 or v.unrestricted or v[SELECTOR[Seg.SS]] & 3 == v[SELECTOR[Seg.CS]] & 3, _SEG),
    Check("virtual-8086: segments", lambda v: not v.v86 or all(_v86_segment_good(v, seg) for seg in _CODE_AND_DATA), _SEG),
    Check("TR, FS, GS base canonical", lambda v: v.canonical(BASE[Seg.TR], BASE[Seg.FS], BASE[Seg.GS]), _SEG),
    Check("LDTR base canonical", lambda v: not v.usable(Seg.LDTR) or v.canonical(BASE[Seg.LDTR]), _SEG),
    Check("CS base below 4 GiB", lambda v: not v[BASE[Seg.CS]] >> 32, _SEG),
    Check("SS, DS, ES base below 4 GiB", lambda v: all(not v.usable(s) or not v[BASE[s]] >> 32 for s in (Seg.SS, Seg.DS, Seg.ES)), _SEG),
    Check("CS usable, type", lambda v: v.v86 or (v.usable(Seg.CS) and _cs_type_good(v)), _SEG),
    Check("SS type", lambda v: v.v86 or not v.usable(Seg.SS) or v.ar(Seg.SS) & 0xF in (3, 7), _SEG),
    Check("DS, ES, FS, GS: type and DPL", lambda v: v.v86 or all(_data_good(v, s) for s in _DATA[1:]), _SEG),
    Check("S bit", lambda v: v.v86 or all(not v.usable(s) or bool(v.ar(s) & AR_S) for s in _CODE_AND_DATA), _SEG),
    Check("CS DPL", lambda v: v.v86 or _cs_dpl_good(v), _SEG),
    Check("SS DPL", lambda v: v.v86 or _ss_dpl_good(v), _SEG),
    Check("P bit", lambda v: v.v86 or all(not v.usable(s) or bool(v.ar(s) & AR_P) for s in _CODE_AND_DATA), _SEG),
    Check("access rights: reserved bits", lambda v: v.v86 or all(not v.usable(s) or not v.ar(s) & _AR_RESERVED for s in _CODE_AND_DATA), _SEG),
    Check("CS: not both L and D in a 64-bit guest", lambda v: v.v86 or not v.long_guest or not (v.ar(Seg.CS) & AR_L and v.ar(Seg.CS) & AR_DB), _SEG),
    Check("granularity", lambda v: v.v86 or all(not v.usable(s) or _granularity_good(v, s) for s in _CODE_AND_DATA), _SEG),
    Check("TR: usable, busy TSS", lambda v: v.usable(Seg.TR) and v.ar(Seg.TR) & 0xF in ((11,) if v.long_guest else (3, 11)), _SEG),
    Check(
        "TR: S, P, reserved bits, granularity",
        lambda v: not v.ar(Seg.TR) & (AR_S | _AR_RESERVED) and bool(v.ar(Seg.TR) & AR_P) and _granularity_good(v, Seg.TR),
        _SEG,
    ),
    Check(
        "LDTR: type, S, P, reserved bits, granularity",
        lambda v: (
            not v.usable(Seg.LDTR)
            or (v.ar(Seg.LDTR) & 0x1F == 2 and bool(v.ar(Seg.LDTR) & AR_P) and not v.ar(Seg.LDTR) & _AR_RESERVED and _granularity_good(v, Seg.LDTR))
        ),
        _SEG,
    ),
    Check("GDTR and IDTR base canonical", lambda v: v.canonical(Vmcs.GUEST_GDTR_BASE, Vmcs.GUEST_IDTR_BASE), "SDM vol. 3 §27.3.1.3"),
    Check("GDTR and IDTR limit bits 31:16", lambda v: not (v[Vmcs.GUEST_GDTR_LIMIT] | v[Vmcs.GUEST_IDTR_LIMIT]) >> 16, "SDM vol. 3 §27.3.1.3"),
    Check("GUEST_RIP", _rip_good, "SDM vol. 3 §27.3.1.4"),
    Check(
        "GUEST_RFLAGS: reserved bits",
        lambda v: not v[Vmcs.GUEST_RFLAGS] & ~RFLAGS_DEFINED and bool(v[Vmcs.GUEST_RFLAGS] & 2),
        "SDM vol. 3 §27.3.1.4",
    ),
    Check("GUEST_RFLAGS: no VM in a 64-bit guest", lambda v: not v.v86 or (not v.long_guest and bool(v[Vmcs.GUEST_CR0] & Cr0.PE)), "SDM vol. 3 §27.3.1.4"),
    Check(
        "GUEST_RFLAGS.IF when an external interrupt is injected",
        lambda v: not v.injecting or v.type != 0 or bool(v[Vmcs.GUEST_RFLAGS] & Rflags.IF),
        "SDM vol. 3 §27.3.1.4",
    ),
    Check("activity state supported", lambda v: v[Vmcs.GUEST_ACTIVITY_STATE] in (ActivityState.ACTIVE, ActivityState.HLT), _NR),
    Check("no HLT above ring 0", lambda v: v[Vmcs.GUEST_ACTIVITY_STATE] != ActivityState.HLT or _dpl(v.ar(Seg.SS)) == 0, _NR),
    Check(
        "active under STI or MOV SS blocking",
        lambda v: not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & (_STI | _MOV_SS) or v[Vmcs.GUEST_ACTIVITY_STATE] == ActivityState.ACTIVE,
        _NR,
    ),
    Check("activity state takes the injected event", _activity_event_good, _NR),
    Check("interruptibility: reserved bits", lambda v: not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & INTERRUPTIBILITY_RESERVED, _NR),
    Check("interruptibility: not both STI and MOV SS", lambda v: v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & 3 != 3, _NR),
    Check(
        "interruptibility: STI blocking needs IF",
        lambda v: not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & _STI or bool(v[Vmcs.GUEST_RFLAGS] & Rflags.IF),
        _NR,
    ),
    Check(
        "interruptibility: no blocking when an external interrupt is injected",
        lambda v: not v.injecting or v.type != 0 or not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & 3,
        _NR,
    ),
    Check(
        "interruptibility: no MOV SS blocking when an NMI is injected",
        lambda v: not v.injecting or v.type != 2 or not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & _MOV_SS,
        _NR,
        ENTRY_FAILURE_NMI,
    ),
    Check("interruptibility: no SMI blocking", lambda v: not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & Interruptibility.BLOCKING_BY_SMI, _NR),
    Check(
        "interruptibility: no NMI blocking when a virtual NMI is injected",
        lambda v: (
            not (v.injecting and v.type == 2 and v.pin & PinBased.VIRTUAL_NMIS) or not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & Interruptibility.BLOCKING_BY_NMI
        ),
        _NR,
    ),
    Check("interruptibility: no enclave interruption", lambda v: not v[Vmcs.GUEST_INTERRUPTIBILITY_INFO] & Interruptibility.ENCLAVE_INTERRUPTION, _NR),
    Check("pending debug exceptions: reserved bits", lambda v: not v[Vmcs.GUEST_PENDING_DBG_EXCEPTIONS] & ~0x500F, _NR),
    Check("pending debug exceptions: BS agrees with TF", _pending_debug_good, _NR),
    Check("VMCS link pointer", _link_good, _NR, ENTRY_FAILURE_LINK_POINTER),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What a check found."""

    check: Check
    error: InstructionError | None
    """VM-instruction error; None for guest state."""


def check_entry(cpu: Processor, vmcs: VmcsRegion) -> Failure | None:
    """All checks in order; the first that fails."""
    view = View(cpu, vmcs)
    for checks, error in (
        (CONTROL_CHECKS, InstructionError.ENTRY_INVALID_CONTROL_FIELD),
        (HOST_CHECKS, InstructionError.ENTRY_INVALID_HOST_STATE_FIELD),
        (GUEST_CHECKS, None),
    ):
        for check in checks:
            if not check.good(view):
                return Failure(check, error)
    return None
