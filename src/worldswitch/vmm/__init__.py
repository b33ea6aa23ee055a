"""User space: what a VMM does through KVM's API alone -- load images, set up registers, answer exits."""

from worldswitch.vmm.flat import FlatGuest, load_flat

__all__ = ["FlatGuest", "load_flat"]
