"""The plans, patterns and scales that hold where nobody configured anything, as in a replay."""

from functools import cache

from gateway.config.faults import ConfigError, Fault
from gateway.config.models import Scales
from gateway.config.plans import Found, read_plans, read_scales
from gateway.detect.scale import Scale
from gateway.plan.rules import Pattern, Plan


@cache
def _plans() -> Found:
    found = read_plans()
    if found.faults:
        raise ConfigError(found.faults)
    return found


def plans() -> tuple[Plan, ...]:
    """The shipped plan of each hazard."""
    return tuple(_plans().plans.values())


def patterns() -> tuple[Pattern, ...]:
    """The shipped siren patterns."""
    return tuple(_plans().patterns.values())


@cache
def scales() -> tuple[Scale, ...]:
    """The scales that are in force by default."""
    made, faults = read_scales(
        Scales().in_force, None, lambda key, text: Fault("default", None, key, text)
    )
    if faults:
        raise ConfigError(faults)
    return tuple(made)
