"""How a server is guarded: passwords as hashes, a pause that grows, and no address that is open by mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.access import password as password_module
from dashboard.access.gate import Gate
from dashboard.access.oidc_guard import OidcGuard
from dashboard.access.password import hash_password, parse_hash
from dashboard.access.password_guard import PasswordGuard
from dashboard.access.settings import binding_warnings, check_binding, guard_of, guard_of_this_server
from dashboard.access.sign_in import SESSION_S, Sessions, WrongTries
from loupe.errors import PipelineError
from tests.apps.page_driver import html_of
from tests.run_fixture import ROOT, Shape, complete_run

PASSWORD = "correct horse battery"
AUTH: dict[str, Any] = {
    "redirect_uri": "https://review.example.org/oauth2callback", "cookie_secret": "k" * 40, "client_id": "loupe",
    "client_secret": "s", "server_metadata_url": "https://accounts.example.org/.well-known/openid-configuration",
}  # fmt: skip
LIST = {"reviewers": ["ann@example.org", "@lab.example.org"]}


def test_a_hash_knows_its_password_only_and_comes_back_from_its_line() -> None:
    kept = hash_password(PASSWORD)
    again = parse_hash(f"{kept.encoded()}\n")
    assert again == kept
    assert again.matches(PASSWORD)
    assert not any(again.matches(wrong) for wrong in ("", PASSWORD + " ", PASSWORD.upper(), kept.encoded()))
    assert PASSWORD not in kept.encoded()
    assert hash_password(PASSWORD).encoded() != kept.encoded(), "each has its own salt"
    assert kept.digest.hex() not in repr(kept)


def test_letters_match_composed_or_decomposed() -> None:
    assert hash_password("Schöne Grüße!").matches("Scho\u0308ne Gru\u0308ße!")


@pytest.mark.parametrize(
    "line",
    [
        "", PASSWORD, "$scrypt$ln=15,r=8,p=3$c2FsdA==$c2hvcnQ=", "$scrypt$ln=1,r=8,p=3${salt}${digest}",
        "$scrypt$ln=40,r=8,p=3${salt}${digest}", "$scrypt$ln=15,r=0,p=3${salt}${digest}", "$scrypt$ln=15,r=8,p=3$x$y",
    ],
)  # fmt: skip
def test_what_is_no_hash_is_refused(line: str) -> None:
    _, _, _, salt, digest = hash_password(PASSWORD).encoded().split("$")
    with pytest.raises(PipelineError, match=r"python -m dashboard\.access\.password FILE"):
        parse_hash(line.replace("{salt}", salt).replace("{digest}", digest))


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
def test_a_password_of_a_wrong_length_is_refused(password: str) -> None:
    with pytest.raises(PipelineError, match="12 to 256"):
        hash_password(password)


def test_the_command_writes_a_hash_that_its_owner_alone_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept" / "password"
    monkeypatch.setattr(sys, "argv", ["password", str(file)])
    monkeypatch.setattr(password_module.getpass, "getpass", lambda _: PASSWORD)
    password_module.main()
    assert parse_hash(file.read_text()).matches(PASSWORD)
    assert file.stat().st_mode & 0o077 == 0
    assert isinstance(guard_of({"LOUPE_PASSWORD_FILE": str(file)}, {}), PasswordGuard)


def test_the_pause_grows_up_to_a_limit_and_is_forgotten() -> None:
    tries = WrongTries()
    now, waits = 1000.0, []
    for _ in range(20):
        waits.append(tries.wait_s("192.0.2.1", now_s=now))
        now += waits[-1]
        tries.count("192.0.2.1", now_s=now)
    assert waits[:5] == [0.0] * 5
    assert waits[5:9] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == 300.0
    assert tries.wait_s("192.0.2.2", now_s=now) == 0.0
    assert tries.wait_s("192.0.2.1", now_s=now + 3600) == 0.0
    tries.forgive("192.0.2.1")
    assert tries.wait_s("192.0.2.1", now_s=now) == 0.0


def test_many_addresses_together_are_slowed_down_and_one_network_counts_as_one() -> None:
    tries = WrongTries()
    for place in range(52):
        tries.count(f"192.0.2.{place}", now_s=1000.0)
    assert tries.wait_s("198.51.100.1", now_s=1000.0) == 2.0
    own = WrongTries()
    for place in range(6):
        own.count(f"2001:db8::{place:x}", now_s=1000.0)
    assert own.wait_s("2001:db8::ffff", now_s=1000.0) > 0
    assert own.wait_s("2001:db8:0:1::1", now_s=1000.0) == 0.0
    for place in range(6):
        own.count(f"::ffff:192.0.2.{place}", now_s=1000.0)
    assert own.wait_s("::ffff:192.0.2.77", now_s=1000.0) == 0.0, "mapped IPv4 addresses are not one network"


def test_many_reviewers_who_sign_in_at_once_are_not_slowed_down() -> None:
    tries = WrongTries()
    for place in range(200):
        address = f"192.0.2.{place}"
        assert tries.wait_s(address, now_s=1000.0) == 0.0
        tries.count(address, now_s=1000.0)
        tries.forgive(address)
    for place in range(50):
        assert tries.wait_s("198.51.100.1", now_s=1000.0) == 0.0
        tries.count(f"203.0.113.{place}", now_s=1000.0)
    assert tries.wait_s("198.51.100.1", now_s=1000.0) > 0, "and wrong ones count as before"


def test_a_session_of_another_password_is_none() -> None:
    token = Sessions(b"one").begin(now_s=100.0)
    assert Sessions(b"one").find(token, now_s=100.0 + SESSION_S - 1) is not None
    assert Sessions(b"one").find(token, now_s=100.0 + SESSION_S + 1) is None
    assert Sessions(b"two").find(token, now_s=100.0) is None


@pytest.mark.parametrize(
    ("environment", "secrets", "message"),
    [
        ({"LOUPE_PASSWORD": ""}, {}, "LOUPE_PASSWORD: The password has 0 characters"),
        ({"LOUPE_PASSWORD_FILE": ""}, {}, "cannot be read"),
        ({"LOUPE_PASSWORD_FILE": "no/such/file"}, {}, "no/such/file cannot be read"),
        ({"LOUPE_PASSWORD": PASSWORD, "LOUPE_PASSWORD_FILE": "x"}, {}, "Choose one way"),
        ({"LOUPE_PASSWORD": PASSWORD, "LOUPE_OPEN": "yes"}, {}, "Choose one way"),
        ({"LOUPE_PASSWORD": PASSWORD}, {"auth": AUTH}, "Choose one way"),
        ({"LOUPE_OPEN": "1"}, {}, "it must be yes"),
        ({}, {"auth": AUTH}, r"\[loupe\]\.reviewers must list who may look"),
        ({}, {"auth": AUTH, "loupe": {"reviewers": ["ann"]}}, "reviewers must list"),
        ({}, {"auth": {**AUTH, "cookie_secret": "short"}, "loupe": LIST}, "at least 32 random characters"),
        ({}, {"auth": {**AUTH, "redirect_uri": "https://x/"}, "loupe": LIST}, "followed by /oauth2callback"),
        ({}, {"auth": {**AUTH, "client_secret": ""}, "loupe": LIST}, r"\[auth\] has no client_secret"),
        ({}, {"auth": {"a_b": {"client_id": "x"}}, "loupe": LIST}, "underscore"),
        ({}, {"auth": {}, "loupe": LIST}, "names no provider"),
    ],
)
def test_a_wrong_setting_stops_the_server_and_never_opens_it(
    environment: dict[str, str], secrets: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        guard_of(environment, secrets)


def test_each_way_gives_its_guard() -> None:
    assert guard_of({}, {}) is None
    assert guard_of({"LOUPE_OPEN": "yes"}, {}) is None
    assert isinstance(guard_of({"LOUPE_PASSWORD": PASSWORD}, {}), PasswordGuard)
    assert isinstance(guard_of({}, {"auth": AUTH, "loupe": LIST}), OidcGuard)


def binding(**changed: Any) -> list[str]:
    return binding_warnings(
        **{"address": "0.0.0.0", "allowed_hosts": ["review.example.org"], "encrypted": True, "guard": None,
           "open_to_all": False, "trials": False, **changed}
    )  # fmt: skip


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_the_own_machine_needs_no_guard(address: str) -> None:
    assert binding(address=address, encrypted=False) == []


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "review.example.org", "127.0.0.1.example.org"])
def test_an_address_that_others_reach_needs_one(address: str) -> None:
    with pytest.raises(PipelineError, match="Guard the review"):
        binding(address=address)
    guard = PasswordGuard(hash_password(PASSWORD))
    assert binding(address=address, guard=guard) == []
    (warning,) = binding(address=address, guard=guard, encrypted=False)
    assert "without encryption" in warning
    with pytest.raises(PipelineError, match=r"server\.allowedHosts NAME"):
        binding(address=address, guard=guard, allowed_hosts=["127.0.0.1", "localhost", "::1"])
    (said,) = binding(address=address, open_to_all=True)
    assert f"everyone who reaches {address} sees this review and can vote." in said
    (said,) = binding(address=address, open_to_all=True, trials=True)
    assert "can vote and can queue trials." in said


def test_pages_without_their_gate_show_nothing_of_a_guarded_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As with `streamlit run dashboard/review.py`."""
    complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=0))
    monkeypatch.setenv("LOUPE_PROJECT", str(tmp_path))
    monkeypatch.setenv("LOUPE_PASSWORD", PASSWORD)
    monkeypatch.setattr(Gate, "is_up", False)
    guard_of_this_server.cache_clear()
    try:
        app = AppTest.from_file(str(ROOT / "dashboard" / "review.py"), default_timeout=120).run()
    finally:
        guard_of_this_server.cache_clear()
    assert "served by dashboard/server.py alone" in app.error[0].value
    assert html_of(app) == ""
    assert not app.get("vega_lite_chart")


def test_a_wrong_setting_of_trials_stops_the_server_and_not_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_TRIALS", "on")
    with pytest.raises(PipelineError, match="LOUPE_TRIALS is 'on'; it must be yes, no, or not set"):
        check_binding()


def test_a_server_that_would_be_open_by_mistake_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/server.py", "--server.address", "0.0.0.0"]
    done = subprocess.run(
        [*command, "--server.port", "0"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    assert "error: --server.address 0.0.0.0: 2 problems" in done.stderr
    assert "Traceback" not in done.stderr
