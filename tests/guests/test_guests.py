"""The guest programs: binaries are what their sources assemble to, all of them load, and what the programs say of themselves is so.

`tests/kvm/test_guests.py` runs them for what they tell of the hypervisor; here are runs that pin down the programs themselves.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import worldswitch.guests as programs
from kvm.harness import VENDORS, guest
from worldswitch.arch.exceptions import Vector
from worldswitch.errors import ImageError
from worldswitch.guests import GUESTS, LOAD_ADDRESS, LOG, LOG_RECORD, MAILBOX, MEMORY_END, load_guest
from worldswitch.guests.build import assemble, main, tools_missing
from worldswitch.host import RunEnd
from worldswitch.kvm import ExitHlt, ExitIo
from worldswitch.trace import events as t
from worldswitch.vmm import FlatGuest

HERE = Path(programs.__file__).parent
binutils = pytest.mark.skipif(bool(tools_missing()), reason="binutils is not installed: " + ", ".join(tools_missing()))


@binutils
def test_binaries_match_their_sources() -> None:
    assert main(["--check"]) == 0


@binutils
def test_the_check_sees_a_changed_and_a_missing_binary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in GUESTS:
        shutil.copy(HERE / f"{name}.S", tmp_path)
    assert main([], tmp_path) == 0
    assert all((tmp_path / f"{name}.bin").read_bytes() == load_guest(name).binary for name in GUESTS)  # nor does the path matter
    (tmp_path / "probe.bin").write_bytes(b"\x90" + load_guest("probe").binary[1:])
    (tmp_path / "ring3.bin").unlink()
    capsys.readouterr()
    assert main(["--check"], tmp_path) == 1
    said = capsys.readouterr().err
    assert [name for name in GUESTS if f"{name}.bin is not what {name}.S assembles to" in said] == ["ring3", "probe"]
    assert not (tmp_path / "ring3.bin").exists()


@binutils
def test_nothing_is_written_if_one_does_not_assemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in GUESTS:
        shutil.copy(HERE / f"{name}.S", tmp_path)
    (tmp_path / "probe.S").write_text("no such instruction\n")
    assert main([], tmp_path) == 1
    assert "probe.S:1" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.bin"))
    with pytest.raises(ImageError, match=r"probe\.S"):
        assemble(tmp_path / "probe.S")


def test_without_binutils_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--check"]) == 2
    assert "needs binutils: as, ld, objcopy not found" in capsys.readouterr().err


def test_an_option_that_is_not_there_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--chek"])


@pytest.mark.parametrize("name", GUESTS)
def test_every_guest_loads(name: str) -> None:
    program = load_guest(name)
    assert program.name == name
    assert 0 < len(program.binary) <= MAILBOX - LOAD_ADDRESS
    assert "_start:" in program.source
    assert program.description


def test_an_unknown_guest_names_those_there_are() -> None:
    with pytest.raises(ImageError) as missing:
        load_guest("doom")
    assert all(name in str(missing.value) for name in ("doom", *GUESTS))


def test_every_source_is_a_guest() -> None:
    assert {path.stem for path in HERE.glob("*.S")} == {path.stem for path in HERE.glob("*.bin")} == GUESTS.keys()


@pytest.mark.parametrize("name", GUESTS)
def test_sources_use_the_addresses_of_the_contract(name: str) -> None:
    sets = {symbol: int(value, 0) for symbol, value in re.findall(r"^\s*\.set\s+([A-Z_]+), (0x[0-9a-f]+)", load_guest(name).source, re.MULTILINE)}
    assert sets.get("MAILBOX", MAILBOX) == MAILBOX
    assert sets.get("LOG", LOG) == LOG
    tables = [value for symbol, value in sets.items() if symbol in {"IDT", "TSS", "GDT", "PAGE_TABLE", "USER_CODE", "USER_STACK"}]
    assert all(LOG < value <= MEMORY_END - 0x1000 for value in tables)


def test_the_readme_has_every_program_and_mailbox_offset() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^- \*\*(\w+)\*\*", readme, re.MULTILINE)) == GUESTS.keys()
    stated = {(name, int(offset, 16)) for offset, name in re.findall(r"(?:^\| |\b)(0x[0-9a-f]+)(?: \||) `([A-Z_0-9]+)`", readme, re.MULTILINE)}
    assert len(stated) == 18
    assert all(getattr(programs, name) == offset for name, offset in stated)


def until_done(made: FlatGuest) -> None:
    made.vcpu.start()
    assert made.vm.kernel.run(lambda: made.mailbox(programs.DONE) == 1, max_time=50_000_000) is RunEnd.DONE
    assert made.mailbox(programs.STATE) == 0
    assert made.mailbox(programs.STRANGERS) == 0


def log(made: FlatGuest, records: int) -> list[tuple[int, int, int, int]]:
    """(vector, error code, RIP, CR2) of each record, and nothing behind the last."""
    words = [int.from_bytes(made.memory[at : at + 8], "little") for at in range(LOG, LOG + LOG_RECORD * (records + 1), 8)]
    assert words[4 * records :] == [0, 0, 0, 0]
    return [(words[i], words[i + 1], words[i + 2], words[i + 3]) for i in range(0, 4 * records, 4)]


USER_CODE, USER_STACK, IN_MAILBOX = 0x218000, 0x219000, MAILBOX + programs.DONE
#: What ring 3 is stopped from doing: bytes at the logged RIP, vector, error code, CR2 (SDM vol. 3 §5.9, §6.12.1.1, §6.13, §4.7; vol. 1 §19.5.2).
RING3 = [
    ("f4", Vector.GP, 0, 0),  # HLT
    ("fa", Vector.GP, 0, 0),  # CLI
    ("0f20c0", Vector.GP, 0, 0),  # MOV RAX, CR0
    ("e480", Vector.GP, 0, 0),  # IN AL, 0x80
    ("cd30", Vector.GP, 0x30 * 8 + 2, 0),  # INT 0x30
    ("8a00", Vector.PF, 5, MAILBOX),  # MOV AL, [RAX]
    ("c60001", Vector.PF, 7, IN_MAILBOX),  # MOV BYTE PTR [RAX], 1
]


@pytest.mark.parametrize("vendor", VENDORS)
def test_ring3(vendor: str) -> None:
    made = guest(vendor, "ring3")
    until_done(made)
    found = log(made, len(RING3))
    assert [(vector, error, cr2) for vector, error, _, cr2 in found] == [(vector, error, cr2) for _, vector, error, cr2 in RING3]
    assert [made.memory[rip : rip + len(code) // 2].hex() for (code, *_), (_, _, rip, _) in zip(RING3, found, strict=True)] == [code for code, *_ in RING3]
    assert all(USER_CODE < rip < USER_STACK for _, _, rip, _ in found)
    assert made.mailbox(programs.COUNTER) == 10
    assert made.mailbox(programs.RECORDS) == len(RING3)
    assert made.mailbox(programs.USER_CS) == 0x33
    assert made.mailbox(programs.USER_SS) == 0x2B
    assert made.mailbox(programs.USER_RSP) == USER_STACK + 0x1000
    assert made.mailbox(programs.USER_DS) == 0
    # The system calls came from the program's page and over its stack: the return address of its last CALL is still there.
    assert USER_CODE < int.from_bytes(made.memory[USER_STACK + 0xFF8 : USER_STACK + 0x1000], "little") < USER_STACK


@pytest.mark.parametrize("vendor", VENDORS)
def test_faults_logs_where_they_were(vendor: str) -> None:
    made = guest(vendor, "faults")
    until_done(made)
    found = log(made, made.mailbox(programs.COUNTER))
    code = [bytes(made.memory[rip - 2 : rip + 2]) for _, _, rip, _ in found]
    assert code[0][2:] == b"\xf7\xf1"  # #DE is a fault: DIV ECX
    assert code[1][2:] == b"\x0f\x0b"  # #UD: UD2
    assert code[2][1:2] == b"\xcc"  # #BP is a trap: behind INT3
    assert all(each[2:] == b"\x8a\x00" for each in (code[3], code[5]))  # MOV AL, [RAX]
    assert code[4][2:3] == b"\xc6"  # MOV BYTE PTR [RAX], 1
    assert code[7][:2] == b"\xcd\x80"  # behind INT 0x80
    assert code[8][2:] == b"\xcd\x30"  # #NP is a fault: INT 0x30 itself


#: Mailbox parameters of `halt_timer`, and the LVT's mode bits that they stand for (SDM vol. 3 figure 11-8).
TIMERS = [
    pytest.param({}, 0, id="one-shot"),
    pytest.param({programs.PERIOD: 30_000}, 0, id="one-shot-period"),
    pytest.param({programs.DEADLINE: 60_000}, 2, id="deadline"),
    pytest.param({programs.DEADLINE: 60_000, programs.PERIOD: 30_000}, 2, id="deadline-wins"),
]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("parameters", "mode"), TIMERS)
def test_halt_timer_uses_the_timer_asked_for(vendor: str, parameters: dict[int, int], mode: int) -> None:
    made = guest(vendor, "halt_timer")
    for offset, value in parameters.items():
        made.set_mailbox(offset, value)
    made.vcpu.start()
    assert made.vm.kernel.run(lambda: made.mailbox(programs.COUNTER) >= 8, max_time=20_000_000) is RunEnd.DONE
    assert made.mailbox(programs.TIMER_INTERRUPTS) == made.mailbox(programs.COUNTER) == 8
    assert made.mailbox(programs.STATE) == made.mailbox(programs.STRANGERS) == 0
    written = [e for e in made.vm.kernel.trace.of(t.KvmMsr) if e.write]
    assert [e.data >> 17 & 3 for e in written if e.ecx == 0x832] == [mode]
    armed = [e.data for e in written if e.ecx == (0x6E0 if mode else 0x838)]
    assert len(armed) in (8, 9)  # before each HLT; the run may end before the ninth
    assert not [e for e in written if e.ecx == (0x838 if mode else 0x6E0)]
    if not mode:
        assert set(armed) == {parameters.get(programs.PERIOD, 50_000)}


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("name", ["count_timer", "halt_timer"])
def test_an_exception_stops_a_timer_program_and_is_named(vendor: str, name: str) -> None:
    """STI or INC in the main loop replaced by UD2."""
    code = bytearray(load_guest(name).binary)
    main_loop = {"count_timer": b"\xfb\x48\xff\x03", "halt_timer": b"\xfb\xf4\xfa"}[name]
    assert code.count(main_loop) == 1
    at = code.index(main_loop)
    code[at : at + 2] = b"\x0f\x0b"
    made = guest(vendor, bytes(code))
    made.vcpu.start()
    made.vm.kernel.run(lambda: made.mailbox(programs.STATE) != 0, max_time=2_000_000)
    assert made.mailbox(programs.STATE) == programs.STATE_EXCEPTION + Vector.UD
    assert made.mailbox(programs.COUNTER) == 0


@pytest.mark.parametrize("vendor", VENDORS)
def test_probe_counts_both_faults_and_reads_the_clock(vendor: str) -> None:
    made = guest(vendor, "probe", irqchip=False)
    while not isinstance(exit_ := made.vcpu.run(), ExitHlt):
        assert isinstance(exit_, ExitIo)
        if not exit_.write:
            made.vcpu.complete_io(0x5A)
    assert made.mailbox(programs.DONE) == 1
    assert made.mailbox(programs.PORT_80) & 0xFF == 0x5A
    assert made.mailbox(programs.COUNTER) == made.mailbox(programs.WRMSR_FAULTS) == 1
    assert made.mailbox(programs.TSC) > 0
