"""Settings of the seismic detector, with defaults that work, and channel sensitivities."""

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
