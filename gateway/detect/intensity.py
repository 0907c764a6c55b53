"""Instrumental seismic intensity from peak ground motion, observed or foretold.

Observed: GB/T 17742-2020 (The Chinese seismic intensity scale), instrumental intensity. Peak
ground acceleration and velocity are the largest vector sums of the three components after the
0.1–10 Hz band-pass; each gives an intensity of its own and the two are joined by
:func:`instrumental_intensity`.

Foretold: the peak velocity that is still to come, from the peak displacement Pd of the first
seconds of the P wave (Wu, Kanamori, Allen & Hauksson 2007, Geophys. J. Int. 170, 711–717: southern
California and Taiwan together; standard deviation 0.326 in lg PGV, that is ± 1.0 degree here).

Besides, for those who think in it: modified Mercalli intensity by Worden, Gerstenberger, Rhoades &
Wald (2012, Bull. Seism. Soc. Am. 102, 204–221; standard deviation 0.63 for PGV), from the peak
velocity of the larger horizontal component, as ShakeMap 4 does for its stations. The paper was not
at hand: the constants, the lowest segment among them, are those of ShakeMap's own source.
"""

import math

FELT_PGA_MPS2 = 10.0 ** ((1.5 - 6.59) / 3.17)
"""Acceleration at which intensity II, "felt by a few people at rest", begins: 0.025 m/s²."""

_MMI_SEGMENTS = ((0.53, 2.89, 3.16), (-1.21, 3.78, 1.47), (-math.inf, 4.62, 2.17))
"""From which lg PGV (cm/s) on, and MMI = second + third · lg PGV."""
_MMI_HIGHEST = 10.0

_LOWEST = 1.0
_HIGHEST = 12.0


def from_acceleration(pga_mps2: float) -> float:
    """I_A = 3.17 lg PGA + 6.59, not limited; −inf where there is no motion."""
    return 3.17 * math.log10(pga_mps2) + 6.59 if pga_mps2 > 0 else -math.inf


def from_velocity(pgv_mps: float) -> float:
    """I_V = 3.00 lg PGV + 9.77, not limited; −inf where there is no motion."""
    return 3.00 * math.log10(pgv_mps) + 9.77 if pgv_mps > 0 else -math.inf


def limited(intensity: float) -> float:
    """An intensity within the scale's 1…12 and to its one decimal."""
    return round(min(max(intensity, _LOWEST), _HIGHEST), 1)


def instrumental_intensity(pga_mps2: float, pgv_mps: float) -> float:
    """Instrumental intensity of GB/T 17742-2020, 1.0…12.0 with one decimal.

    I_V where both are at least 6, else the mean of I_A and I_V.
    """
    by_acceleration, by_velocity = from_acceleration(pga_mps2), from_velocity(pgv_mps)
    if min(by_acceleration, by_velocity) >= 6.0:
        return limited(by_velocity)
    return limited((by_acceleration + by_velocity) / 2)


def foretold_velocity(pd_m: float) -> float:
    """Peak velocity in m/s that a peak P displacement in m foretells.

    lg PGV[cm/s] = 0.920 lg Pd[cm] + 1.642 (Wu et al. 2007).
    """
    return 10.0 ** (0.920 * math.log10(pd_m * 100) + 1.642) / 100 if pd_m > 0 else 0.0


def foretold_intensity(pd_m: float) -> float:
    """Intensity of the velocity that Pd (m) foretells, 1.0…12.0, good to about ± 1 degree."""
    return limited(from_velocity(foretold_velocity(pd_m)))


def modified_mercalli(pgv_mps: float) -> float:
    """MMI of a peak horizontal velocity in m/s (Worden et al. 2012), 1.0…10.0, one decimal."""
    if not pgv_mps > 0:
        return _LOWEST
    lg = math.log10(pgv_mps * 100)
    _, at_1, slope = next(segment for segment in _MMI_SEGMENTS if lg >= segment[0])
    return round(min(max(at_1 + slope * lg, _LOWEST), _MMI_HIGHEST), 1)
