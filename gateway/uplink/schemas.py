"""JSON Schemas of what goes over MQTT, made from the vocabulary, and the AsyncAPI document.

``python -m gateway.uplink.schemas docs/schemas`` writes them. A schema says what a record holds
now; consumers ignore keys that they do not know, so none forbids further ones. JSON Schema
2020-12, AsyncAPI 3.0.
"""

import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gateway import __version__
from gateway.clock.utc import State
from gateway.core.commands import Action
from gateway.events import TYPE_NAMES, Status
from gateway.uplink.messages import RETAINED, SEQUENCE_DIGITS, Kind, kind_of, schema_urn

Schema = dict[str, Any]
WAVEFORM_CHARACTERS = 43_692
"""Base64 of 64 records of 512 bytes."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOWN = ("ack", "command", "request")
"""What the hub says: topics below ``hub/``."""
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_ID: Schema = {"type": "string", "minLength": 1, "maxLength": 128}


def _of(hint: Any) -> Schema:
    """The schema of a field by its type."""
    origin, args = get_origin(hint), get_args(hint)
    found: Schema
    if origin is Callable:  # a number that is worked out late
        found = _of(args[1])
    elif origin in (Union, types.UnionType):
        kinds = [_of(a) for a in args]
        plain = all(kind.keys() == {"type"} for kind in kinds)
        found = {"type": [kind["type"] for kind in kinds]} if plain else {"anyOf": kinds}
    elif origin is Literal:
        found = {"enum": list(args)}
    elif origin is tuple:
        found = {"type": "array", "items": _of(args[0])}
    elif origin is dict:
        found = {"type": "object", "additionalProperties": _of(args[1])}
    elif issubclass(hint, IntEnum):
        found = {"enum": [member.name for member in hint]}
    elif issubclass(hint, StrEnum):
        found = {"enum": [member.value for member in hint]}
    else:
        found = {"type": _PLAIN[hint]}
    return found


def _object(
    properties: Mapping[str, Schema], description: str, optional: tuple[str, ...] = ()
) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
    }


def _record(event: type, name: str) -> Schema:
    """The schema of what :func:`gateway.events.to_record` makes of an event."""
    hints = get_type_hints(event)
    properties: dict[str, Schema] = {"type": {"const": name}}
    for spec in fields(event):
        if spec.metadata.get("hidden"):
            continue
        if spec.name.endswith("_ns"):
            properties[spec.name.removesuffix("_ns")] = _TIME
        else:
            properties[spec.name] = _of(hints[spec.name])
    return _object(properties, " ".join((event.__doc__ or "").split()))


def _made_here() -> dict[str, Schema]:
    """Records that the uplink itself makes, and what the hub says."""
    text, number = {"type": "string"}, {"type": "number"}
    reading = _object(
        {
            "sensor": text,
            "time": _TIME,
            "quantity": text,
            "value": {"type": ["number", "null"]},
        },
        "One measurement at the end of its interval; the unit is in the quantity's name.",
    )
    measured = _object(
        {
            "sensor": text,
            "time": _TIME,
            "values": {"type": "object", "additionalProperties": number},
        },
        "What is made of a sensor's readings, once a minute: sums, means, days so far.",
    )
    queue = _object(
        {"name": text, "waiting": {"type": "integer", "minimum": 0}, "oldest_s": number},
        "A queue: items that wait, and the age of the oldest.",
    )
    numbers = {"type": "array", "items": number}
    perhaps = {"type": ["number", "null"]}
    count = {"type": "integer", "minimum": 0}
    budget = _object(
        {
            "daily_bytes": count,
            "used_bytes": count,
            "held": {"type": "object", "additionalProperties": count},
        },
        "Of a metered link: what it may carry in a day, has carried, and how much waits by class.",
    )
    return {
        "noise": _object(
            {
                "type": {"const": "noise"},
                "time": _TIME,
                "channel": text,
                "unit": text,
                "frequencies_hz": numbers,
                "p10_db": numbers,
                "p50_db": numbers,
                "p90_db": numbers,
                "above_high_db": perhaps,
                "below_low_db": perhaps,
                "verdict": text,
                "segments": {"type": "integer"},
                "completeness": number,
                "gaps": {"type": "integer"},
            },
            "Power spectral density of a channel's noise against Peterson's models, once an hour.",
        ),
        "telemetry": _object(
            {
                "type": {"const": "telemetry"},
                "time": _TIME,
                "readings": {"type": "array", "items": reading, "minItems": 1},
                "measured": {"type": "array", "items": measured},
            },
            "Readings of scalar sensors, gathered for a moment.",
            optional=("measured",),
        ),
        "waveform": _object(
            {
                "type": {"const": "waveform"},
                "time": _TIME,
                "end": _TIME,
                "channel": text,
                "reason": {"enum": ["event", "request", "continuous"]},
                "of": text,
                "part": {"type": "integer", "minimum": 1},
                "parts": {"type": "integer", "minimum": 1},
                "mseed": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "contentMediaType": "application/vnd.fdsn.mseed",
                    "maxLength": WAVEFORM_CHARACTERS,
                },
            },
            "Whole miniSEED records of 512 bytes of one channel: a piece of what belongs to an "
            "alert, to another record, or to a request, whose id is in of.",
        ),
        "cap": _object(
            {
                "type": {"const": "cap"},
                "time": _TIME,
                "alert": text,
                "identifier": text,
                "message_type": {"enum": ["Alert", "Update", "Cancel"]},
                "xml": {"type": "string", "contentMediaType": "application/cap+xml"},
            },
            "A step of an alert as a CAP 1.2 message.",
        ),
        "uplink": _object(
            {
                "type": {"const": "uplink"},
                "time": _TIME,
                "clock": _clock(),
                "queues": {"type": "array", "items": queue},
                "budget": {"anyOf": [budget, {"type": "null"}]},
            },
            "The uplink's clock, and how much waits for the hub, by class, and for each sink.",
        ),
        "status": _object(
            {
                "type": {"const": "status"},
                "time": _TIME,
                "state": {"enum": ["online", "offline"]},
                "reason": text,
                "run_id": text,
                "version": text,
                "acknowledgement": {"enum": ["hub", "broker"]},
            },
            "Whether the station is there. Offline with reason lost is the last will; its time is "
            "that of the connection's beginning.",
        ),
        "ack": _object(
            {"ids": {"type": "array", "items": _ID}},
            "The hub has stored the messages of these ids for good.",
        ),
        "request": _object(
            {
                "id": _ID,
                "request": _ID,
                "arguments": {"type": "object"},
            },
            "What the hub wants of a station that neither sounds nor changes it, at most 4 KiB; "
            "each is answered by a reply with its id.",
            optional=("arguments",),
        ),
        "command": _object(
            {
                "key": text,
                "payload": {"type": "string", "contentEncoding": "base64"},
                "signature": {"type": "string", "contentEncoding": "base64"},
            },
            "A signed envelope of at most 4 KiB; the payload is a command-payload.",
        ),
        "command-payload": _object(
            {
                "type": {"const": "eew.command.v1"},
                "id": _ID,
                "key": text,
                "counter": {"type": "integer", "minimum": 1},
                "until": _TIME,
                "action": {"enum": [action.value for action in Action]},
                "target": {
                    "type": "object",
                    "properties": {"station": text, "group": text},
                    "anyOf": [{"required": ["station"]}, {"required": ["group"]}],
                },
                "status": {"enum": [status.value for status in Status]},
                "arguments": {"type": "object"},
            },
            "What a command's signature covers, byte for byte.",
            optional=("status", "arguments"),
        ),
    }


def cloud_event_schema() -> Schema:
    """The envelope of everything that a station says."""
    return {
        "$schema": DIALECT,
        "$id": schema_urn("cloudevent"),
        **_object(
            {
                "specversion": {"const": "1.0"},
                "id": _ID,
                "source": {"type": "string", "pattern": "^/eew/[^/]+/[^/]+$"},
                "type": {"type": "string", "pattern": r"^eew\.[a-z_]+\.v1$"},
                "time": _TIME,
                "datacontenttype": {"const": "application/json"},
                "dataschema": {"type": "string"},
                "sequence": {"type": "string", "pattern": f"^[0-9]{{{SEQUENCE_DIGITS}}}$"},
                "data": {"type": "object"},
            },
            "CloudEvents 1.0 in structured JSON, with the Sequence extension.",
        ),
    }


def _clock() -> Schema:
    """What the core adds to an alert that it publishes."""
    return _object(
        {
            "state": {"enum": [state.value for state in State]},
            "uncertainty_s": {"type": ["number", "null"]},
            "steps": {"type": "integer", "minimum": 0},
        },
        "How sure the station was of the time when it decided; absent in a replay. The uncertainty "
        "is null where the clock was never synchronised.",
    )


def schemas() -> dict[str, Schema]:
    """Every schema by name, records of the vocabulary first."""
    found = {name: _record(event, name) for event, name in TYPE_NAMES.items()} | _made_here()
    found["alert"]["properties"]["clock"] = _clock()
    return {
        name: {"$schema": DIALECT, "$id": schema_urn(name), **schema}
        for name, schema in found.items()
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document, from the station's point of view."""
    topics = (*Kind.__members__, *sorted(RETAINED))
    up: dict[str, list[str]] = {topic: [] for topic in topics}
    for name in schemas():
        if name in RETAINED:
            up[name].append(name)
        elif name not in (*DOWN, "command-payload"):
            up[kind_of(name).name].append(name)
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for topic, names in up.items():
        channels[topic] = _channel(topic, names)
        operations[f"send_{topic}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{topic}"},
            "bindings": {"mqtt": {"qos": 1, "retain": topic in RETAINED}},
        }
    for topic in DOWN:
        channels[topic] = _channel(f"hub/{topic}", [topic])
        operations[f"receive_{topic}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{topic}"},
            "bindings": {"mqtt": {"qos": 1, "retain": False}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Early-warning station",
            "version": __version__,
            "description": "What a station says to its city's hub over MQTT, and what it is told.",
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": {name: _message(name) for name in _messages(up)}},
    }


def _messages(up: Mapping[str, list[str]]) -> Iterator[str]:
    for names in up.values():
        yield from names
    yield from DOWN


def _channel(topic: str, names: list[str]) -> dict[str, Any]:
    return {
        "address": f"eew/v1/{{city}}/{{station}}/{topic}",
        "parameters": {
            "city": {"description": "The city's short name."},
            "station": {"description": "The station's id."},
        },
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _message(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"./{name}.v1.json"}
    if name in DOWN:
        return {"name": name, "contentType": "application/json", "payload": schema}
    return {
        "name": f"eew.{name}.v1",
        "contentType": "application/cloudevents+json",
        "payload": {"allOf": [{"$ref": "./cloudevent.v1.json"}, {"properties": {"data": schema}}]},
    }


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """YAML of plain JSON types; scalars as JSON writes them, which YAML 1.2 reads alike."""
    items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in items:
        head = (
            f"{indent}{json.dumps(key, ensure_ascii=False)}:" if key is not None else f"{indent}-"
        )
        if isinstance(item, dict | list) and item:
            yield head
            yield from _yaml(item, indent + "  ")
        else:
            yield f"{head} {json.dumps(item, ensure_ascii=False)}"


def files() -> dict[str, str]:
    """Text of each generated file by its name."""
    found = schemas() | {"cloudevent": cloud_event_schema()}
    texts = {
        f"{name}.v1.json": json.dumps(schema, ensure_ascii=False, indent=2) + "\n"
        for name, schema in found.items()
    }
    return texts | {"asyncapi.yaml": "\n".join(_yaml(asyncapi())) + "\n"}


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
