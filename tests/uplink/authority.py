"""A certificate authority of our own, by the openssl program: certificates as a city issues."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.uplink.config import MqttConfig

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_SETTINGS = """
[ca]
default_ca = it
[it]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
certificate = ca.pem
private_key = ca.key
policy = any
unique_subject = no
[any]
commonName = supplied
"""


class Authority:
    """Everything is in ``folder``: ca.pem, and NAME.pem with NAME.key of what was issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings").write_text(_SETTINGS)
        (folder / "index").touch()
        (folder / "serial").write_text("01\n")
        self._openssl(
            "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "90",
            "-subj", f"/CN=CA of {folder.name}",
        )  # fmt: skip

    def issue(
        self,
        name: str,
        common_name: str = "",
        *,
        names: str = "DNS:localhost,IP:127.0.0.1",
        begins: timedelta = timedelta(hours=-1),
        ends: timedelta = timedelta(days=60),
    ) -> None:
        """Make NAME.pem and NAME.key; times count from now."""
        (self.folder / "names").write_text(f"subjectAltName={names}\n")
        self._openssl(
            "req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={common_name or name}",
        )  # fmt: skip
        first, last = (f"{datetime.now(UTC) + at:%Y%m%d%H%M%SZ}" for at in (begins, ends))
        self._openssl(
            "ca", "-batch", "-notext", "-config", "settings", "-in", f"{name}.csr",
            "-out", f"{name}.pem", "-extfile", "names",
            "-startdate", first, "-enddate", last,
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def give(self, name: str, place: Path, *ends: str) -> None:
        """Put NAME.key and NAME.pem, or one of them, at ``place``.key and ``place``.pem."""
        for end in ends or ("key", "pem"):
            new = place.with_suffix(".new")
            shutil.copy(self.folder / f"{name}.{end}", new)
            new.replace(place.with_suffix(f".{end}"))

    def config(self, url: str, name: str | Path = "cn-demo-001") -> MqttConfig:
        """How a client with NAME.pem and NAME.key, or those at a path, is configured."""
        files = self.folder / name
        return MqttConfig(
            urls=(url,),
            keepalive_s=2,
            ca_file=f"{self.folder}/ca.pem",
            certificate_file=f"{files}.pem",
            key_file=f"{files}.key",
        )

    def listener(self, name: str = "broker", *, mutual: bool = True) -> str:
        """Lines for mosquitto.conf: a TLS listener with the certificate of ``name``."""
        secure = f"cafile {self.folder}/ca.pem\n"
        secure += f"certfile {self.folder}/{name}.pem\nkeyfile {self.folder}/{name}.key\n"
        if mutual:
            secure += "require_certificate true\nuse_identity_as_username true\n"
        return secure
