"""What the next core of this boot takes up, kept in memory: ``RUN/state``.

The journal is on a disk, and a disk may hang, fail or be full at the very moment at which the core
dies; then what its child had still to write is not there for the next core, whose siren would
stay silent. /run is memory: writing it waits for nothing and outlives the process, and a reboot or
a power cut empties it, after which nothing may resume anyway. The journal's state is what counts
then, and whenever this file is not of this boot.

One JSON object, replaced as a whole:

===========  ===================================================================================
key          meaning
===========  ===================================================================================
``boot``     the kernel's id of the boot in which it was written
``running``  true until an orderly end: found true, it says that a core died
``deaths``   when cores died in this boot, ns of CLOCK_BOOTTIME, the last few
``state``    what the journal's ``save_state`` is given too; null until it was for the first time
===========  ===================================================================================
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.core.journal_child import boot_id, boottime_ns

NAME: Final = "state"
MAX_DEATHS: Final = 8


@dataclass(slots=True)
class BootState:
    """The file, and what an earlier core of this boot has left in it.

    ``state`` is None where there is none of this boot; ``problem`` says what could not be read or
    written, and is empty again once writing works.
    """

    path: Path
    deaths: tuple[int, ...] = ()
    state: dict[str, Any] | None = None
    problem: str = ""
    _boot: str = field(default_factory=boot_id)

    @classmethod
    def take_over(cls, directory: Path) -> "BootState":
        """Read what is there and note that a core runs. Never raises: see ``problem``."""
        found = cls(directory / NAME)
        try:
            kept = json.loads(found.path.read_bytes())
            if kept["boot"] == found._boot:
                deaths = [int(at_ns) for at_ns in kept["deaths"]]
                died = [boottime_ns()] if kept["running"] else []
                found.deaths = (*deaths, *died)[-MAX_DEATHS:]
                found.state = None if kept["state"] is None else dict(kept["state"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, LookupError) as error:
            found.problem = f"{found.path}: {error!r}"
        problem = found.problem
        found.save(found.state)
        found.problem = found.problem or problem
        return found

    def deaths_within(self, span_ns: int) -> int:
        """How many cores died in this boot within the last ``span_ns``."""
        since = boottime_ns() - span_ns
        return sum(at_ns >= since for at_ns in self.deaths)

    def save(self, state: Mapping[str, Any] | None, *, running: bool = True) -> None:
        """Replace what is kept. What can't be replaced is removed: an old state must not resume."""
        kept = {"boot": self._boot, "running": running, "deaths": self.deaths, "state": state}
        fresh = self.path.with_suffix(".new")
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, json.dumps(kept, separators=(",", ":")).encode())
            finally:
                os.close(file)
            fresh.replace(self.path)
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}; a crash would end what sounds"
            for path in (fresh, self.path):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        else:
            self.problem = ""
