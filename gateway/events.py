"""The vocabulary: every type that travels through the gateway, and nothing else.

This module imports nothing of ours, and everything of ours may import it. Times are integers in
nanoseconds on the *stream clock*: the host's monotonic clock in the daemon, UTC in a replay.
:func:`to_record` is the one place where they become text.

=============  ==========================================  =================================
type           from                                        to
=============  ==========================================  =================================
``Scans``      seismic drivers                             ``gateway.clock``
``Packet``     ``gateway.clock``, waveform files           ``gateway.detect``, the data feed
``Reading``    scalar drivers, CSV files                   ``gateway.detect``, the data feed
``Measured``   ``gateway.detect``                          the data feed
``Diagnostic`` drivers of both kinds                       health
``Candidate``  ``gateway.detect``                          coincidence only, never published
``Observed``   ``gateway.detect``                          the plan only, never published
``Event``      ``gateway.detect``, ``gateway.plan``, core  the record feed, the hub
=============  ==========================================  =================================
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import Any, Literal, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

NS = 1_000_000_000
MICRO = 1_000_000
BEIJING = timezone(timedelta(hours=8))
"""Time of Chinese services, records and forms, whatever the host's zone."""

Quantity = Literal[
    "rain_mm",
    "rain_total_mm",
    "rain_mmph",
    "wind_mps",
    "gust_mps",
    "pm25_ugm3",
    "water_level_m",
    "contact",
]
"""What a reading may measure; the unit is in the name."""

Late = Callable[[], float | None]
"""A number that is worked out when it is published, so that no siren waits for it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  UTC, written by hand in a third of the time


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T]) -> type[_T]:
    """A dataclass that nobody changes, and is compared and hashed by its fields.

    The type checker sees to that alone. One that is frozen at run time sets each field by a call,
    which takes four times as long; several of them are made between a reading and a siren.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


class Level(IntEnum):
    """Warning levels of China's four-colour scale (预警信号), lowest first."""

    none = 0
    blue = 1
    yellow = 2
    orange = 3
    red = 4


class Hazard(StrEnum):
    """Hazards that a plan can be written for."""

    earthquake = "earthquake"
    rainstorm = "rainstorm"
    typhoon = "typhoon"
    flood = "flood"
    air_pollution = "air_pollution"
    fire = "fire"


class Status(StrEnum):
    """CAP 1.2 ``status``: what a message is for. Order of precedence is Actual, Exercise, Test."""

    actual = "Actual"
    exercise = "Exercise"
    test = "Test"


STATUS_RANK = {Status.test: 0, Status.exercise: 1, Status.actual: 2}
"""Which status goes before which."""


class Phase(StrEnum):
    """Where an alert stands in its life."""

    alert = "alert"
    update = "update"
    cancel = "cancel"
    expire = "expire"


# --- what drivers give --------------------------------------------------------------------------


@frozen
class Scans:
    """Sample sets that one ``feed`` call completed, not yet placed in time.

    ``samples`` has shape (channels, n), int32 counts. ``arrival_ns`` is the host time at which the
    last byte of the last scan was read. ``index`` counts scans since the driver's first one,
    scans known to be lost included, so that a jump in it is a gap. ``device_utc_ns`` is the
    device's own UTC of the first scan where the device says that it is locked to a reference.
    """

    arrival_ns: int
    index: int
    rate_hz: float
    samples: NDArray[np.int32]
    device_utc_ns: int | None = None


@frozen
class Reading:
    """One scalar measurement.

    ``quantity`` is one of :data:`Quantity`. ``micro`` is the value in millionths of its unit, an
    exact integer parsed from decimal text; None says that the value is missing. ``time_ns`` is the
    end of the interval.
    """

    sensor: str
    time_ns: int
    quantity: str
    micro: int | None


@frozen
class Diagnostic:
    """Something a driver met that is not data: garbage, a late reply, a boot banner.

    ``kind`` is a short stable word (``garbage``, ``checksum``, ``unsolicited``, ``no_answer``,
    ``lost``, ``reboot``, ``lens_bad``, ``mismatch`` …); ``count`` how many bytes, frames or times.
    """

    kind: str
    count: int = 1
    detail: str = ""


@frozen
class SirenState:
    """What a siren device says of itself. ``on`` is None while it is not known."""

    siren: str
    on: bool | None


# --- what the clock and files give --------------------------------------------------------------


@frozen
class Packet:
    """Samples of one digitiser placed in time.

    ``samples`` has shape (channels, n), int32 counts or float64; NaN marks a missing sample.
    ``start_ns`` is the time of the first column. ``offsets_ns``, where given, holds for each
    channel how much later than the column it was really sampled (rows are aligned to the nearest
    sample); it is added to the times of that channel's events.
    """

    sensor: str
    start_ns: int
    rate_hz: float
    samples: NDArray[np.int32] | NDArray[np.float64]
    offsets_ns: tuple[int, ...] = ()


# --- what detection gives -----------------------------------------------------------------------


@frozen
class Candidate:
    """A low-threshold trigger. It may vote in a coincidence and is never an onset by itself."""

    channel: str
    time_ns: int
    ratio: float

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class Onset:
    """A declared P arrival. ``declared_ns`` is the last sample that was needed to say so.

    ``quality`` runs from 0 (best) to 4 as in the usual pick weights.
    """

    channel: str
    time_ns: int
    declared_ns: int
    ratio: float
    snr_db: float
    polarity: Literal["up", "down", "unknown"] = "unknown"
    quality: int = 4

    @property
    def decided_ns(self) -> int:
        return self.declared_ns


@frozen
class Rejected:
    """A trigger that was looked at and not taken for an onset, with the reason."""

    channel: str
    time_ns: int
    declared_ns: int
    reason: str

    @property
    def decided_ns(self) -> int:
        return self.declared_ns


def _not_said() -> None:
    return None


@frozen
class GroundMotion:
    """Shaking of one sensor since its onset, in physical units.

    ``pga`` m/s², ``pgv`` m/s, ``pgd`` m, ``pd`` and ``pd_max`` m, ``tau_c`` s, ``cav`` m/s;
    ``intensity`` is the instrumental intensity of GB/T 17742-2020 observed so far and
    ``predicted`` the intensity that Pd foretells (None outside its limits). ``jma`` is the JMA
    seismic intensity and ``mmi`` the modified Mercalli intensity observed so far, for people who
    know those scales; None where they can't be said. ``standard`` is False with fewer than three
    components, which makes every scale read low. ``sustained`` says
    that shaking in the local band has lasted long enough, on enough components, to be more than
    a knock; ``lasting`` (not published) names those that shake so at this time.
    ``whole_second`` marks the values that are published.
    """

    station: str
    time_ns: int
    since_ns: int
    pga: float
    pgv: float
    pgd: float
    pd: float | None
    pd_max: float | None
    tau_c: float | None
    cav: float
    intensity: float
    predicted: float | None
    components: int
    standard: bool
    sustained: bool
    final: bool = False
    channels: tuple[str, ...] = ()
    jma: Late = _not_said
    mmi: Late = _not_said
    lasting: tuple[str, ...] = field(default=(), metadata={"hidden": True})
    whole_second: bool = field(default=True, metadata={"hidden": True})

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class Coincidence:
    """Enough sensors of a site (or stations of a network) triggered together."""

    scope: Literal["site", "network"]
    station: str
    time_ns: int
    channels: tuple[str, ...]
    votes: int

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class Quality:
    """Something is wrong, or right again, with a channel's data.

    ``kind`` is one of gap, overlap, spike, flat, clipped, noise, dead, clock, invalid, polarity,
    threshold, recovered; of gauges also reset, bounce, blocked, steady, endless, indicative.
    ``decided_ns`` (not published) is the sample that was needed to say so; ``ended`` (neither)
    the kind that a recovery ends.
    """

    channel: str
    kind: str
    time_ns: int
    detail: str = ""
    decided: int | None = field(default=None, metadata={"hidden": True})
    ended: str = field(default="", metadata={"hidden": True})

    @property
    def decided_ns(self) -> int:
        return self.time_ns if self.decided is None else self.decided


@frozen
class ChannelReport:
    """An hour of one channel: how complete and how quiet it was.

    ``completeness`` is the share of its seconds that came whole. ``rms`` is the RMS in counts of
    the seconds without a trigger, by band; None where there were none. ``trigger_on`` is the
    threshold from now on.
    """

    channel: str
    since_ns: int
    time_ns: int
    completeness: float
    rms: dict[str, float | None]
    gaps: int
    spikes: int
    flat_s: int
    clipped_s: int
    trigger_on: float

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class LevelChange:
    """A threshold scale reached another level, or ``none`` when it ended.

    ``value`` and ``unit`` are what decided; ``window_h`` is the window of a rolling sum or mean.
    ``complete`` is False where readings in the window are missing. ``values`` (not published) is
    all that the scale knows at that time.
    """

    sensor: str
    hazard: Hazard
    level: Level
    time_ns: int
    value: float
    unit: str
    window_h: float | None = None
    complete: bool = True
    scale: str = ""
    values: dict[str, float] = field(default_factory=dict, metadata={"hidden": True})

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class Observed:
    """What a scale makes of a sensor's readings, for plans that judge it; never published.

    The names of ``values`` carry the units.
    """

    sensor: str
    hazard: Hazard
    scale: str
    time_ns: int
    values: dict[str, float]

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class RainDay:
    """Rain of one day as Chinese services count it, in UTC+08:00.

    A ``meteorological`` day is (20:00, 20:00] and named after the date on which it ends, a
    ``hydrological`` one (08:00, 08:00] and named after the date on which it begins. ``first_half``
    is what fell in its first twelve hours. ``missing`` counts readings that were missing;
    ``complete`` is true only of a day that was watched from beginning to end without any.
    ``over`` is false for a day that the end of a recording has cut short.
    """

    sensor: str
    kind: Literal["meteorological", "hydrological"]
    day: str
    time_ns: int
    mm: float
    first_half_mm: float
    second_half_mm: float
    missing: int
    complete: bool
    over: bool = True

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class Measured:
    """What is made of the readings of one sensor: sums, means, intensities, days so far.

    The names of ``values`` carry the units, as in ``gateway status``.
    """

    sensor: str
    time_ns: int
    values: dict[str, float]


# --- what the plan and the core give ------------------------------------------------------------


@frozen
class Alert:
    """One step in the life of an alert. The same ``id`` from first decision to the end.

    ``audiences`` are whom the plan wants to be told, ``event_code`` its CAP event as LIST=CODE,
    ``expires_ns`` until when this step is valid if no other follows. ``earlier`` holds the UTC
    times, as text, of the steps before this one; of many the latest.
    """

    id: str
    station: str
    hazard: Hazard
    level: Level
    phase: Phase
    status: Status
    time_ns: int
    reason: str
    text_zh: str = ""
    text_en: str = ""
    plan: str = ""
    inputs: dict[str, float | str | None] = field(default_factory=dict)
    audiences: tuple[str, ...] = ()
    event_code: str = ""
    expires_ns: int = 0
    earlier: tuple[str, ...] = ()

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class SirenAction:
    """A pattern started or ended on a siren (not its single edges)."""

    station: str
    siren: str
    alert: str
    action: Literal["on", "off"]
    pattern: str
    time_ns: int
    status: Status = Status.actual
    reason: str = ""

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class SirenCommand:
    """What the core tells a siren driver: sound until ``until_ns`` at the latest, or be silent."""

    siren: str
    on: bool
    until_ns: int = 0


@frozen
class Health:
    """A part's state changed: a stated degraded mode, or its end."""

    component: str
    state: Literal["ok", "degraded", "failed"]
    time_ns: int
    kind: str
    detail: str = ""
    count: int = 1

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class Reply:
    """What became of a command. ``command`` is its id; ``reason`` says why it was not obeyed."""

    command: str
    action: str
    outcome: Literal["accepted", "refused", "fired", "failed"]
    time_ns: int
    reason: str = ""
    by: str = ""

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class ArmingChange:
    """Whether the sirens may sound from now on. ``left_s`` is for how long; None: until changed."""

    mode: Literal["armed", "silent", "exercise", "disarmed"]
    time_ns: int
    by: str = ""
    left_s: float | None = None
    sound: Literal["silent", "chirp", "full"] = "full"

    @property
    def decided_ns(self) -> int:
        return self.time_ns


@frozen
class OfficialWarning:
    """A signed warning of the authorities began to hold here, or holds no longer.

    While it does, the scales that wait for it are in force. ``command`` is the id of the command
    that brought it, ``expires_ns`` the end of its validity.
    """

    hazard: Hazard
    level: Level
    state: Literal["in_force", "ended"]
    time_ns: int
    expires_ns: int
    command: str = ""
    by: str = ""
    reason: str = ""

    @property
    def decided_ns(self) -> int:
        return self.time_ns


Event = (
    Onset
    | Rejected
    | GroundMotion
    | Coincidence
    | Quality
    | ChannelReport
    | LevelChange
    | RainDay
    | OfficialWarning
    | Alert
    | SirenAction
    | Health
    | Reply
    | ArmingChange
)
"""The union of those that are published."""

Decision = Event | Candidate | Observed
"""What a detector may return."""

TYPE_NAMES: dict[type, str] = {
    Onset: "onset",
    Rejected: "rejected",
    GroundMotion: "ground_motion",
    Coincidence: "coincidence",
    Quality: "quality",
    ChannelReport: "channel_report",
    LevelChange: "level",
    RainDay: "rain_day",
    OfficialWarning: "warning",
    Alert: "alert",
    SirenAction: "siren",
    Health: "health",
    Reply: "reply",
    ArmingChange: "arming",
}

_DECIMALS = {
    "ratio": 2,
    "snr_db": 1,
    "intensity": 1,
    "predicted": 1,
    "jma": 1,
    "mmi": 1,
    "value": 4,
    "mm": 6,
    "first_half_mm": 6,
    "second_half_mm": 6,
}
_SIGNIFICANT = {"pga", "pgv", "pgd", "pd", "pd_max", "tau_c", "cav"}


def iso(time_ns: int) -> str:
    """UTC in ISO 8601 with six decimals and ``Z``, rounded half up to the microsecond."""
    moment = _NAIVE_EPOCH + timedelta(microseconds=(time_ns + 500) // 1000)
    return moment.isoformat(timespec="microseconds") + "Z"


def compact(time_ns: int) -> str:
    """The same in the basic format of ISO 8601, without dashes and colons, as ids have it."""
    days, us = divmod((time_ns + 500) // 1000, 86_400 * MICRO)
    day = date.fromordinal(_EPOCH_DAY + days)
    minutes, us = divmod(us, 60 * MICRO)
    return "%04d%02d%02dT%02d%02d%02d.%06dZ" % (  # noqa: UP031  half the time of an f-string
        *(day.year, day.month, day.day),
        *divmod(minutes, 60),
        *divmod(us, MICRO),
    )


def parse_iso(text: str) -> int:
    """Nanoseconds since 1970 of an ISO 8601 time; a time without a zone is UTC.

    Raises:
        ValueError: the text is no ISO 8601 time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return ((delta.days * 86_400 + delta.seconds) * MICRO + delta.microseconds) * 1000


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, float):
        if name in _DECIMALS:
            return round(value, _DECIMALS[name])
        if name in _SIGNIFICANT:
            return float(f"{value:.4g}")
    if isinstance(value, tuple):
        return list(value)
    return value


def to_record(event: Event, utc_offset_ns: int = 0) -> dict[str, Any]:
    """The published form of an event: plain JSON types, times as UTC text.

    ``utc_offset_ns`` is UTC minus stream clock, 0 in a replay. Numbers are rounded as the
    contract states (ratio 2 decimals, motion 4 significant digits, intensity 1 decimal), so that
    the same decisions give the same text however the input was cut.
    """
    record: dict[str, Any] = {"type": TYPE_NAMES[type(event)]}
    for spec in fields(event):
        if spec.metadata.get("hidden"):
            continue
        value = getattr(event, spec.name)
        if spec.name.endswith("_ns"):
            record[spec.name.removesuffix("_ns")] = iso(value + utc_offset_ns)
        else:
            record[spec.name] = _plain(spec.name, value() if callable(value) else value)
    return record


def parse_micro(text: str) -> int | None:
    """Exact millionths from decimal text; None for an empty cell.

    Raises:
        ValueError: not a decimal number, or finer than a millionth.
    """
    text = text.strip()
    if not text:
        return None
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.removeprefix("+"))
    whole, _, fraction = digits.partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdigit():
        raise ValueError(f"not a decimal number: {text!r}")
    if len(fraction.rstrip("0")) > 6:
        raise ValueError(f"finer than a millionth: {text!r}")
    return sign * (int(whole or "0") * MICRO + int(fraction[:6].ljust(6, "0")))
