"""Votes that fall together: k of the n sensors of a site, or of the stations of a network.

A vote is an onset, or a candidate of the lower threshold that is never an onset by itself. It
counts at the time of its decision. All components of one sensor are one voter, and so are all
sensors of one station in a network. Enough voters within one window are a coincidence; it is said
when it is reached and again whenever further voters join it.

Votes may come late and out of order: a coincidence is any window of the given length that holds
the new vote, wherever in the window that vote stands. A voter whose clock is wrong spoils its own
vote alone.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.events import NS, Candidate, Coincidence, Onset

_REMEMBERED = 4
"""Votes kept for each voter: the last, and some before it for votes of others that come late."""

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
            weight = sum(weights.get(voter, 1.0) for voter in {v.voter for v in inside})
            if weight > best[1]:
                best = (tuple(inside), weight)
            if inside[-1] is near[-1]:
                break
        return best


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

    ``sensors`` names the sensor of each channel; ``weights`` gives a sensor more or less than the
    one vote that it has by default. A site with fewer usable sensors than ``k`` needs all of
    them; with a single one there is no coincidence (``needed`` is 1), and shaking alone decides.

    Raises:
        ValueError: ``k`` is below 1, or the window is not positive.
    """

    def __init__(
        self,
        station: str,
        sensors: Mapping[str, str],
        k: int = 2,
        window_s: float = 2.0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if k < 1 or not window_s > 0:
            raise ValueError(f"site coincidence of {k} in {window_s} s: expected both above 0")
        self.station = station
        self.window_ns = round(window_s * NS)
        self._k = k
        self._sensors = dict(sensors)
        self._weights = dict(weights or {})
        self._excluded: set[str] = set()
        self._ballot = _Ballot(self.window_ns, self.window_ns)

    @property
    def usable(self) -> frozenset[str]:
        """Sensors with at least one channel that is not excluded."""
        return frozenset(
            sensor for channel, sensor in self._sensors.items() if channel not in self._excluded
        )

    @property
    def needed(self) -> int:
        """How many votes make a coincidence now; 1 is the single-sensor mode."""
        return max(1, min(self._k, len(self.usable)))

    def exclude(self, channel: str) -> None:
        """Take a bad channel out of the vote, with what it has voted of late."""
        self._excluded.add(channel)
        self._ballot.forget(channel)

    def include(self, channel: str) -> None:
        """Let a channel that is well again vote."""
        self._excluded.discard(channel)

    def add(self, decision: Onset | Candidate) -> list[Coincidence]:
        """Take a vote; gives the coincidence that it completes or enlarges."""
        sensor = self._sensors.get(decision.channel)
        if sensor is None or decision.channel in self._excluded:
            return []
        vote = _Vote(decision.decided_ns, sensor, decision.channel)
        needed = self.needed
        together = self._ballot.add(vote, needed, self._weights)
        if together is None or needed == 1:
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
