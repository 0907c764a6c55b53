"""What a record becomes on its way to the hub: a CloudEvent on a topic, in a class of urgency.

CloudEvents 1.0, JSON format, structured mode, with the Sequence extension:

================  =============================================================================
specversion       ``1.0``
id                ``run_id-seq`` of the feed item, or the uplink's own; with ``source`` it is the
                  key by which a repeat is known
source            ``/eew/{city}/{station}``
type              ``eew.{record type}.v1``
time              the record's time
datacontenttype   ``application/json``
dataschema        ``urn:eew:schema:{record type}.v1``, see docs/schemas
sequence          20 digits, rising with each message of the station: the order to put them in
data              the record
================  =============================================================================

Topics are ``eew/v1/{city}/{station}/…``:

==========  ========  ==========================================================================
up          retained
==========  ========  ==========================================================================
alert       no        steps in the life of alerts
siren       no        patterns started and ended
cap         no        alerts as CAP 1.2, where configured
reply       no        what became of a command
event       no        onsets, rejected triggers, ground motion, coincidences, quality, levels, days
                      of rain, warnings in force, noise
health      no        degraded modes and their ends
telemetry   no        readings of scalar sensors; the uplink's clock and queues
waveform    no        samples, where configured
status      yes       birth and last will
arming      yes       whether the sirens may sound
==========  ========  ==========================================================================
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

SEQUENCE_DIGITS = 20


class Kind(IntEnum):
    """Classes of messages, the most urgent first; named as their topics."""

    alert = 0
    siren = 1
    cap = 2
    reply = 3
    event = 4
    health = 5
    telemetry = 6
    waveform = 7

    @property
    def bulk(self) -> bool:
        """Whether the broker's word is enough, and a loss costs no decision."""
        return self >= Kind.telemetry

    @property
    def urgent(self) -> bool:
        """Whether it is stored without waiting for company."""
        return self <= Kind.reply


LIFETIME_S: Mapping[Kind, int | None] = {
    Kind.alert: None,
    Kind.siren: None,
    Kind.cap: None,
    Kind.reply: 86_400,
    Kind.event: 30 * 86_400,
    Kind.health: 7 * 86_400,
    Kind.telemetry: 7 * 86_400,
    Kind.waveform: 3_600,
}
"""How long a message of a class is worth sending, in seconds that the station was powered on."""

_KINDS = {
    "alert": Kind.alert,
    "siren": Kind.siren,
    "cap": Kind.cap,
    "reply": Kind.reply,
    "health": Kind.health,
    "telemetry": Kind.telemetry,
    "uplink": Kind.telemetry,
    "waveform": Kind.waveform,
}
RETAINED = frozenset({"status", "arming"})
"""Record types of which the broker keeps the latest."""


def kind_of(record_type: str) -> Kind:
    """The class of a record; whatever is not listed is an event."""
    return _KINDS.get(record_type, Kind.event)


@dataclass(frozen=True, slots=True)
class Station:
    """Who speaks."""

    city: str
    id: str

    @property
    def source(self) -> str:
        return f"/eew/{self.city}/{self.id}"

    def topic(self, name: str) -> str:
        return f"eew/v1/{self.city}/{self.id}/{name}"


def schema_urn(record_type: str) -> str:
    """The name of a record type's schema."""
    return f"urn:eew:schema:{record_type}.v1"


def cloud_event(source: str, identity: str, sequence: int, record: Mapping[str, Any]) -> bytes:
    """The CloudEvent of a record, as UTF-8 JSON."""
    name = record["type"]
    return json.dumps(
        {
            "specversion": "1.0",
            "id": identity,
            "source": source,
            "type": f"eew.{name}.v1",
            "time": record["time"],
            "datacontenttype": "application/json",
            "dataschema": schema_urn(name),
            "sequence": f"{sequence:0{SEQUENCE_DIGITS}d}",
            "data": record,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
