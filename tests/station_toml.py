"""What gateway.toml says of the station that the tests play; each test adds its own tables."""

STATION = """\
[station]
id = "cn-demo-001"
name = "示范站"
city = "demo"
network = "XX"
code = "DEMO"
latitude = 31.0
longitude = 103.4
"""


def instruments(ports: object) -> str:
    """A seismometer and a rain gauge at ``seis`` and ``rain`` in the folder ``ports``."""
    return f"""
[[sensor]]
name = "seis1"
profile = "rpi-seism"
port = "{ports}/seis"
sensitivity = "426141.261:m/s**2"

[[sensor]]
name = "rain1"
profile = "hydreon-rg15"
port = "{ports}/rain"
"""
