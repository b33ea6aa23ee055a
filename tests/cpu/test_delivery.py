"""Delivery through the long-mode IDT, double faults, and what happens at instruction boundaries (SDM vol. 3 §6.9, §6.13-6.15)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cpu.bare import CODE, GDT, HANDLERS, IDT, IST1, PT, RSP0, STACK, TSS, USER_CS, USER_DS, Bare
from worldswitch.arch.exceptions import Vector
from worldswitch.cpu.processor import Stop
from worldswitch.trace.events import HwEventDelivered

UD2 = b"\x0f\x0b"
INT80 = b"\xcd\x80"


def run(bare: Bare, budget: int = 2) -> int:
    """Execute, and give the vector whose handler was entered."""
    bare.cpu.run(budget)
    return bare.taken()


def both(*changes: Callable[[Bare], None]) -> Callable[[Bare], None]:
    def change(bare: Bare) -> None:
        for one in changes:
            one(bare)

    return change


def setup(change: Callable[[Bare], None], code: bytes) -> Bare:
    bare = Bare("intel", code)
    change(bare)
    return bare


#: What is wrong with a gate or what it points at: (change, code, vector taken, error code). IDT errors have bit 1; EXT is bit 0, never for software interrupts.
BAD_GATES: dict[str, tuple[Callable[[Bare], None], bytes, int, int]] = {
    "vector beyond the IDT's limit": (lambda b: setattr(b.state, "idtr_limit", 0x80 * 16 + 14), INT80, Vector.GP, 0x80 * 8 + 2),
    "not a gate": (lambda b: b.gate(0x80, kind=0x82), INT80, Vector.GP, 0x80 * 8 + 2),
    "not present": (lambda b: b.gate(0x80, kind=0x0E), INT80, Vector.NP, 0x80 * 8 + 2),
    "not present, hardware exception": (lambda b: b.gate(6, kind=0x0E), UD2, Vector.NP, 6 * 8 + 2 + 1),
    "null selector": (lambda b: b.gate(0x80, selector=0), INT80, Vector.GP, 0),
    "null selector, hardware exception": (lambda b: b.gate(6, selector=0), UD2, Vector.GP, 1),
    "selector beyond the GDT": (lambda b: b.gate(0x80, selector=0x58), INT80, Vector.GP, 0x58),
    "data segment": (lambda b: b.gate(0x80, selector=0x10), INT80, Vector.GP, 0x10),
    "32-bit code segment": (both(lambda b: b.words(GDT + 8 * 5, 0x00CF9B000000FFFF), lambda b: b.gate(0x80, selector=0x28)), INT80, Vector.GP, 0x28),
    "code segment not present": (both(lambda b: b.words(GDT + 8 * 5, 0x00AF1B000000FFFF), lambda b: b.gate(0x80, selector=0x28)), INT80, Vector.NP, 0x28),
    "code segment of an outer ring": (lambda b: b.gate(0x80, selector=0x28), INT80, Vector.GP, 0x28),
    "offset not canonical": (lambda b: b.gate(0x80, offset=1 << 47), INT80, Vector.GP, 0),
    "IST beyond the TSS": (both(lambda b: b.gate(0x80, ist=1), lambda b: setattr(b.state.tr, "limit", 40)), INT80, Vector.TS, 0x18),
    "IST not canonical": (both(lambda b: b.gate(0x80, ist=1), lambda b: b.words(TSS + 36, 1 << 60)), INT80, Vector.SS, 0),
}


@pytest.mark.parametrize(("change", "code", "vector", "error"), BAD_GATES.values(), ids=BAD_GATES)
def test_bad_gates(change: Callable[[Bare], None], code: bytes, vector: int, error: int) -> None:
    bare = setup(change, code)
    bare.gate(vector)
    assert run(bare) == vector
    assert bare.frame(2) == [error, CODE]


def test_the_frame() -> None:
    bare = Bare("intel", UD2)
    bare.state.rsp, bare.state.rflags = STACK - 5, 0x4302  # NT, IF, TF
    bare.cpu.run(1)
    rsp = bare.state.rsp
    assert rsp == (STACK - 5 & ~15) - 40
    # A fault's image of RFLAGS has RF (§18.3.1.1); the handler runs without IF, TF, NT, RF.
    assert bare.frame(5) == [CODE, 0x08, 0x14302, STACK - 5, 0x10]
    assert bare.state.rflags == 2
    assert (bare.state.cs.selector, bare.state.ss.selector) == (0x08, 0x10)


def test_a_trap_gate_leaves_if_alone() -> None:
    bare = setup(lambda b: b.gate(6, kind=0x8F), UD2)
    bare.state.rflags = 0x202
    bare.cpu.run(1)
    assert bare.state.rflags == 0x202


def test_from_ring_3_to_ring_0() -> None:
    bare = setup(lambda b: b.gate(0x80, kind=0xEE), INT80)
    bare.user()
    assert run(bare) == 0x80
    assert bare.state.rsp == RSP0 - 40
    assert bare.frame(5) == [CODE + 2, USER_CS, 2, STACK, USER_DS]
    assert bare.state.ss.selector == 0
    assert bare.cpu.cpl == 0


def test_ring_3_may_not_use_a_gate_of_ring_0() -> None:
    bare = Bare("intel", INT80)
    bare.user()
    assert run(bare) == Vector.GP
    assert bare.frame(1) == [0x80 * 8 + 2]


def test_ist_is_used_whatever_the_ring() -> None:
    bare = setup(lambda b: b.gate(6, ist=1), UD2)
    assert run(bare) == 6
    assert bare.state.rsp == IST1 - 40


def test_page_fault_sets_cr2_and_an_error_code() -> None:
    bare = Bare("intel", bytes.fromhex("c6042500c0010001"))  # mov byte [0x1c000], 1
    bare.words(PT + 8 * 0x1C, 0x1C000 | 1)
    assert run(bare) == Vector.PF
    assert bare.state.cr2 == 0x1C000
    assert bare.frame(1) == [3]


# Double faults (table 6-5): a second exception while the first is delivered.
FIRST = {"benign": UD2, "contributory": bytes.fromhex("31c9f7f1"), "page fault": bytes.fromhex("8a042500c00100")}
FIRST_VECTOR = {"benign": 6, "contributory": 0, "page fault": 14}
#: (class of the first, class of the second) to what is delivered.
TABLE = {
    ("benign", "contributory"): Vector.NP, ("benign", "page fault"): Vector.PF, ("contributory", "contributory"): Vector.DF,
    ("contributory", "page fault"): Vector.PF, ("page fault", "contributory"): Vector.DF, ("page fault", "page fault"): Vector.DF,
}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), TABLE)
def test_double_fault_table(first: str, second: str) -> None:
    bare = Bare("intel", FIRST[first])
    bare.words(PT + 8 * 0x1C, 0)
    vector = FIRST_VECTOR[first]
    if second == "contributory":
        bare.gate(vector, kind=0x0E)
    else:
        # The first one's stack is not there; page faults and double faults have one of their own unless the page fault is the first.
        bare.gate(vector, ist=2)
        bare.mem.write(TSS + 44, 8, 0x1C800)
    if vector != 14:
        bare.gate(14, ist=1)
    bare.gate(8, ist=1)
    assert run(bare, 4) == TABLE[first, second]
    if TABLE[first, second] == Vector.DF:
        assert bare.frame(1) == [0]


def test_triple_fault() -> None:
    bare = Bare("intel", UD2)
    bare.state.idtr_limit = 0
    assert bare.cpu.run(5) is Stop.SHUTDOWN


# Boundaries.


def pending(bare: Bare, vector: int = 0x50) -> None:
    bare.apic_on()
    bare.board.apics[0].deliver(vector, "test")


@pytest.mark.parametrize(
    ("code", "flags", "steps", "at"),
    [
        ("9090", 0x202, 1, 0),  # at once
        ("fb9090", 2, 3, 2),  # STI: one more instruction
        ("fbfb9090", 2, 3, 2),  # a second STI casts no second shadow
        ("fbfa9090", 2, 4, None),  # CLI in the shadow
        ("8ed09090", 0x202, 1, 0),  # pending before MOV SS: at once
        ("9d9090", 2, 3, 1),  # POPF
        ("9090", 2, 2, None),
    ],
)
def test_when_an_interrupt_is_taken(code: str, flags: int, steps: int, at: int | None) -> None:
    bare = Bare("intel", bytes.fromhex(code))
    bare.state.rflags = flags
    bare.mem.write(STACK, 8, 0x202)  # for POPF
    pending(bare)
    bare.cpu.run(steps)
    if at is None:
        assert bare.taken() == -1
        assert bare.board.apics[0].pending()
    else:
        assert bare.taken() == 0x50
        assert bare.frame(1) == [CODE + at]


def test_mov_ss_holds_interrupts_and_nmis_for_one_instruction() -> None:
    bare = Bare("intel", bytes.fromhex("8ed0 90 90"))
    bare.state.rax, bare.state.rflags = 0x10, 0x202
    bare.cpu.run(1)
    pending(bare)
    bare.board.apics[0].raise_nmi()
    bare.cpu.run(2)
    assert bare.taken() == Vector.NMI
    assert bare.frame(1) == [CODE + 3]


def test_priorities_trap_then_nmi_then_interrupt() -> None:
    bare = Bare("intel", b"\x90\x90")
    bare.state.rflags = 0x302  # TF, IF
    for vector in (1, 2):
        bare.mem.write_block(HANDLERS + 16 * vector, b"\x48\xcf")  # IRETQ
    bare.cpu.run(1)
    pending(bare)
    bare.board.apics[0].raise_nmi()
    bare.cpu.run(6)
    assert bare.state.dr6 & 0x4000
    assert [e.vector for e in bare.board.trace.of(HwEventDelivered)][:3] == [1, 2, 0x50]


def test_nmis_are_blocked_until_iret() -> None:
    bare = Bare("intel", b"\x90" * 4)
    bare.mem.write_block(HANDLERS + 16 * 2, b"\x90\x48\xcf")
    nmi = bare.board.apics[0].raise_nmi
    nmi()
    bare.cpu.run(1)
    assert bare.state.rip == HANDLERS + 33
    nmi()
    bare.cpu.run(1)  # IRETQ
    assert bare.state.rip == CODE
    bare.cpu.run(1)
    assert bare.state.rip == HANDLERS + 33


def test_hlt_ends_with_an_interrupt_and_returns_behind_it() -> None:
    bare = Bare("intel", b"\xfb\xf4\x90")
    assert bare.cpu.run(10) is Stop.HALTED
    assert bare.cpu.run(10) is Stop.HALTED
    pending(bare)
    bare.cpu.run(1)
    assert bare.taken() == 0x50
    assert bare.frame(1) == [CODE + 2]


def test_a_repeated_string_instruction_is_interrupted_with_exact_registers() -> None:
    bare = Bare("intel", b"\xf3\xa4\x90")
    s = bare.state
    s.rflags, s.rsi, s.rdi, s.rcx = 0x202, 0x1C000, 0x1D000, 100
    bare.cpu.run(37)
    assert (s.rcx, s.rsi, s.rdi, s.rip) == (63, 0x1C025, 0x1D025, CODE)
    pending(bare)
    bare.cpu.run(1)
    assert bare.taken() == 0x50
    assert bare.frame(1) == [CODE]
    assert s.rcx == 63


PROGRAM = bytes.fromhex("b905000000 f3a4 48ffc0 50 e801000000 90 5b 58 0fa2 9c 9d 74f0 fb fa 31c9 48ffc3 ebfe")


@pytest.mark.parametrize("steps", range(1, 40))
def test_exact_budgets(steps: int) -> None:
    whole, single = (Bare("intel", PROGRAM) for _ in range(2))
    for bare in (whole, single):
        bare.state.rsi, bare.state.rdi = 0x1C000, 0x1D000
    assert whole.cpu.run(steps) is Stop.BUDGET
    for _ in range(steps):
        assert single.cpu.run(1) is Stop.BUDGET
    assert whole.state.save() == single.state.save()
    assert whole.cpu.cycles == single.cpu.cycles == steps
    assert whole.cpu.retired == steps


def test_deadlines_stop_at_the_first_boundary_at_or_after_them() -> None:
    bare = Bare("intel", b"\xeb\xfe", instruction=4)
    assert bare.cpu.run(1000, deadline=10) is Stop.BUDGET
    assert bare.cpu.cycles == 12


def test_code_that_writes_itself() -> None:
    # mov byte [rip + 0], 0x43 (over the 0x40 of the REX prefix that follows): inc eax becomes inc r8d
    bare = Bare("intel", bytes.fromhex("c6050000000041 40ffc0 f4"))
    bare.cpu.run(10)
    assert (bare.state.rax, bare.state.r8) == (0, 1)
    bare.state.rip = CODE + 7
    bare.mem.write(CODE + 7, 1, 0x40)
    bare.state.activity = 0
    bare.cpu.run(1)
    assert (bare.state.rax, bare.state.r8) == (1, 1)


def test_an_instruction_across_pages() -> None:
    at = CODE + 0xFFD
    bare = Bare("intel")
    bare.code(bytes.fromhex("48b8efcdab8967452301"), at)  # mov rax, imm64
    bare.state.rip = at
    bare.cpu.run(1)
    assert bare.state.rax == 0x0123456789ABCDEF
    bare.words(PT + 8 * (CODE + 0x1000 >> 12), 0)
    bare.state.rip, bare.state.rax = at, 0
    bare.cpu.context_changed()
    assert run(bare) == Vector.PF
    assert (bare.state.cr2, bare.state.rax) == (CODE + 0x1000, 0)


@pytest.mark.parametrize(
    ("code", "vector"),
    [
        ("66" * 14 + "90", None),
        ("66" * 15 + "90", Vector.GP),
        ("0f04", Vector.UD),
        ("c5f877", Vector.UD),
        ("0fc7f0", Vector.UD),
        ("06", Vector.UD),
        ("f00fa2", Vector.UD),
    ],
    ids=["15 bytes", "16 bytes", "no opcode", "AVX", "RDRAND", "PUSH ES", "LOCK CPUID"],
)
def test_what_is_no_instruction_here(code: str, vector: int | None) -> None:
    bare = Bare("intel", bytes.fromhex(code))
    bare.cpu.run(1)
    bare.cpu.run(1)
    assert bare.taken() == (-1 if vector is None else vector)


def test_idt_is_where_it_says() -> None:
    bare = Bare("intel", UD2)
    bare.state.idtr_base = IDT - 16
    assert run(bare) == 5  # one gate lower
