"""A board with the host kernel booted on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worldswitch.board import Board
from worldswitch.cpu.model import model_named
from worldswitch.host import Costs, Kernel
from worldswitch.trace import Recorder


@pytest.fixture
def boot() -> Callable[..., Kernel]:
    """Boots a kernel: 1 MHz, a tick every 4000 cycles, slices of 3000."""

    def make(vendor: str = "intel", *, processors: int = 1, costs: Costs | None = None, board: type[Board] = Board) -> Kernel:
        return Kernel(board(model_named(vendor), frequency_hz=1_000_000, processors=processors, memory_bytes=1 << 20, trace=Recorder()), costs=costs)

    return make
