"""An OpenID Connect provider for tests: it signs in whoever the test names, without asking. On the loopback address."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "loupe"
CLIENT_SECRET = "known to both"


class OidcProvider(ThreadingHTTPServer):
    """Answers discovery, authorisation, token and key requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = RSAKey.generate_key(2048, {"kid": "test"})
        self.claims: dict[str, Any] = {}
        """Of the account that signs in next, e.g. sub, email, email_verified."""
        self.nonces: dict[str, str] = {}

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: OidcProvider

    def do_GET(self) -> None:
        parts, issuer = urlsplit(self.path), self.server.issuer
        if parts.path == "/.well-known/openid-configuration":
            endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            self._send({name: f"{issuer}/{path}" for name, path in endpoints.items()} | {"issuer": issuer})
        elif parts.path == "/keys":
            self._send({"keys": [self.server.key.as_dict(private=False) | {"alg": "RS256", "use": "sig"}]})
        elif parts.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            code = f"code-{time.monotonic_ns()}"
            self.server.nonces[code] = asked.get("nonce", "")
            self.send_response(302)
            back = urlencode({"code": code, "state": asked["state"]})
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.end_headers()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        now = int(time.time())
        claims = {
            "iss": self.server.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300,
            "nonce": self.server.nonces.pop(sent["code"][0]), **self.server.claims,
        }  # fmt: skip
        token = jwt.encode({"alg": "RS256", "kid": "test"}, claims, self.server.key)
        self._send({"access_token": "a", "token_type": "Bearer", "expires_in": 300, "id_token": token})

    def _send(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@contextmanager
def oidc_provider() -> Iterator[OidcProvider]:
    """Run a provider until the block ends."""
    server = OidcProvider()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
