"""Where the daemon is, and how one is started when none runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import DaemonGone

_START_SECONDS = 90


@dataclass(frozen=True)
class Where:
    """The address of a daemon."""

    socket: str | None = None
    """Its Unix socket."""
    host: str | None = None
    port: int = 0
    token: str | None = None
    """Needed over TCP: the content of the file ``token`` in the daemon's state directory."""
    start: bool = True
    """Whether one may be started when none runs (behind a Unix socket only)."""

    @property
    def name(self) -> str:
        """For people."""
        return self.socket or f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """What the request says in `Host`."""
        return "localhost" if self.socket else f"{self.host}:{self.port}"


def find(address: str | None = None, token: str | None = None, start: bool = True) -> Where:
    """The daemon at ``address`` (``/path/of/socket`` or ``host:port``), else this user's.

    Without an address it is found as the command line finds it, from ``OUTLIVE_RUNTIME_DIR``,
    ``OUTLIVE_STATE_DIR`` and the XDG directories.
    """
    if address is None:
        return Where(socket=str(_default_socket()), token=token, start=start)
    address = address.removeprefix("unix:").removeprefix("http://").rstrip("/")
    if "/" in address:
        return Where(socket=address, token=token, start=False)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is neither the path of a socket nor host:port")
    return Where(host=host.strip("[]"), port=int(port), token=token, start=False)


def _default_socket() -> Path:
    state_default = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "outlive"
    state = Path(os.environ.get("OUTLIVE_STATE_DIR") or state_default).absolute()
    runtime = os.environ.get("OUTLIVE_RUNTIME_DIR")
    if runtime:
        return Path(runtime).absolute() / "outlive.sock"
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    # The same directory as the command line's; it is made and checked by the daemon.
    folder = Path(base) / "outlive" if base.startswith("/") else Path(f"/tmp/outlive-{os.getuid()}")  # noqa: S108
    if state == state_default:
        return folder / "outlive.sock"
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:8]
    return folder / f"outlive-{digest}.sock"


def start(where: Where) -> None:
    """Starts a daemon, or finds the one that somebody else starts at this moment."""
    program = os.environ.get("OUTLIVE_PROGRAM") or shutil.which("outlive")
    if not where.start or program is None:
        hint = "start one with `outlive daemon start`" if program else "install `outlive` and put it on the PATH"
        raise DaemonGone(f"no daemon listens on {where.name}; {hint}")
    try:
        done = subprocess.run(  # noqa: S603
            [program, "daemon", "start"], capture_output=True, text=True, timeout=_START_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DaemonGone(f"no daemon listens on {where.name}, and {program} could not start one: {error}") from error
    if done.returncode != 0:
        raise DaemonGone(f"no daemon listens on {where.name}, and none could be started: {done.stderr.strip()}")
