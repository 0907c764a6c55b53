"""What people write, checked and compiled: gateway.toml, device profiles, plans and scales.

The core never parses any of it. ``gateway apply`` looks at everything at once (:func:`check`),
and where there is no fault installs the compiled form that the core loads (:func:`install`). Only
the command line and the uplink import this package.
"""

from gateway.config.compile import Checked, check, compile_config
from gateway.config.faults import ConfigError, Fault
from gateway.config.install import install
from gateway.config.models import Configuration

__all__ = [
    "Checked",
    "ConfigError",
    "Configuration",
    "Fault",
    "check",
    "compile_config",
    "install",
]
