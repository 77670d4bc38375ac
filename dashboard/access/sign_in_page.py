"""The pages that a browser sees before it is signed in, as plain HTML: no script, nothing of the run, no other file.

What is asked and checked is guards' concern (password_guard.py, oidc_guard.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from urllib.parse import quote, urlencode, urlsplit

from starlette.responses import HTMLResponse

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
_STYLE = """
:root { color-scheme: light dark; --page: #f7f7f6; --card: #fff; --ink: #1b1c1e; --soft: #5c6066; --line: #dcdddf;
  --accent: #0b63ad; --on-accent: #fff; --bad: #a3301c; }
@media (prefers-color-scheme: dark) { :root { --page: #151618; --card: #1f2124; --ink: #ecebe8; --soft: #a3a6ab;
  --line: #35383d; --accent: #6db7f2; --on-accent: #10222f; --bad: #f0907c; } }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
main { box-sizing: border-box; width: min(25rem, 100vw - 2rem); padding: 2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .4rem; } p { margin: 0 0 1.2rem; color: var(--soft); }
p.bad { color: var(--bad); font-weight: 600; } label { display: block; font-weight: 600; margin-bottom: .3rem; }
input { box-sizing: border-box; width: 100%; padding: .6rem .7rem; font: inherit; color: inherit;
  background: var(--page); border: 1px solid var(--line); border-radius: 6px; }
button, a.button { display: block; box-sizing: border-box; width: 100%; margin-top: 1rem; padding: .65rem;
  text-align: center; text-decoration: none; font: inherit; font-weight: 600; cursor: pointer; border: 0;
  border-radius: 6px; color: var(--on-accent); background: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def password_form(*, back: str, said: str = "", status: int = 401, wait_s: float = 0.0) -> HTMLResponse:
    """Return the form that asks for the password, and what was wrong with the last try."""
    form = (
        f'<form method="post" action="{SIGN_IN}"><input type="hidden" name="back" value="{escape(back, quote=True)}">'
        '<label for="password">Password</label><input id="password" name="password" type="password" '
        'autocomplete="current-password" required autofocus><button>Sign in</button></form>'
    )
    answer = _page("Sign in to this review", "It is shared with those who know its password.", said, form, status)
    if wait_s:
        answer.headers["Retry-After"] = str(math.ceil(wait_s))
    return answer


def provider_links(providers: Sequence[str], *, back: str, said: str = "", status: int = 401) -> HTMLResponse:
    """Return the page with a link to each provider of accounts."""
    query = escape(urlencode({"back": back}), quote=True)
    links = "".join(
        f'<a class="button" href="{SIGN_IN}/{quote(name)}?{query}">'
        f"Sign in{'' if name == 'default' else f' with {escape(name)}'}</a>"
        for name in providers
    )
    return _page("Sign in to this review", "It is shared with the people on its list.", said, links, status)


def sign_out_form() -> HTMLResponse:
    """Return the page that asks whether to sign out."""
    form = f'<form method="post" action="{SIGN_OUT}"><button autofocus>Sign out</button></form>'
    return _page("Sign out of this review?", "Your votes are kept.", "", form, 200)


def local_address(text: str) -> str:
    """Return a page's address on this server; '/' for anything that a browser could take for another server."""
    plain = text.isascii() and text.isprintable() and " " not in text and "\\" not in text
    if not plain or not text.startswith("/") or text.startswith("//"):
        return "/"
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    elsewhere = parts.scheme or parts.netloc or parts.path.startswith((SIGN_IN, SIGN_OUT))
    return "/" if elsewhere else text


def is_own_origin(origin: str, host: str | None) -> bool:
    """Return whether the page that a request came from is one of this server, which is asked under `host`."""
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _page(title: str, sentence: str, said: str, form: str, status: int) -> HTMLResponse:
    wrong = f'<p class="bad" role="alert">{escape(said)}</p>' if said else ""
    content = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="robots" content="noindex">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Loupe</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1><p>{escape(sentence)}</p>{wrong}{form}"
        "</main></body></html>"
    )
    return HTMLResponse(content, status_code=status, headers=_HEADERS)
