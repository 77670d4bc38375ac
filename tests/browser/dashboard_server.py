"""A real dashboard server on a free port, for the browser tests and the benchmark. It opens no browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.run_shape import ROOT

START_LIMIT_S = 240
"""Half a second on an idle machine; the limit only ends a server that will never be up, so a busy one gets its time."""
_TAIL_CHARACTERS = 6000


class ServerFailedError(Exception):
    """The server ended or was not up in time; the message holds what it said."""


@dataclass(frozen=True)
class DashboardServer:
    """A running server: end it with `stop`."""

    process: subprocess.Popen
    address: str
    log: Path
    up_s: float
    """Seconds from the command to the first healthy answer."""

    def said(self) -> str:
        """Return the end of the server's log."""
        return f"server's log ({self.log}):\n{self.log.read_text(errors='replace')[-_TAIL_CHARACTERS:]}"

    def resident_mb(self) -> float:
        """Return the memory the server holds now, in MB, as Linux tells it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024 / 1e6

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_server(root: Path, log: Path, *, settings: Mapping[str, str] | None = None) -> DashboardServer:
    """Serve the project in `root` and return once it answers; ServerFailedError with the log when it does not."""
    port = _free_port()
    environment = {**os.environ, "LOUPE_PROJECT": str(root), "OMP_NUM_THREADS": "1", **(settings or {})}
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/server.py", "--server.port", str(port)]
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    while not _is_healthy(address):
        server = DashboardServer(process, address, log, time.monotonic() - started)
        if process.poll() is not None:
            raise ServerFailedError(f"the server ended with code {process.returncode}; {server.said()}")
        if server.up_s > START_LIMIT_S:
            server.stop()
            raise ServerFailedError(f"the server was not up within {START_LIMIT_S} s; {server.said()}")
        time.sleep(0.02)
    return DashboardServer(process, address, log, time.monotonic() - started)


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
