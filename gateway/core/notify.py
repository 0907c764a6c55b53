"""sd_notify(3): readiness, status and watchdog of a unit, over the socket that systemd names."""

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send a message such as ``READY=1`` to the service manager; without one nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
    ):
        sender.connect(address)
        sender.send(message.encode())
