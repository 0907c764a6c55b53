"""A small disk that fills up, fails and heals."""

import subprocess
from contextlib import suppress
from pathlib import Path


class Disk:
    """A file system of its own in memory, that can be filled, grown and made read-only.

    Raises:
        OSError, subprocess.CalledProcessError: mounting it needs root.
    """

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size}", "disk", str(path))

    def fill(self) -> None:
        """Somebody else writes until nothing more goes in."""
        with suppress(OSError), self._other.open("wb", buffering=0) as log:
            while log.write(b"x" * 1000):
                pass

    def relieve(self) -> None:
        """What somebody else wrote is gone."""
        self._other.unlink()

    def remount(self, options: str) -> None:
        self._mount("-o", f"remount,{options}", str(self.path))

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)

    @property
    def _other(self) -> Path:
        return self.path / "somebody's log"

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)


def disk_or_none(path: Path, size: str) -> Disk | None:
    """A small disk; a mere folder, and None, where we may not mount one."""
    with suppress(OSError, subprocess.CalledProcessError):
        return Disk(path, size)
    return None
