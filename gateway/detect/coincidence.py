"""Votes that fall together: k of the n sensors of a site, or of the stations of a network.

A vote is an onset, or a candidate of the lower threshold that is never an onset by itself. It
counts at the time of its decision. All components of one sensor are one voter, and so are all
sensors of one station in a network. Enough voters within one window are a coincidence; it is said
when it is reached and again whenever further voters join it.

Votes may come late and out of order: a coincidence is any window of the given length that holds
the new vote, wherever in the window that vote stands. A voter whose clock is wrong spoils its own
vote alone.

What agrees on a site besides votes is here too: shaking that lasts on sensors of one component
each (:class:`SharedShaking`), and the first motions of verticals (:class:`FirstMotions`).
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.detect.ground_motion import SUSTAINED_COMPONENTS
from gateway.events import NS, Candidate, Coincidence, GroundMotion, Onset, Quality

_REMEMBERED = 4
"""Votes kept for each voter: the last, and some before it for votes of others that come late."""

_CAUSE = dict.fromkeys(("flat", "dead", "clipped"), "signal")
"""Kinds of faults that take turns; a recovery from one is one from all of them."""

VERTICALS = frozenset("ZU3")


class _Vote(NamedTuple):
    time_ns: int
    voter: str
    channel: str


@dataclass(slots=True)
class _Declared:
    """The coincidence that was said last: when first, and with how many voters by now."""

    began_ns: int
    voters: int


class _Ballot:
    """Votes of recent times, and what was made of them."""

    def __init__(self, window_ns: int, blanking_ns: int) -> None:
        self._window_ns, self._blanking_ns = window_ns, blanking_ns
        self._votes: dict[str, deque[_Vote]] = {}
        self._last: _Declared | None = None

    def add(
        self, vote: _Vote, needed: float, weights: Mapping[str, float]
    ) -> tuple[_Vote, ...] | None:
        """The votes of a coincidence that this vote makes, or makes larger; oldest first."""
        mine = self._votes.setdefault(vote.voter, deque(maxlen=_REMEMBERED))
        mine.append(vote)
        near = [
            other
            for votes in self._votes.values()
            for other in votes
            if abs(other.time_ns - vote.time_ns) <= self._window_ns
        ]
        together, weight = self._heaviest(sorted(near), vote, weights)
        if weight < needed:
            return None
        voters, last_ns = len({v.voter for v in together}), together[-1].time_ns
        last = self._last
        if last is None or abs(last_ns - last.began_ns) >= self._blanking_ns:
            self._last = _Declared(last_ns, voters)
        elif voters > last.voters:
            last.voters = voters
        else:
            return None
        return together

    def forget(self, channel: str) -> None:
        """Take back the votes of a channel."""
        for voter, votes in self._votes.items():
            kept = [vote for vote in votes if vote.channel != channel]
            self._votes[voter] = deque(kept, maxlen=_REMEMBERED)

    def _heaviest(
        self, near: list[_Vote], vote: _Vote, weights: Mapping[str, float]
    ) -> tuple[tuple[_Vote, ...], float]:
        """Of the windows that hold ``vote``, the first of those with the greatest weight."""
        best: tuple[tuple[_Vote, ...], float] = ((), 0.0)
        for at, first in enumerate(near):
            if first.time_ns > vote.time_ns:
                break
            inside = [v for v in near[at:] if v.time_ns - first.time_ns <= self._window_ns]
            weight = _weight(((v.voter, v.channel) for v in inside), weights)
            if weight > best[1]:
                best = (tuple(inside), weight)
            if inside[-1] is near[-1]:
                break
        return best


def _weight(channels: Iterable[tuple[str, str]], weights: Mapping[str, float]) -> float:
    """Weight of voters, given with their channels; the heaviest channel of each counts."""
    heaviest: dict[str, float] = {}
    for voter, channel in channels:
        heaviest[voter] = max(heaviest.get(voter, 0.0), weights.get(channel, 1.0))
    return sum(heaviest.values())


def _coincidence(
    scope: Literal["site", "network"], station: str, together: tuple[_Vote, ...]
) -> Coincidence:
    return Coincidence(
        scope=scope,
        station=station,
        time_ns=together[-1].time_ns,
        channels=tuple(sorted({v.channel for v in together})),
        votes=len({v.voter for v in together}),
    )


class SiteCoincidence:
    """k of the sensors of one site.

    ``sensors`` names the sensor of each channel; ``weights`` gives a channel more or less than the
    one vote that it has by default (a sensor votes with its heaviest channel that speaks; none at
    all is 0). A site whose usable sensors weigh less than ``k`` needs all of them; where a single
    one is left (``alone``) there is no coincidence, and shaking alone decides.

    Raises:
        ValueError: ``k`` is below 1, a weight is negative, or the window is not positive.
    """

    def __init__(
        self,
        station: str,
        sensors: Mapping[str, str],
        k: int = 2,
        window_s: float = 2.0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if k < 1 or not window_s > 0 or not all(w >= 0 for w in (weights or {}).values()):
            raise ValueError(
                f"site coincidence of {k} in {window_s} s, weights {dict(weights or {})}: "
                "expected votes and window above 0, weights of 0 or more"
            )
        self.station = station
        self.window_ns = round(window_s * NS)
        self._k = k
        self._sensors = dict(sensors)
        self._weights = dict(weights or {})
        self._excluded: dict[str, dict[str, str]] = {}
        self._ballot = _Ballot(self.window_ns, self.window_ns)

    @property
    def voting(self) -> frozenset[str]:
        """Channels that have a vote now."""
        return frozenset(
            channel
            for channel in self._sensors
            if channel not in self._excluded and self._weights.get(channel, 1.0) > 0
        )

    @property
    def usable(self) -> frozenset[str]:
        """Sensors with at least one channel that votes."""
        return frozenset(self._sensors[channel] for channel in self.voting)

    @property
    def alone(self) -> bool:
        """Single-sensor mode: one vote is all that is asked for, or all that there can be."""
        return self._k == 1 or len(self.usable) <= 1

    @property
    def needed(self) -> float:
        """What the votes of a coincidence must weigh now; 1 in single-sensor mode."""
        if self.alone:
            return 1.0
        voting = ((self._sensors[channel], channel) for channel in self.voting)
        return min(float(self._k), _weight(voting, self._weights))

    @property
    def shaking(self) -> frozenset[str]:
        """Channels whose shaking counts: those that vote, and those that strong shaking clips."""
        clipped = {c for c, kinds in self._excluded.items() if set(kinds.values()) == {"clipped"}}
        return self.voting | {c for c in clipped if self._weights.get(c, 1.0) > 0}

    def exclude(self, channel: str, kind: str) -> None:
        """Take a bad channel out of the vote, with what it has voted of late."""
        self._excluded.setdefault(channel, {})[_CAUSE.get(kind, kind)] = kind
        self._ballot.forget(channel)

    def include(self, channel: str, ended: str) -> None:
        """A channel has recovered from a kind of fault; without another one it votes again."""
        kinds = self._excluded.get(channel, {})
        kinds.pop(_CAUSE.get(ended, ended), None)
        if not kinds:
            self._excluded.pop(channel, None)

    def add(self, decision: Onset | Candidate) -> list[Coincidence]:
        """Take a vote; gives the coincidence that it completes or enlarges."""
        if decision.channel not in self.voting:
            return []
        vote = _Vote(decision.decided_ns, self._sensors[decision.channel], decision.channel)
        together = self._ballot.add(vote, self.needed, self._weights)
        if together is None or self.alone:
            return []
        return [_coincidence("site", self.station, together)]


class NetworkCoincidence:
    """k of the stations (NET.STA) of a network. It never alerts by itself.

    Candidates vote on verticals alone: what crosses a network coherently is the P wave, and the
    verticals show it first; on horizontals the S wave would vote a second time.

    The window is the time that P takes across the network: 3.5 s is 20 km at 6 km/s. After a
    declaration the same stations say nothing new for ``blanking_s``.

    Raises:
        ValueError: ``k`` is below 2, or a time is not positive.
    """

    def __init__(
        self,
        k: int = 3,
        window_s: float = 3.5,
        blanking_s: float = 3.0,
        *,
        use_candidates: bool = True,
    ) -> None:
        if k < 2 or not window_s > 0 or not blanking_s > 0:
            raise ValueError(
                f"network coincidence of {k} in {window_s} s, blanking {blanking_s} s: expected "
                "at least 2 stations and times above 0"
            )
        self._k = k
        self._use_candidates = use_candidates
        self._ballot = _Ballot(round(window_s * NS), round(blanking_s * NS))

    def add(self, decision: Onset | Candidate) -> list[Coincidence]:
        """Take a vote; gives the coincidence that it completes or enlarges."""
        if isinstance(decision, Candidate) and not (
            self._use_candidates and decision.channel[-1:] in VERTICALS
        ):
            return []
        station = ".".join(decision.channel.split(".")[:2])
        vote = _Vote(decision.decided_ns, station, decision.channel)
        together = self._ballot.add(vote, self._k, {})
        return [] if together is None else [_coincidence("network", "", together)]


class SharedShaking:
    """Shaking that lasts on components of several sensors, where none has two by itself.

    A site of vertical geophones has no sensor with two components. What must last on two of them
    may then be on two sensors, within the window in which they would have to vote; a passer-by
    shakes one of them, an earthquake all. One component alone never is enough.
    """

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._lasting: dict[str, int] = {}
        self._shared: dict[str, int] = {}

    def confirms(self, motion: GroundMotion, counting: Collection[str]) -> bool:
        """Whether this shaking is sustained; ``counting`` are the channels that can be believed."""
        if motion.sustained:
            return True
        sensor = motion.channels[0][:-1] if motion.channels else motion.station
        if self._shared.get(sensor) == motion.since_ns:
            return True
        mine = [channel for channel in motion.lasting if channel in counting]
        self._lasting.update(dict.fromkeys(mine, motion.time_ns))
        others = [
            channel
            for channel, time_ns in self._lasting.items()
            if channel[:-1] != sensor
            and channel in counting
            and abs(motion.time_ns - time_ns) <= self._window_ns
        ]
        if mine and len(mine) + len(others) >= SUSTAINED_COMPONENTS:
            self._shared[sensor] = motion.since_ns
            return True
        return False


_SAME_ARRIVAL_NS = NS // 10
"""A site is tens of metres wide; P crosses that within a few hundredths of a second."""
_SURE = 2
"""Weight up to which a first motion is believed."""
_CONTRARY = 3
"""Arrivals in a row after which a contrary sensor is no accident: one in eight by chance."""


class FirstMotions:
    """First motions of one P wave are the same on all verticals of a site, or leads are swapped.

    A sensor that moves against most of the others at three arrivals in a row is stated
    (``polarity``), and again when it moves with them three times. Of two sensors that disagree
    nobody can say which is right: there must be three.
    """

    def __init__(self) -> None:
        self._recent: dict[str, Onset] = {}
        self._contrary: dict[str, int] = {}
        self._swapped: set[str] = set()

    def add(self, onset: Onset) -> list[Quality]:
        """Take an onset; gives what is to be said of a channel's polarity."""
        if onset.polarity == "unknown" or onset.quality > _SURE:
            return []
        self._recent = {
            channel: other
            for channel, other in self._recent.items()
            if abs(other.time_ns - onset.time_ns) <= _SAME_ARRIVAL_NS
        }
        self._recent[onset.channel] = onset
        if len(self._recent) < 3:
            return []
        judged = list(self._recent.values()) if len(self._recent) == 3 else [onset]
        ups = sum(other.polarity == "up" for other in self._recent.values())
        if 2 * ups == len(self._recent):
            return []
        most = "up" if 2 * ups > len(self._recent) else "down"
        return [q for one in judged if (q := self._judge(one, most, onset.declared_ns))]

    def _judge(self, onset: Onset, most: str, now_ns: int) -> Quality | None:
        channel, agrees = onset.channel, onset.polarity == most
        swapped = channel in self._swapped
        if agrees is not swapped:
            self._contrary[channel] = 0
            return None
        self._contrary[channel] = self._contrary.get(channel, 0) + 1
        if self._contrary[channel] < _CONTRARY:
            return None
        self._contrary[channel] = 0
        if swapped:
            self._swapped.remove(channel)
            detail = "first motions as the others' again"
            return Quality(channel, "recovered", now_ns, detail, ended="polarity")
        self._swapped.add(channel)
        detail = "first motions against the other sensors' at three arrivals: leads swapped?"
        return Quality(channel, "polarity", now_ns, detail)
