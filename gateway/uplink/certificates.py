"""When certificates begin and end, and whether files have changed: what the standard library lacks.

An X.509 certificate (RFC 5280, 4.1) is DER: nested elements of tag, length and content.

==================  ====================================================================
Certificate         SEQUENCE: tbsCertificate, signatureAlgorithm, signature
tbsCertificate      SEQUENCE: [0] version (may be absent), serialNumber, signature,
                    issuer, validity, …
validity            SEQUENCE: notBefore, notAfter, each UTCTime (``YYMMDDhhmmssZ``, 50 to
                    99 of the last century) or GeneralizedTime (``YYYYMMDDhhmmssZ``)
==================  ====================================================================
"""

import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from gateway.events import NS

WARN_NS = 30 * 86_400 * NS
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION = 0x30, 0xA0
_FORMS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Validity(NamedTuple):
    """From when until when a certificate holds, ns since 1970."""

    begins_ns: int
    ends_ns: int


def validity(der: bytes) -> Validity:
    """When a certificate begins and ends.

    Raises:
        ValueError: it is no certificate.
    """
    try:
        ((_, certificate),) = _elements(der)
        body = list(_elements(next(_elements(certificate))[1]))
        fields = body[1:] if body[0][0] == _VERSION else body
        begins, ends = (_time(tag, text) for tag, text in _elements(fields[3][1]))
    except (ValueError, IndexError, StopIteration, KeyError) as error:
        raise ValueError(f"not a certificate: {error}") from error
    return Validity(begins, ends)


def certificates(path: Path) -> list[bytes]:
    """The certificates of a PEM file, DER.

    Raises:
        OSError: it can't be read.
        ValueError: there is none in it.
    """
    parts = path.read_text(errors="replace").split(_BEGIN)[1:]
    found = [ssl.PEM_cert_to_DER_cert(_BEGIN + p[: p.find(_END)] + _END) for p in parts]
    if not found:
        raise ValueError(f"{path}: no certificate in it")
    return found


def trouble(name: str, der: bytes, utc_ns: int) -> str:
    """What is wrong with a certificate, or soon will be, and what to do; empty: nothing.

    Raises:
        ValueError: it is no certificate.
    """
    begins_ns, ends_ns = validity(der)
    if utc_ns < begins_ns:
        return (
            f"{name} begins on {_day(begins_ns)} and the clock says {_day(utc_ns)}: "
            "set the clock, or see that a time service is reached"
        )
    if utc_ns >= ends_ns:
        return f"{name} ended on {_day(ends_ns)}: put a new one in its place"
    if (left_ns := ends_ns - utc_ns) < WARN_NS:
        days = left_ns // (86_400 * NS)
        return f"{name} ends on {_day(ends_ns)}, in {days} days: put a new one in its place"
    return ""


class Files:
    """Whether any of some files has become another since this was last asked."""

    def __init__(self, names: Sequence[str]) -> None:
        self._paths = [Path(name) for name in names if name]
        self._known = self._look()

    def changed(self) -> bool:
        known, self._known = self._known, self._look()
        return known != self._known

    def _look(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return found


def _day(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns // NS, UTC).strftime("%Y-%m-%d")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[at : at + count])
            at += count
        if at + length > len(data):
            raise ValueError("cut short")
        yield tag, data[at : at + length]
        at += length


def _time(tag: int, text: bytes) -> int:
    moment = datetime.strptime(text.decode("ascii"), _FORMS[tag]).replace(tzinfo=UTC)
    if tag == 0x17 and moment.year >= 2050:
        moment = moment.replace(year=moment.year - 100)
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * NS
