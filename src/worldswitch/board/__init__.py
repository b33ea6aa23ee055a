"""The rest of the hardware: physical memory and ports, the event queue that moves time, local APICs, and N processors that advance in a deterministic order.

Relies on `cpu`; leaves every policy to the software that runs on it.
"""

from worldswitch.board.events import EventQueue, Timer
from worldswitch.board.lapic import ApicClock, Ipi, LocalApic
from worldswitch.board.machine import Board
from worldswitch.board.memory import MmioDevice, PhysicalMemory, PortDevice

__all__ = ["ApicClock", "Board", "EventQueue", "Ipi", "LocalApic", "MmioDevice", "PhysicalMemory", "PortDevice", "Timer"]
