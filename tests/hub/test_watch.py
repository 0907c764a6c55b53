"""``gateway hub watch`` prints what stations say, and acknowledges only as the hub."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import obspy
import pytest

from gateway.hub.broker import Broker
from gateway.uplink.archive import Archive
from gateway.uplink.config import ArchiveConfig, WaveformsConfig
from tests.uplink.city import City, alert
from tests.uplink.conftest import broker, city, make_city
from tests.uplink.recording import noise, packets

__all__ = ["broker", "city", "make_city"]


class Watch:
    """The command in a process of its own."""

    def __init__(self, city: City, broker: Broker, *options: str) -> None:
        self._out = city.directory / "watch.out"
        self._troubles = city.directory / "watch.err"
        self._city = city
        with self._out.open("w") as out, self._troubles.open("w") as troubles:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gateway.cli",
                    "hub",
                    "watch",
                    "--url",
                    broker.url,
                    *options,
                ],
                stdout=out,
                stderr=troubles,
            )

    @property
    def troubles(self) -> str:
        return self._troubles.read_text()

    @property
    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    def until_said(self, pattern: str) -> None:
        self._city.until(lambda: any(re.search(pattern, line) for line in self.lines), pattern)

    def stop(self) -> int:
        """Its exit code once it was told to stop."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def test_a_looker_on_sees_alerts_and_acknowledges_nothing(city: City, broker: Broker) -> None:
    with Watch(city, broker) as watch:
        city.start_uplink()
        watch.until_said("cn-demo-001 +status +online")
        city.core.publish(alert(1))
        watch.until_said("alert +earthquake red alert Actual: 本地实测达到地震红色标准")
        assert city.waiting() > 0
        assert watch.stop() == 0


def test_as_the_hub_it_stores_and_acknowledges(city: City, broker: Broker) -> None:
    record = city.directory / "record.sqlite"
    with Watch(city, broker, "--record", str(record), "--json", "--kinds", "alert") as watch:
        city.start_uplink()
        city.core.publish(alert(1))
        watch.until_said("red")
        city.until(lambda: city.waiting() == 0)
        assert [json.loads(line)["id"] for line in watch.lines] == [alert(1).id]
        assert watch.stop() == 0
    assert record.exists()


def test_waveforms_are_stored_where_it_is_told(city: City, broker: Broker) -> None:
    root, place = city.directory / "archive", city.directory / "waveforms"
    settings = WaveformsConfig(continuous=True)
    with Watch(city, broker, "--waveforms", str(place)) as watch:
        city.start_uplink((Archive(ArchiveConfig(str(root), reserve_mb=0), settings),))
        watch.until_said("online")
        city.until(lambda: city.core.feed.wants_data)
        for item in packets(noise(20)):
            city.core.data(item)
        watch.until_said(r"waveform +XX.DEMO..EHZ 2026-11-26T03:00:00.123 1/1 continuous")
        assert watch.stop() == 0
    found = place / "demo.cn-demo-001" / "XX.DEMO..EHZ.2026-11-26.mseed"
    city.until(found.exists)
    assert obspy.read(str(found))[0].data.tolist()[:500] == noise(20)[0, :500].tolist()


def test_what_keeps_it_from_listening_is_said_of_each_session(city: City, broker: Broker) -> None:
    with Watch(city, broker, "--record", str(city.directory / "record.sqlite")) as watch:
        city.start_uplink()
        watch.until_said("online")
        assert watch.troubles == ""
        broker.kill()
        said = [f"gateway: {session} at {broker.url}: " for session in ("hub", "hub-bulk")]
        city.until(lambda: all(each in watch.troubles for each in said), "both are told")
        assert watch.stop() == 0


@pytest.mark.parametrize("arguments", [["--url", "http://hub"], ["--nonsense"]])
def test_wrong_use_is_said(arguments: list[str], tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "hub", "watch", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
