"""How fast the concrete engine is, and what a world switch costs in wall time: `make bench`.

Everything is measured in this process, on one core. Peer: unicorn running the same program in the same run (free-running, no hooks); the ratio is against it.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn.x86_const import UC_X86_REG_RCX, UC_X86_REG_RSI, UC_X86_REG_RSP

from worldswitch.board import Board
from worldswitch.cpu.model import model_named
from worldswitch.cpu.processor import Processor
from worldswitch.guests import LOAD_ADDRESS
from worldswitch.host import Kernel
from worldswitch.kvm import Kvm, Vcpu
from worldswitch.vmm import load_flat

#: Loops of machine code: name to bytes. Each runs for ever.
PROGRAMS = {
    # add rax, rcx; rol rcx, 1; xor rax, rcx; dec rdx; jmp
    "registers": "4801c8 48d1c1 4831c8 48ffca ebf2",
    # mov rax, [rsi]; add rax, rdx; mov [rsi], rax; inc rdx; jmp
    "memory": "488b06 4801d0 488906 48ffc2 ebf2",
    # test dl, 1; jz +3; inc rax; add rdx, 3; cmp rdx, rcx; jne start; jmp start
    "branches": "f6c201 7403 48ffc0 4883c203 4839ca 75ef ebed",
    # push rax; call +2; pop rax; jmp start; ret
    "calls": "50 e803000000 58 ebf7 c3",
}


def bare(code: bytes) -> Processor:
    """A processor in 64-bit mode, paging on (identity, large pages), at the code."""
    cpu = Board(model_named("intel"), memory_bytes=4 << 20).processors[0]
    bus, s = cpu.bus, cpu.state
    bus.write(0x1000, 8, 0x2003)
    bus.write(0x2000, 8, 0x3003)
    for i in range(512):
        bus.write(0x3000 + 8 * i, 8, i << 21 | 0x83)
    s.cr0, s.cr4, s.cr3, s.efer = 0x80000033, 0x20, 0x1000, 0x500
    s.cs.set(8, 0, 0xFFFFFFFF, 0xA09B)
    for segment in (s.ss, s.ds, s.es):
        segment.set(16, 0, 0xFFFFFFFF, 0xC093)
    s.rip, s.rsp, s.rsi, s.rcx = LOAD_ADDRESS, 0x90000, 0x200000, 1000
    bus.write_block(LOAD_ADDRESS, code)
    cpu.context_changed()
    return cpu


def rate(run: Callable[[int], object], count: int) -> float:
    """Instructions a second, after a warm-up."""
    run(1000)
    start = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - start)


def instructions(console: Console) -> None:
    """Instructions a second, beside unicorn."""
    table = Table(title="concrete engine, instructions/s")
    for heading in ("program", "concrete", "unicorn (counting)", "ratio"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for name, text in PROGRAMS.items():
        code = bytes.fromhex(text)
        cpu = bare(code)
        ours = rate(cpu.run, 100_000)
        uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.mem_map(0, 4 << 20)
        uc.mem_write(LOAD_ADDRESS, code)
        for register, value in ((UC_X86_REG_RSP, 0x90000), (UC_X86_REG_RSI, 0x200000), (UC_X86_REG_RCX, 1000)):
            uc.reg_write(register, value)
        theirs = rate(lambda n, uc=uc: uc.emu_start(LOAD_ADDRESS, 0, count=n), 300_000)  # type: ignore[misc]
        table.add_row(name, f"{ours:,.0f}", f"{theirs:,.0f}", f"1 / {theirs / ours:.1f}")
    console.print(table)


#: Part of a world switch to the functions that do it (module suffix, function), callees included.
PARTS = {
    "the guest's own instructions (and its exit)": [("cpu/processor.py", "run")],
    "  of it: VM exit": [("vmx/exit.py", "vm_exit"), ("svm/vmrun.py", "vmexit")],
    "vcpu_enter_guest (and the entry)": [("kvm/x86.py", "vcpu_enter_guest")],
    "  of it: VM entry": [("vmx/entry.py", "vm_entry"), ("svm/vmrun.py", "vmrun")],
    "  of it: its checks": [("vmx/checks.py", "check_entry"), ("svm/checks.py", "first_failure")],
    "after the exit": [("kvm/x86.py", "after_entry")],
    "  of it: handle_exit": [("kvm/vmx.py", "handle_exit"), ("kvm/svm.py", "handle_exit")],
}
#: xor eax, eax; cpuid; jmp: an exit every third instruction.
EXIT_STORM = bytes.fromhex("31c0 0fa2 ebfa")
_SWITCHES = 3000


def storm(cpu: str) -> tuple[Kernel, Vcpu]:
    """A host with one vCPU that does nothing but exit."""
    kernel = Kernel(Board(model_named(cpu), frequency_hz=100_000_000))
    vm = Kvm(kernel).create_vm()
    vm.create_irqchip()
    vcpu = load_flat(vm, EXIT_STORM).vcpu
    vcpu.start()
    return kernel, vcpu


def run_storm(kernel: Kernel, vcpu: Vcpu) -> int:
    """Run for so many world switches; how many there were."""
    before = vcpu.stat.exits
    kernel.run(lambda: vcpu.stat.exits - before >= _SWITCHES)
    return vcpu.stat.exits - before


def switches(console: Console) -> None:
    """World switches a second, and where their time goes."""
    for cpu in ("intel", "amd"):
        kernel, vcpu = storm(cpu)
        run_storm(kernel, vcpu)
        start = time.perf_counter()
        exits = run_storm(kernel, vcpu)
        elapsed = time.perf_counter() - start
        console.print(f"{cpu}: {exits / elapsed:,.0f} world switches/s (entry + exit + CPUID handled), {elapsed / exits * 1e6:.0f} us each")
        profile = cProfile.Profile()
        exits = profile.runcall(run_storm, kernel, vcpu)
        console.print(_parts(cpu, pstats.Stats(profile), exits, elapsed))


def _parts(cpu: str, profile: pstats.Stats, exits: int, elapsed: float) -> Table:
    stats = profile.stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    table = Table(title=f"{cpu}: us of wall time a world switch, by part (shares from a profile, scaled to the unprofiled time)")
    for heading in ("part", "us", "share"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part, functions in PARTS.items():
        spent = sum(
            cumulative
            for (file, _, function), (_, _, _, cumulative, _) in stats.items()
            if any(file.endswith(suffix) and function == name for suffix, name in functions)
        )
        table.add_row(part, f"{spent / total * elapsed / exits * 1e6:.1f}", f"{spent / total:.0%}")
    return table


def main() -> None:
    """Print everything."""
    console = Console(width=120)
    instructions(console)
    switches(console)


if __name__ == "__main__":
    main()
