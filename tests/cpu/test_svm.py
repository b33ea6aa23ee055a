"""SVM by the manual: consistency checks, intercepts, interrupts, event injection, state, nested paging (APM vol. 2 ch. 15)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cpu.bare import CODE, HANDLERS, IDT, STACK, Bare
from cpu.svm_harness import HOST_RIP, HSAVE, IOPM, MSRPM, NPT_PT, VMCB_PAGE, Svm
from worldswitch.arch.exceptions import Vector
from worldswitch.arch.msr import Msr, VmCr
from worldswitch.arch.registers import Cr0, Efer, Gpr
from worldswitch.arch.svm import EVENT_VALID, NPF_FINAL, NPF_WALK, V_INTR_MASKING, V_IRQ, InterceptMisc1, InterceptMisc2, Save, VmexitCode
from worldswitch.arch.svm import Vmcb as V
from worldswitch.cpu.event import Fault
from worldswitch.cpu.processor import Stop
from worldswitch.cpu.svm.checks import CHECKS
from worldswitch.cpu.svm.unit import INSTRUCTIONS
from worldswitch.trace.events import HwVmEntryFailed

M1, M2 = InterceptMisc1, InterceptMisc2


def put(offset: int, value: int) -> Callable[[Svm], None]:
    def mutate(s: Svm) -> None:
        s.vmcb[offset] = value

    return mutate


def change(offset: int, on: int = 0, off: int = 0) -> Callable[[Svm], None]:
    def mutate(s: Svm) -> None:
        s.vmcb[offset] = s.vmcb[offset] & ~off | on

    return mutate


def both_l_and_d(s: Svm) -> None:
    s.mem.write(VMCB_PAGE + Save.CS + 2, 2, 0xE9B)


BROKEN: dict[str, list[Callable[[Svm], None]]] = {
    "the VMRUN intercept is set": [put(V.INTERCEPT_MISC2, 0)],
    "ASID is not 0": [put(V.GUEST_ASID, 0)],
    "EFER.SVME is set": [change(Save.EFER, off=Efer.SVME)],
    "EFER: reserved bits": [change(Save.EFER, on=2), change(Save.EFER, on=1 << 40)],
    "CR0: NW without CD": [change(Save.CR0, on=Cr0.NW)],
    "CR0 bits 63:32": [change(Save.CR0, on=1 << 32)],
    "CR3: reserved bits": [change(Save.CR3, on=1 << 41)],
    "CR4: reserved bits": [change(Save.CR4, on=1 << 13), change(Save.CR4, on=1 << 33)],
    "DR6 bits 63:32": [change(Save.DR6, on=1 << 32)],
    "DR7 bits 63:32": [change(Save.DR7, on=1 << 32)],
    "long mode needs CR4.PAE": [change(Save.CR4, off=0x20)],
    "long mode needs CR0.PE": [change(Save.CR0, off=1)],
    "long mode: not both CS.L and CS.D": [both_l_and_d],
    "MSRPM within the physical width": [lambda s: (change(V.INTERCEPT_MISC1, on=M1.MSR_PROT)(s), put(V.MSRPM_BASE_PA, 1 << 40)(s))[0]],
    "IOPM within the physical width": [lambda s: (change(V.INTERCEPT_MISC1, on=M1.IOIO_PROT)(s), put(V.IOPM_BASE_PA, (1 << 40) - 0x2000)(s))[0]],
    "EVENTINJ": [
        put(V.EVENTINJ, EVENT_VALID | 1 << 8), put(V.EVENTINJ, EVENT_VALID | 5 << 8), put(V.EVENTINJ, EVENT_VALID | 3 << 8 | 2),
        put(V.EVENTINJ, EVENT_VALID | 3 << 8 | 32), put(V.EVENTINJ, EVENT_VALID | 3 << 8 | 4), put(V.EVENTINJ, EVENT_VALID | 3 << 8 | 6 | 1 << 11),
    ],
    "N_CR3: reserved bits": [put(V.N_CR3, 1 << 41)],
    "G_PAT: memory types": [put(Save.G_PAT, 2)],
}  # fmt: skip


def test_every_consistency_check_has_a_row() -> None:
    assert {check.name for check in CHECKS} == set(BROKEN)
    assert all("APM vol. 2 §15." in check.section for check in CHECKS)


@pytest.mark.parametrize(("name", "mutate"), [(name, m) for name, mutations in BROKEN.items() for m in mutations])
def test_an_inconsistent_vmcb_exits_with_invalid(name: str, mutate: Callable[[Svm], None]) -> None:
    s = Svm()
    mutate(s)
    saved = s.vmcb[Save.RIP]
    s.enter()
    assert s.cpu.guest is None
    assert s.code_of_exit() == VmexitCode.INVALID
    assert list(s.board.trace.of(HwVmEntryFailed))[-1].check == name
    assert (s.state.rip, s.state.rflags, s.state.gif) == (HOST_RIP, 0x202, 0)
    assert s.vmcb[Save.RIP] == saved


# What the instructions themselves check.


@pytest.mark.parametrize("call", ["vmrun", "vmload", "vmsave", "stgi", "clgi"])
def test_without_svme_the_instructions_are_undefined(call: str) -> None:
    s = Svm()
    s.state.efer &= ~Efer.SVME
    with pytest.raises(Fault) as raised:
        getattr(s.cpu.svm, call)(*([VMCB_PAGE] if call.startswith("vm") else []))
    assert raised.value.event.vector == Vector.UD


@pytest.mark.parametrize("call", ["vmrun", "vmload", "vmsave"])
@pytest.mark.parametrize("address", [VMCB_PAGE + 8, 1 << 40])
def test_bad_addresses(call: str, address: int) -> None:
    with pytest.raises(Fault) as raised:
        getattr(Svm().cpu.svm, call)(address)
    assert (raised.value.event.vector, raised.value.event.error_code) == (Vector.GP, 0)


def test_ring_3_may_not() -> None:
    s = Svm()
    s.user()
    with pytest.raises(Fault) as raised:
        s.cpu.svm.stgi()
    assert raised.value.event.vector == Vector.GP


def test_svmdis_locks_svme_out() -> None:
    bare = Bare("amd")
    bare.cpu.msrs.write(Msr.VM_CR, int(VmCr.SVMDIS | VmCr.LOCK))
    with pytest.raises(Fault):
        bare.cpu.msrs.write(Msr.IA32_EFER, bare.state.efer | Efer.SVME)


# State.


def test_state_goes_in_and_comes_out() -> None:
    s = Svm(bytes.fromhex("48ffc0 48ffc3 0fa2"), misc1=M1.CPUID)  # inc rax; inc rbx; cpuid
    s.vmcb[Save.RAX], s.vmcb[Save.CR2], s.vmcb[V.TSC_OFFSET] = 41, 0x1234, 1000
    s.state.rbx, s.state.rsp, s.state.rax = 1, 0x28000, 7
    host = {
        name: value
        for name, value in s.state.items()
        if name not in ("rbx", "gif", "host_is_python", "vmcb_pointer", "cr2", "rflags", "dr6", "dr7", "vm_hsave_pa")
    }
    tsc = s.cpu.tsc
    s.enter()
    assert s.state.gif == 1
    assert s.state.rax == 41
    assert s.state.cr2 == 0x1234
    assert s.cpu.tsc >= tsc + 1000
    assert s.cpu.run(100) is Stop.VM_EXIT
    assert s.code_of_exit() == VmexitCode.CPUID
    assert (s.vmcb[Save.RAX], s.state.rbx) == (42, 2)  # VMRUN switches RAX, the others are software's
    assert s.vmcb[Save.RIP] == CODE + 6
    assert s.vmcb[V.NRIP] == CODE + 8
    assert s.vmcb[Save.RSP] == STACK
    assert s.vmcb[V.EXITINTINFO] == 0
    after = dict(s.state.items())
    assert {name: after[name] for name in host} == host
    assert (s.state.rflags, s.state.gif, s.state.svm_guest) == (0x202, 0, 0)


def test_vmload_and_vmsave_move_what_vmrun_does_not() -> None:
    s = Svm()
    st = s.state
    st.fs.base, st.kernel_gs_base, st.star, st.sysenter_eip = 0x1111, 0x2222, 0x3333, 0x4444
    s.cpu.svm.vmsave(VMCB_PAGE)
    st.fs.base = st.kernel_gs_base = st.star = st.sysenter_eip = 0
    s.cpu.svm.vmload(VMCB_PAGE)
    assert (st.fs.base, st.kernel_gs_base, st.star, st.sysenter_eip) == (0x1111, 0x2222, 0x3333, 0x4444)


def test_cpl_is_a_field_of_its_own() -> None:
    s = Svm(b"\xf4", misc1=M1.HLT)
    s.vmcb[Save.CPL] = 3
    for page in (CODE,):
        s.words(0x4000 + 8 * (page >> 12), page | 7)
    s.vmcb[V.INTERCEPT_EXCEPTIONS] = 1 << Vector.GP
    s.run()
    assert s.code_of_exit() == VmexitCode.EXCEPTION + Vector.GP  # HLT in ring 3: the fault comes before the intercept
    assert s.vmcb[Save.CPL] == 3


# Interrupts: whose flag masks what (§15.13.1, §15.21.1).


@pytest.mark.parametrize("guest_if", [0, 1])
@pytest.mark.parametrize("masking", [0, 1])
@pytest.mark.parametrize("host_if", [0, 1])
def test_physical_interrupts(guest_if: int, masking: int, host_if: int) -> None:
    s = Svm(b"\x90" * 8 + b"\xeb\xfe", v_intr=V_INTR_MASKING * masking, host_flags=2 | host_if << 9)
    s.vmcb[Save.RFLAGS] = 2 | guest_if << 9
    s.enter()
    s.board.apics[0].deliver(0xEC, "test")
    recognised = host_if if masking else guest_if
    stop = s.cpu.run(5)
    if recognised:
        assert stop is Stop.VM_EXIT
        assert s.code_of_exit() == VmexitCode.INTR
        assert s.vmcb[Save.RIP] == CODE
        assert s.state.rflags == 2 | host_if << 9
    else:
        assert stop is Stop.BUDGET
        assert s.state.rip == CODE + 5
    # Never acknowledged by the exit.
    assert (s.board.apics[0].irr >> 0xEC & 1, s.board.apics[0].isr) == (1, 0)


@pytest.mark.parametrize("masking", [0, 1])
def test_not_intercepted_the_guest_takes_it(masking: int) -> None:
    s = Svm(b"\x90\xeb\xfe", misc1=0, v_intr=V_INTR_MASKING * masking)
    s.vmcb[Save.RFLAGS] = 0x202
    s.enter()
    s.board.apics[0].deliver(0xEC, "test")
    s.cpu.run(1)
    assert s.taken() == 0xEC or s.state.rip == HANDLERS + 16 * 0xEC + 1
    assert s.board.apics[0].isr >> 0xEC & 1


def test_gif_holds_everything() -> None:
    bare = Svm(b"\x90" * 16)
    bare.state.rip = CODE
    bare.cpu.svm.clgi()
    bare.board.apics[0].deliver(0x50, "test")
    bare.board.apics[0].raise_nmi()
    bare.cpu.run(3)
    assert bare.state.rip == CODE + 3
    bare.cpu.svm.stgi()
    bare.cpu.run(1)
    assert bare.taken() == Vector.NMI  # the NMI first


def test_nmi_intercept_leaves_it_pending() -> None:
    s = Svm(misc1=M1.NMI)
    s.enter()
    s.board.apics[0].raise_nmi()
    assert s.cpu.run(5) is Stop.VM_EXIT
    assert s.code_of_exit() == VmexitCode.NMI
    assert s.board.apics[0].nmi_pending()


@pytest.mark.parametrize(
    ("word", "guest_if", "shadow", "intercept", "expected"),
    [
        (V_IRQ | 0x41 << 32 | 5 << 16, 1, 0, False, "taken"),
        (V_IRQ | 0x41 << 32 | 5 << 16, 0, 0, False, "waits"),
        (V_IRQ | 0x41 << 32 | 5 << 16 | 5, 1, 0, False, "waits"),  # priority not above V_TPR
        (V_IRQ | 0x41 << 32 | 5 << 16 | 7 | 1 << 20, 1, 0, False, "taken"),  # V_IGN_TPR
        (V_IRQ | 0x41 << 32 | 5 << 16, 1, 0, True, "exit"),
        (V_IRQ | 0x41 << 32 | 5 << 16, 0, 0, True, "waits"),
        (V_IRQ | 0x41 << 32 | 5 << 16, 1, 1, True, "exit after the shadow"),
        (0x41 << 32 | 5 << 16, 1, 0, True, "waits"),
    ],
)
def test_virtual_interrupts(word: int, guest_if: int, shadow: int, intercept: bool, expected: str) -> None:
    s = Svm(b"\x90\x90\xeb\xfe", misc1=M1.VINTR if intercept else 0, v_intr=word | V_INTR_MASKING)
    s.vmcb[Save.RFLAGS], s.vmcb[V.INTERRUPT_SHADOW] = 2 | guest_if << 9, shadow
    s.enter()
    stop = s.cpu.run(2)
    match expected:
        case "taken":
            assert s.taken() == 0x41
            assert not s.state.v_intr & V_IRQ
        case "waits":
            assert stop is Stop.BUDGET
            assert s.state.rip == CODE + 2
            assert s.state.v_intr & V_IRQ == word & V_IRQ
        case _:
            assert s.code_of_exit() == VmexitCode.VINTR
            assert s.vmcb[Save.RIP] == CODE + shadow
            assert s.vmcb[V.V_INTR] & V_IRQ  # still pending


def test_physical_before_virtual() -> None:
    s = Svm(misc1=M1.INTR | M1.VINTR, v_intr=V_INTR_MASKING | V_IRQ | 0x41 << 32 | 15 << 16)
    s.vmcb[Save.RFLAGS] = 0x202
    s.enter()
    s.board.apics[0].deliver(0x30, "test")
    s.cpu.run(2)
    assert s.code_of_exit() == VmexitCode.INTR


def test_cr8_is_v_tpr_under_masking() -> None:
    s = Svm(bytes.fromhex("b805000000 440f22c0 440f20c3 0fa2"), misc1=M1.CPUID)  # mov eax, 5; mov cr8, rax; mov rbx, cr8; cpuid
    s.run()
    assert s.vmcb[V.V_INTR] & 0xFF == 5
    assert s.state.rbx == 5
    assert s.board.apics[0].get_tpr() == 0


# Event injection (§15.20).


@pytest.mark.parametrize(
    ("event", "vector", "error"),
    [
        (0x40, 0x40, None), (2 << 8 | 2, 2, None), (3 << 8 | 6, 6, None), (3 << 8 | 13 | 1 << 11 | 0x1234 << 32, 13, 0x1234),
        (3 << 8 | 14 | 1 << 11 | 6 << 32, 14, 6),
        (4 << 8 | 0x80, 0x80, None),
    ],
)  # fmt: skip
def test_injection(event: int, vector: int, error: int | None) -> None:
    s = Svm(misc1=M1.HLT)
    s.vmcb[V.EVENTINJ], s.vmcb[V.NRIP] = event | EVENT_VALID, CODE + 2
    assert s.run() is Stop.VM_EXIT
    assert s.code_of_exit() == VmexitCode.HLT
    assert s.vmcb[Save.RIP] == HANDLERS + 16 * vector
    assert not s.vmcb[V.EVENTINJ] & EVENT_VALID
    rsp = s.vmcb[Save.RSP]
    assert rsp == STACK - (40 if error is None else 48)
    if error is not None:
        assert s.mem.read(rsp, 8) == error
    # A software interrupt returns after its instruction.
    assert s.mem.read(rsp + (0 if error is None else 8), 8) == CODE + (2 if event >> 8 & 7 == 4 else 0)


def test_an_injection_that_exits_says_so_in_exitintinfo() -> None:
    s = Svm()
    s.vmcb[V.EVENTINJ] = EVENT_VALID | 3 << 8 | 13 | 1 << 11 | 0x77 << 32
    s.words(NPT_PT + 8 * (IDT >> 12), 0)
    s.run()
    assert s.code_of_exit() == VmexitCode.NPF
    assert s.vmcb[V.EXITINTINFO] == EVENT_VALID | 3 << 8 | 13 | 1 << 11 | 0x77 << 32
    assert s.vmcb[V.EXITINFO2] & ~0xFFF == IDT
    assert s.vmcb[Save.RIP] == CODE


# Intercepts.

CODES: dict[str, str] = {
    "CPUID": "0fa2", "HLT": "f4", "RDTSC": "0f31", "PAUSE": "f390", "INVD": "0f08", "IRET": "48cf", "PUSHF": "9c", "POPF": "9d", "INTN": "cd80",
    "SIDT": "0f010b", "SGDT": "0f0103", "SLDT": "0f00c0", "STR": "0f00c8", "LIDT": "0f011b", "LGDT": "0f0113", "LLDT": "0f00d0", "LTR": "0f00d8",
    "INVLPGA": "0f01df", "VMRUN": "0f01d8", "VMMCALL": "0f01d9", "VMLOAD": "0f01da", "VMSAVE": "0f01db", "STGI": "0f01dc", "CLGI": "0f01dd",
    "RDTSCP": "0f01f9", "ICEBP": "f1", "WBINVD": "0f09",
}  # fmt: skip
#: Instructions that this processor does not have: they raise #UD before any intercept.
NOT_OFFERED = {"RDPMC", "RSM", "SKINIT", "MONITOR", "MWAIT", "XSETBV"}


def test_every_instruction_intercept_has_a_row() -> None:
    assert {what.name for what in INSTRUCTIONS} == set(CODES) | NOT_OFFERED


@pytest.mark.parametrize("what", [w for w in INSTRUCTIONS if w.name in CODES], ids=lambda w: w.name)
def test_instruction_intercepts(what: object) -> None:
    word1, word2, code = INSTRUCTIONS[what]  # type: ignore[index]
    raw = bytes.fromhex(CODES[what.name])  # type: ignore[attr-defined]
    s = Svm(raw, misc1=word1, misc2=word2)
    s.state.rbx = 0x30000
    s.vmcb[Save.RAX] = VMCB_PAGE
    assert s.run(1) is Stop.VM_EXIT
    assert s.code_of_exit() == code
    assert s.vmcb[Save.RIP] == CODE
    assert s.vmcb[V.NRIP] == CODE + len(raw)
    assert s.vmcb[Save.RSP] == STACK


@pytest.mark.parametrize(
    ("code", "cr", "write"),
    [
        ("0f20c3", 0, False),
        ("0f22c3", 0, True),
        ("0f20db", 3, False),
        ("0f22db", 3, True),
        ("0f20e3", 4, False),
        ("0f22e3", 4, True),
        ("440f20c3", 8, False),
        ("0f06", 0, True),
    ],
)
def test_cr_intercepts(code: str, cr: int, write: bool) -> None:
    raw = bytes.fromhex(code)
    s = Svm(raw)
    s.vmcb[V.INTERCEPT_CR] = 1 << cr + 16 * write
    assert s.run(1) is Stop.VM_EXIT
    assert s.code_of_exit() == (VmexitCode.CR0_WRITE if write else VmexitCode.CR0_READ) + cr
    if code != "0f06":
        assert s.vmcb[V.EXITINFO1] == 1 << 63 | Gpr.RBX
    assert s.vmcb[V.NRIP] == CODE + len(raw)


def test_cr0_selective_write() -> None:
    for new, exits in ((0x80000033 | 8, False), (0x80010033 | Cr0.AM, True)):
        s = Svm(bytes.fromhex("0f22c3 0fa2"), misc1=M1.CR0_SEL_WRITE | M1.CPUID)
        s.vmcb[Save.CR0] = 0x80000033
        s.state.rbx = int(new)
        s.run(2)
        assert (s.code_of_exit() == VmexitCode.CR0_SEL_WRITE) == exits


@pytest.mark.parametrize(("code", "dr", "write"), [("0f21c3", 0, False), ("0f23fb", 7, True)])
def test_dr_intercepts(code: str, dr: int, write: bool) -> None:
    s = Svm(bytes.fromhex(code))
    s.vmcb[V.INTERCEPT_DR] = 1 << dr + 16 * write
    s.run(1)
    assert s.code_of_exit() == (VmexitCode.DR0_WRITE if write else VmexitCode.DR0_READ) + dr


@pytest.mark.parametrize(
    ("code", "vector", "info1", "info2"),
    [("0f0b", 6, 0, 0), ("48a1000000c000000000", 14, 0, 0xC0000000), ("cc", 3, 0, 0), ("31c9f7f1", 0, 0, 0), ("66b85000 8ed8", 13, 0x50, 0)],
)
def test_exception_intercepts(code: str, vector: int, info1: int, info2: int) -> None:
    s = Svm(bytes.fromhex(code))
    s.words(0x2000 + 8 * 3, 0)
    s.vmcb[V.INTERCEPT_EXCEPTIONS] = 1 << vector
    s.vmcb[Save.CR2] = 0x999
    s.run(3)
    assert s.code_of_exit() == VmexitCode.EXCEPTION + vector
    assert (s.vmcb[V.EXITINFO1], s.vmcb[V.EXITINFO2]) == (info1, info2)
    assert s.vmcb[Save.CR2] == 0x999  # not delivered
    assert s.vmcb[Save.RSP] == STACK


@pytest.mark.parametrize(
    ("code", "info"),
    [
        ("e680", 0x80 << 16 | 4 << 7 | 1 << 4),
        ("66ef", 0x3F8 << 16 | 4 << 7 | 2 << 4),
        ("ed", 0x3F8 << 16 | 4 << 7 | 4 << 4 | 1),
        ("f36e", 0x3F8 << 16 | 3 << 10 | 4 << 7 | 1 << 4 | 8 | 4),
    ],
)
def test_ioio(code: str, info: int) -> None:
    raw = bytes.fromhex(code)
    s = Svm(raw, misc1=M1.IOIO_PROT)
    port = info >> 16
    s.mem.write(IOPM + port // 8, 1, 1 << port % 8)
    s.state.rdx, s.state.rcx, s.state.rsi = 0x3F8, 2, 0x30000
    s.run(1)
    assert s.code_of_exit() == VmexitCode.IOIO
    assert s.vmcb[V.EXITINFO1] == info
    assert s.vmcb[V.EXITINFO2] == CODE + len(raw)


def test_ports_that_the_bitmap_lets_through() -> None:
    s = Svm(bytes.fromhex("e680 0fa2"), misc1=M1.IOIO_PROT | M1.CPUID)
    s.run(2)
    assert s.code_of_exit() == VmexitCode.CPUID


@pytest.mark.parametrize(("msr", "at"), [(0x10, 0x20), (0xC0000080, 0x4000 + 0x100), (0xC0010117, 0x8000 + 0x22E), (0x12345678, None)])
@pytest.mark.parametrize("write", [0, 1])
def test_msr_permission_map(msr: int, at: int | None, write: int) -> None:
    s = Svm(bytes.fromhex("0f30" if write else "0f32"), misc1=M1.MSR_PROT)
    if at is not None:
        bit = at + write
        s.mem.write(MSRPM + bit // 8, 1, 1 << bit % 8)
    s.state.rcx = msr
    s.run(1)
    assert s.code_of_exit() == VmexitCode.MSR
    assert s.vmcb[V.EXITINFO1] == write


def test_shutdown_intercept() -> None:
    s = Svm(b"\x0f\x0b", misc1=M1.SHUTDOWN)
    s.vmcb.set_table(Save.IDTR, IDT, 0)
    s.run()
    assert s.code_of_exit() == VmexitCode.SHUTDOWN


# Nested paging (§15.25).


@pytest.mark.parametrize(
    ("code", "entry", "info1"),
    [
        ("8b03", 0, 4 | NPF_FINAL),
        ("8903", 0, 6 | NPF_FINAL),
        ("8903", 0x30000 | 5, 7 | NPF_FINAL),
        ("ffe3", 0, 0x14 | NPF_FINAL),
        ("ffe3", 0x30000 | 7 | 1 << 63, 0x15 | NPF_FINAL),
        ("8b03", 0x30000 | 7 | 1 << 45, 0xD | NPF_FINAL),
        ("8b03", 0x30000 | 3, 5 | NPF_FINAL),  # every guest access is a user access
    ],
)
def test_nested_page_faults(code: str, entry: int, info1: int) -> None:
    s = Svm(bytes.fromhex(code))
    s.state.rbx = 0x30123
    s.words(NPT_PT + 8 * 0x30, entry)
    s.run(2)
    assert s.code_of_exit() == VmexitCode.NPF
    assert (s.vmcb[V.EXITINFO1], s.vmcb[V.EXITINFO2]) == (info1, 0x30123)


def test_a_walk_through_an_unmapped_guest_table() -> None:
    s = Svm(bytes.fromhex("8b03"))
    s.words(NPT_PT + 8 * 2, 0)  # the guest's PDPT
    s.run(1)
    assert s.code_of_exit() == VmexitCode.NPF
    assert s.vmcb[V.EXITINFO1] == 6 | NPF_WALK
    assert s.vmcb[V.EXITINFO2] & ~0xFFF == 0x2000


# Machine code as the host reaches the same implementation.


def test_a_hypervisor_in_machine_code() -> None:
    # The host: mov eax, VMCB; clgi; vmrun; stgi; hlt
    host = bytes.fromhex("b800101000 0f01dd 0f01d8 0f01dc f4")
    s = Svm(b"\x90\x0f\xa2", misc1=M1.CPUID)
    s.code(host, HOST_RIP)
    s.cpu.context_changed()
    assert s.cpu.run(100) is Stop.HALTED
    assert s.code_of_exit() == VmexitCode.CPUID
    assert s.vmcb[Save.RIP] == CODE + 1
    assert s.state.rip == HOST_RIP + len(host)
    assert s.state.gif == 1
    assert s.mem.read(HSAVE + Save.RIP, 8) == HOST_RIP + 11
