"""Signed cookies that expire, and the pause that grows with wrong passwords. It knows no request and no page."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass

SESSION_S = 12 * 3600.0
"""A working day; then the password is asked again."""
_TOKEN = re.compile(r"(\d{1,12})\.([\w-]{22})\.([\w-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser."""

    expires_s: float
    """Seconds since the epoch."""
    name: str
    """Tells it from other sessions."""


class Sessions:
    """Makes and checks the tokens of sessions; a token that was made with another key, or altered, is no session."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ended: dict[str, float] = {}

    def begin(self, *, now_s: float) -> str:
        """Return the token of a new session, to be kept in a cookie: expiry, a random name, and the signature."""
        signed = f"{int(now_s + SESSION_S)}.{secrets.token_urlsafe(16)}"
        return f"{signed}.{self._signature(signed)}"

    def find(self, token: str, *, now_s: float) -> Session | None:
        """Return the session of a token, or None when it is forged, expired or ended."""
        parts = _TOKEN.fullmatch(token)
        if parts is None or not hmac.compare_digest(self._signature(f"{parts[1]}.{parts[2]}"), parts[3]):
            return None
        session = Session(expires_s=float(parts[1]), name=parts[2])
        return None if session.expires_s <= now_s or session.name in self._ended else session

    def end(self, session: Session, *, now_s: float) -> None:
        """End a session before its time, so that a copy of its cookie is worth nothing."""
        self._ended = {name: expires_s for name, expires_s in self._ended.items() if expires_s > now_s}
        self._ended[session.name] = session.expires_s

    def _signature(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode("ascii"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


@dataclass(frozen=True, slots=True)
class _Patience:
    free_tries: int
    longest_wait_s: float
    forgets_after_s: float


_WITH_ONE = _Patience(free_tries=5, longest_wait_s=300.0, forgets_after_s=3600.0)
_WITH_ALL = _Patience(free_tries=50, longest_wait_s=2.0, forgets_after_s=60.0)
"""Many addresses together guess no faster than one try in two seconds; short enough not to lock reviewers out."""
_EVERYBODY = "everybody"
_MAX_CLIENTS = 4096


class WrongTries:
    """Counts wrong passwords by network address; each beyond the free ones doubles the pause before the next."""

    def __init__(self) -> None:
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str, *, now_s: float) -> float:
        """Return the seconds until this address may try again; 0 when it may now."""
        return max(self._wait_s(_who(address), _WITH_ONE, now_s), self._wait_s(_EVERYBODY, _WITH_ALL, now_s))

    def count(self, address: str, *, now_s: float) -> None:
        """Count a try as wrong: before it is checked, so that many at once gain nothing."""
        for who, patience in ((_who(address), _WITH_ONE), (_EVERYBODY, _WITH_ALL)):
            self._tries[who] = (self._count(who, patience, now_s) + 1, now_s)
            self._tries.move_to_end(who)
        while len(self._tries) > _MAX_CLIENTS:
            self._tries.popitem(last=False)

    def forgive(self, address: str) -> None:
        """Forget the tries of an address whose password was right, and that one try among everybody's."""
        self._tries.pop(_who(address), None)
        if _EVERYBODY in self._tries:
            count, last_s = self._tries[_EVERYBODY]
            self._tries[_EVERYBODY] = (count - 1, last_s)

    def _count(self, who: str, patience: _Patience, now_s: float) -> int:
        count, last_s = self._tries.get(who, (0, now_s))
        return count if now_s - last_s < patience.forgets_after_s else 0

    def _wait_s(self, who: str, patience: _Patience, now_s: float) -> float:
        beyond = self._count(who, patience, now_s) - patience.free_tries
        if beyond < 0:
            return 0.0
        pause_s = min(2.0 ** min(beyond, 30), patience.longest_wait_s)
        return max(0.0, self._tries[who][1] + pause_s - now_s)


def _who(address: str) -> str:
    """Return the address, or for IPv6 its /64 network: one household has 2**64 of those addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(getattr(found, "ipv4_mapped", None) or found)
