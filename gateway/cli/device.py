"""``gateway device``: set a device by its profile, and prove by read-back that it took.

What can be set is what its driver's ``settings()`` give (:mod:`gateway.drivers.settings`). An echo
says that the device heard; only a read-back says what holds. Devices that have none say so.
"""

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import options, output
from gateway.cli.options import AsJson
from gateway.events import NS

if TYPE_CHECKING:
    from gateway.core.transport import Line
    from gateway.drivers.settings import Exchange, Setting

OPENING_NS = 3 * NS
ANSWER_NS = 3 * NS // 2
TRIES = 3
HEARD_LIMIT = 65_536
COLUMNS = ["setting", "profile", "device", "proof"]

READ_BACK = "read back"
ECHO = "echo only: the device has no read-back"
NONE = "none: the device has no read-back; push sets it again"
NO_ANSWER = "no answer"
_PROVEN = frozenset({READ_BACK, ECHO})

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Set a device by its profile, and prove by read-back that it took.",
)

ProfileName = Annotated[str, typer.Argument(metavar="PROFILE", help="The device's profile.")]
PortPath = Annotated[str, typer.Argument(metavar="PORT", help="Its port.")]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="An option of the driver, over the profile's."
    ),
]


@app.callback()
def _device() -> None:
    """Devices' settings. Exit codes: 0 as the profile says, 1 not or not known, 2 wrong use.

    The core has the device's port while it runs: stop it first.
    """


@app.command()
def push(
    profile: ProfileName, port: PortPath, option: Option = None, *, as_json: AsJson = False
) -> None:
    """Set everything that the profile says. It is read back where the device lets it be read."""
    rows = []
    with _opened(profile, port, option) as (line, settings):
        for setting in settings:
            echoed = _told(line, setting.push) if setting.push else (None, NONE)
            rows.append(_row(setting, _read(line, setting, echoed)))
    _conclude(rows, as_json=as_json)


@app.command()
def verify(
    profile: ProfileName, port: PortPath, option: Option = None, *, as_json: AsJson = False
) -> None:
    """Compare what the device says with the profile; sets nothing."""
    _conclude(_rows(profile, port, option), as_json=as_json)


@app.command()
def show(
    profile: ProfileName, port: PortPath, option: Option = None, *, as_json: AsJson = False
) -> None:
    """Say what the device is set to; sets nothing."""
    rows = _rows(profile, port, option)
    output.show(rows, COLUMNS, as_json=as_json)
    if any(row["proof"] not in (READ_BACK, NONE) for row in rows):
        raise typer.Exit(output.FAULT)


@app.command()
def diff(
    profile: ProfileName, port: PortPath, option: Option = None, *, as_json: AsJson = False
) -> None:
    """Say only what differs from the profile; sets nothing."""
    rows = [row for row in _rows(profile, port, option) if row["proof"] != NONE]
    rows = [row for row in rows if row["device"] != row["profile"]]
    if rows:
        output.show(rows, COLUMNS, as_json=as_json)
        raise typer.Exit(output.FAULT)


def _rows(profile: str, port: str, option: list[str] | None) -> list[dict[str, Any]]:
    with _opened(profile, port, option) as (line, settings):
        return [_row(setting, _read(line, setting, (None, NONE))) for setting in settings]


def _row(setting: "Setting", found: tuple[str | None, str]) -> dict[str, Any]:
    device, proof = found
    name = {"setting": setting.name, "profile": setting.wanted}
    return {**name, "device": "unknown" if device is None else device, "proof": proof}


def _conclude(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    output.show(rows, COLUMNS, as_json=as_json)
    wrong = [row for row in rows if row["proof"] in _PROVEN and row["device"] != row["profile"]]
    unknown = [row for row in rows if row["proof"] not in _PROVEN]
    if wrong or unknown:
        said = [f"{row['setting']} differs" for row in wrong]
        said += [f"{row['setting']} is not known ({row['proof']})" for row in unknown]
        output.fail("; ".join(said))


# --- the line -------------------------------------------------------------------------------------


@contextmanager
def _opened(
    profile: str, port: str, option: list[str] | None
) -> "Iterator[tuple[Line, list[Setting]]]":
    """The port, open, and the settings that the profile's driver knows."""
    from gateway import drivers
    from gateway.config.faults import ConfigError
    from gateway.core.compiled import Port
    from gateway.core.transport import Line
    from gateway.drill import devices

    try:
        chosen = devices.profile_of(profile, options.CONFIG)
        over = {**chosen.driver, **devices.read_assignments(option or ())}
        if chosen.profile.kind == "siren":
            output.fail(
                f"{profile} is a siren, which has nothing to set; prove it with gateway siren test",
                output.WRONG_USE,
            )
        driver = drivers.load(chosen.profile.driver)(over, "device")
    except (ConfigError, KeyError, ValueError) as error:
        output.fail(str(error), output.WRONG_USE)
    settings = driver.settings() if hasattr(driver, "settings") else []
    if not settings:
        output.fail(
            f"{profile}: nothing of this device can be set from here; see docs/devices.md",
            output.WRONG_USE,
        )
    line = Line(Port(port, **chosen.port.model_dump() if chosen.port else {}))
    try:
        _open(line)
        yield line, settings
    finally:
        line.close()


def _open(line: "Line") -> None:
    began, reason = time.monotonic_ns(), ""
    while line.fileno() is None:
        for event in line.tick(time.monotonic_ns()):
            reason = event.reason or reason
        if "in use" in reason:
            output.fail(f"{reason}; if that is the core: systemctl stop gateway-core")
        if time.monotonic_ns() - began > OPENING_NS:
            output.fail(reason or f"{line.port.path}: did not open")
        if line.fileno() is None:
            select.select([], [], [], 0.05)


def _read(
    line: "Line", setting: "Setting", echoed: tuple[str | None, str]
) -> tuple[str | None, str]:
    """What the device says it is set to, and how that is known; else what it echoed."""
    if setting.read is None:
        return echoed
    value, proof = _told(line, setting.read)
    return value, READ_BACK if proof == ECHO else proof


def _told(line: "Line", exchange: "Exchange") -> tuple[str | None, str]:
    """One exchange, tried again where nothing answers."""
    for _ in range(TRIES):
        line.read(time.monotonic_ns())
        line.write(exchange.request)
        heard = b""
        end = time.monotonic_ns() + ANSWER_NS
        while (left := end - time.monotonic_ns()) > 0:
            fd = line.fileno()
            if fd is None or not select.select([fd], [], [], left / NS)[0]:
                break
            heard = (heard + line.read(time.monotonic_ns()))[-HEARD_LIMIT:]
            try:
                if (value := exchange.answer(heard)) is not None:
                    return value, ECHO
            except ValueError as error:
                return None, f"refused: {error}"
            if line.next_deadline() == 0:
                output.fail(f"{line.port.path} was lost; plug the device in and try again")
    return None, NO_ANSWER
