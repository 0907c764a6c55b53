"""Whether the sensors measure what their channels' codes say and what the plans judge.

The second letter of an FDSN channel code names the instrument (FDSN Source Identifiers 1.0, "Source
and Subsource Codes"; SEED 2.4, appendix A):

======  ==========================  ==============================================================
letter  instrument                  its sensitivity is in counts per
======  ==========================  ==============================================================
H       high-gain seismometer       m/s
P       geophone                    m/s
N       accelerometer               m/s**2
L, G    low gain, gravimeter        either: accelerometers had these letters before the year 2000
======  ==========================  ==============================================================
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from gateway.config.faults import Fault
from gateway.config.plans import SHIPPED, Found, faulty
from gateway.core.compiled import Sensor
from gateway.detect.ground_motion import LOWEST_RATE_HZ, SUSTAINED_COMPONENTS
from gateway.detect.rain import QUANTITIES as RAIN
from gateway.detect.scale import RAIN as ANY_RAIN
from gateway.detect.scale import Scale
from gateway.detect.settings import Unit
from gateway.events import Hazard, Quantity
from gateway.plan.rules import Clause, Plan

MEASURES: dict[Unit, str] = {"m/s": "velocity", "m/s**2": "acceleration"}

_UNIT_OF: dict[str, Unit] = {"H": "m/s", "P": "m/s", "N": "m/s**2"}
_LETTER_OF: dict[Unit, str] = {"m/s": "H", "m/s**2": "N"}

_FROM_P = frozenset({"predicted_intensity", "pd_cm", "tau_c_s"})
_MADE_OF = {
    ANY_RAIN: RAIN,
    "gust_mps": ("gust_mps", "wind_mps"),  # where there is no gust, one is made of the wind
    "iaqi_24h": ("pm25_ugm3",),
}


def misnamed(code: str, unit: Unit) -> str:
    """What is wrong with the unit of a sensitivity for a channel's code; empty if nothing is."""
    named = _UNIT_OF.get(code[1:2], unit)
    if named == unit:
        return ""
    right = f"{code[0]}{_LETTER_OF[unit]}{code[2:]}"
    return (
        f"counts per {unit} on {code}, whose {code[1]} says {MEASURES[named]}; expected counts per "
        f"{named}, or a profile with {right} for a sensor of {MEASURES[unit]}"
    )


class Sensing:
    """What the sensors of a station measure, against what is asked of them.

    Args:
        sensors: all of them.
        gauged: quantities that those of them which are no seismometers give.
        scales: the scales in force.
    """

    def __init__(
        self, sensors: Iterable[Sensor], gauged: Iterable[str], scales: Sequence[Scale]
    ) -> None:
        self._gauged = frozenset(gauged)
        self._scales = scales
        seismic = [sensor for sensor in sensors if sensor.kind == "seismic"]
        measured = [sensor for sensor in seismic if sensor.rate_hz >= LOWEST_RATE_HZ]
        known = [c.id for sensor in measured for c in sensor.channels if c.sensitivity is not None]
        self._blind = ""
        """Why no shaking can be measured."""
        if not seismic:
            self._blind = "no sensor is a seismometer"
        elif not measured:
            self._blind = f"no seismometer samples at {LOWEST_RATE_HZ:g} Hz or more"
        elif not known:
            self._blind = "no channel has a sensitivity"
        elif len(known) < SUSTAINED_COMPONENTS:
            self._blind = (
                f"{known[0]} alone has a sensitivity, and shaking counts on two components only"
            )
        self._vertical = any(channel.endswith("Z") for channel in known)

    def disabled(self, plan: Plan) -> str:
        """Why a plan can never alert here; empty if it can."""
        reasons = [self.missing(plan.hazard, c) for rule in plan.levels for c in rule.when]
        return "" if not all(reasons) else reasons[0]

    def missing(self, hazard: Hazard, clause: Clause) -> str:
        """Why a clause never holds here; empty if it may."""
        found = (self._missing(hazard, condition.quantity) for condition in clause.conditions)
        return next((why for why in found if why), "")

    def _missing(self, hazard: Hazard, quantity: str) -> str:
        if hazard is Hazard.earthquake:
            if not self._blind and quantity in _FROM_P and not self._vertical:
                return "no vertical channel has a sensitivity"
            return self._blind
        if quantity in ("scale", "value"):
            read = {q for scale in self._scales if scale.hazard is hazard for q in scale.quantities}
            what = f", which a scale for {hazard} reads"
        else:
            read, what = {_plain(quantity)}, ""
        if not read or any(self._gauged & set(_MADE_OF.get(q, (q,))) for q in read):
            return ""
        return f"no sensor gives {' or '.join(sorted(read))}{what}"


def _plain(quantity: str) -> str:
    """The quantity of the readings that a plan's quantity is made of."""
    if quantity.startswith("rain_"):
        return ANY_RAIN
    return next((q for q in get_args(Quantity) if quantity.startswith(q)), quantity)


def check_measured(found: Found, sensing: Sensing) -> Iterator[Fault]:
    """Plans of the station's own, or single conditions of them, for which it has no sensor.

    The shipped ones hold at every station, whatever it measures.
    """
    for hazard, plan in found.plans.items():
        source = found.sources[hazard]
        if source.path.is_relative_to(SHIPPED):
            continue
        if why := sensing.disabled(plan):
            text = f"{hazard}; this plan never alerts here: {why}"
            yield faulty(source, "plan.hazard", text, warning=True)
            continue
        for rule in plan.levels:
            for index, clause in enumerate(rule.when):
                if why := sensing.missing(hazard, clause):
                    key = f"level.{rule.level.name}.when[{index}]"
                    yield faulty(source, key, f"'{clause}' never holds: {why}", warning=True)
