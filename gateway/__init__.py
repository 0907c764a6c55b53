"""Edge gateway of a city's early-warning network.

Importing this package imports nothing else, so that the core process stays as small as
docs/architecture.md promises.
"""

__version__ = "0.1.0"
