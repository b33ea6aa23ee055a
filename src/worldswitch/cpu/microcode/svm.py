"""The SVM instructions as machine code reaches them (APM vol. 3): rAX holds the physical address, `cpu.svm` does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldswitch.arch.exceptions import Vector
from worldswitch.cpu.decode import Decoded
from worldswitch.cpu.event import fault
from worldswitch.cpu.microcode.registry import microcode

if TYPE_CHECKING:
    from worldswitch.cpu.processor import Processor


def _pointer(cpu: Processor, ins: Decoded) -> int:
    return cpu.state.rax & (1 << ins.address_bits) - 1


@microcode("VMRUN")
def vmrun(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.vmrun(_pointer(cpu, ins), python=False)


@microcode("VMLOAD")
def vmload(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.vmload(_pointer(cpu, ins))


@microcode("VMSAVE")
def vmsave(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.vmsave(_pointer(cpu, ins))


@microcode("STGI")
def stgi(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.stgi()


@microcode("CLGI")
def clgi(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.clgi()


@microcode("VMMCALL")
def vmmcall(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.vmmcall()


@microcode("INVLPGA")
def invlpga(cpu: Processor, ins: Decoded) -> None:
    cpu.svm.invlpga()


@microcode("SKINIT")
def skinit(cpu: Processor, ins: Decoded) -> None:
    raise fault(Vector.UD)  # CPUID does not announce it
