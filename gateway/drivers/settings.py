"""What a device is set to: how a setting is pushed, how it is read back, and who can't do either.

A driver that can set its device has a method ``settings()`` that gives a :class:`Setting` for each
thing that its options say about the device itself (not about what is made of its data). ``gateway
device`` does the exchanges; the core does not need them, as its drivers set what they rely on at
each opening.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and how its answer is read.

    ``answer`` is given everything that was heard since ``request`` was sent, data of the device in
    between, and gives the value that the device states; None while it has stated none. It raises
    ValueError, with the reason, where the device refuses.
    """

    request: bytes
    answer: Callable[[bytes], str | None]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a device.

    ``push`` sets it; the value in its answer is an echo, which says that the device heard. ``read``
    asks for what holds; None where the device has no such request. At least one is there.
    """

    name: str
    wanted: str
    push: Exchange | None = None
    read: Exchange | None = None
