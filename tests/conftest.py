"""What all tests share: hypothesis runs the same examples every time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("worldswitch", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("worldswitch")
