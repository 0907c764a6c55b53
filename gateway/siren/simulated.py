"""What the simulated siren devices have in common: outputs that are noted when they change."""


class SimulatedOutputs:
    """The outputs of a device and its side of the line.

    ``relays`` says which outputs are on. Times are those at which an output really changes.
    """

    def __init__(self, count: int) -> None:
        self.relays = [False] * count
        self._in = bytearray()
        self._out = bytearray()
        self._changes: list[tuple[int, int, bool]] = []

    def changes(self) -> list[tuple[int, int, bool]]:
        """(time in ns, output counted from 1, on) of each change since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def powered(self, t: int) -> None:
        """Everything is off, and nothing has been said or heard."""
        self._in.clear()
        self._out.clear()
        for number in range(1, len(self.relays) + 1):
            self._set(number, False, t)

    def to_send(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def _set(self, number: int, on: bool, t: int) -> None:
        if self.relays[number - 1] is not on:
            self.relays[number - 1] = on
            self._changes.append((t, number, on))
