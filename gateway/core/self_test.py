"""The sirens' silent self-test: at every start, once a day, and when a technician asks.

A siren is told to be silent, which it is, and has to be read back so: that proves power, cable,
adapter, address and the board's obedience, and nobody hears it. What it can't prove is the horn
behind the contact; ``gateway siren test`` lets that chirp. A siren that is wanted to sound is not
tested until it rests. Devices without read-back can prove nothing, and say so.

Pure: the caller tells the driver, and hands over what the driver says.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.events import NS

EVERY_NS: Final = 24 * 3600 * NS
AGAIN_NS: Final = 600 * NS
"""After a failed one."""
BUSY_NS: Final = 60 * NS
"""After one that was due while the siren was wanted to sound."""
ANSWER_NS: Final = 5 * NS
"""A Modbus board that is dead has said nothing three times within 0.6 s; a tower within 1.5 s."""

Result = Literal["waiting", "running", "passed", "failed", "unprovable"]


@dataclass(slots=True)
class _Test:
    result: Result
    since_ns: int
    due_ns: int
    detail: str = ""


class SelfTests:
    """All sirens by name; the value says whether the device can be read back.

    The first test begins with the making: opening a port silences the sirens on it and reads them
    back by itself.
    """

    def __init__(self, sirens: Mapping[str, bool], t: int) -> None:
        self._tests = {
            name: _Test("running", t, t + ANSWER_NS)
            if provable
            else _Test("unprovable", t, 1 << 62, "the device gives no answer")
            for name, provable in sirens.items()
        }

    def next_deadline(self) -> int | None:
        """When :meth:`tick` is next wanted."""
        return min((test.due_ns for test in self._tests.values()), default=None)

    def tick(self, t: int, busy: Collection[str]) -> tuple[list[str], list[str]]:
        """Sirens that are due for a test, and those that have just failed theirs.

        Those that are ``busy``, wanted to sound, are neither: theirs waits.
        """
        due, failed = [], []
        for name, test in self._tests.items():
            if t < test.due_ns:
                continue
            if name in busy:
                test.result, test.due_ns = "waiting", t + BUSY_NS
            elif test.result == "running":
                self._end(test, "failed", t, AGAIN_NS)
                failed.append(name)
            else:
                due.append(name)
        return due, failed

    def begin(self, name: str, t: int) -> bool:
        """The driver is about to be told; False where the device can prove nothing."""
        test = self._tests[name]
        if test.result == "unprovable":
            return False
        if test.result != "failed":  # its reason is said once by a driver, and still holds
            test.detail = ""
        test.result, test.since_ns, test.due_ns = "running", t, t + ANSWER_NS
        return True

    def heard(self, name: str, on: bool | None, wanted: bool, t: int) -> bool:
        """What the driver read back; True when that has passed a test, or healed a failed one."""
        test = self._tests.get(name)
        if test is None or wanted or on is not False or test.result not in ("running", "failed"):
            return False
        lasted_s = (t - test.since_ns) / NS
        text = f"silent, read back after {lasted_s:.2f} s" if test.result == "running" else ""
        self._end(test, "passed", t, EVERY_NS)
        test.detail = text or "silent, read back at last"
        return True

    def diagnosed(self, name: str, detail: str) -> None:
        """What the driver says is wrong: the reason if the test fails."""
        if (test := self._tests.get(name)) is not None and test.result == "running":
            test.detail = detail

    def detail(self, name: str) -> str:
        """What the last test found."""
        return self._tests[name].detail

    def status(self, name: str, t: int) -> dict[str, Any]:
        """For the technician, as plain JSON types."""
        test = self._tests.get(name)
        if test is None:
            return {}
        return {"result": test.result, "age_s": (t - test.since_ns) / NS, "detail": test.detail}

    def _end(self, test: _Test, result: Result, t: int, again_ns: int) -> None:
        test.result, test.since_ns, test.due_ns = result, t, t + again_ns
        if result == "failed" and not test.detail:
            test.detail = "not read back as silent; check its port, power and cable"
