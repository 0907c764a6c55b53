"""Settings of the seismic detector, with defaults that work, and channel sensitivities."""

import math
from dataclasses import dataclass
from typing import Literal

Unit = Literal["m/s", "m/s**2"]


@dataclass(frozen=True, slots=True)
class SeismicSettings:
    """``[detect.seismic]`` of gateway.toml. Times in s, frequencies in Hz, energy ratios."""

    band_hz: tuple[float, float] = (1.0, 10.0)
    sta_s: float = 0.5
    lta_s: float = 20.0
    trigger_on: float = 8.0
    trigger_off: float = 1.5
    min_duration_s: float = 0.2
    lta_freeze_max_s: float = 20.0
    candidate_band_hz: tuple[float, float] = (5.0, 25.0)
    candidate_on: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what can't work.

        Raises:
            ValueError: naming the key, what was seen and what is allowed.
        """
        for key in ("band_hz", "candidate_band_hz"):
            low, high = getattr(self, key)
            if not 0 < low < high < math.inf:
                raise ValueError(f"{key} = {[low, high]}: expected 0 < lower < upper corner")
        for key, least, below in (
            ("sta_s", 0.0, self.lta_s),
            ("lta_s", self.sta_s, 3600.0),
            ("trigger_on", 1.0, 1e6),
            ("trigger_off", 0.0, self.trigger_on),
            ("min_duration_s", 0.0, 10.0),
            ("lta_freeze_max_s", 0.0, 3600.0),
            ("candidate_on", 1.0, 1e6),
        ):
            value = getattr(self, key)
            if not least < value < below:
                raise ValueError(f"{key} = {value}: expected between {least:g} and {below:g}")


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Counts per unit of ground motion, as the overall sensitivity of a StationXML response."""

    counts_per_unit: float
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> "Sensitivity":
        """Read ``6e8:m/s`` or ``4.2e5:m/s**2``.

        Raises:
            ValueError: any other form, or a value that is not a positive finite number.
        """
        value, _, unit = text.partition(":")
        try:
            counts = float(value)
        except ValueError:
            counts = 0.0
        if unit not in ("m/s", "m/s**2") or not 0 < counts < float("inf"):
            raise ValueError(
                f"sensitivity {text!r}: expected counts per unit as 6e8:m/s or 4.2e5:m/s**2"
            )
        return cls(counts, unit)  # type: ignore[arg-type]  # checked above

    def __str__(self) -> str:
        """The text that :meth:`parse` reads."""
        return f"{self.counts_per_unit!r}:{self.unit}"
