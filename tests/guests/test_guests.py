"""The guest programs: binaries are what their sources assemble to, and all of them load."""

from __future__ import annotations

import pytest

from worldswitch.errors import ImageError
from worldswitch.guests import GUESTS, LOAD_ADDRESS, MAILBOX, load_guest
from worldswitch.guests.build import main, tools_missing


@pytest.mark.skipif(bool(tools_missing()), reason="binutils is not installed: " + ", ".join(tools_missing()))
def test_binaries_match_their_sources() -> None:
    assert main(["--check"]) == 0


@pytest.mark.parametrize("name", GUESTS)
def test_every_guest_loads(name: str) -> None:
    guest = load_guest(name)
    assert guest.name == name
    assert 0 < len(guest.binary) <= MAILBOX - LOAD_ADDRESS
    assert "_start:" in guest.source
    assert guest.description


def test_an_unknown_guest_names_those_there_are() -> None:
    with pytest.raises(ImageError) as missing:
        load_guest("doom")
    assert all(name in str(missing.value) for name in ("doom", *GUESTS))
