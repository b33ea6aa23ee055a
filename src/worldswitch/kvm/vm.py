"""A VM: memory slots, the second-level page table, vCPUs, and the interrupt chips between them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worldswitch.arch.vmx import ActivityState
from worldswitch.board.lapic import Ipi
from worldswitch.cpu.processor import Processor
from worldswitch.kvm.host import HostCpu, HostKernel
from worldswitch.kvm.mmu import EPT, NPT, TdpMmu
from worldswitch.kvm.types import einval
from worldswitch.kvm.vcpu import Vcpu

if TYPE_CHECKING:
    from worldswitch.kvm.system import Kvm

#: KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES
MEM_LOG_DIRTY_PAGES: Final = 1 << 0
MEM_READONLY: Final = 1 << 1
_PAGE: Final = 4096
_MAX_SLOTS: Final = 509
_MAX_VCPUS: Final = 64


@dataclass(frozen=True, slots=True)
class MemSlot:
    """One memory slot: guest-physical range, and where the host has pinned the user memory behind it."""

    slot: int
    gpa: int
    size: int
    flags: int
    physical: int
    buffer: memoryview

    @property
    def readonly(self) -> bool:
        """KVM_MEM_READONLY."""
        return bool(self.flags & MEM_READONLY)

    @property
    def tracked(self) -> bool:
        """Mapped page by page, for the dirty log."""
        return bool(self.flags & MEM_LOG_DIRTY_PAGES)


class Vm:
    """One virtual machine. Methods are named after the ioctls."""

    def __init__(self, kvm: Kvm) -> None:
        self.kvm = kvm
        self.kernel: HostKernel = kvm.kernel
        self.host = kvm.kernel
        self.ops = kvm.ops
        self.irqchip = False
        self.vcpus: dict[int, Vcpu] = {}
        self.slots: dict[int, MemSlot] = {}
        self.mmu = TdpMmu(self, EPT if kvm.ops.name == "vmx" else NPT)

    @property
    def processor(self) -> Processor:
        """A processor whose features the VM's vCPUs have."""
        return self.kernel.cpus[0].processor

    def quiet_cpu(self) -> HostCpu:
        """A processor on which an ioctl can execute: one that is not in a guest. EBUSY if there is none."""
        for cpu in self.kernel.cpus:
            if cpu.processor.guest is None and cpu.processor.state.activity == ActivityState.ACTIVE:
                return cpu
        raise OSError(errno.EBUSY, "every processor is in a guest")

    # Memory.

    def slot_of(self, gpa: int) -> MemSlot | None:
        """The slot that backs a guest-physical address."""
        for slot in self.slots.values():
            if slot.gpa <= gpa < slot.gpa + slot.size:
                return slot
        return None

    def set_user_memory_region(self, slot: int, guest_phys_addr: int, buffer: bytearray | memoryview | None, flags: int = 0) -> None:
        """KVM_SET_USER_MEMORY_REGION. `buffer` is the user memory, whole pages; None (a size of 0) deletes the slot.

        EINVAL: unaligned, unknown flags, no such slot to delete, another size for an existing slot. EEXIST: overlaps another slot.
        """
        if not 0 <= slot < _MAX_SLOTS or guest_phys_addr % _PAGE or guest_phys_addr < 0 or flags & ~3:
            raise einval(f"slot {slot}, guest_phys_addr {guest_phys_addr:#x}, flags {flags:#x}")
        old = self.slots.get(slot)
        if buffer is None or len(memoryview(buffer)) == 0:
            if old is None:
                raise einval(f"slot {slot} does not exist")
            self.host.unmap_user(old.physical)
            del self.slots[slot]
            self.mmu.zap_all()
            self._flush()
            return
        view = memoryview(buffer).cast("B")
        size = len(view)
        if size % _PAGE or view.readonly or guest_phys_addr + size > 1 << self.processor.model.physical_bits:
            raise einval(f"{size} bytes at {guest_phys_addr:#x}")
        if old is not None and old.size != size:
            raise einval(f"slot {slot} has {old.size} bytes, not {size}")
        for other in self.slots.values():
            if other.slot != slot and other.gpa < guest_phys_addr + size and guest_phys_addr < other.gpa + other.size:
                raise OSError(errno.EEXIST, f"slot {slot} overlaps slot {other.slot}")
        if old is not None:
            self.host.unmap_user(old.physical)
        self.slots[slot] = MemSlot(slot, guest_phys_addr, size, flags, self.host.map_user(view), view)
        self.mmu.zap_all()
        self._flush()

    def _flush(self) -> None:
        """kvm_flush_remote_tlbs: no processor may use the old translations."""
        for cpu in self.kernel.cpus:
            cpu.processor.mmu.context_changed()

    def read_guest(self, gpa: int, size: int) -> bytes:
        """kvm_read_guest: bytes of guest memory. EFAULT outside of the slots."""
        result = b""
        while size:
            slot = self.slot_of(gpa)
            if slot is None:
                raise OSError(errno.EFAULT, f"guest-physical {gpa:#x} is in no slot")
            at = gpa - slot.gpa
            piece = slot.buffer[at : at + size]
            result += bytes(piece)
            gpa, size = gpa + len(piece), size - len(piece)
        return result

    def write_guest(self, gpa: int, data: bytes) -> None:
        """kvm_write_guest. EFAULT outside of the slots, and then nothing was written."""
        self.read_guest(gpa, len(data))
        while data:
            slot = self.slot_of(gpa)
            assert slot is not None
            count = min(len(data), slot.gpa + slot.size - gpa)
            self.host.memory.write_block(slot.physical + gpa - slot.gpa, data[:count])
            gpa, data = gpa + count, data[count:]

    # vCPUs and interrupts.

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: vCPUs get local APICs. EEXIST if there is one; EINVAL once a vCPU exists."""
        if self.irqchip:
            raise OSError(errno.EEXIST, "the VM has an irqchip")
        if self.vcpus:
            raise einval("vCPUs exist already")
        self.irqchip = True

    def create_vcpu(self, vcpu_id: int = 0) -> Vcpu:
        """KVM_CREATE_VCPU. EEXIST, EINVAL."""
        if not 0 <= vcpu_id < _MAX_VCPUS:
            raise einval(f"vCPU id {vcpu_id}")
        if vcpu_id in self.vcpus:
            raise OSError(errno.EEXIST, f"vCPU {vcpu_id} exists")
        vcpu = Vcpu(self, vcpu_id)
        self.vcpus[vcpu_id] = vcpu
        return vcpu

    def route_ipi(self, ipi: Ipi) -> None:
        """An IPI between the VM's local APICs."""
        for vcpu in self.vcpus.values():
            if vcpu.apic is not None and (ipi.shorthand >= 2 or vcpu.apic.addressed_by(ipi)):
                vcpu.apic.accept_ipi(ipi)

    def signal_msi(self, address: int, data: int) -> bool:
        """KVM_SIGNAL_MSI: True if a local APIC accepted it (SDM vol. 3 §11.11). EINVAL without irqchip."""
        if not self.irqchip:
            raise einval("the VM has no irqchip")
        taken = False
        for vcpu in self.vcpus.values():
            if vcpu.apic is not None and vcpu.apic.apic_id == address >> 12 & 0xFF:
                taken |= vcpu.apic.deliver(data & 0xFF, "msi")
        return taken
