"""Whether a module may be imported in the core process, found out by importing it in another one.

The core lives on the standard library without asyncio, ssl and sqlite3, numpy, pyserial, PyNaCl
and gpiod. A driver that pulls in more would cost memory, start-up time and real-time behaviour on
every station, so it is refused when the configuration is compiled.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

FORBIDDEN = ("asyncio", "ssl", "sqlite3")
"""Parts of the standard library that the core does without."""

ALLOWED = ("gateway", "numpy", "serial", "nacl", "cffi", "_cffi_backend", "gpiod")
"""Packages from elsewhere that the core may import, besides the driver's own."""

_PROBE = """
import importlib, json, os, sys
forbidden, allowed = json.loads(sys.argv[1])
import gateway.core.compiled
before = set(sys.modules)
for name in sys.argv[2:]:
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
            own = name.partition(".")[0]
            tops = {m.partition(".")[0] for m in set(sys.modules) - before}
            said = sorted(
                t for t in tops
                if t in forbidden
                or t not in sys.stdlib_module_names and t not in allowed and t != own
            )
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(said).encode()[:4096])
        os._exit(0)
    os.close(writing)
    os.wait()
    print(os.read(reading, 4096).decode())
    os.close(reading)
"""


def check(modules: Iterable[str]) -> dict[str, str]:
    """What is wrong with each module as part of the core; modules that are fine are left out.

    One process imports what the core has anyway and forks for each module, so that one module's
    imports do not hide another's.
    """
    names = tuple(sorted(set(modules)))
    return dict(_check(names, tuple(filter(None, sys.path)))) if names else {}


@cache
def _check(names: tuple[str, ...], path: tuple[str, ...]) -> dict[str, str]:
    command = [sys.executable, "-c", _PROBE, json.dumps([FORBIDDEN, ALLOWED]), *names]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and program
            command, capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        looked_at = list(zip(names, answers, strict=True))
    except (subprocess.SubprocessError, ValueError) as error:
        detail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        return dict.fromkeys(names, f"could not be looked at: {' '.join(detail)}")
    wrong = {}
    for name, said in looked_at:
        if isinstance(said, str):
            wrong[name] = f"can't be imported: {said}"
        elif said:
            wrong[name] = (
                f"imports {', '.join(said)}; expected only the standard library "
                f"(without {', '.join(FORBIDDEN)}), numpy, serial, nacl and gpiod"
            )
    return wrong
