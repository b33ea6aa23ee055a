"""Every VM-entry check has a row that breaks exactly it (SDM vol. 3 §27.2, §27.3.1), from a VMCS that otherwise enters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cpu.vmx_harness import Vmx
from worldswitch.arch.vmcs import Vmcs
from worldswitch.arch.vmx import INTR_INFO_VALID, EntryControls, ExitControls, ExitReason, InstructionError, PinBased, ProcBased, ProcBased2
from worldswitch.cpu.vmx.checks import CONTROL_CHECKS, GUEST_CHECKS, HOST_CHECKS, Check

V = Vmcs
Mutation = Callable[[Vmx], None]
UNCANONICAL = 0x8000_0000_0000_0000


def put(*pairs: tuple[int, int]) -> Mutation:
    """Write fields."""

    def mutate(v: Vmx) -> None:
        for field, value in pairs:
            v.vmcs[field] = value

    return mutate


def bits(field: int, on: int = 0, off: int = 0, *more: tuple[int, int]) -> Mutation:
    """Set and clear bits of a field, then write others."""

    def mutate(v: Vmx) -> None:
        v.vmcs[field] = v.vmcs[field] & ~off | on
        put(*more)(v)

    return mutate


def inject(info: int, *more: tuple[int, int]) -> Mutation:
    return put((V.VM_ENTRY_INTR_INFO_FIELD, info | INTR_INFO_VALID), *more)


def v86(*more: tuple[int, int]) -> Mutation:
    """A virtual-8086 guest, but for what `more` says."""

    def mutate(v: Vmx) -> None:
        bits(V.VM_ENTRY_CONTROLS, off=EntryControls.IA32E_MODE_GUEST)(v)
        put((V.GUEST_IA32_EFER, 0), (V.GUEST_RFLAGS, 0x20002))(v)
        for i in range(6):
            put((V.GUEST_ES_SELECTOR + 2 * i, 0), (V.GUEST_ES_BASE + 2 * i, 0), (V.GUEST_ES_LIMIT + 2 * i, 0xFFFF), (V.GUEST_ES_AR_BYTES + 2 * i, 0xF3))(v)
        put(*more)(v)

    return mutate


CONTROLS: dict[str, list[Mutation]] = {
    "PIN_BASED_VM_EXEC_CONTROL: reserved bits": [bits(V.PIN_BASED_VM_EXEC_CONTROL, off=0x16), bits(V.PIN_BASED_VM_EXEC_CONTROL, on=PinBased.POSTED_INTERRUPTS)],
    "CPU_BASED_VM_EXEC_CONTROL: reserved bits": [bits(V.CPU_BASED_VM_EXEC_CONTROL, off=2), bits(V.CPU_BASED_VM_EXEC_CONTROL, on=ProcBased.USE_TPR_SHADOW)],
    "SECONDARY_VM_EXEC_CONTROL: reserved bits": [bits(V.SECONDARY_VM_EXEC_CONTROL, on=ProcBased2.ENABLE_VMFUNC)],
    "CR3_TARGET_COUNT at most 4": [put((V.CR3_TARGET_COUNT, 5))],
    "I/O bitmap addresses": [
        bits(V.CPU_BASED_VM_EXEC_CONTROL, ProcBased.USE_IO_BITMAPS, 0, (V.IO_BITMAP_A, 0x1001)),
        bits(V.CPU_BASED_VM_EXEC_CONTROL, ProcBased.USE_IO_BITMAPS, 0, (V.IO_BITMAP_B, 1 << 41)),
    ],
    "MSR bitmap address": [bits(V.CPU_BASED_VM_EXEC_CONTROL, ProcBased.USE_MSR_BITMAPS, 0, (V.MSR_BITMAP, 0x123))],
    "virtual NMIs need NMI exiting": [bits(V.PIN_BASED_VM_EXEC_CONTROL, PinBased.VIRTUAL_NMIS, PinBased.NMI_EXITING)],
    "NMI-window exiting needs virtual NMIs": [bits(V.CPU_BASED_VM_EXEC_CONTROL, ProcBased.NMI_WINDOW_EXITING)],
    "VPID is not 0": [bits(V.SECONDARY_VM_EXEC_CONTROL, ProcBased2.ENABLE_VPID, 0, (V.VIRTUAL_PROCESSOR_ID, 0))],
    "EPTP": [
        put((V.EPT_POINTER, 0x1E | 7)),
        bits(V.EPT_POINTER, off=0x38),
        bits(V.EPT_POINTER, on=1 << 41),
        bits(V.EPT_POINTER, on=0x100),
        bits(V.EPT_POINTER, on=5),
    ],
    "unrestricted guest needs EPT": [bits(V.SECONDARY_VM_EXEC_CONTROL, ProcBased2.UNRESTRICTED_GUEST, ProcBased2.ENABLE_EPT)],
    "VM_EXIT_CONTROLS: reserved bits": [bits(V.VM_EXIT_CONTROLS, off=0x200 << 1 | 1), bits(V.VM_EXIT_CONTROLS, on=ExitControls.SAVE_PREEMPTION_TIMER)],
    "VM_EXIT_MSR_STORE_ADDR: 16-byte aligned, within the physical width": [put((V.VM_EXIT_MSR_STORE_COUNT, 1), (V.VM_EXIT_MSR_STORE_ADDR, 8))],
    "VM_EXIT_MSR_LOAD_ADDR: 16-byte aligned, within the physical width": [put((V.VM_EXIT_MSR_LOAD_COUNT, 1), (V.VM_EXIT_MSR_LOAD_ADDR, 1 << 44))],
    "VM_ENTRY_CONTROLS: reserved bits": [bits(V.VM_ENTRY_CONTROLS, off=1), bits(V.VM_ENTRY_CONTROLS, on=EntryControls.ENTRY_TO_SMM)],
    "event injection: type": [inject(1 << 8), inject(7 << 8)],
    "event injection: vector": [inject(2 << 8 | 3), inject(3 << 8 | 32)],
    "event injection: deliver error code": [inject(3 << 8 | 13), inject(3 << 8 | 6 | 1 << 11), inject(1 << 11 | 0x40)],
    "event injection: reserved bits": [inject(0x40 | 1 << 12, (V.GUEST_RFLAGS, 0x202))],
    "event injection: error code bits 31:16": [inject(3 << 8 | 13 | 1 << 11, (V.VM_ENTRY_EXCEPTION_ERROR_CODE, 0x10000))],
    "event injection: instruction length": [inject(4 << 8 | 0x80, (V.VM_ENTRY_INSTRUCTION_LEN, 0)), inject(6 << 8 | 3, (V.VM_ENTRY_INSTRUCTION_LEN, 16))],
    "VM_ENTRY_MSR_LOAD_ADDR: 16-byte aligned, within the physical width": [put((V.VM_ENTRY_MSR_LOAD_COUNT, 1), (V.VM_ENTRY_MSR_LOAD_ADDR, 1))],
}

HOST: dict[str, list[Mutation]] = {
    "HOST_CR0: fixed bits": [bits(V.HOST_CR0, off=0x20), bits(V.HOST_CR0, on=1 << 32)],
    "HOST_CR4: fixed bits": [bits(V.HOST_CR4, off=0x2000), bits(V.HOST_CR4, on=1 << 30)],
    "HOST_CR3 within the physical width": [put((V.HOST_CR3, 1 << 40))],
    "HOST_IA32_SYSENTER addresses canonical": [put((V.HOST_IA32_SYSENTER_ESP, UNCANONICAL)), put((V.HOST_IA32_SYSENTER_EIP, UNCANONICAL))],
    "HOST_IA32_PAT: memory types": [put((V.HOST_IA32_PAT, 2))],
    "HOST_IA32_EFER: reserved bits, LMA and LME": [put((V.HOST_IA32_EFER, 0)), put((V.HOST_IA32_EFER, 0x502)), put((V.HOST_IA32_EFER, 0x400))],
    "host selectors: TI and RPL are 0": [bits(field, on=bit) for field in (V.HOST_ES_SELECTOR, V.HOST_CS_SELECTOR, V.HOST_TR_SELECTOR) for bit in (1, 4)],
    "HOST_CS and HOST_TR selectors not null": [put((V.HOST_CS_SELECTOR, 0)), put((V.HOST_TR_SELECTOR, 0))],
    "host base addresses canonical": [
        put((field, UNCANONICAL)) for field in (V.HOST_FS_BASE, V.HOST_GS_BASE, V.HOST_TR_BASE, V.HOST_GDTR_BASE, V.HOST_IDTR_BASE)
    ],
    "host address-space size as the processor is now": [bits(V.VM_EXIT_CONTROLS, 0, ExitControls.HOST_ADDRESS_SPACE_SIZE | ExitControls.LOAD_IA32_EFER)],
    "64-bit host: CR4.PAE, canonical RIP": [bits(V.HOST_CR4, off=0x20), put((V.HOST_RIP, UNCANONICAL))],
}
#: Rules that cannot be broken alone, because an earlier one is broken with them: a 64-bit processor fails the address-space-size rule first.
SHADOWED = {"HOST_SS selector not null for a 32-bit host", "32-bit host: no 64-bit guest, RIP below 4 GiB"}

GUEST: dict[str, list[Mutation]] = {
    "GUEST_CR0: fixed bits": [bits(V.GUEST_CR0, off=0x20), bits(V.GUEST_CR0, on=1 << 40)],
    "GUEST_CR0: PG needs PE": [bits(V.SECONDARY_VM_EXEC_CONTROL, ProcBased2.UNRESTRICTED_GUEST, 0, (V.GUEST_CR0, 0x80000020))],
    "GUEST_CR4: fixed bits": [bits(V.GUEST_CR4, off=0x2000), bits(V.GUEST_CR4, on=1 << 25)],
    "GUEST_IA32_DEBUGCTL: reserved bits": [put((V.GUEST_IA32_DEBUGCTL, 4))],
    "64-bit guest: CR0.PG and CR4.PAE": [bits(V.GUEST_CR4, off=0x20)],
    "GUEST_CR3 within the physical width": [bits(V.GUEST_CR3, on=1 << 40)],
    "GUEST_DR7 bits 63:32": [put((V.GUEST_DR7, 1 << 32))],
    "GUEST_SYSENTER addresses canonical": [put((V.GUEST_SYSENTER_ESP, UNCANONICAL)), put((V.GUEST_SYSENTER_EIP, UNCANONICAL))],
    "GUEST_IA32_PAT: memory types": [put((V.GUEST_IA32_PAT, 0x0300))],
    "GUEST_IA32_EFER: reserved bits, LMA and LME": [put((V.GUEST_IA32_EFER, 0)), put((V.GUEST_IA32_EFER, 0x400)), put((V.GUEST_IA32_EFER, 0x502))],
    "TR selector: TI": [bits(V.GUEST_TR_SELECTOR, on=4)],
    "LDTR selector: TI": [put((V.GUEST_LDTR_AR_BYTES, 0x82), (V.GUEST_LDTR_SELECTOR, 4))],
    "SS selector: RPL is that of CS": [bits(V.GUEST_SS_SELECTOR, on=1)],
    "virtual-8086: segments": [v86((V.GUEST_DS_LIMIT, 0xFFFFF)), v86((V.GUEST_DS_BASE, 0x10)), v86((V.GUEST_SS_AR_BYTES, 0x93))],
    "TR, FS, GS base canonical": [put((V.GUEST_FS_BASE, UNCANONICAL)), put((V.GUEST_TR_BASE, UNCANONICAL))],
    "LDTR base canonical": [put((V.GUEST_LDTR_AR_BYTES, 0x82), (V.GUEST_LDTR_BASE, UNCANONICAL))],
    "CS base below 4 GiB": [put((V.GUEST_CS_BASE, 1 << 32))],
    "SS, DS, ES base below 4 GiB": [put((V.GUEST_ES_BASE, 1 << 32))],
    "CS usable, type": [put((V.GUEST_CS_AR_BYTES, 0x1A09B)), put((V.GUEST_CS_AR_BYTES, 0xA093))],
    "SS type": [put((V.GUEST_SS_AR_BYTES, 0xC091))],
    "DS, ES, FS, GS: type and DPL": [put((V.GUEST_DS_AR_BYTES, 0xC092)), put((V.GUEST_FS_AR_BYTES, 0xC099)), bits(V.GUEST_GS_SELECTOR, on=3)],
    "S bit": [put((V.GUEST_DS_AR_BYTES, 0xC083))],
    "CS DPL": [put((V.GUEST_CS_AR_BYTES, 0xA0BB))],
    "SS DPL": [bits(V.GUEST_SS_AR_BYTES, 0x20, 0, (V.GUEST_CS_AR_BYTES, 0xA0BB))],
    "P bit": [put((V.GUEST_ES_AR_BYTES, 0xC013))],
    "access rights: reserved bits": [put((V.GUEST_DS_AR_BYTES, 0xC193))],
    "CS: not both L and D in a 64-bit guest": [put((V.GUEST_CS_AR_BYTES, 0xE09B))],
    "granularity": [put((V.GUEST_DS_LIMIT, 0xFFFFFFF0)), put((V.GUEST_DS_AR_BYTES, 0x4093))],
    "TR: usable, busy TSS": [put((V.GUEST_TR_AR_BYTES, 0x89)), put((V.GUEST_TR_AR_BYTES, 0x1008B)), put((V.GUEST_TR_AR_BYTES, 0x83))],
    "TR: S, P, reserved bits, granularity": [put((V.GUEST_TR_AR_BYTES, 0x0B)), put((V.GUEST_TR_AR_BYTES, 0x9B)), put((V.GUEST_TR_AR_BYTES, 0x808B))],
    "LDTR: type, S, P, reserved bits, granularity": [put((V.GUEST_LDTR_AR_BYTES, value)) for value in (0x83, 0x02, 0x92, 0x182)],
    "GDTR and IDTR base canonical": [put((V.GUEST_GDTR_BASE, UNCANONICAL)), put((V.GUEST_IDTR_BASE, UNCANONICAL))],
    "GDTR and IDTR limit bits 31:16": [put((V.GUEST_GDTR_LIMIT, 0x10000)), put((V.GUEST_IDTR_LIMIT, 0x10000))],
    "GUEST_RIP": [put((V.GUEST_RIP, UNCANONICAL))],
    "GUEST_RFLAGS: reserved bits": [put((V.GUEST_RFLAGS, 0)), put((V.GUEST_RFLAGS, 0x8002)), put((V.GUEST_RFLAGS, 1 << 22 | 2))],
    "GUEST_RFLAGS: no VM in a 64-bit guest": [
        lambda v: (v86()(v), bits(V.VM_ENTRY_CONTROLS, EntryControls.IA32E_MODE_GUEST)(v), put((V.GUEST_IA32_EFER, 0x500))(v))[0]
    ],
    "GUEST_RFLAGS.IF when an external interrupt is injected": [inject(0x40, (V.GUEST_RFLAGS, 2))],
    "activity state supported": [put((V.GUEST_ACTIVITY_STATE, 2)), put((V.GUEST_ACTIVITY_STATE, 4))],
    "no HLT above ring 0": [
        put(
            (V.GUEST_ACTIVITY_STATE, 1), (V.GUEST_CS_SELECTOR, 0x2B), (V.GUEST_SS_SELECTOR, 0x33), (V.GUEST_CS_AR_BYTES, 0xA0FB), (V.GUEST_SS_AR_BYTES, 0xC0F3)
        )
    ],
    "active under STI or MOV SS blocking": [put((V.GUEST_ACTIVITY_STATE, 1), (V.GUEST_INTERRUPTIBILITY_INFO, 1), (V.GUEST_RFLAGS, 0x202))],
    "activity state takes the injected event": [inject(3 << 8 | 6, (V.GUEST_ACTIVITY_STATE, 1))],
    "interruptibility: reserved bits": [put((V.GUEST_INTERRUPTIBILITY_INFO, 0x20))],
    "interruptibility: not both STI and MOV SS": [put((V.GUEST_INTERRUPTIBILITY_INFO, 3), (V.GUEST_RFLAGS, 0x202))],
    "interruptibility: STI blocking needs IF": [put((V.GUEST_INTERRUPTIBILITY_INFO, 1), (V.GUEST_RFLAGS, 2))],
    "interruptibility: no blocking when an external interrupt is injected": [inject(0x40, (V.GUEST_RFLAGS, 0x202), (V.GUEST_INTERRUPTIBILITY_INFO, 1))],
    "interruptibility: no MOV SS blocking when an NMI is injected": [inject(2 << 8 | 2, (V.GUEST_INTERRUPTIBILITY_INFO, 2))],
    "interruptibility: no SMI blocking": [put((V.GUEST_INTERRUPTIBILITY_INFO, 4))],
    "interruptibility: no NMI blocking when a virtual NMI is injected": [
        bits(
            V.PIN_BASED_VM_EXEC_CONTROL, PinBased.NMI_EXITING | PinBased.VIRTUAL_NMIS, 0,
            (V.VM_ENTRY_INTR_INFO_FIELD, INTR_INFO_VALID | 2 << 8 | 2), (V.GUEST_INTERRUPTIBILITY_INFO, 8),
        )
    ],
    "interruptibility: no enclave interruption": [put((V.GUEST_INTERRUPTIBILITY_INFO, 16))],
    "pending debug exceptions: reserved bits": [put((V.GUEST_PENDING_DBG_EXCEPTIONS, 0x10))],
    "pending debug exceptions: BS agrees with TF": [put((V.GUEST_INTERRUPTIBILITY_INFO, 2), (V.GUEST_RFLAGS, 0x102))],
    "VMCS link pointer": [put((V.VMCS_LINK_POINTER, 0x123)), put((V.VMCS_LINK_POINTER, 0x3000))],
}  # fmt: skip
#: A 32-bit guest with PCIDE fails on CR4's fixed bits first, because this processor has no PCIDs.
SHADOWED_GUEST = {"32-bit guest: no CR4.PCIDE"}


def rows(table: dict[str, list[Mutation]]) -> list[tuple[str, Mutation]]:
    return [(name, mutation) for name, mutations in table.items() for mutation in mutations]


def named(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_the_unbroken_vmcs_enters() -> None:
    v = Vmx()
    assert v.enter() == 0
    assert v.cpu.guest is v.cpu.vmx


@pytest.mark.parametrize(
    ("checks", "tables", "without"),
    [(CONTROL_CHECKS, CONTROLS, set()), (HOST_CHECKS, HOST, SHADOWED), (GUEST_CHECKS, GUEST, SHADOWED_GUEST)],
    ids=["controls", "host", "guest"],
)
def test_every_check_has_a_row(checks: tuple[Check, ...], tables: dict[str, list[Mutation]], without: set[str]) -> None:
    assert {check.name for check in checks} == set(tables) | without
    assert all("§27." in check.section for check in checks)


@pytest.mark.parametrize(("name", "mutation"), rows(CONTROLS))
def test_controls(name: str, mutation: Mutation) -> None:
    v = Vmx()
    mutation(v)
    assert v.enter() == InstructionError.ENTRY_INVALID_CONTROL_FIELD
    assert v.failed_on() == name
    assert v.cpu.guest is None
    assert v.vmcs[V.VM_INSTRUCTION_ERROR] == 7
    assert v.state.rflags & 0x8D5 == 0x40  # VMfailValid: ZF alone


@pytest.mark.parametrize(("name", "mutation"), rows(HOST))
def test_host_state(name: str, mutation: Mutation) -> None:
    v = Vmx()
    mutation(v)
    assert v.enter() == InstructionError.ENTRY_INVALID_HOST_STATE_FIELD
    assert v.failed_on() == name
    assert v.vmcs[V.VM_INSTRUCTION_ERROR] == 8


@pytest.mark.parametrize(("name", "mutation"), rows(GUEST))
def test_guest_state(name: str, mutation: Mutation) -> None:
    v = Vmx()
    mutation(v)
    saved_rip = v.vmcs[V.GUEST_RIP]
    assert v.enter() == 0  # the instruction has not failed: the entry looks like an exit
    assert v.cpu.guest is None
    assert v.failed_on() == name
    assert v.vmcs[V.VM_EXIT_REASON] == 1 << 31 | ExitReason.ENTRY_FAILURE_GUEST_STATE
    assert v.vmcs[V.EXIT_QUALIFICATION] == named(GUEST_CHECKS, name).qualification
    assert v.vmcs[V.GUEST_RIP] == saved_rip
    assert not v.vmcs.launched
    assert (v.state.rip, v.state.rflags) == (v.vmcs[V.HOST_RIP], 2)
