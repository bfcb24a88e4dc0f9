"""Where the daemon is, which other nodes can go on in its place, and how one is started when none runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import DaemonGone

_START_SECONDS = 90
_SILENCE_SECONDS = 1.0
_SILENCE_SECONDS_ALONE = 2.0
_PATIENCE_SECONDS = 60.0
_NODES_VERSION = 1


@dataclass(frozen=True)
class Where:
    """The address of a daemon."""

    socket: str | None = None
    """Its Unix socket."""
    host: str | None = None
    port: int = 0
    token: str | None = None
    """Needed over TCP: the content of the file ``token`` in the daemon's state directory, or the cluster's token."""
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


@dataclass
class Ways:
    """The daemon, and the nodes of its cluster that can go on in its place: the first is asked, the others wait."""

    places: list[Where]
    beside: Path | None = None
    """The file in which the daemon lists the nodes of its cluster."""

    @property
    def where(self) -> Where:
        """Who is asked now."""
        return self.places[0]

    @property
    def several(self) -> bool:
        """Whether somebody else can be asked."""
        return len(self.places) > 1

    @property
    def silence(self) -> float:
        """How long a stream may say nothing before it counts as dead: four of the server's comments, or eight where
        nobody else can be asked."""
        return _SILENCE_SECONDS if self.several else _SILENCE_SECONDS_ALONE

    @property
    def patience(self) -> float:
        """How long one that went away is waited for, in seconds."""
        return float(os.environ.get("OUTLIVE_PATIENCE_S") or _PATIENCE_SECONDS)

    def look(self) -> None:
        """Learns of nodes that came and went."""
        if self.beside is None:
            return
        own = [place for place in self.places if place.socket is not None]
        known = own + _nodes(self.beside)
        kept = [place for place in self.places if place in known]
        self.places = kept + [place for place in known if place not in kept]

    def turn(self) -> None:
        """The next one is asked."""
        self.places.append(self.places.pop(0))

    def turn_to(self, url: str | None) -> None:
        """The one with this URL is asked if it is known, else the next one."""
        self.turn()
        named = [place for place in self.places if url is not None and place.name == _authority(url)]
        self.places = named + [place for place in self.places if place not in named]


def find(address: str | None = None, token: str | None = None, start: bool = True) -> Ways:
    """The daemons at ``address`` (``/path/of/socket`` or ``http://host:port``; several with commas between them), else
    this user's.

    Without an address they are found as the command line finds them, from ``OUTLIVE_URL``, ``OUTLIVE_TOKEN`` and
    ``OUTLIVE_TOKEN_FILE``, or ``OUTLIVE_RUNTIME_DIR``, ``OUTLIVE_STATE_DIR`` and the XDG directories.
    """
    if address is None:
        address = os.environ.get("OUTLIVE_URL") or None
        token = token or _token()
    if address is None:
        path = _default_socket()
        ways = Ways([Where(socket=str(path), start=start)], _beside(path))
        ways.look()
        return ways
    parts = [part.strip() for part in address.split(",")]
    return Ways([_place(part, token) for part in parts if part])


def _place(address: str, token: str | None) -> Where:
    if address.startswith("https://"):
        raise ValueError(f"{address}: Outlive speaks no TLS itself; give the http:// address, or a tunnel's")
    address = _authority(address)
    if "/" in address:
        return Where(socket=address, token=token, start=False)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is neither the path of a socket nor host:port")
    return Where(host=host.strip("[]"), port=int(port), token=token, start=False)


def _authority(address: str) -> str:
    return address.removeprefix("unix:").removeprefix("http://").rstrip("/")


def _token() -> str | None:
    token = os.environ.get("OUTLIVE_TOKEN")
    if token:
        return token.strip()
    named = os.environ.get("OUTLIVE_TOKEN_FILE")
    path = Path(named) if named else _state_directory() / "token"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        if named:
            raise
        return None


def _nodes(path: Path) -> list[Where]:
    """The other nodes; none when there is no such file, or it is of another version."""
    try:
        nodes = json.loads(path.read_text())
        if nodes["version"] != _NODES_VERSION:
            return []
        others = [node for node in nodes["nodes"] if node["name"] != nodes["me"]]
        return [_place(node["url"], nodes["token"]) for node in others]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _beside(path: Path) -> Path:
    return path.with_name("cluster" + path.stem.removeprefix("outlive") + ".json")


def _state_directory() -> Path:
    return Path(os.environ.get("OUTLIVE_STATE_DIR") or _state_default()).absolute()


def _state_default() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "outlive"


def _default_socket() -> Path:
    state = _state_directory()
    runtime = os.environ.get("OUTLIVE_RUNTIME_DIR")
    if runtime:
        return Path(runtime).absolute() / "outlive.sock"
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    # The same directory as the command line's; it is made and checked by the daemon.
    folder = Path(base) / "outlive" if base.startswith("/") else Path(f"/tmp/outlive-{os.getuid()}")  # noqa: S108
    if state == _state_default():
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
