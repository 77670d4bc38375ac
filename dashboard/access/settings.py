"""How this server is guarded, from the environment and Streamlit's settings; refuses what would be open by mistake.

The password or its hash never comes from params.yaml, which git and DVC keep.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dashboard.access.gate import Guard
from dashboard.access.oidc_guard import OidcGuard
from dashboard.access.password import PasswordHash, hash_password, parse_hash
from dashboard.access.password_guard import PasswordGuard
from loupe.errors import PipelineError, problems_message

PASSWORD, PASSWORD_FILE, OPEN = "LOUPE_PASSWORD", "LOUPE_PASSWORD_FILE", "LOUPE_OPEN"
TRIALS = "LOUPE_TRIALS"


@lru_cache(maxsize=1)
def guard_of_this_server() -> Guard | None:
    """Return the guard that the environment asks for, the same one each time; PipelineError when it is set wrongly."""
    return guard_of(os.environ, _secrets())


def is_open_to_all() -> bool:
    """Return whether the owner said that everyone may look."""
    return _said_open(os.environ)


def may_run_trials() -> bool:
    """Return whether visitors may queue, start and stop trials: on a shared review only if LOUPE_TRIALS is yes.

    Who may look need not be who may spend hours of this machine. Without a guard only its owner comes.
    """
    said = os.environ.get(TRIALS, "")
    if said not in ("", "yes", "no"):
        raise PipelineError(f"{TRIALS} is {said!r}; it must be yes, no, or not set.")
    is_shared = is_open_to_all() or guard_of_this_server() is not None
    return said == "yes" or (not said and not is_shared)


def check_binding() -> list[str]:
    """Return what to warn of; PipelineError when the address, the names or the guard do not go together."""
    from streamlit import config

    return binding_warnings(
        address=config.get_option("server.address") or "0.0.0.0",
        allowed_hosts=config.get_option("server.allowedHosts"),
        encrypted=bool(config.get_option("server.sslCertFile")),
        guard=guard_of_this_server(),
        open_to_all=is_open_to_all(),
        trials=may_run_trials(),
    )


def guard_of(environment: Mapping[str, str], secrets: Mapping[str, Any]) -> Guard | None:
    """Return the guard that environment and secrets.toml ask for; None when they ask for none."""
    ways = [name for name in (PASSWORD, PASSWORD_FILE, OPEN) if name in environment]
    if "auth" in secrets:
        ways.append("[auth] of secrets.toml")
    if len(ways) > 1:
        raise PipelineError(f"{' and '.join(ways)} are set at the same time. Choose one way to guard the review.")
    _said_open(environment)
    if PASSWORD in ways:
        try:
            return PasswordGuard(hash_password(environment[PASSWORD]))
        except PipelineError as error:
            raise PipelineError(f"{PASSWORD}: {error}") from None
    if PASSWORD_FILE in ways:
        return PasswordGuard(parse_hash_file(Path(environment[PASSWORD_FILE])))
    if "auth" in secrets:
        return OidcGuard(secrets["auth"], secrets.get("loupe", {}).get("reviewers", ()))
    return None


def parse_hash_file(file: Path) -> PasswordHash:
    """Return the password hash in a file; PipelineError when there is none."""
    try:
        return parse_hash(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{PASSWORD_FILE}: {file} cannot be read ({error.__class__.__name__}). Write it with: "
            "python -m dashboard.access.password FILE"
        ) from None
    except PipelineError as error:
        raise PipelineError(f"{PASSWORD_FILE}: {file}: {error}") from None


def binding_warnings(
    *, address: str, allowed_hosts: Sequence[str], encrypted: bool, guard: Guard | None, open_to_all: bool, trials: bool
) -> list[str]:
    """Return what to warn of when the server listens at this address; with `trials` its visitors may queue them.

    Raises PipelineError for an address that others can reach when nothing guards the review: pictures, prompts and
    votes would lie open to the network by one mistaken option.
    """
    if _is_loopback(address):
        return []
    problems = []
    if guard is None and not open_to_all:
        problems.append(
            f"Whoever reaches this machine could see the pictures, read the prompts and vote. Guard the review with a "
            f"password ({PASSWORD_FILE}=FILE) or accounts ([auth] in secrets.toml); README tells how. To let everyone "
            f"in on purpose: {OPEN}=yes"
        )
    if allowed_hosts and all(_is_loopback(host) for host in allowed_hosts):
        problems.append("Nobody could open it: say the name that people type, --server.allowedHosts NAME")
    if problems:
        raise PipelineError(problems_message(f"--server.address {address}", problems))
    warnings = []
    if open_to_all:
        may = "can vote and can queue trials" if trials else "and can vote"
        warnings.append(f"{OPEN}=yes: everyone who reaches {address} sees this review{',' if trials else ''} {may}.")
    if not encrypted:
        warnings.append(
            f"{address} is served without encryption: passwords and cookies can be read on the way. Give it "
            "--server.sslCertFile and --server.sslKeyFile, or put a server in front of it that encrypts."
        )
    return warnings


def _secrets() -> Mapping[str, Any]:
    from streamlit import config
    from streamlit.runtime.secrets import secrets_singleton

    files = [file for file in config.get_option("secrets.files") if Path(file).exists()]
    if not files:
        return {}
    if not secrets_singleton.load_if_toml_exists():
        # Streamlit would go on without it, and so without the guard that it may hold.
        raise PipelineError(
            "secrets.toml cannot be read, so it is unknown whether it asks to sign in. Mend or remove it."
        )
    return secrets_singleton.to_dict()


def _said_open(environment: Mapping[str, str]) -> bool:
    if OPEN in environment and environment[OPEN] != "yes":
        raise PipelineError(f"{OPEN} is {environment[OPEN]!r}; it must be yes, or not set.")
    return OPEN in environment


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
