"""RFC 2217, Telnet com port control: the client's side of a line on a terminal server, sans-IO.

Facts: RFC 854 (Telnet), RFC 2217. Everything is data but what begins with IAC (255):

=======================================  ===================================================
bytes                                    meaning
=======================================  ===================================================
``FF FF``                                one byte 255 of data
``FF FB|FC|FD|FE`` option                WILL, WONT, DO, DONT
``FF FA 2C`` command value ``FF F0``     com port control; 255 in the value is doubled
=======================================  ===================================================

Commands (client): 1 baud, 4 bytes; 2 data bits; 3 parity, 1 none, 2 odd, 3 even; 4 stop bits, 1 or
2; 5 control, 8 and 9 DTR on and off, 11 and 12 RTS on and off. The server answers with 100 more and
the value that holds.
"""

from enum import Enum, auto
from typing import Final

from gateway.core.compiled import Port

IAC, SB, SE = 255, 250, 240
WILL, WONT, DO, DONT = 251, 252, 253, 254
BINARY, SUPPRESS_GO_AHEAD, COM_PORT = 0, 3, 44
OURS: Final = frozenset({BINARY, SUPPRESS_GO_AHEAD, COM_PORT})
BAUD, SIZE, PARITY, STOP, CONTROL = 1, 2, 3, 4, 5
ANSWER: Final = 100
LONGEST: Final = 64
"""Bytes of a command; more are no command."""


class _State(Enum):
    data = auto()
    iac = auto()
    option = auto()
    command = auto()
    command_iac = auto()


class Rfc2217:
    """The codec of one connection. ``port``: how the line is to be set."""

    def __init__(self, port: Port) -> None:
        self._wanted = {
            BAUD: port.baud.to_bytes(4, "big"),
            SIZE: bytes((port.bytesize,)),
            PARITY: bytes(("NOE".index(port.parity) + 1,)),
            STOP: bytes((port.stopbits,)),
        }
        self._control = (9 if port.dtr == "low" else 8, 12 if port.rts == "low" else 11)
        self._state = _State.data
        self._verb = 0
        self._command = bytearray()
        self._agreed: set[tuple[int, int]] = set()
        self._unanswered = dict(self._wanted)
        self.refused = ""
        """Why the server can't be used; "" while it can."""

    @property
    def ready(self) -> bool:
        """The line is set as wanted."""
        return not self._unanswered and not self.refused

    def begin(self) -> bytes:
        """What is said first."""
        offers = [(WILL, BINARY), (DO, BINARY), (WILL, SUPPRESS_GO_AHEAD)]
        offers += [(DO, SUPPRESS_GO_AHEAD), (WILL, COM_PORT)]
        self._agreed.update(offers)
        return b"".join(bytes((IAC, verb, option)) for verb, option in offers)

    @staticmethod
    def encode(data: bytes) -> bytes:
        """Data for the line."""
        return data.replace(b"\xff", b"\xff\xff")

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Data from the line, and what is to be answered. Takes any bytes."""
        if self._state is _State.data and IAC not in data:
            return data, b""
        found, reply = bytearray(), bytearray()
        for byte in data:
            if self._state is _State.data:
                if byte == IAC:
                    self._state = _State.iac
                else:
                    found.append(byte)
            else:
                self._escaped(byte, found, reply)
        return bytes(found), bytes(reply)

    def _escaped(self, byte: int, found: bytearray, reply: bytearray) -> None:
        match self._state:
            case _State.iac:
                self._state = _State.data
                if byte == IAC:
                    found.append(byte)
                elif byte == SB:
                    self._command.clear()
                    self._state = _State.command
                elif byte in (WILL, WONT, DO, DONT):
                    self._verb = byte
                    self._state = _State.option
            case _State.option:
                self._state = _State.data
                reply += self._negotiated(self._verb, byte)
            case _State.command if byte == IAC:
                self._state = _State.command_iac
            case _State.command_iac if byte == SE:
                self._state = _State.data
                self._obeyed(bytes(self._command))
            case _:
                self._state = _State.command
                if len(self._command) < LONGEST:
                    self._command.append(byte)

    def _negotiated(self, verb: int, option: int) -> bytes:
        if verb in (WONT, DONT):
            if option == COM_PORT:
                self.refused = "the peer speaks Telnet without com port control (RFC 2217)"
            return b""
        if verb == DO and option == COM_PORT:
            return self._settings()
        answer = (DO if verb == WILL else WILL) if option in OURS else self._no(verb)
        if (answer, option) in self._agreed:
            return b""
        self._agreed.add((answer, option))
        return bytes((IAC, answer, option))

    @staticmethod
    def _no(verb: int) -> int:
        return DONT if verb == WILL else WONT

    def _settings(self) -> bytes:
        commands = [*self._wanted.items(), *((CONTROL, bytes((c,))) for c in self._control)]
        return b"".join(
            bytes((IAC, SB, COM_PORT, number)) + self.encode(value) + bytes((IAC, SE))
            for number, value in commands
        )

    def _obeyed(self, command: bytes) -> None:
        if len(command) < 2 or command[0] != COM_PORT or command[1] <= ANSWER:
            return
        number, value = command[1] - ANSWER, command[2:]
        wanted = self._unanswered.get(number)
        if wanted is None:
            return
        if value == wanted:
            del self._unanswered[number]
        else:
            what = {BAUD: "baud", SIZE: "data bits", PARITY: "parity", STOP: "stop bits"}[number]
            has, want = int.from_bytes(value, "big"), int.from_bytes(wanted, "big")
            self.refused = f"the peer's line has {what} {has}; it was told {want}"
