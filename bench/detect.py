"""What streaming detection costs, against the usual recipe, compiled C, and plain Python.

Both sides take turns on the same packets, in pieces of some milliseconds; the least processor time
of each is compared. Time on the wall would count what else the machine does against whoever takes
longer, which is the reference. The recipe is that of rsudp's alert loop: for each packet
the last 30 s of a stream are sliced, band-passed and put through obspy's recursive STA/LTA. rsudp's
own loop runs as well, in a process of its own, where the package can be had.
"""

import contextlib
import ctypes
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from obspy import Stream, Trace, UTCDateTime
from obspy.realtime import RtTrace
from obspy.signal.trigger import recursive_sta_lta

from bench.report import Result
from gateway.detect import SeismicDetector
from gateway.detect.filters import BlockFilter, Section, StateSpace, butterworth
from gateway.detect.sta_lta import StaLta, Tracks, Windows
from gateway.events import NS

RATE_HZ = 100.0
BAND_HZ = (1.0, 10.0)
WINDOWS = Windows(0.5, 20.0)
TRIGGER_ON = 8.0
SLICE_S = 30.0
PIECE = 200
"""Packets timed together: few enough to fit between two interruptions by other work."""

C_SOURCE = """
/* state of each channel: four of the filter, sta, lta; s: b0 b1 b2 a1 a2 of two sections */
int run(const int *x, int channels, int n, const double *s, double *state, double *baseline,
        double a, double b, double on)
{
    int hot = 0;
    for (int c = 0; c < channels; c++) {
        double *z = state + 6 * c;
        for (int k = 0; k < n; k++) {
            double v = x[c * n + k] - baseline[c];
            double m = s[0] * v + z[0];
            z[0] = s[1] * v - s[3] * m + z[1];
            z[1] = s[2] * v - s[4] * m;
            double y = s[5] * m + z[2];
            z[2] = s[6] * m - s[8] * y + z[3];
            z[3] = s[7] * m - s[9] * y;
            double e = y * y;
            z[4] += (e - z[4]) * a;
            z[5] += (e - z[5]) * b;
            hot |= z[4] > on * z[5];
        }
    }
    return hot;
}
"""

Packets = list[NDArray[np.int32]]
Take = Callable[[NDArray[np.int32]], object]


def packets(channels: int, length: int, count: int) -> Packets:
    """Noise on a large offset."""
    random = np.random.default_rng(1)
    return [
        (8e6 + random.normal(0.0, 300.0, (channels, length))).astype(np.int32) for _ in range(count)
    ]


def seconds(take: Take, data: Packets) -> float:
    begin = time.process_time()
    for packet in data:
        take(packet)
    return time.process_time() - begin


def least(take: Take, data: Packets) -> float:
    """The least time for a packet, by pieces of two hundred."""
    pieces = [data[k : k + PIECE] for k in range(0, len(data), PIECE)]
    return min(seconds(take, piece) / len(piece) for piece in pieces)


def ratio(ours: Take, theirs: Take, data: Packets, few: int, rounds: int) -> float:
    """Their time for a packet over ours, the reference on ``few`` packets of each round."""
    step = PIECE if few > PIECE else 1
    mine = reference = math.inf
    for _ in range(rounds):
        mine = min(mine, least(ours, data))
        reference = min(
            reference, *(least(theirs, data[k : k + step]) for k in range(0, few, step))
        )
    return reference / mine


def block(channels: int) -> Take:
    """Filter, averages and comparison of all channels in products of matrices."""
    filters = BlockFilter(StateSpace.of(butterworth(2, *BAND_HZ, RATE_HZ)), channels)
    averages = StaLta((WINDOWS,), channels, RATE_HZ, (TRIGGER_ON,))

    def take(packet: NDArray[np.int32]) -> bool:
        return averages.process(filters.run(packet), packet.shape[1])

    for packet in packets(channels, 25, round(1.2 * WINDOWS.lta_s * RATE_HZ / 25)):
        take(packet)
    return take


def recipe(channels: int) -> Take:
    """A stream of the last 30 s of each channel, kept and filtered anew for each packet.

    The steps of rsudp's alert consumer without its parsing, instrument responses and printing: the
    packet becomes a trace, is appended and merged; raw stream and working stream are copied and
    sliced; a copy of the trace is filtered with four corners and goes through the recursive
    STA/LTA; the working stream is copied once more, against a leak.
    """
    streams = [Stream() for _ in range(channels)]
    kept = list(streams)
    at = UTCDateTime(0)
    samples_of = [round(s * RATE_HZ) for s in (WINDOWS.sta_s, WINDOWS.lta_s)]

    def consume(channel: int, samples: NDArray[np.int32]) -> bool:
        header = {"station": f"S{channel}", "sampling_rate": RATE_HZ, "starttime": at}
        raw = streams[channel].append(Trace(np.ma.MaskedArray(samples), header))
        raw = raw.merge(fill_value="latest").copy()
        work = raw.copy()
        begin = at + len(samples) / RATE_HZ - SLICE_S
        streams[channel], work = raw.slice(starttime=begin), work.slice(starttime=begin)
        trace = work[0].copy().filter("bandpass", freqmin=BAND_HZ[0], freqmax=BAND_HZ[1], corners=4)
        hot = bool(recursive_sta_lta(trace, *samples_of).max() > TRIGGER_ON)
        kept[channel] = work.copy()
        return hot

    def take(packet: NDArray[np.int32]) -> bool:
        nonlocal at
        hot = [consume(channel, samples) for channel, samples in enumerate(packet)]
        at += packet.shape[1] / RATE_HZ
        return any(hot)

    take(packets(channels, round(SLICE_S * RATE_HZ), 1)[0])
    return take


RSUDP = "rsudp==2.2.1"
RSUDP_LOOP = """
import sys, time, types
import numpy as np
import rsudp.raspberryshake as rs
# its test module holds flags for its own tests, and pulls in a file that Python 3.11 can't parse
sys.modules["rsudp.test"] = types.SimpleNamespace(TEST={})
from rsudp.c_alert import Alert

length, warm, few = 25, 130, int(sys.argv[1])
rs.chns, rs.sps, rs.tf, rs.tr, rs.stn = ["EHZ"], 100.0, 10.0 * length, 100 / length, "BENCH"
random = np.random.default_rng(1)

class Line:
    sent = began = 0
    def qsize(self): return 0
    def task_done(self): pass
    def get(self, *args, **rest):
        done = self.sent - warm
        if done >= 0 and done % few == 0:
            sys.stderr.write(f"{time.process_time() - self.began:.9f}\\n")
            sys.stderr.flush()
            if not sys.stdin.readline():
                sys.exit()
        counts = (8e6 + random.normal(0, 300, length)).astype(int)
        samples = ", ".join(map(str, counts))
        packet = f"{{'EHZ', {1.6e9 + self.sent * length / 100:.3f}, {samples}}}".encode()
        self.sent += 1
        if done >= 0 and done % few == 0:
            self.began = time.process_time()
        return packet

Alert(Line(), sta=0.5, lta=20, thresh=8, reset=1.5, bp=[1, 10], debug=False, cha="EHZ").run()
"""
"""rsudp's alert consumer as it is, fed one channel's packets; a line for every so many of them."""


@contextlib.contextmanager
def rsudp(few: int, *, fetch: bool) -> Iterator[Callable[[], float] | None]:
    """Gives a function that times one packet of one channel; None where rsudp can't be had.

    It is installed beside the virtual environment's own packages, without what it would pull in.
    """
    place = Path(sys.prefix) / "rsudp"
    if not place.exists() and fetch:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", RSUDP]
        subprocess.run([*command, "--target", str(place)], stderr=subprocess.DEVNULL, check=False)
    if not place.exists():
        print(f"{RSUDP} is not here and can't be fetched: its recipe alone is measured")
        yield None
        return
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [sys.executable, "-c", RSUDP_LOOP, str(few)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HOME": home, "PYTHONPATH": str(place)},
            text=True,
        )
        assert process.stdin
        assert process.stderr
        ticks, asked = process.stderr, process.stdin

        def figure() -> float:
            for line in ticks:
                with contextlib.suppress(ValueError):
                    return float(line)
            raise RuntimeError(f"rsudp ended by itself; remove {place} to have it fetched anew")

        def packet() -> float:
            asked.write("go\n")
            asked.flush()
            return figure() / few

        figure()
        try:
            yield packet
        finally:
            asked.close()
            process.wait(20)
            ticks.close()


def against_rsudp(few: int, rounds: int, count: int, *, fetch: bool) -> list[Result]:
    """Three channels by us against three times rsudp's packet of one, by turns."""
    ours, data = block(3), packets(3, 25, count)
    with rsudp(1, fetch=fetch) as packet:
        if packet is None:
            return []
        mine = theirs = math.inf
        for _ in range(rounds):
            mine = min(mine, least(ours, data))
            theirs = min(theirs, *(packet() for _ in range(few)))
    return [
        Result(
            "band-pass and STA/LTA, 3 channels × 25 samples, against rsudp",
            3 * theirs / mine,
            "× cheaper than its alert loop",
            1000.0,
            at_least=True,
            note=f"{RSUDP}, its own code, one alert thread a channel, printing left out",
        )
    ]


def real_time_traces(channels: int) -> Take:
    """obspy's RtTrace: squares and two running means, without a filter."""
    pairs = []
    for _ in range(channels):
        pair = [RtTrace(max_length=SLICE_S), RtTrace(max_length=SLICE_S)]
        for trace, width_s in zip(pair, (WINDOWS.sta_s, WINDOWS.lta_s), strict=True):
            trace.register_rt_process(np.square)
            trace.register_rt_process("boxcar", width=round(width_s * RATE_HZ))
        pairs.append(pair)
    at = UTCDateTime(0)

    def take(packet: NDArray[np.int32]) -> None:
        nonlocal at
        for pair, samples in zip(pairs, packet, strict=True):
            header = {"sampling_rate": RATE_HZ, "starttime": at}
            for trace in pair:
                trace.append(Trace(samples.astype(float), header))
        at += packet.shape[1] / RATE_HZ

    return take


def batch(rounds: int, count: int) -> float:
    """Our time for a sample over that of obspy's C routine on a whole hour at once."""
    hour = packets(1, 360_000, 1)[0][0].astype(float)
    samples_of = [round(s * RATE_HZ) for s in (WINDOWS.sta_s, WINDOWS.lta_s)]
    ours, data = block(3), packets(3, 25, count)
    mine = theirs = math.inf
    for _ in range(rounds):
        mine = min(mine, least(ours, data) / 75)
        begin = time.process_time()
        recursive_sta_lta(hour, *samples_of)
        theirs = min(theirs, (time.process_time() - begin) / len(hour))
    return mine / theirs


def compiled(channels: int, folder: Path) -> Take | None:
    """One C loop called per packet; None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source, library = folder / "loop.c", folder / "loop.so"
    source.write_text(C_SOURCE)
    subprocess.run([compiler, "-O3", "-shared", "-fPIC", source, "-o", library], check=True)
    function = ctypes.CDLL(str(library)).run
    double_p = ctypes.POINTER(ctypes.c_double)
    function.argtypes = [
        ctypes.POINTER(ctypes.c_int),
        ctypes.c_int,
        ctypes.c_int,
        double_p,
        double_p,
        double_p,
        ctypes.c_double,
        ctypes.c_double,
        ctypes.c_double,
    ]
    sections = np.array(butterworth(2, *BAND_HZ, RATE_HZ)).ravel()
    state, baseline = np.zeros((channels, 6)), np.full(channels, 8e6)
    short, long = 1.0 / (WINDOWS.sta_s * RATE_HZ), 1.0 / (WINDOWS.lta_s * RATE_HZ)
    pointers = [array.ctypes.data_as(double_p) for array in (sections, state, baseline)]
    kept = (sections, state, baseline)

    def take(packet: NDArray[np.int32]) -> bool:
        assert kept
        samples = packet.ctypes.data_as(ctypes.POINTER(ctypes.c_int))
        return bool(function(samples, *packet.shape, *pointers, short, long, TRIGGER_ON))

    return take


def unrolled(sections: tuple[Section, ...]) -> Callable[[float], bool]:
    """What one would write by hand for one channel."""
    (b0, b1, b2, a1, a2), (c0, c1, c2, d1, d2) = sections
    short, long = 1.0 / (WINDOWS.sta_s * RATE_HZ), 1.0 / (WINDOWS.lta_s * RATE_HZ)
    p = q = r = t = sta = lta = 0.0

    def step(sample: float) -> bool:
        nonlocal p, q, r, t, sta, lta
        value = sample - 8e6
        middle = b0 * value + p
        p = b1 * value - a1 * middle + q
        q = b2 * value - a2 * middle
        out = c0 * middle + r
        r = c1 * middle - d1 * out + t
        t = c2 * middle - d2 * out
        energy = out * out
        sta += (energy - sta) * short
        lta += (energy - lta) * long
        return sta > TRIGGER_ON * lta

    return step


def sample_by_sample(rounds: int) -> float:
    """Our time for one sample of one channel over that of the loop written by hand."""
    samples = packets(1, 2_000, 1)[0][0].astype(float).tolist()
    sections = butterworth(2, *BAND_HZ, RATE_HZ)
    ours = Tracks(
        [(sections, WINDOWS, TRIGGER_ON)],
        RATE_HZ,
        baseline=np.array([8e6]),
        state=np.zeros((1, 4)),
        averages=np.zeros((1, 2)),
        counts=np.array([[WINDOWS.lta_s * RATE_HZ]]),
    ).step
    theirs = unrolled(sections)
    mine = reference = math.inf
    for _ in range(rounds):
        begin = time.process_time()
        for sample in samples:
            ours([sample])
        middle = time.process_time()
        for sample in samples:
            theirs(sample)
        mine = min(mine, middle - begin)
        reference = min(reference, time.process_time() - middle)
    return mine / reference


def detector(channels: int, length: int, rounds: int, count: int) -> float:
    """Time of the whole detector in quiet over that of its filters and averages."""
    whole = SeismicDetector([f"XX.S{k}..HHZ" for k in range(channels)], RATE_HZ)
    alone = block(channels)
    at = 0
    step_ns = round(length * NS / RATE_HZ)

    def take(packet: NDArray[np.int32]) -> object:
        nonlocal at
        at += step_ns
        return whole.process(packet, at)

    seconds(take, packets(channels, length, round(25 * RATE_HZ / length)))
    return 1.0 / ratio(take, alone, packets(channels, length, count), count, rounds)


def run(quick: bool) -> list[Result]:
    rounds, count = (3, 200) if quick else (10, 2000)
    few = 5 if quick else 20
    filters = "band-pass and STA/LTA"
    results = against_rsudp(few, rounds, count, fetch=not quick)
    results += [
        Result(
            f"{filters}, 3 channels × 25 samples, against the recipe",
            ratio(block(3), recipe(3), packets(3, 25, count), few, rounds),
            "× cheaper than filtering 30 s anew",
            1000.0,
            at_least=True,
            note="rsudp's recipe without its parsing",
        ),
        Result(
            f"{filters}, 3 channels × 25 samples, against obspy's RtTrace",
            ratio(block(3), real_time_traces(3), packets(3, 25, count), few, rounds),
            "× cheaper",
            note="which does not filter",
        ),
        Result(
            f"{filters}, 3 channels × 25 samples, against obspy's C routine",
            batch(rounds, count),
            "× its time for a sample of a whole hour",
            note="which does not filter and can't stream",
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        if loop := compiled(12, Path(folder)):
            slower = 1.0 / ratio(block(12), loop, packets(12, 25, count), count, rounds)
            results.append(
                Result(f"{filters}, 12 channels × 25 samples", slower, "× a compiled C loop", 2.0)
            )
    results += [
        Result(
            f"{filters}, 1 channel × 1 sample",
            sample_by_sample(rounds),
            "× plain Python, unrolled",
            1.5,
        ),
        Result(
            "whole detector in quiet, 3 channels × 25 samples",
            detector(3, 25, rounds, count),
            "× its first band alone",
            note="two bands, history, order, channel health",
        ),
        Result(
            "whole detector in quiet, 12 channels × 25 samples",
            detector(12, 25, rounds, count),
            "× its first band alone",
            note="the same",
        ),
    ]
    return results
