"""Options that commands share: where configuration, state and run-time files are, and ``--json``.

A command takes them as ``def status(run: RunDir = RUN, as_json: AsJson = False)``, so that each
is spelt, explained and defaulted the same everywhere.

==========  ===================  ===========================
option      environment          default
==========  ===================  ===========================
--config    GATEWAY_CONFIG       /etc/gateway/gateway.toml
--state     GATEWAY_STATE        /var/lib/gateway
--run       GATEWAY_RUN          /run/gateway
==========  ===================  ===========================
"""

from pathlib import Path
from typing import Annotated

import typer

CONFIG = Path("/etc/gateway/gateway.toml")
STATE = Path("/var/lib/gateway")
RUN = Path("/run/gateway")

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config", metavar="FILE", envvar="GATEWAY_CONFIG", help="The station's gateway.toml."
    ),
]
StateDir = Annotated[
    Path,
    typer.Option(
        "--state",
        metavar="DIR",
        envvar="GATEWAY_STATE",
        help="Where state is kept.",
        readable=False,
    ),
]
"""On a station technicians may not read it; `siren off` has to work for them all the same."""
RunDir = Annotated[
    Path,
    typer.Option("--run", metavar="DIR", envvar="GATEWAY_RUN", help="Where the sockets are."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
InventoryFile = Annotated[
    Path | None,
    typer.Option("--inventory", metavar="FILE", help="StationXML that gives sensitivities."),
]
SensitivityText = Annotated[
    str | None,
    typer.Option(
        "--sensitivity",
        metavar="COUNTS:UNIT",
        help="Counts per unit for all other channels, as 6e8:m/s or 4.2e5:m/s**2.",
    ),
]
