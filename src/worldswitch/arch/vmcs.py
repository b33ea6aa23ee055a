"""The virtual-machine control structure: field encodings, what each field is, and where our processor keeps it.

In the real world a VMCS is a 4-KByte region in memory whose first two dwords are architectural and whose remainder has a format
that only the processor knows (SDM vol. 3 §25.2); software reaches fields by encoding through VMREAD and VMWRITE (§25.11.2,
appendix B). Here the format is `VMCS_OFFSET`. Checks of a VMCS, VM entries and VM exits are left to `worldswitch.cpu`.

Names are Linux's where Linux has one, otherwise the SDM's in that style.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class FieldWidth(IntEnum):
    """Bits 14:13 of an encoding (SDM vol. 3 table 25-21)."""

    WORD = 0
    QWORD = 1
    DWORD = 2
    NATURAL = 3


class FieldType(IntEnum):
    """Bits 11:10 of an encoding (SDM vol. 3 table 25-21)."""

    CONTROL = 0
    READ_ONLY = 1
    """VM-exit information: writable only if IA32_VMX_MISC bit 29 is set."""
    GUEST = 2
    HOST = 3


class Vmcs(IntEnum):
    """Every field by its encoding, access type *full* (SDM vol. 3 appendix B). Bit 0 set names the high half of a 64-bit field."""

    # 16-bit control fields
    VIRTUAL_PROCESSOR_ID = 0x0000
    POSTED_INTR_NV = 0x0002
    EPTP_INDEX = 0x0004
    HLAT_PREFIX_SIZE = 0x0006
    LAST_PID_POINTER_INDEX = 0x0008
    # 16-bit guest-state fields
    GUEST_ES_SELECTOR = 0x0800
    GUEST_CS_SELECTOR = 0x0802
    GUEST_SS_SELECTOR = 0x0804
    GUEST_DS_SELECTOR = 0x0806
    GUEST_FS_SELECTOR = 0x0808
    GUEST_GS_SELECTOR = 0x080A
    GUEST_LDTR_SELECTOR = 0x080C
    GUEST_TR_SELECTOR = 0x080E
    GUEST_INTR_STATUS = 0x0810
    GUEST_PML_INDEX = 0x0812
    GUEST_UINV = 0x0814
    # 16-bit host-state fields
    HOST_ES_SELECTOR = 0x0C00
    HOST_CS_SELECTOR = 0x0C02
    HOST_SS_SELECTOR = 0x0C04
    HOST_DS_SELECTOR = 0x0C06
    HOST_FS_SELECTOR = 0x0C08
    HOST_GS_SELECTOR = 0x0C0A
    HOST_TR_SELECTOR = 0x0C0C
    # 64-bit control fields
    IO_BITMAP_A = 0x2000
    IO_BITMAP_B = 0x2002
    MSR_BITMAP = 0x2004
    VM_EXIT_MSR_STORE_ADDR = 0x2006
    VM_EXIT_MSR_LOAD_ADDR = 0x2008
    VM_ENTRY_MSR_LOAD_ADDR = 0x200A
    EXECUTIVE_VMCS_POINTER = 0x200C
    PML_ADDRESS = 0x200E
    TSC_OFFSET = 0x2010
    VIRTUAL_APIC_PAGE_ADDR = 0x2012
    APIC_ACCESS_ADDR = 0x2014
    POSTED_INTR_DESC_ADDR = 0x2016
    VM_FUNCTION_CONTROL = 0x2018
    EPT_POINTER = 0x201A
    EOI_EXIT_BITMAP0 = 0x201C
    EOI_EXIT_BITMAP1 = 0x201E
    EOI_EXIT_BITMAP2 = 0x2020
    EOI_EXIT_BITMAP3 = 0x2022
    EPTP_LIST_ADDRESS = 0x2024
    VMREAD_BITMAP = 0x2026
    VMWRITE_BITMAP = 0x2028
    VE_INFO_ADDRESS = 0x202A
    XSS_EXIT_BITMAP = 0x202C
    ENCLS_EXITING_BITMAP = 0x202E
    SPP_TABLE_POINTER = 0x2030
    TSC_MULTIPLIER = 0x2032
    TERTIARY_VM_EXEC_CONTROL = 0x2034
    ENCLV_EXITING_BITMAP = 0x2036
    LOW_PASID_DIRECTORY_ADDRESS = 0x2038
    HIGH_PASID_DIRECTORY_ADDRESS = 0x203A
    SHARED_EPT_POINTER = 0x203C
    PCONFIG_EXITING_BITMAP = 0x203E
    HLAT_POINTER = 0x2040
    PID_POINTER_TABLE = 0x2042
    SECONDARY_VM_EXIT_CONTROLS = 0x2044
    SPEC_CTRL_MASK = 0x204A
    SPEC_CTRL_SHADOW = 0x204C
    INJECTED_EVENT_DATA = 0x2052
    # 64-bit read-only data fields
    GUEST_PHYSICAL_ADDRESS = 0x2400
    ORIGINAL_EVENT_DATA = 0x2404
    # 64-bit guest-state fields
    VMCS_LINK_POINTER = 0x2800
    GUEST_IA32_DEBUGCTL = 0x2802
    GUEST_IA32_PAT = 0x2804
    GUEST_IA32_EFER = 0x2806
    GUEST_IA32_PERF_GLOBAL_CTRL = 0x2808
    GUEST_PDPTR0 = 0x280A
    GUEST_PDPTR1 = 0x280C
    GUEST_PDPTR2 = 0x280E
    GUEST_PDPTR3 = 0x2810
    GUEST_BNDCFGS = 0x2812
    GUEST_IA32_RTIT_CTL = 0x2814
    GUEST_IA32_LBR_CTL = 0x2816
    GUEST_IA32_PKRS = 0x2818
    GUEST_IA32_FRED_CONFIG = 0x281A
    GUEST_IA32_FRED_RSP1 = 0x281C
    GUEST_IA32_FRED_RSP2 = 0x281E
    GUEST_IA32_FRED_RSP3 = 0x2820
    GUEST_IA32_FRED_STKLVLS = 0x2822
    GUEST_IA32_FRED_SSP1 = 0x2824
    GUEST_IA32_FRED_SSP2 = 0x2826
    GUEST_IA32_FRED_SSP3 = 0x2828
    # 64-bit host-state fields
    HOST_IA32_PAT = 0x2C00
    HOST_IA32_EFER = 0x2C02
    HOST_IA32_PERF_GLOBAL_CTRL = 0x2C04
    HOST_IA32_PKRS = 0x2C06
    HOST_IA32_FRED_CONFIG = 0x2C08
    HOST_IA32_FRED_RSP1 = 0x2C0A
    HOST_IA32_FRED_RSP2 = 0x2C0C
    HOST_IA32_FRED_RSP3 = 0x2C0E
    HOST_IA32_FRED_STKLVLS = 0x2C10
    HOST_IA32_FRED_SSP1 = 0x2C12
    HOST_IA32_FRED_SSP2 = 0x2C14
    HOST_IA32_FRED_SSP3 = 0x2C16
    # 32-bit control fields
    PIN_BASED_VM_EXEC_CONTROL = 0x4000
    CPU_BASED_VM_EXEC_CONTROL = 0x4002
    EXCEPTION_BITMAP = 0x4004
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008
    CR3_TARGET_COUNT = 0x400A
    VM_EXIT_CONTROLS = 0x400C
    VM_EXIT_MSR_STORE_COUNT = 0x400E
    VM_EXIT_MSR_LOAD_COUNT = 0x4010
    VM_ENTRY_CONTROLS = 0x4012
    VM_ENTRY_MSR_LOAD_COUNT = 0x4014
    VM_ENTRY_INTR_INFO_FIELD = 0x4016
    VM_ENTRY_EXCEPTION_ERROR_CODE = 0x4018
    VM_ENTRY_INSTRUCTION_LEN = 0x401A
    TPR_THRESHOLD = 0x401C
    SECONDARY_VM_EXEC_CONTROL = 0x401E
    PLE_GAP = 0x4020
    PLE_WINDOW = 0x4022
    NOTIFY_WINDOW = 0x4024
    # 32-bit read-only data fields
    VM_INSTRUCTION_ERROR = 0x4400
    VM_EXIT_REASON = 0x4402
    VM_EXIT_INTR_INFO = 0x4404
    VM_EXIT_INTR_ERROR_CODE = 0x4406
    IDT_VECTORING_INFO_FIELD = 0x4408
    IDT_VECTORING_ERROR_CODE = 0x440A
    VM_EXIT_INSTRUCTION_LEN = 0x440C
    VMX_INSTRUCTION_INFO = 0x440E
    # 32-bit guest-state fields
    GUEST_ES_LIMIT = 0x4800
    GUEST_CS_LIMIT = 0x4802
    GUEST_SS_LIMIT = 0x4804
    GUEST_DS_LIMIT = 0x4806
    GUEST_FS_LIMIT = 0x4808
    GUEST_GS_LIMIT = 0x480A
    GUEST_LDTR_LIMIT = 0x480C
    GUEST_TR_LIMIT = 0x480E
    GUEST_GDTR_LIMIT = 0x4810
    GUEST_IDTR_LIMIT = 0x4812
    GUEST_ES_AR_BYTES = 0x4814
    GUEST_CS_AR_BYTES = 0x4816
    GUEST_SS_AR_BYTES = 0x4818
    GUEST_DS_AR_BYTES = 0x481A
    GUEST_FS_AR_BYTES = 0x481C
    GUEST_GS_AR_BYTES = 0x481E
    GUEST_LDTR_AR_BYTES = 0x4820
    GUEST_TR_AR_BYTES = 0x4822
    GUEST_INTERRUPTIBILITY_INFO = 0x4824
    GUEST_ACTIVITY_STATE = 0x4826
    GUEST_SMBASE = 0x4828
    GUEST_SYSENTER_CS = 0x482A
    VMX_PREEMPTION_TIMER_VALUE = 0x482E
    # 32-bit host-state field
    HOST_IA32_SYSENTER_CS = 0x4C00
    # natural-width control fields
    CR0_GUEST_HOST_MASK = 0x6000
    CR4_GUEST_HOST_MASK = 0x6002
    CR0_READ_SHADOW = 0x6004
    CR4_READ_SHADOW = 0x6006
    CR3_TARGET_VALUE0 = 0x6008
    CR3_TARGET_VALUE1 = 0x600A
    CR3_TARGET_VALUE2 = 0x600C
    CR3_TARGET_VALUE3 = 0x600E
    # natural-width read-only data fields
    EXIT_QUALIFICATION = 0x6400
    EXIT_IO_RCX = 0x6402
    EXIT_IO_RSI = 0x6404
    EXIT_IO_RDI = 0x6406
    EXIT_IO_RIP = 0x6408
    GUEST_LINEAR_ADDRESS = 0x640A
    # natural-width guest-state fields
    GUEST_CR0 = 0x6800
    GUEST_CR3 = 0x6802
    GUEST_CR4 = 0x6804
    GUEST_ES_BASE = 0x6806
    GUEST_CS_BASE = 0x6808
    GUEST_SS_BASE = 0x680A
    GUEST_DS_BASE = 0x680C
    GUEST_FS_BASE = 0x680E
    GUEST_GS_BASE = 0x6810
    GUEST_LDTR_BASE = 0x6812
    GUEST_TR_BASE = 0x6814
    GUEST_GDTR_BASE = 0x6816
    GUEST_IDTR_BASE = 0x6818
    GUEST_DR7 = 0x681A
    GUEST_RSP = 0x681C
    GUEST_RIP = 0x681E
    GUEST_RFLAGS = 0x6820
    GUEST_PENDING_DBG_EXCEPTIONS = 0x6822
    GUEST_SYSENTER_ESP = 0x6824
    GUEST_SYSENTER_EIP = 0x6826
    GUEST_S_CET = 0x6828
    GUEST_SSP = 0x682A
    GUEST_INTR_SSP_TABLE = 0x682C
    # natural-width host-state fields
    HOST_CR0 = 0x6C00
    HOST_CR3 = 0x6C02
    HOST_CR4 = 0x6C04
    HOST_FS_BASE = 0x6C06
    HOST_GS_BASE = 0x6C08
    HOST_TR_BASE = 0x6C0A
    HOST_GDTR_BASE = 0x6C0C
    HOST_IDTR_BASE = 0x6C0E
    HOST_IA32_SYSENTER_ESP = 0x6C10
    HOST_IA32_SYSENTER_EIP = 0x6C12
    HOST_RSP = 0x6C14
    HOST_RIP = 0x6C16
    HOST_S_CET = 0x6C18
    HOST_SSP = 0x6C1A
    HOST_INTR_SSP_TABLE = 0x6C1C


ENCODING_RESERVED: Final = 0xFFFF_FFFF_FFFF_9000
"""Bits 63:15 and 12 of an encoding, which are 0 in every field there is (SDM vol. 3 table 25-21)."""


def width_of(encoding: int) -> FieldWidth:
    """Width of the field that `encoding` names, whether it exists or not (SDM vol. 3 §25.11.2)."""
    return FieldWidth(encoding >> 13 & 3)


def type_of(encoding: int) -> FieldType:
    """Area of the field that `encoding` names, whether it exists or not (SDM vol. 3 §25.11.2)."""
    return FieldType(encoding >> 10 & 3)


def index_of(encoding: int) -> int:
    """Bits 9:1: the number of the field among those of its width and type (SDM vol. 3 §25.11.2)."""
    return encoding >> 1 & 0x1FF


def is_high(encoding: int) -> bool:
    """Access type *high*: bits 63:32 of a 64-bit field. The bit must be 0 for the other widths (SDM vol. 3 §25.11.2)."""
    return bool(encoding & 1)


WIDTH_BITS: Final[dict[FieldWidth, int]] = {
    FieldWidth.WORD: 16,
    FieldWidth.QWORD: 64,
    FieldWidth.DWORD: 32,
    FieldWidth.NATURAL: 64,
}
"""Size in bits; natural width is 64 on processors with Intel 64 (SDM vol. 3 §25.11.2)."""


@dataclass(frozen=True, slots=True)
class VmcsField:
    """What one field is."""

    field: Vmcs
    width: FieldWidth
    type: FieldType
    bits: int
    """Size: 16, 32 or 64."""
    section: str
    """Where the SDM describes it."""
    since: str | None
    """Controls of `worldswitch.arch.vmx` as `Class.NAME`, separated by `|`, one of which the processor must support for the field to
    exist (the footnotes of appendix B); None if every processor with VMX has it."""


# Section, controls that the field depends on, fields.
_ROWS: Final[tuple[tuple[str, str | None, str], ...]] = (
    ("§25.4.1", None, "GUEST_CR0 GUEST_CR3 GUEST_CR4 GUEST_DR7 GUEST_RSP GUEST_RIP GUEST_RFLAGS"),
    (
        "§25.4.1",
        None,
        "GUEST_ES_SELECTOR GUEST_CS_SELECTOR GUEST_SS_SELECTOR GUEST_DS_SELECTOR GUEST_FS_SELECTOR GUEST_GS_SELECTOR GUEST_LDTR_SELECTOR GUEST_TR_SELECTOR",
    ),
    (
        "§25.4.1",
        None,
        "GUEST_ES_BASE GUEST_CS_BASE GUEST_SS_BASE GUEST_DS_BASE GUEST_FS_BASE GUEST_GS_BASE GUEST_LDTR_BASE GUEST_TR_BASE GUEST_GDTR_BASE GUEST_IDTR_BASE",
    ),
    (
        "§25.4.1",
        None,
        "GUEST_ES_LIMIT GUEST_CS_LIMIT GUEST_SS_LIMIT GUEST_DS_LIMIT GUEST_FS_LIMIT GUEST_GS_LIMIT GUEST_LDTR_LIMIT "
        "GUEST_TR_LIMIT GUEST_GDTR_LIMIT GUEST_IDTR_LIMIT",
    ),
    (
        "§25.4.1",
        None,
        "GUEST_ES_AR_BYTES GUEST_CS_AR_BYTES GUEST_SS_AR_BYTES GUEST_DS_AR_BYTES GUEST_FS_AR_BYTES GUEST_GS_AR_BYTES GUEST_LDTR_AR_BYTES GUEST_TR_AR_BYTES",
    ),
    ("§25.4.1", None, "GUEST_IA32_DEBUGCTL GUEST_SYSENTER_CS GUEST_SYSENTER_ESP GUEST_SYSENTER_EIP GUEST_SMBASE"),
    ("§25.4.1", "EntryControls.LOAD_PERF_GLOBAL_CTRL", "GUEST_IA32_PERF_GLOBAL_CTRL"),
    ("§25.4.1", "EntryControls.LOAD_IA32_PAT|ExitControls.SAVE_IA32_PAT", "GUEST_IA32_PAT"),
    ("§25.4.1", "EntryControls.LOAD_IA32_EFER|ExitControls.SAVE_IA32_EFER", "GUEST_IA32_EFER"),
    ("§25.4.1", "EntryControls.LOAD_IA32_BNDCFGS|ExitControls.CLEAR_IA32_BNDCFGS", "GUEST_BNDCFGS"),
    ("§25.4.1", "EntryControls.LOAD_IA32_RTIT_CTL|ExitControls.CLEAR_IA32_RTIT_CTL", "GUEST_IA32_RTIT_CTL"),
    ("§25.4.1", "EntryControls.LOAD_IA32_LBR_CTL|ExitControls.CLEAR_IA32_LBR_CTL", "GUEST_IA32_LBR_CTL"),
    ("§25.4.1", "EntryControls.LOAD_CET_STATE", "GUEST_S_CET GUEST_SSP GUEST_INTR_SSP_TABLE"),
    ("§25.4.1", "EntryControls.LOAD_PKRS", "GUEST_IA32_PKRS"),
    ("§25.4.1", "EntryControls.LOAD_UINV|ExitControls.CLEAR_UINV", "GUEST_UINV"),
    (
        "§25.4.1",
        "EntryControls.LOAD_IA32_FRED|ExitControls2.SAVE_IA32_FRED",
        "GUEST_IA32_FRED_CONFIG GUEST_IA32_FRED_RSP1 GUEST_IA32_FRED_RSP2 GUEST_IA32_FRED_RSP3 GUEST_IA32_FRED_STKLVLS "
        "GUEST_IA32_FRED_SSP1 GUEST_IA32_FRED_SSP2 GUEST_IA32_FRED_SSP3",
    ),
    ("§25.4.2", None, "GUEST_ACTIVITY_STATE GUEST_INTERRUPTIBILITY_INFO GUEST_PENDING_DBG_EXCEPTIONS VMCS_LINK_POINTER"),
    ("§25.4.2", "PinBased.VMX_PREEMPTION_TIMER", "VMX_PREEMPTION_TIMER_VALUE"),
    ("§25.4.2", "ProcBased2.ENABLE_EPT", "GUEST_PDPTR0 GUEST_PDPTR1 GUEST_PDPTR2 GUEST_PDPTR3"),
    ("§25.4.2", "ProcBased2.VIRTUAL_INTERRUPT_DELIVERY", "GUEST_INTR_STATUS"),
    ("§25.4.2", "ProcBased2.ENABLE_PML", "GUEST_PML_INDEX"),
    ("§25.5", None, "HOST_CR0 HOST_CR3 HOST_CR4 HOST_RSP HOST_RIP"),
    (
        "§25.5",
        None,
        "HOST_ES_SELECTOR HOST_CS_SELECTOR HOST_SS_SELECTOR HOST_DS_SELECTOR HOST_FS_SELECTOR HOST_GS_SELECTOR HOST_TR_SELECTOR",
    ),
    ("§25.5", None, "HOST_FS_BASE HOST_GS_BASE HOST_TR_BASE HOST_GDTR_BASE HOST_IDTR_BASE"),
    ("§25.5", None, "HOST_IA32_SYSENTER_CS HOST_IA32_SYSENTER_ESP HOST_IA32_SYSENTER_EIP"),
    ("§25.5", "ExitControls.LOAD_PERF_GLOBAL_CTRL", "HOST_IA32_PERF_GLOBAL_CTRL"),
    ("§25.5", "ExitControls.LOAD_IA32_PAT", "HOST_IA32_PAT"),
    ("§25.5", "ExitControls.LOAD_IA32_EFER", "HOST_IA32_EFER"),
    ("§25.5", "ExitControls.LOAD_CET_STATE", "HOST_S_CET HOST_SSP HOST_INTR_SSP_TABLE"),
    ("§25.5", "ExitControls.LOAD_PKRS", "HOST_IA32_PKRS"),
    (
        "§25.5",
        "ExitControls2.LOAD_IA32_FRED",
        "HOST_IA32_FRED_CONFIG HOST_IA32_FRED_RSP1 HOST_IA32_FRED_RSP2 HOST_IA32_FRED_RSP3 HOST_IA32_FRED_STKLVLS "
        "HOST_IA32_FRED_SSP1 HOST_IA32_FRED_SSP2 HOST_IA32_FRED_SSP3",
    ),
    ("§25.6.1", None, "PIN_BASED_VM_EXEC_CONTROL"),
    ("§25.6.2", None, "CPU_BASED_VM_EXEC_CONTROL"),
    ("§25.6.2", "ProcBased.SECONDARY_CONTROLS", "SECONDARY_VM_EXEC_CONTROL"),
    ("§25.6.2", "ProcBased.TERTIARY_CONTROLS", "TERTIARY_VM_EXEC_CONTROL"),
    ("§25.6.3", None, "EXCEPTION_BITMAP PAGE_FAULT_ERROR_CODE_MASK PAGE_FAULT_ERROR_CODE_MATCH"),
    ("§25.6.4", None, "IO_BITMAP_A IO_BITMAP_B"),
    ("§25.6.5", None, "TSC_OFFSET"),
    ("§25.6.5", "ProcBased2.USE_TSC_SCALING", "TSC_MULTIPLIER"),
    ("§25.6.6", None, "CR0_GUEST_HOST_MASK CR4_GUEST_HOST_MASK CR0_READ_SHADOW CR4_READ_SHADOW"),
    ("§25.6.7", None, "CR3_TARGET_COUNT CR3_TARGET_VALUE0 CR3_TARGET_VALUE1 CR3_TARGET_VALUE2 CR3_TARGET_VALUE3"),
    ("§25.6.8", "ProcBased2.VIRTUALIZE_APIC_ACCESSES", "APIC_ACCESS_ADDR"),
    ("§25.6.8", "ProcBased.USE_TPR_SHADOW", "VIRTUAL_APIC_PAGE_ADDR TPR_THRESHOLD"),
    ("§25.6.8", "ProcBased2.VIRTUAL_INTERRUPT_DELIVERY", "EOI_EXIT_BITMAP0 EOI_EXIT_BITMAP1 EOI_EXIT_BITMAP2 EOI_EXIT_BITMAP3"),
    ("§25.6.8", "PinBased.POSTED_INTERRUPTS", "POSTED_INTR_NV POSTED_INTR_DESC_ADDR"),
    ("§25.6.8", "ProcBased3.IPI_VIRTUALIZATION", "PID_POINTER_TABLE LAST_PID_POINTER_INDEX"),
    ("§25.6.9", "ProcBased.USE_MSR_BITMAPS", "MSR_BITMAP"),
    ("§25.6.10", None, "EXECUTIVE_VMCS_POINTER"),
    ("§25.6.11", "ProcBased2.ENABLE_EPT", "EPT_POINTER"),
    ("§25.6.11", "ProcBased2.ENABLE_EPT", "SHARED_EPT_POINTER"),
    ("§25.6.12", "ProcBased2.ENABLE_VPID", "VIRTUAL_PROCESSOR_ID"),
    ("§25.6.13", "ProcBased2.PAUSE_LOOP_EXITING", "PLE_GAP PLE_WINDOW"),
    ("§25.6.14", "ProcBased2.ENABLE_VMFUNC", "VM_FUNCTION_CONTROL"),
    ("§25.6.14", "VmFunctions.EPTP_SWITCHING", "EPTP_LIST_ADDRESS"),
    ("§25.6.15", "ProcBased2.VMCS_SHADOWING", "VMREAD_BITMAP VMWRITE_BITMAP"),
    ("§25.6.16", "ProcBased2.ENCLS_EXITING", "ENCLS_EXITING_BITMAP"),
    ("§25.6.17", "ProcBased2.ENCLV_EXITING", "ENCLV_EXITING_BITMAP"),
    ("§25.6.18", "ProcBased2.ENABLE_PCONFIG", "PCONFIG_EXITING_BITMAP"),
    ("§25.6.19", "ProcBased2.ENABLE_PML", "PML_ADDRESS"),
    ("§25.6.20", "ProcBased2.EPT_VIOLATION_VE", "VE_INFO_ADDRESS EPTP_INDEX"),
    ("§25.6.21", "ProcBased2.ENABLE_XSAVES", "XSS_EXIT_BITMAP"),
    ("§25.6.22", "ProcBased2.SUB_PAGE_WRITE_PERMISSIONS", "SPP_TABLE_POINTER"),
    ("§25.6.23", "ProcBased3.ENABLE_HLAT", "HLAT_POINTER HLAT_PREFIX_SIZE"),
    ("§25.6.24", "ProcBased2.PASID_TRANSLATION", "LOW_PASID_DIRECTORY_ADDRESS HIGH_PASID_DIRECTORY_ADDRESS"),
    ("§25.6.25", "ProcBased2.INSTRUCTION_TIMEOUT", "NOTIFY_WINDOW"),
    ("§25.6.26", "ProcBased3.VIRTUALIZE_IA32_SPEC_CTRL", "SPEC_CTRL_MASK SPEC_CTRL_SHADOW"),
    ("§25.7.1", None, "VM_EXIT_CONTROLS"),
    ("§25.7.1", "ExitControls.SECONDARY_CONTROLS", "SECONDARY_VM_EXIT_CONTROLS"),
    ("§25.7.2", None, "VM_EXIT_MSR_STORE_COUNT VM_EXIT_MSR_STORE_ADDR VM_EXIT_MSR_LOAD_COUNT VM_EXIT_MSR_LOAD_ADDR"),
    ("§25.8.1", None, "VM_ENTRY_CONTROLS"),
    ("§25.8.2", None, "VM_ENTRY_MSR_LOAD_COUNT VM_ENTRY_MSR_LOAD_ADDR"),
    ("§25.8.3", None, "VM_ENTRY_INTR_INFO_FIELD VM_ENTRY_EXCEPTION_ERROR_CODE VM_ENTRY_INSTRUCTION_LEN"),
    ("§25.8.3", "EntryControls.LOAD_IA32_FRED", "INJECTED_EVENT_DATA"),
    ("§25.9.1", None, "VM_EXIT_REASON EXIT_QUALIFICATION GUEST_LINEAR_ADDRESS"),
    ("§25.9.1", "ProcBased2.ENABLE_EPT", "GUEST_PHYSICAL_ADDRESS"),
    ("§25.9.2", None, "VM_EXIT_INTR_INFO VM_EXIT_INTR_ERROR_CODE"),
    ("§25.9.3", None, "IDT_VECTORING_INFO_FIELD IDT_VECTORING_ERROR_CODE"),
    ("§25.9.3", "EntryControls.LOAD_IA32_FRED", "ORIGINAL_EVENT_DATA"),
    ("§25.9.4", None, "VM_EXIT_INSTRUCTION_LEN VMX_INSTRUCTION_INFO EXIT_IO_RCX EXIT_IO_RSI EXIT_IO_RDI EXIT_IO_RIP"),
    ("§25.9.5", None, "VM_INSTRUCTION_ERROR"),
)


def _field(name: str, section: str, since: str | None) -> VmcsField:
    field = Vmcs[name]
    width = width_of(field)
    return VmcsField(field, width, type_of(field), WIDTH_BITS[width], f"SDM vol. 3 {section}", since)


VMCS_FIELDS: Final[dict[int, VmcsField]] = {
    row.field: row for row in sorted((_field(name, section, since) for section, since, names in _ROWS for name in names.split()), key=lambda row: row.field)
}
"""Encoding (access type *full*) to what the field is, in the order of encodings."""

VMCS_BITS: Final[dict[int, int]] = {field: row.bits for field, row in VMCS_FIELDS.items()}
"""Encoding (access type *full*) to size in bits."""

HIGHEST_INDEX: Final = max(index_of(field) for field in Vmcs)
"""What IA32_VMX_VMCS_ENUM reports in bits 9:1 if all fields exist (SDM vol. 3 appendix A.9)."""

# The VMCS region. The first two dwords are architectural (SDM vol. 3 table 25-1), the rest is this processor's format.
VMCS_REGION_BYTES: Final = 4096
"""Size of a VMCS region and of a VMXON region, as IA32_VMX_BASIC reports it."""
VMCS_REVISION_ID: Final = 0x5753_0001
"""VMCS revision identifier, bits 30:0. It changes whenever `VMCS_OFFSET` does, so that a foreign VMCS is refused."""
VMCS_SHADOW_INDICATOR: Final = 1 << 31
"""In the revision dword: this is a shadow VMCS (SDM vol. 3 §25.10)."""
VMCS_REVISION_OFFSET: Final = 0
VMCS_ABORT_OFFSET: Final = 4
"""VMX-abort indicator, a dword; see `VmxAbort`."""
VMCS_LAUNCH_STATE_OFFSET: Final = 8
"""Launch state, a qword; see `LaunchState`."""
VMCS_HEADER_BYTES: Final = 64

VMCS_OFFSET: Final[dict[int, int]] = {field: VMCS_HEADER_BYTES + 8 * number for number, field in enumerate(sorted(Vmcs))}
"""Encoding (access type *full*) to byte offset in the region. Every field takes 8 bytes, little-endian, zero-extended."""


class LaunchState(IntEnum):
    """Launch state of a VMCS (SDM vol. 3 §25.1, §25.11.3)."""

    CLEAR = 0
    LAUNCHED = 1


class VmxAbort(IntEnum):
    """VMX-abort indicators (SDM vol. 3 §28.7)."""

    SAVE_GUEST_MSR = 1
    HOST_PDPTE = 2
    CORRUPTED_VMCS = 3
    LOAD_HOST_MSR = 4
    MACHINE_CHECK = 5
    HOST_ADDRESS_SPACE = 6
    """The guest was in IA-32e mode and the host address-space size was 0."""
