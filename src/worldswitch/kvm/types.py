"""The structures of the KVM API that a vCPU's ioctls take and give, and the small enums of its run loop."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum, IntFlag


class MpState(Enum):
    """KVM_MP_STATE_*."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4


class Request(IntFlag):
    """KVM_REQ_*: what the run loop must do before the next entry."""

    EVENT = 1 << 0
    TRIPLE_FAULT = 1 << 1
    TLB_FLUSH = 1 << 2
    UNBLOCK = 1 << 3


@dataclass(frozen=True, slots=True)
class Regs:
    """kvm_regs: general registers, RIP, RFLAGS."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """kvm_segment, with the attribute bits together as access rights in the VMX format."""

    selector: int
    base: int
    limit: int
    ar: int


@dataclass(frozen=True, slots=True)
class Sregs:
    """kvm_sregs: segments, descriptor tables, control registers, EFER, APIC base."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment
    ldt: Segment
    gdt: tuple[int, int]
    """(base, limit)"""
    idt: tuple[int, int]
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    apic_base: int


def einval(what: str) -> OSError:
    """The error of an ioctl with an impossible argument."""
    return OSError(errno.EINVAL, what)
