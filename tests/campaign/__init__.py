"""The fault campaign: random faults in the middle of alerts, on the real processes.

Each round is one station of its own: ``python -m gateway.core`` under a supervisor that does what
its systemd unit says (``supervisor.py``), simulated devices on pseudo-terminals (``station.py``),
and a script of faults drawn from the seed (``script.py``). What the relays did is the relay
boards' own log, and ``verdict.py`` judges it. ``python -m tests.campaign --help`` runs it.
"""
