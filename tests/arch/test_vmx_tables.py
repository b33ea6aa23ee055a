"""The VMX tables against the rules of SDM vol. 3 that they have to follow."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.arch import vmx
from worldswitch.arch.vmcs import (
    ENCODING_RESERVED,
    HIGHEST_INDEX,
    VMCS_BITS,
    VMCS_FIELDS,
    VMCS_HEADER_BYTES,
    VMCS_LAUNCH_STATE_OFFSET,
    VMCS_OFFSET,
    VMCS_REGION_BYTES,
    VMCS_REVISION_ID,
    FieldType,
    FieldWidth,
    Vmcs,
    index_of,
    is_high,
    type_of,
    width_of,
)
from worldswitch.arch.vmx import BASIC_EXITS, Bits, ExitKind, ExitReason, InstructionError

# First and last field of every table of appendix B, and fields around the holes: name, encoding, width, type.
KNOWN = [
    ("VIRTUAL_PROCESSOR_ID", 0x0000, "WORD", "CONTROL"),
    ("LAST_PID_POINTER_INDEX", 0x0008, "WORD", "CONTROL"),
    ("GUEST_ES_SELECTOR", 0x0800, "WORD", "GUEST"),
    ("GUEST_TR_SELECTOR", 0x080E, "WORD", "GUEST"),
    ("GUEST_PML_INDEX", 0x0812, "WORD", "GUEST"),
    ("HOST_CS_SELECTOR", 0x0C02, "WORD", "HOST"),
    ("HOST_TR_SELECTOR", 0x0C0C, "WORD", "HOST"),
    ("IO_BITMAP_A", 0x2000, "QWORD", "CONTROL"),
    ("MSR_BITMAP", 0x2004, "QWORD", "CONTROL"),
    ("TSC_OFFSET", 0x2010, "QWORD", "CONTROL"),
    ("EPT_POINTER", 0x201A, "QWORD", "CONTROL"),
    ("EOI_EXIT_BITMAP3", 0x2022, "QWORD", "CONTROL"),
    ("VMWRITE_BITMAP", 0x2028, "QWORD", "CONTROL"),
    ("TSC_MULTIPLIER", 0x2032, "QWORD", "CONTROL"),
    ("TERTIARY_VM_EXEC_CONTROL", 0x2034, "QWORD", "CONTROL"),
    ("SHARED_EPT_POINTER", 0x203C, "QWORD", "CONTROL"),
    ("PID_POINTER_TABLE", 0x2042, "QWORD", "CONTROL"),
    ("SECONDARY_VM_EXIT_CONTROLS", 0x2044, "QWORD", "CONTROL"),
    ("SPEC_CTRL_MASK", 0x204A, "QWORD", "CONTROL"),
    ("INJECTED_EVENT_DATA", 0x2052, "QWORD", "CONTROL"),
    ("GUEST_PHYSICAL_ADDRESS", 0x2400, "QWORD", "READ_ONLY"),
    ("ORIGINAL_EVENT_DATA", 0x2404, "QWORD", "READ_ONLY"),
    ("VMCS_LINK_POINTER", 0x2800, "QWORD", "GUEST"),
    ("GUEST_IA32_EFER", 0x2806, "QWORD", "GUEST"),
    ("GUEST_PDPTR3", 0x2810, "QWORD", "GUEST"),
    ("GUEST_IA32_PKRS", 0x2818, "QWORD", "GUEST"),
    ("GUEST_IA32_FRED_SSP3", 0x2828, "QWORD", "GUEST"),
    ("HOST_IA32_PAT", 0x2C00, "QWORD", "HOST"),
    ("HOST_IA32_EFER", 0x2C02, "QWORD", "HOST"),
    ("HOST_IA32_FRED_SSP3", 0x2C16, "QWORD", "HOST"),
    ("PIN_BASED_VM_EXEC_CONTROL", 0x4000, "DWORD", "CONTROL"),
    ("CR3_TARGET_COUNT", 0x400A, "DWORD", "CONTROL"),
    ("VM_EXIT_CONTROLS", 0x400C, "DWORD", "CONTROL"),
    ("VM_ENTRY_CONTROLS", 0x4012, "DWORD", "CONTROL"),
    ("VM_ENTRY_INTR_INFO_FIELD", 0x4016, "DWORD", "CONTROL"),
    ("SECONDARY_VM_EXEC_CONTROL", 0x401E, "DWORD", "CONTROL"),
    ("NOTIFY_WINDOW", 0x4024, "DWORD", "CONTROL"),
    ("VM_INSTRUCTION_ERROR", 0x4400, "DWORD", "READ_ONLY"),
    ("VM_EXIT_REASON", 0x4402, "DWORD", "READ_ONLY"),
    ("IDT_VECTORING_INFO_FIELD", 0x4408, "DWORD", "READ_ONLY"),
    ("VMX_INSTRUCTION_INFO", 0x440E, "DWORD", "READ_ONLY"),
    ("GUEST_ES_LIMIT", 0x4800, "DWORD", "GUEST"),
    ("GUEST_IDTR_LIMIT", 0x4812, "DWORD", "GUEST"),
    ("GUEST_CS_AR_BYTES", 0x4816, "DWORD", "GUEST"),
    ("GUEST_INTERRUPTIBILITY_INFO", 0x4824, "DWORD", "GUEST"),
    ("GUEST_ACTIVITY_STATE", 0x4826, "DWORD", "GUEST"),
    ("GUEST_SYSENTER_CS", 0x482A, "DWORD", "GUEST"),
    ("VMX_PREEMPTION_TIMER_VALUE", 0x482E, "DWORD", "GUEST"),
    ("HOST_IA32_SYSENTER_CS", 0x4C00, "DWORD", "HOST"),
    ("CR0_GUEST_HOST_MASK", 0x6000, "NATURAL", "CONTROL"),
    ("CR3_TARGET_VALUE3", 0x600E, "NATURAL", "CONTROL"),
    ("EXIT_QUALIFICATION", 0x6400, "NATURAL", "READ_ONLY"),
    ("GUEST_LINEAR_ADDRESS", 0x640A, "NATURAL", "READ_ONLY"),
    ("GUEST_CR0", 0x6800, "NATURAL", "GUEST"),
    ("GUEST_ES_BASE", 0x6806, "NATURAL", "GUEST"),
    ("GUEST_DR7", 0x681A, "NATURAL", "GUEST"),
    ("GUEST_RIP", 0x681E, "NATURAL", "GUEST"),
    ("GUEST_SYSENTER_EIP", 0x6826, "NATURAL", "GUEST"),
    ("GUEST_INTR_SSP_TABLE", 0x682C, "NATURAL", "GUEST"),
    ("HOST_CR0", 0x6C00, "NATURAL", "HOST"),
    ("HOST_RIP", 0x6C16, "NATURAL", "HOST"),
    ("HOST_INTR_SSP_TABLE", 0x6C1C, "NATURAL", "HOST"),
]


@pytest.mark.parametrize(("name", "encoding", "width", "kind"), KNOWN)
def test_encoding(name: str, encoding: int, width: str, kind: str) -> None:
    field = Vmcs[name]
    assert field == encoding
    assert (width_of(field), type_of(field)) == (FieldWidth[width], FieldType[kind])
    assert (VMCS_FIELDS[encoding].width, VMCS_FIELDS[encoding].type) == (FieldWidth[width], FieldType[kind])


def test_encodings_are_unique() -> None:
    assert len(Vmcs.__members__) == len(list(Vmcs))  # an alias would be two names with one encoding


@pytest.mark.parametrize("field", Vmcs)
def test_field_follows_its_encoding(field: Vmcs) -> None:
    assert field & ENCODING_RESERVED == 0
    assert not is_high(field)
    assert field == index_of(field) << 1 | type_of(field) << 10 | width_of(field) << 13
    row = VMCS_FIELDS[field]
    assert row.field is field
    assert row.bits == VMCS_BITS[field] == {0: 16, 1: 64, 2: 32, 3: 64}[field >> 13]
    if field.name.startswith("HOST_"):
        assert row.type is FieldType.HOST
    if field.name.endswith("_SELECTOR"):
        assert row.width is FieldWidth.WORD
    if field.name.endswith("_BASE"):
        assert row.width is FieldWidth.NATURAL


# Two names that begin with GUEST_ are VM-exit information, not guest state.
@pytest.mark.parametrize("field", [f for f in Vmcs if f.name.startswith("GUEST_")])
def test_guest_names_are_guest_state(field: Vmcs) -> None:
    expected = FieldType.READ_ONLY if field in (Vmcs.GUEST_LINEAR_ADDRESS, Vmcs.GUEST_PHYSICAL_ADDRESS) else FieldType.GUEST
    assert type_of(field) is expected


# Section of each area (SDM vol. 3 §25.4-25.9) by field type.
AREA_SECTIONS = {
    FieldType.GUEST: ("§25.4",),
    FieldType.HOST: ("§25.5",),
    FieldType.CONTROL: ("§25.6", "§25.7", "§25.8"),
    FieldType.READ_ONLY: ("§25.9",),
}


@pytest.mark.parametrize("field", Vmcs)
def test_section_is_of_the_fields_area(field: Vmcs) -> None:
    row = VMCS_FIELDS[field]
    assert row.section.removeprefix("SDM vol. 3 ").startswith(AREA_SECTIONS[row.type])


@pytest.mark.parametrize("field", [f for f in Vmcs if VMCS_FIELDS[f].since])
def test_since_names_existing_controls(field: Vmcs) -> None:
    for control in (VMCS_FIELDS[field].since or "").split("|"):
        flags, name = control.split(".")
        assert name in getattr(vmx, flags).__members__


@pytest.mark.parametrize(
    ("field", "since"),
    [
        (Vmcs.VIRTUAL_PROCESSOR_ID, "ProcBased2.ENABLE_VPID"),
        (Vmcs.EPT_POINTER, "ProcBased2.ENABLE_EPT"),
        (Vmcs.GUEST_PHYSICAL_ADDRESS, "ProcBased2.ENABLE_EPT"),
        (Vmcs.POSTED_INTR_NV, "PinBased.POSTED_INTERRUPTS"),
        (Vmcs.SECONDARY_VM_EXEC_CONTROL, "ProcBased.SECONDARY_CONTROLS"),
        (Vmcs.MSR_BITMAP, "ProcBased.USE_MSR_BITMAPS"),
        (Vmcs.HOST_IA32_EFER, "ExitControls.LOAD_IA32_EFER"),
        (Vmcs.GUEST_RIP, None),
        (Vmcs.TSC_OFFSET, None),
    ],
)
def test_since(field: Vmcs, since: str | None) -> None:
    assert VMCS_FIELDS[field].since == since


def test_high_access() -> None:
    assert is_high(Vmcs.TSC_OFFSET | 1)
    assert index_of(Vmcs.TSC_OFFSET | 1) == index_of(Vmcs.TSC_OFFSET) == 8


@given(st.integers(0, (1 << 64) - 1))
def test_decoding_is_total(encoding: int) -> None:
    """A guest may VMREAD any number."""
    rebuilt = is_high(encoding) | index_of(encoding) << 1 | type_of(encoding) << 10 | width_of(encoding) << 13
    assert rebuilt == encoding & ~ENCODING_RESERVED & (1 << 64) - 1


def test_vmcs_enum_index() -> None:
    assert HIGHEST_INDEX == index_of(Vmcs.INJECTED_EVENT_DATA) == 0x29


def test_layout() -> None:
    assert set(VMCS_OFFSET) == {int(field) for field in Vmcs}
    offsets = sorted(VMCS_OFFSET.values())
    assert offsets == list(range(VMCS_HEADER_BYTES, VMCS_HEADER_BYTES + 8 * len(Vmcs), 8))
    assert VMCS_LAUNCH_STATE_OFFSET + 8 <= VMCS_HEADER_BYTES
    assert offsets[-1] + 8 <= VMCS_REGION_BYTES == 4096
    assert 0 < VMCS_REVISION_ID < 1 << 31  # bit 31 is the shadow-VMCS indicator


# Reserved bits that are 1 (SDM vol. 3 appendix A.3.1, A.3.2, A.4, A.5), and the defined controls among them that TRUE MSRs free.
DEFAULT1 = [
    (vmx.PinBased, {1, 2, 4}, set()),
    (vmx.ProcBased, {1, *range(4, 7), 8, *range(13, 17), 26}, {15, 16}),
    (vmx.ProcBased2, set(), set()),
    (vmx.ProcBased3, set(), set()),
    (vmx.ExitControls, {*range(9), 10, 11, 13, 14, 16, 17}, {2}),
    (vmx.ExitControls2, set(), set()),
    (vmx.EntryControls, {*range(9), 12}, {2}),
]


@pytest.mark.parametrize(("flags", "default1", "freed"), DEFAULT1)
def test_default1(flags: type[IntFlag], default1: set[int], freed: set[int]) -> None:
    assert vmx.CONTROL_DEFAULT1[flags] == sum(1 << bit for bit in default1)
    assert vmx.CONTROL_TRUE_DEFAULT1[flags] == sum(1 << bit for bit in default1 - freed)
    defined = sum(member.value for member in flags)
    assert defined & vmx.CONTROL_TRUE_DEFAULT1[flags] == 0  # what stays 1 has no name
    assert defined & vmx.CONTROL_DEFAULT1[flags] == sum(1 << bit for bit in freed)


FLAGS = [value for value in vars(vmx).values() if isinstance(value, type) and issubclass(value, IntFlag) and value is not IntFlag]
NUMBERS = [value for value in vars(vmx).values() if isinstance(value, type) and issubclass(value, IntEnum) and value is not IntEnum]


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_are_distinct_single_bits(flags: type[IntFlag]) -> None:
    assert all(member.value.bit_count() == 1 for member in flags.__members__.values())
    assert len({member.value for member in flags.__members__.values()}) == len(flags.__members__)


@pytest.mark.parametrize("numbers", NUMBERS)
def test_numbers_are_distinct(numbers: type[IntEnum]) -> None:
    assert len({member.value for member in numbers.__members__.values()}) == len(numbers.__members__)


@pytest.mark.parametrize(
    ("flag", "bit"),
    [
        (vmx.PinBased.EXTERNAL_INTERRUPT_EXITING, 0),
        (vmx.PinBased.VMX_PREEMPTION_TIMER, 6),
        (vmx.PinBased.POSTED_INTERRUPTS, 7),
        (vmx.ProcBased.INTERRUPT_WINDOW_EXITING, 2),
        (vmx.ProcBased.HLT_EXITING, 7),
        (vmx.ProcBased.TERTIARY_CONTROLS, 17),
        (vmx.ProcBased.NMI_WINDOW_EXITING, 22),
        (vmx.ProcBased.MONITOR_TRAP_FLAG, 27),
        (vmx.ProcBased.SECONDARY_CONTROLS, 31),
        (vmx.ProcBased2.UNRESTRICTED_GUEST, 7),
        (vmx.ProcBased2.ENABLE_PML, 17),
        (vmx.ProcBased2.USE_TSC_SCALING, 25),
        (vmx.ProcBased3.IPI_VIRTUALIZATION, 4),
        (vmx.ExitControls.HOST_ADDRESS_SPACE_SIZE, 9),
        (vmx.ExitControls.ACKNOWLEDGE_INTERRUPT_ON_EXIT, 15),
        (vmx.ExitControls.SAVE_PREEMPTION_TIMER, 22),
        (vmx.EntryControls.IA32E_MODE_GUEST, 9),
        (vmx.EntryControls.LOAD_IA32_EFER, 15),
        (vmx.Interruptibility.BLOCKING_BY_NMI, 3),
        (vmx.Ept.PAGE, 7),
        (vmx.Ept.SUPPRESS_VE, 63),
        (vmx.EptViolation.NMI_UNBLOCKING, 12),
        (vmx.VmxBasic.TRUE_CONTROLS, 55),
        (vmx.VmxMisc.VMWRITE_ANY_FIELD, 29),
        (vmx.EptVpidCap.INVVPID_SINGLE_CONTEXT_RETAINING_GLOBALS, 43),
    ],
)
def test_bit(flag: IntFlag, bit: int) -> None:
    assert flag == 1 << bit


def test_exit_reasons() -> None:
    unassigned = {35, 38, 42, 71}  # SDM vol. 3 appendix C
    assert {int(reason) for reason in ExitReason} == set(range(80)) - unassigned
    assert set(BASIC_EXITS) == {int(reason) for reason in ExitReason}
    assert len({row.name for row in BASIC_EXITS.values()}) == len(BASIC_EXITS)
    assert all(reason & ~vmx.EXIT_REASON_BASIC == 0 for reason in BASIC_EXITS)


@pytest.mark.parametrize(
    ("number", "reason", "kind", "length"),
    [
        (0, ExitReason.EXCEPTION_OR_NMI, ExitKind.EVENT, False),
        (1, ExitReason.EXTERNAL_INTERRUPT, ExitKind.EVENT, False),
        (7, ExitReason.INTERRUPT_WINDOW, ExitKind.EVENT, False),
        (9, ExitReason.TASK_SWITCH, ExitKind.FAULT, False),
        (10, ExitReason.CPUID, ExitKind.FAULT, True),
        (12, ExitReason.HLT, ExitKind.FAULT, True),
        (18, ExitReason.VMCALL, ExitKind.FAULT, True),
        (28, ExitReason.CR_ACCESS, ExitKind.FAULT, True),
        (30, ExitReason.IO_INSTRUCTION, ExitKind.FAULT, True),
        (33, ExitReason.ENTRY_FAILURE_GUEST_STATE, ExitKind.ENTRY_FAILURE, False),
        (37, ExitReason.MONITOR_TRAP_FLAG, ExitKind.EVENT, False),
        (43, ExitReason.TPR_BELOW_THRESHOLD, ExitKind.TRAP, False),
        (44, ExitReason.APIC_ACCESS, ExitKind.FAULT, False),
        (45, ExitReason.VIRTUALIZED_EOI, ExitKind.TRAP, False),
        (48, ExitReason.EPT_VIOLATION, ExitKind.FAULT, False),
        (52, ExitReason.PREEMPTION_TIMER, ExitKind.EVENT, False),
        (56, ExitReason.APIC_WRITE, ExitKind.TRAP, False),
        (62, ExitReason.PML_FULL, ExitKind.FAULT, False),
        (74, ExitReason.BUS_LOCK, ExitKind.TRAP, False),
    ],
)
def test_basic_exit(number: int, reason: ExitReason, kind: ExitKind, length: bool) -> None:
    assert reason == number
    assert (BASIC_EXITS[reason].kind, BASIC_EXITS[reason].instruction_length) == (kind, length)


@pytest.mark.parametrize("reason", ExitReason)
def test_instruction_length_only_with_an_instruction(reason: ExitReason) -> None:
    """SDM vol. 3 §28.2.5: the length is that of an instruction whose execution caused the exit instead of completing."""
    row = BASIC_EXITS[reason]
    assert not row.instruction_length or row.kind is ExitKind.FAULT
    assert not (row.instruction_length and row.length_when)
    assert (row.kind is ExitKind.ENTRY_FAILURE) == reason.name.startswith("ENTRY_FAILURE")


def test_instruction_errors() -> None:
    assert {int(error) for error in InstructionError} == set(range(1, 29)) - {14, 21, 27}
    assert set(vmx.INSTRUCTION_ERROR_TEXT) == {int(error) for error in InstructionError}
    assert len(set(vmx.INSTRUCTION_ERROR_TEXT.values())) == len(InstructionError)


@pytest.mark.parametrize("layout", [vmx.CrQualification, vmx.DrQualification, vmx.IoQualification, vmx.TaskSwitchQualification])
def test_qualification_layout_does_not_overlap(layout: type) -> None:
    seen = 0
    for bits in (value for value in vars(layout).values() if isinstance(value, Bits)):
        assert seen & bits.mask == 0
        seen |= bits.mask
    assert 0 < seen < 1 << 32


@pytest.mark.parametrize(
    ("bits", "value", "number"),
    [
        (vmx.IoQualification.PORT, 0x03F8_0008, 0x3F8),  # IN AL, DX with DX = 3F8H
        (vmx.IoQualification.IN, 0x03F8_0008, 1),
        (vmx.CrQualification.NUMBER, 0x314, 4),  # MOV RBX, CR4
        (vmx.CrQualification.ACCESS, 0x314, vmx.CrAccess.MOV_FROM_CR),
        (vmx.CrQualification.GPR, 0x314, 3),
        (vmx.TaskSwitchQualification.SOURCE, 0xC000_0028, vmx.TaskSwitchSource.IDT_GATE),
        (vmx.VMX_BASIC_REGION_BYTES, 0x00DA_1000_0000_0004, 4096),
        (vmx.VMX_BASIC_MEMORY_TYPE, 0x00DA_1000_0000_0004, 6),
        (vmx.VMX_MISC_CR3_TARGETS, 0x2004_C1E7, 4),
        (vmx.VMX_MISC_PREEMPTION_RATE, 0x2004_C1E7, 7),
        (vmx.EPTP_WALK_LENGTH, vmx.EPTP_WB | vmx.EPTP_WALK_4 | vmx.EPTP_ACCESSED_DIRTY, 3),
        (vmx.EPTP_MEMORY_TYPE, vmx.EPTP_WB | vmx.EPTP_WALK_4 | vmx.EPTP_ACCESSED_DIRTY, 6),
    ],
)
def test_bits_of_real_values(bits: Bits, value: int, number: int) -> None:
    assert bits.get(value) == number


@given(low=st.integers(0, 63), count=st.integers(1, 64), value=st.integers(0, (1 << 128) - 1))
def test_bits_round_trip(low: int, count: int, value: int) -> None:
    bits = Bits(low, count)
    assert bits.put(bits.get(value)) == value & bits.mask


def test_interruption_information_does_not_overlap() -> None:
    parts = (vmx.INTR_INFO_VECTOR, vmx.INTR_INFO_TYPE, vmx.INTR_INFO_ERROR_CODE, vmx.INTR_INFO_RESERVED, vmx.INTR_INFO_VALID)
    assert sum(parts) == 0xFFFF_FFFF  # disjoint and complete
    assert vmx.INTR_INFO_TYPE == 7 << vmx.INTR_INFO_TYPE_SHIFT
    assert 1 not in {int(kind) for kind in vmx.InterruptionType}  # reserved
