"""Registers, exceptions, paging, segments and KVM's user-space interface: known values, one row each."""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag
from functools import reduce
from itertools import pairwise
from operator import or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldswitch.arch import kvm, paging, registers, segments
from worldswitch.arch.exceptions import AMD_EXCEPTIONS, EXCEPTIONS, ExceptionClass, ExceptionKind, Vector
from worldswitch.arch.flags import BitFlag
from worldswitch.arch.paging import PageFault, PagingMode, Pte, reserved_bits, reserved_in
from worldswitch.arch.registers import BreakpointType, Cr0, Cr4, Dr6, Dr7, Efer, Gpr, Mxcsr, Rflags, Seg, Xcr0
from worldswitch.arch.segments import SystemType

U64 = (1 << 64) - 1

# Name, bit: SDM vol. 1 figures 3-8, 10-3, vol. 3 figures 2-3, 2-4, 2-7, 2-8, 18-1, tables 4-15 ff. and figure 4-12.
BITS: list[tuple[type[IntFlag], str]] = [
    (Rflags, "CF:0 FIXED:1 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21"),
    (Cr0, "PE:0 MP:1 EM:2 TS:3 ET:4 NE:5 WP:16 AM:18 NW:29 CD:30 PG:31"),
    (
        Cr4,
        "VME:0 PVI:1 TSD:2 DE:3 PSE:4 PAE:5 MCE:6 PGE:7 PCE:8 OSFXSR:9 OSXMMEXCPT:10 UMIP:11 LA57:12 VMXE:13 SMXE:14 FSGSBASE:16 PCIDE:17 OSXSAVE:18 KL:19 "
        "SMEP:20 SMAP:21 PKE:22 CET:23 PKS:24 UINTR:25 LASS:27 LAM_SUP:28 FRED:32",
    ),
    (Efer, "SCE:0 LME:8 LMA:10 NXE:11 SVME:12 LMSLE:13 FFXSR:14 TCE:15 MCOMMIT:17 INTWB:18 UAIE:20 AIBRSE:21"),
    (Xcr0, "X87:0 SSE:1 AVX:2 BNDREGS:3 BNDCSR:4 OPMASK:5 ZMM_HI256:6 HI16_ZMM:7 PKRU:9 TILECFG:17 TILEDATA:18 APX:19 LWP:62"),
    (Dr6, "B0:0 B1:1 B2:2 B3:3 BLD:11 BD:13 BS:14 BT:15 RTM:16"),
    (Dr7, "L0:0 G0:1 L1:2 G1:3 L2:4 G2:5 L3:6 G3:7 LE:8 GE:9 RTM:11 GD:13"),
    (Mxcsr, "IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 DAZ:6 IM:7 DM:8 ZM:9 OM:10 UM:11 PM:12 FZ:15 MM:17"),
    (Pte, "P:0 RW:1 US:2 PWT:3 PCD:4 A:5 D:6 PS:7 PAT:7 G:8 PAT_LARGE:12 XD:63"),
    (PageFault, "P:0 WR:1 US:2 RSVD:3 ID:4 PK:5 SS:6 HLAT:7 SGX:15 RMP:31"),
]
# Fields of more than one bit.
FIELDS: list[tuple[int, int]] = [
    (Rflags.IOPL, 0x3000),
    (Mxcsr.RC, 0x6000),
    (Pte.PKEY, 0xF << 59),
    *[(Dr7[f"RW{n}"], 3 << 16 + 4 * n) for n in range(4)],
    *[(Dr7[f"LEN{n}"], 3 << 18 + 4 * n) for n in range(4)],
]


@pytest.mark.parametrize(("cls", "bits"), BITS, ids=[cls.__name__ for cls, _ in BITS])
def test_bits(cls: type[IntFlag], bits: str) -> None:
    expected = {name: 1 << int(bit) for name, bit in (row.split(":") for row in bits.split())}
    assert {name: int(m) for name, m in cls.__members__.items() if m.bit_count() == 1} == expected


@pytest.mark.parametrize(("field", "mask"), FIELDS)
def test_fields(field: int, mask: int) -> None:
    assert field == mask


@pytest.mark.parametrize(
    ("defined", "reserved", "bits", "fixed"),
    [
        (registers.RFLAGS_DEFINED, registers.RFLAGS_RESERVED, Rflags, 0),
        (registers.CR0_DEFINED, registers.CR0_RESERVED, Cr0, 0),
        (registers.CR4_DEFINED, registers.CR4_RESERVED, Cr4, 0),
        (registers.EFER_DEFINED, registers.EFER_RESERVED, Efer, 0),
        (registers.XCR0_DEFINED, registers.XCR0_RESERVED, Xcr0, 0),
        (registers.DR6_DEFINED, registers.DR6_RESERVED, Dr6, registers.DR6_FIXED),
        (registers.DR7_DEFINED, registers.DR7_RESERVED, Dr7, registers.DR7_FIXED),
    ],
)
def test_defined_and_reserved(defined: int, reserved: int, bits: type[IntFlag], fixed: int) -> None:
    assert defined == reduce(or_, (int(m) for m in bits.__members__.values())) | fixed
    assert defined ^ reserved == U64


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STATUS_FLAGS", 0x8D5),
        ("RFLAGS_FIXED", 0x2),
        ("RFLAGS_DEFINED", 0x3F7FD7),
        ("IOPL_SHIFT", 12),
        ("CR0_DEFINED", 0xE005003F),
        ("EFER_DEFINED_INTEL", 0xD01),
        ("DR6_FIXED", 0xFFFF0FF0),
        ("DR7_FIXED", 0x400),
        ("DR7_DEFINED", 0xFFFF2FFF),
        ("MXCSR_RESET", 0x1F80),
        ("MXCSR_DEFINED", 0xFFFF),
        ("DR7_RW_SHIFT", (16, 20, 24, 28)),
        ("DR7_LEN_SHIFT", (18, 22, 26, 30)),
        ("BREAKPOINT_BYTES", (1, 2, 8, 4)),
    ],
)
def test_register_constants(name: str, value: object) -> None:
    assert getattr(registers, name) == value


def test_numbers_of_registers() -> None:
    assert " ".join(g.name for g in sorted(Gpr)) == "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15"
    assert " ".join(s.name for s in sorted(Seg)) == "ES CS SS DS FS GS LDTR TR"
    assert " ".join(b.name for b in sorted(BreakpointType)) == "EXECUTE WRITE IO READ_WRITE"


@pytest.mark.parametrize("cls", [Rflags, Cr0, Cr4, Efer, Xcr0, Dr6, Dr7, Mxcsr, Pte, PageFault])
@given(value=st.integers(0, U64))
def test_complement_clears_only_its_bits(cls: type[BitFlag], value: int) -> None:
    for member in cls:
        assert value & ~member == value - (value & int(member))


def test_complement_of_a_combination() -> None:
    assert 0xFFFF0FFF & ~(Dr6.B0 | Dr6.B1 | Dr6.B2 | Dr6.B3) == 0xFFFF0FF0


# Vector, mnemonic, kind, error code, class: SDM vol. 3 tables 6-1 and 6-5; the last three: APM vol. 2 §8.2.
F, T, A, INT = ExceptionKind.FAULT, ExceptionKind.TRAP, ExceptionKind.ABORT, ExceptionKind.INTERRUPT
BEN, CON = ExceptionClass.BENIGN, ExceptionClass.CONTRIBUTORY
EXCEPTION_ROWS = [
    (0, "#DE", F, False, CON),
    (1, "#DB", T, False, BEN),
    (2, "NMI", INT, False, BEN),
    (3, "#BP", T, False, BEN),
    (4, "#OF", T, False, BEN),
    (5, "#BR", F, False, BEN),
    (6, "#UD", F, False, BEN),
    (7, "#NM", F, False, BEN),
    (8, "#DF", A, True, ExceptionClass.DOUBLE_FAULT),
    (10, "#TS", F, True, CON),
    (11, "#NP", F, True, CON),
    (12, "#SS", F, True, CON),
    (13, "#GP", F, True, CON),
    (14, "#PF", F, True, ExceptionClass.PAGE_FAULT),
    (16, "#MF", F, False, BEN),
    (17, "#AC", F, True, BEN),
    (18, "#MC", A, False, BEN),
    (19, "#XM", F, False, BEN),
    (20, "#VE", F, False, ExceptionClass.PAGE_FAULT),
    (21, "#CP", F, True, CON),
    (28, "#HV", INT, False, BEN),
    (29, "#VC", F, True, CON),
    (30, "#SX", F, True, CON),
]


@pytest.mark.parametrize(("vector", "mnemonic", "kind", "error_code", "cls"), EXCEPTION_ROWS)
def test_exception(vector: int, mnemonic: str, kind: ExceptionKind, error_code: bool, cls: ExceptionClass) -> None:
    spec = (EXCEPTIONS | AMD_EXCEPTIONS)[vector]
    assert (spec.mnemonic, spec.kind, spec.error_code, spec.has_error_code, spec.exception_class) == (mnemonic, kind, error_code, error_code, cls)
    assert Vector(vector).name == mnemonic.lstrip("#")
    assert "§" in spec.section


def test_exception_tables_cover_the_vectors() -> None:
    assert set(EXCEPTIONS) | set(AMD_EXCEPTIONS) == {row[0] for row in EXCEPTION_ROWS} == set(Vector)
    # VM entry refuses an error code for AMD's vectors, which it can only if they are not in the common table.
    assert not set(EXCEPTIONS) & {28, 29, 30}


# Format, level, large, MAXPHYADDR, NXE, what must be 0: SDM vol. 3 tables 4-4 to 4-20.
RESERVED_ROWS = [
    (PagingMode.LONG, 5, False, 52, True, 0x80),
    (PagingMode.LONG, 4, False, 52, True, 0x80),
    (PagingMode.LONG, 4, False, 40, True, 0x000F_FF00_0000_0080),
    (PagingMode.LONG, 4, False, 52, False, 0x8000_0000_0000_0080),
    (PagingMode.LONG, 3, True, 52, True, 0x3FFF_E000),
    (PagingMode.LONG, 3, False, 36, True, 0x000F_FFF0_0000_0000),
    (PagingMode.LONG, 2, True, 46, True, 0x000F_C000_001F_E000),
    (PagingMode.LONG, 2, False, 52, True, 0),
    (PagingMode.LONG, 1, False, 46, False, 0x800F_C000_0000_0000),
    (PagingMode.PAE, 3, False, 52, True, 0xFFF0_0000_0000_01E6),
    (PagingMode.PAE, 3, False, 52, False, 0xFFF0_0000_0000_01E6),
    (PagingMode.PAE, 2, True, 36, True, 0x7FFF_FFF0_001F_E000),
    (PagingMode.PAE, 2, False, 36, False, 0xFFFF_FFF0_0000_0000),
    (PagingMode.PAE, 1, False, 52, True, 0x7FF0_0000_0000_0000),
    (PagingMode.LEGACY_32, 2, True, 40, False, 0x20_0000),
    (PagingMode.LEGACY_32, 2, True, 52, False, 0x20_0000),
    (PagingMode.LEGACY_32, 2, True, 36, False, 0x3E_0000),
    (PagingMode.LEGACY_32, 2, True, 32, False, 0x3F_E000),
    (PagingMode.LEGACY_32, 2, False, 36, False, 0),
    (PagingMode.LEGACY_32, 1, False, 36, False, 0),
]


@pytest.mark.parametrize(("mode", "level", "large", "physical_bits", "nxe", "mask"), RESERVED_ROWS)
def test_reserved(mode: PagingMode, level: int, large: bool, physical_bits: int, nxe: bool, mask: int) -> None:
    assert reserved_in(mode, level, large, physical_bits, nxe) == mask
    if mode is PagingMode.LONG:
        assert reserved_bits(level, large, physical_bits, nxe) == mask


def test_no_large_page_at_level_4() -> None:
    with pytest.raises(KeyError):
        reserved_bits(4, True, 46, True)


def test_levels() -> None:
    assert paging.LEVEL_SHIFT == {1: 12, 2: 21, 3: 30, 4: 39, 5: 48}
    assert paging.LEVEL_NAMES == {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"}
    for level, mask in paging.PAGE_ADDRESS_MASK.items():
        assert mask == (1 << 52) - (1 << paging.LEVEL_SHIFT[level])
    assert paging.RESERVED_AMD == {5: 1 << 8, 4: 1 << 8, 3: 1 << 8}


# Descriptors as operating systems load them: quadword, base, limit, access rights (VMX), attribute (SVM).
DESCRIPTORS = [
    (0x00AF_9B00_0000_FFFF, 0, 0xFFFF_FFFF, 0xA09B, 0xA9B),  # 64-bit code
    (0x00CF_9300_0000_FFFF, 0, 0xFFFF_FFFF, 0xC093, 0xC93),  # flat data
    (0x0000_9B00_0000_FFFF, 0, 0xFFFF, 0x009B, 0x09B),  # code after reset
    (0x1240_8934_5678_0067, 0x1234_5678, 0x67, 0x4089, 0x489),  # available TSS
    (0xFF1F_F2FF_FFFF_FFFF, 0xFFFF_FFFF, 0xF_FFFF, 0x10F2, 0x1F2),  # byte-granular, DPL 3, AVL
    (0x0080_9200_0000_0000, 0, 0xFFF, 0x8092, 0x892),  # a limit of 0 with G set
]


@pytest.mark.parametrize(("low", "base", "limit", "ar", "attrib"), DESCRIPTORS)
def test_descriptor(low: int, base: int, limit: int, ar: int, attrib: int) -> None:
    assert segments.descriptor_base(low) == base
    assert segments.descriptor_limit(low) == limit
    assert segments.descriptor_ar(low) == ar
    assert segments.svm_attrib_of(ar) == attrib
    assert segments.ar_of_svm_attrib(attrib) == ar


@given(attrib=st.integers(0, 0xFFF))
def test_svm_attrib_round_trip(attrib: int) -> None:
    ar = segments.ar_of_svm_attrib(attrib)
    present = bool(attrib & 0x80)
    assert bool(ar & segments.AR_UNUSABLE) is not present
    assert not ar & segments.AR_RESERVED
    assert segments.svm_attrib_of(ar) == (attrib if present else 0)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("AR_TYPE", 0xF),
        ("AR_S", 0x10),
        ("AR_DPL", 0x60),
        ("AR_P", 0x80),
        ("AR_AVL", 0x1000),
        ("AR_L", 0x2000),
        ("AR_DB", 0x4000),
        ("AR_G", 0x8000),
        ("AR_UNUSABLE", 0x10000),
        ("AR_RESERVED", 0xFFFE0F00),
        ("AR_DPL_SHIFT", 5),
        ("TYPE_ACCESSED", 1),
        ("TYPE_WRITABLE", 2),
        ("TYPE_READABLE", 2),
        ("TYPE_EXPAND_DOWN", 4),
        ("TYPE_CONFORMING", 4),
        ("TYPE_CODE", 8),
        ("SELECTOR_RPL", 3),
        ("SELECTOR_TI", 4),
        ("SELECTOR_INDEX", 0xFFF8),
        ("TSS64_RSP", (4, 12, 20)),
        ("TSS64_IST", (None, 36, 44, 52, 60, 68, 76, 84)),
        ("TSS64_IO_MAP_BASE", 102),
        ("TSS64_BYTES", 104),
    ],
)
def test_segment_constants(name: str, mask: object) -> None:
    assert getattr(segments, name) == mask


def test_system_types() -> None:
    expected = (
        "TSS16_AVAILABLE:1 LDT:2 TSS16_BUSY:3 CALL_GATE16:4 TASK_GATE:5 INTERRUPT_GATE16:6 TRAP_GATE16:7 "
        "TSS_AVAILABLE:9 TSS_BUSY:11 CALL_GATE:12 INTERRUPT_GATE:14 TRAP_GATE:15"
    )
    assert " ".join(f"{t.name}:{t.value}" for t in SystemType) == expected


# SDM vol. 3 figures 8-2 and 8-10.
@pytest.mark.parametrize(
    ("name", "offset", "size"),
    [
        ("LINK", 0, 2),
        ("ESP0", 4, 4),
        ("SS0", 8, 2),
        ("SS2", 24, 2),
        ("CR3", 28, 4),
        ("EIP", 32, 4),
        ("EFLAGS", 36, 4),
        ("EAX", 40, 4),
        ("EDI", 68, 4),
        ("ES", 72, 2),
        ("CS", 76, 2),
        ("GS", 92, 2),
        ("LDTR", 96, 2),
        ("TRAP", 100, 2),
        ("IO_MAP_BASE", 102, 2),
    ],
)
def test_tss32(name: str, offset: int, size: int) -> None:
    assert segments.TSS32[name] == (offset, size)


def test_tss32_has_no_overlap_and_ends_at_its_size() -> None:
    ends = [(offset, offset + size) for offset, size in segments.TSS32.values()]
    assert all(end <= following for (_, end), (following, _) in pairwise(ends))
    assert ends[-1][1] == segments.TSS32_BYTES == 104
    assert list(segments.TSS16.values()) == list(range(0, segments.TSS16_BYTES, 2))


@pytest.mark.parametrize(
    ("name", "offset"), [("LINK", 0), ("SP0", 2), ("SS2", 12), ("IP", 14), ("FLAGS", 16), ("AX", 18), ("DI", 32), ("ES", 34), ("LDTR", 42)]
)
def test_tss16(name: str, offset: int) -> None:
    assert segments.TSS16[name] == offset


def test_gate64() -> None:
    gate = segments.decode_gate64(0x8901_EE03_0010_2345, 0xFFFF_FFFF_FFFF_8123)
    assert gate == segments.Gate64(offset=0xFFFF_8123_8901_2345, selector=0x10, ist=3, type=14, dpl=3, present=True)
    assert segments.decode_gate64(0, 0) == segments.Gate64(0, 0, 0, 0, 0, False)


# Quadword, and the gate: offset, selector, type, DPL, present, parameters.
GATES32 = [
    (0xC010_8E00_0008_1234, (0xC010_1234, 8, 14, 0, True, 0)),
    (0xC010_EF1F_0008_1234, (0xC010_1234, 8, 15, 3, True, 0)),
    (0xC010_8605_0008_1234, (0x1234, 8, 6, 0, True, 0)),
    (0xC010_0700_0008_1234, (0x1234, 8, 7, 0, False, 0)),
    (0xC010_8500_0028_1234, (0, 0x28, 5, 0, True, 0)),
    (0xC010_EC1F_0008_1234, (0xC010_1234, 8, 12, 3, True, 31)),
    (0xC010_8403_0008_1234, (0x1234, 8, 4, 0, True, 3)),
]


@pytest.mark.parametrize(("low", "expected"), GATES32)
def test_gate32(low: int, expected: tuple[int, int, int, int, bool, int]) -> None:
    assert segments.decode_gate32(low) == segments.Gate32(*expected)


# Facts of the ABI, as the C compiler gives them for <linux/kvm.h>; the last rows of sizes and ioctls are of later headers, counted by hand.
SIZES = [
    ("kvm_clear_dirty_log", 24),
    ("kvm_clock_data", 48),
    ("kvm_coalesced_mmio", 24),
    ("kvm_coalesced_mmio_ring", 8),
    ("kvm_coalesced_mmio_zone", 16),
    ("kvm_cpuid", 8),
    ("kvm_cpuid2", 8),
    ("kvm_cpuid_entry", 24),
    ("kvm_cpuid_entry2", 40),
    ("kvm_create_device", 12),
    ("kvm_debug_exit_arch", 32),
    ("kvm_debugregs", 128),
    ("kvm_device_attr", 24),
    ("kvm_dirty_gfn", 16),
    ("kvm_dirty_log", 16),
    ("kvm_dtable", 16),
    ("kvm_enable_cap", 104),
    ("kvm_enc_region", 16),
    ("kvm_fpu", 416),
    ("kvm_guest_debug", 72),
    ("kvm_guest_debug_arch", 64),
    ("kvm_hyperv_eventfd", 24),
    ("kvm_hyperv_exit", 56),
    ("kvm_interrupt", 4),
    ("kvm_ioapic_state", 216),
    ("kvm_ioeventfd", 64),
    ("kvm_irq_level", 8),
    ("kvm_irq_routing", 8),
    ("kvm_irq_routing_entry", 48),
    ("kvm_irq_routing_hv_sint", 8),
    ("kvm_irq_routing_irqchip", 8),
    ("kvm_irq_routing_msi", 16),
    ("kvm_irq_routing_xen_evtchn", 12),
    ("kvm_irqchip", 520),
    ("kvm_irqfd", 32),
    ("kvm_lapic_state", 1024),
    ("kvm_mp_state", 4),
    ("kvm_msi", 32),
    ("kvm_msr_entry", 16),
    ("kvm_msr_filter", 392),
    ("kvm_msr_filter_range", 24),
    ("kvm_msr_list", 4),
    ("kvm_msrs", 8),
    ("kvm_nested_state", 128),
    ("kvm_one_reg", 16),
    ("kvm_pic_state", 16),
    ("kvm_pit_channel_state", 24),
    ("kvm_pit_config", 64),
    ("kvm_pit_state", 72),
    ("kvm_pit_state2", 112),
    ("kvm_pmu_event_filter", 32),
    ("kvm_reg_list", 8),
    ("kvm_regs", 144),
    ("kvm_reinject_control", 32),
    ("kvm_run", 2352),
    ("kvm_segment", 24),
    ("kvm_signal_mask", 4),
    ("kvm_sregs", 312),
    ("kvm_sregs2", 320),
    ("kvm_stats_desc", 16),
    ("kvm_stats_header", 24),
    ("kvm_svm_nested_state_hdr", 8),
    ("kvm_sync_regs", 520),
    ("kvm_tpr_access_ctl", 40),
    ("kvm_translation", 24),
    ("kvm_userspace_memory_region", 32),
    ("kvm_vapic_addr", 8),
    ("kvm_vcpu_events", 64),
    ("kvm_vmx_nested_state_hdr", 32),
    ("kvm_x86_mce", 64),
    ("kvm_xcr", 16),
    ("kvm_xcrs", 392),
    ("kvm_xen_exit", 80),
    ("kvm_xen_hvm_attr", 72),
    ("kvm_xen_hvm_config", 56),
    ("kvm_xen_vcpu_attr", 72),
    ("kvm_xsave", 4096),
    ("kvm_userspace_memory_region2", 160),
    ("kvm_memory_attributes", 32),
    ("kvm_create_guest_memfd", 64),
    ("kvm_pre_fault_memory", 64),
]
IOCTLS = [
    ("GET_API_VERSION", 0x0000AE00),
    ("CREATE_VM", 0x0000AE01),
    ("GET_MSR_INDEX_LIST", 0xC004AE02),
    ("CHECK_EXTENSION", 0x0000AE03),
    ("GET_VCPU_MMAP_SIZE", 0x0000AE04),
    ("GET_SUPPORTED_CPUID", 0xC008AE05),
    ("GET_EMULATED_CPUID", 0xC008AE09),
    ("GET_MSR_FEATURE_INDEX_LIST", 0xC004AE0A),
    ("X86_GET_MCE_CAP_SUPPORTED", 0x8008AE9D),
    ("GET_SUPPORTED_HV_CPUID", 0xC008AEC1),
    ("CREATE_VCPU", 0x0000AE41),
    ("GET_DIRTY_LOG", 0x4010AE42),
    ("SET_NR_MMU_PAGES", 0x0000AE44),
    ("GET_NR_MMU_PAGES", 0x0000AE45),
    ("SET_USER_MEMORY_REGION", 0x4020AE46),
    ("SET_TSS_ADDR", 0x0000AE47),
    ("SET_IDENTITY_MAP_ADDR", 0x4008AE48),
    ("CREATE_IRQCHIP", 0x0000AE60),
    ("IRQ_LINE", 0x4008AE61),
    ("GET_IRQCHIP", 0xC208AE62),
    ("SET_IRQCHIP", 0x8208AE63),
    ("CREATE_PIT", 0x0000AE64),
    ("GET_PIT", 0xC048AE65),
    ("SET_PIT", 0x8048AE66),
    ("IRQ_LINE_STATUS", 0xC008AE67),
    ("REGISTER_COALESCED_MMIO", 0x4010AE67),
    ("UNREGISTER_COALESCED_MMIO", 0x4010AE68),
    ("SET_GSI_ROUTING", 0x4008AE6A),
    ("REINJECT_CONTROL", 0x0000AE71),
    ("IRQFD", 0x4020AE76),
    ("CREATE_PIT2", 0x4040AE77),
    ("SET_BOOT_CPU_ID", 0x0000AE78),
    ("IOEVENTFD", 0x4040AE79),
    ("XEN_HVM_CONFIG", 0x4038AE7A),
    ("SET_CLOCK", 0x4030AE7B),
    ("GET_CLOCK", 0x8030AE7C),
    ("GET_PIT2", 0x8070AE9F),
    ("SET_PIT2", 0x4070AEA0),
    ("SIGNAL_MSI", 0x4020AEA5),
    ("SET_PMU_EVENT_FILTER", 0x4020AEB2),
    ("MEMORY_ENCRYPT_OP", 0xC008AEBA),
    ("MEMORY_ENCRYPT_REG_REGION", 0x8010AEBB),
    ("MEMORY_ENCRYPT_UNREG_REGION", 0x8010AEBC),
    ("HYPERV_EVENTFD", 0x4018AEBD),
    ("CLEAR_DIRTY_LOG", 0xC018AEC0),
    ("X86_SET_MSR_FILTER", 0x4188AEC6),
    ("RESET_DIRTY_RINGS", 0x0000AEC7),
    ("XEN_HVM_GET_ATTR", 0xC048AEC8),
    ("XEN_HVM_SET_ATTR", 0x4048AEC9),
    ("XEN_HVM_EVTCHN_SEND", 0x400CAED0),
    ("CREATE_DEVICE", 0xC00CAEE0),
    ("RUN", 0x0000AE80),
    ("GET_REGS", 0x8090AE81),
    ("SET_REGS", 0x4090AE82),
    ("GET_SREGS", 0x8138AE83),
    ("SET_SREGS", 0x4138AE84),
    ("TRANSLATE", 0xC018AE85),
    ("INTERRUPT", 0x4004AE86),
    ("GET_MSRS", 0xC008AE88),
    ("SET_MSRS", 0x4008AE89),
    ("SET_CPUID", 0x4008AE8A),
    ("SET_SIGNAL_MASK", 0x4004AE8B),
    ("GET_FPU", 0x81A0AE8C),
    ("SET_FPU", 0x41A0AE8D),
    ("GET_LAPIC", 0x8400AE8E),
    ("SET_LAPIC", 0x4400AE8F),
    ("SET_CPUID2", 0x4008AE90),
    ("GET_CPUID2", 0xC008AE91),
    ("TPR_ACCESS_REPORTING", 0xC028AE92),
    ("SET_VAPIC_ADDR", 0x4008AE93),
    ("GET_MP_STATE", 0x8004AE98),
    ("SET_MP_STATE", 0x4004AE99),
    ("NMI", 0x0000AE9A),
    ("SET_GUEST_DEBUG", 0x4048AE9B),
    ("X86_SETUP_MCE", 0x4008AE9C),
    ("X86_SET_MCE", 0x4040AE9E),
    ("GET_VCPU_EVENTS", 0x8040AE9F),
    ("SET_VCPU_EVENTS", 0x4040AEA0),
    ("GET_DEBUGREGS", 0x8080AEA1),
    ("SET_DEBUGREGS", 0x4080AEA2),
    ("SET_TSC_KHZ", 0x0000AEA2),
    ("GET_TSC_KHZ", 0x0000AEA3),
    ("ENABLE_CAP", 0x4068AEA3),
    ("GET_XSAVE", 0x9000AEA4),
    ("SET_XSAVE", 0x5000AEA5),
    ("GET_XCRS", 0x8188AEA6),
    ("SET_XCRS", 0x4188AEA7),
    ("GET_ONE_REG", 0x4010AEAB),
    ("SET_ONE_REG", 0x4010AEAC),
    ("KVMCLOCK_CTRL", 0x0000AEAD),
    ("GET_REG_LIST", 0xC008AEB0),
    ("SMI", 0x0000AEB7),
    ("GET_NESTED_STATE", 0xC080AEBE),
    ("SET_NESTED_STATE", 0x4080AEBF),
    ("XEN_VCPU_GET_ATTR", 0xC048AECA),
    ("XEN_VCPU_SET_ATTR", 0x4048AECB),
    ("GET_SREGS2", 0x8140AECC),
    ("SET_SREGS2", 0x4140AECD),
    ("GET_STATS_FD", 0x0000AECE),
    ("GET_XSAVE2", 0x9000AECF),
    ("SET_DEVICE_ATTR", 0x4018AEE1),
    ("GET_DEVICE_ATTR", 0x4018AEE2),
    ("HAS_DEVICE_ATTR", 0x4018AEE3),
    ("SET_USER_MEMORY_REGION2", 0x40A0AE49),
    ("SET_MEMORY_ATTRIBUTES", 0x4020AED2),
    ("CREATE_GUEST_MEMFD", 0xC040AED4),
    ("PRE_FAULT_MEMORY", 0xC040AED5),
]
OFFSETS = [
    ("kvm_run", "request_interrupt_window", 0),
    ("kvm_run", "immediate_exit", 1),
    ("kvm_run", "padding1", 2),
    ("kvm_run", "exit_reason", 8),
    ("kvm_run", "ready_for_interrupt_injection", 12),
    ("kvm_run", "if_flag", 13),
    ("kvm_run", "flags", 14),
    ("kvm_run", "cr8", 16),
    ("kvm_run", "apic_base", 24),
    ("kvm_run", "hw", 32),
    ("kvm_run", "kvm_valid_regs", 288),
    ("kvm_run", "kvm_dirty_regs", 296),
    ("kvm_run", "s", 304),
    ("kvm_run", "io.port", 34),
    ("kvm_run", "io.count", 36),
    ("kvm_run", "io.data_offset", 40),
    ("kvm_run", "mmio.data", 40),
    ("kvm_run", "mmio.len", 48),
    ("kvm_run", "mmio.is_write", 52),
    ("kvm_run", "fail_entry.cpu", 40),
    ("kvm_run", "hypercall.args", 40),
    ("kvm_run", "hypercall.ret", 88),
    ("kvm_run", "hypercall.longmode", 96),
    ("kvm_run", "internal.data", 40),
    ("kvm_run", "emulation_failure.insn_bytes", 49),
    ("kvm_run", "system_event.data", 40),
    ("kvm_run", "msr.reason", 40),
    ("kvm_run", "msr.index", 44),
    ("kvm_run", "msr.data", 48),
    ("kvm_run", "hyperv.u.hcall.params", 56),
    ("kvm_run", "hyperv.u.syndbg.pending_page", 80),
    ("kvm_run", "xen.u.hcall.params", 64),
    ("kvm_run", "debug.arch.dr7", 56),
    ("kvm_run", "tpr_access.is_write", 40),
    ("kvm_run", "eoi.vector", 32),
    ("kvm_run", "s.regs.sregs", 448),
    ("kvm_run", "s.regs.events", 760),
    ("kvm_sregs", "ss", 120),
    ("kvm_sregs", "tr", 144),
    ("kvm_sregs", "ldt", 168),
    ("kvm_sregs", "gdt", 192),
    ("kvm_sregs", "idt", 208),
    ("kvm_sregs", "cr0", 224),
    ("kvm_sregs", "cr8", 256),
    ("kvm_sregs", "efer", 264),
    ("kvm_sregs", "apic_base", 272),
    ("kvm_sregs", "interrupt_bitmap", 280),
    ("kvm_sregs2", "flags", 280),
    ("kvm_sregs2", "pdptrs", 288),
    ("kvm_segment", "limit", 8),
    ("kvm_segment", "selector", 12),
    ("kvm_segment", "type", 14),
    ("kvm_segment", "present", 15),
    ("kvm_segment", "unusable", 22),
    ("kvm_regs", "rsi", 32),
    ("kvm_regs", "rsp", 48),
    ("kvm_regs", "r8", 64),
    ("kvm_regs", "rip", 128),
    ("kvm_regs", "rflags", 136),
    ("kvm_vcpu_events", "exception.error_code", 4),
    ("kvm_vcpu_events", "interrupt", 8),
    ("kvm_vcpu_events", "nmi", 12),
    ("kvm_vcpu_events", "sipi_vector", 16),
    ("kvm_vcpu_events", "flags", 20),
    ("kvm_vcpu_events", "smi", 24),
    ("kvm_vcpu_events", "triple_fault", 28),
    ("kvm_vcpu_events", "exception_has_payload", 55),
    ("kvm_vcpu_events", "exception_payload", 56),
    ("kvm_fpu", "fcw", 128),
    ("kvm_fpu", "ftwx", 132),
    ("kvm_fpu", "last_opcode", 134),
    ("kvm_fpu", "last_ip", 136),
    ("kvm_fpu", "xmm", 152),
    ("kvm_fpu", "mxcsr", 408),
    ("kvm_pit_state2", "flags", 72),
    ("kvm_pit_channel_state", "count_load_time", 16),
    ("kvm_ioapic_state", "redirtbl", 24),
    ("kvm_irqchip", "chip", 8),
    ("kvm_irq_routing_entry", "u", 16),
    ("kvm_irq_level", "level", 4),
    ("kvm_nested_state", "hdr", 8),
    ("kvm_vmx_nested_state_hdr", "preemption_timer_deadline", 24),
    ("kvm_xcrs", "xcrs", 8),
    ("kvm_clock_data", "host_tsc", 24),
    ("kvm_msr_filter", "ranges", 8),
    ("kvm_debugregs", "flags", 48),
    ("kvm_ioeventfd", "fd", 20),
    ("kvm_guest_debug", "arch", 8),
    ("kvm_enable_cap", "args", 8),
    ("kvm_userspace_memory_region", "userspace_addr", 24),
    ("kvm_clear_dirty_log", "dirty_bitmap", 16),
]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_kvm_size(name: str, size: int) -> None:
    assert ctypes.sizeof(getattr(kvm, name)) == size


@pytest.mark.parametrize(("name", "number"), IOCTLS)
def test_kvm_ioctl(name: str, number: int) -> None:
    assert kvm.KvmIoctl[name] == number


def test_every_ioctl_has_a_row() -> None:
    assert {name for name, _ in IOCTLS} == {i.name for i in kvm.KvmIoctl}


@pytest.mark.parametrize(("struct", "path", "offset"), OFFSETS)
def test_kvm_offset(struct: str, path: str, offset: int) -> None:
    instance = getattr(kvm, struct)()
    start, owner = ctypes.addressof(instance), instance
    *outer, last = path.split(".")
    for name in outer:
        owner = getattr(owner, name)
    assert ctypes.addressof(owner) + getattr(type(owner), last).offset - start == offset


@pytest.mark.parametrize(
    ("enum", "rows"),
    [
        (
            kvm.KvmExit,
            "UNKNOWN:0 EXCEPTION:1 IO:2 HYPERCALL:3 DEBUG:4 HLT:5 MMIO:6 IRQ_WINDOW_OPEN:7 SHUTDOWN:8 FAIL_ENTRY:9 INTR:10 SET_TPR:11 TPR_ACCESS:12 NMI:16 "
            "INTERNAL_ERROR:17 SYSTEM_EVENT:24 IOAPIC_EOI:26 HYPERV:27 X86_RDMSR:29 X86_WRMSR:30 DIRTY_RING_FULL:31 AP_RESET_HOLD:32 X86_BUS_LOCK:33 XEN:34 "
            "NOTIFY:37 MEMORY_FAULT:39 TDX:40",
        ),
        (kvm.KvmExitIo, "IN:0 OUT:1"),
        (kvm.KvmInternalError, "EMULATION:1 SIMUL_EX:2 DELIVERY_EV:3 UNEXPECTED_EXIT_REASON:4"),
        (kvm.KvmMpState, "RUNNABLE:0 UNINITIALIZED:1 INIT_RECEIVED:2 HALTED:3 SIPI_RECEIVED:4 AP_RESET_HOLD:9"),
        (kvm.KvmSystemEvent, "SHUTDOWN:1 RESET:2 CRASH:3 WAKEUP:4 SUSPEND:5 SEV_TERM:6 TDX_FATAL:7"),
        (kvm.KvmMem, "LOG_DIRTY_PAGES:1 READONLY:2 GUEST_MEMFD:4"),
        (kvm.KvmGuestDebug, "ENABLE:1 SINGLESTEP:2 USE_SW_BP:65536 USE_HW_BP:131072 INJECT_DB:262144 INJECT_BP:524288 BLOCKIRQ:1048576"),
        (kvm.KvmVcpuEvent, "VALID_NMI_PENDING:1 VALID_SIPI_VECTOR:2 VALID_SHADOW:4 VALID_SMM:8 VALID_PAYLOAD:16 VALID_TRIPLE_FAULT:32"),
        (kvm.KvmIrqRouting, "IRQCHIP:1 MSI:2 HV_SINT:4 XEN_EVTCHN:5"),
        (kvm.KvmIrqchip, "PIC_MASTER:0 PIC_SLAVE:1 IOAPIC:2"),
        (kvm.KvmClockFlag, "TSC_STABLE:2 REALTIME:4 HOST_TSC:8"),
        (kvm.KvmIoeventfdFlag, "DATAMATCH:1 PIO:2 DEASSIGN:4"),
        (kvm.KvmMsrExitReason, "INVAL:1 UNKNOWN:2 FILTER:4"),
        (kvm.KvmSync, "X86_REGS:1 X86_SREGS:2 X86_EVENTS:4"),
        (kvm.KvmStateNested, "GUEST_MODE:1 RUN_PENDING:2 EVMCS:4 MTF_PENDING:8 GIF_SET:256"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_kvm_enum(enum: type[IntEnum | IntFlag], rows: str) -> None:
    assert " ".join(f"{name}:{int(m)}" for name, m in enum.__members__.items()) == rows


CAPS = (
    "IRQCHIP:0 HLT:1 USER_MEMORY:3 SET_TSS_ADDR:4 VAPIC:6 EXT_CPUID:7 NR_VCPUS:9 NR_MEMSLOTS:10 PIT:11 MP_STATE:14 COALESCED_MMIO:15 SYNC_MMU:16 "
    "DESTROY_MEMORY_REGION_WORKS:21 USER_NMI:22 SET_GUEST_DEBUG:23 IRQ_ROUTING:25 MCE:31 IRQFD:32 PIT2:33 PIT_STATE2:35 IOEVENTFD:36 "
    "SET_IDENTITY_MAP_ADDR:37 ADJUST_CLOCK:39 VCPU_EVENTS:41 INTR_SHADOW:49 DEBUGREGS:50 ENABLE_CAP:54 XSAVE:55 XCRS:56 TSC_CONTROL:60 "
    "GET_TSC_KHZ:61 MAX_VCPUS:66 TSC_DEADLINE_TIMER:72 SYNC_REGS:74 KVMCLOCK_CTRL:76 SIGNAL_MSI:77 READONLY_MEM:81 CHECK_EXTENSION_VM:105 "
    "X86_SMM:117 SPLIT_IRQCHIP:121 MAX_VCPU_ID:128 X2APIC_API:129 IMMEDIATE_EXIT:136 X86_DISABLE_EXITS:143 GET_MSR_FEATURES:153 NESTED_STATE:157 "
    "EXCEPTION_PAYLOAD:164 MANUAL_DIRTY_LOG_PROTECT2:168 X86_USER_SPACE_MSR:188 X86_MSR_FILTER:189 DIRTY_LOG_RING:192 SREGS2:200 "
    "BINARY_STATS_FD:203 XSAVE2:208 X86_TRIPLE_FAULT_EVENT:218 X86_NOTIFY_VMEXIT:219 USER_MEMORY2:231 MEMORY_ATTRIBUTES:233 GUEST_MEMFD:234 "
    "VM_TYPES:235 PRE_FAULT_MEMORY:236 X86_GUEST_MODE:238"
)


@pytest.mark.parametrize(("name", "number"), [row.split(":") for row in CAPS.split()])
def test_kvm_cap(name: str, number: str) -> None:
    assert kvm.KvmCap[name] == int(number)


def test_run_exits_share_one_union_of_256_bytes() -> None:
    run = kvm.kvm_run()
    assert ctypes.sizeof(kvm.kvm_run_exit) == 256
    run.io.port = 0x3F8
    assert bytes(run)[34:36] == b"\xf8\x03"
    assert run.padding[2:4] == [0xF8, 0x03]
    assert ctypes.sizeof(kvm.kvm_run_s) == kvm.SYNC_REGS_SIZE_BYTES


def test_irq_level_status_overlays_irq() -> None:
    level = kvm.kvm_irq_level(irq=0xFFFFFFFF, level=1)
    assert level.status == -1
    assert bytes(level) == b"\xff\xff\xff\xff\x01\x00\x00\x00"
