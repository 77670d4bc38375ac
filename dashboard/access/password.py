"""One shared password as a salted scrypt hash, and the command that writes that hash to a file.

Who may try how often is sign_in.py's concern; nothing here reads the environment. The password itself is never kept.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import getpass
import hashlib
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from loupe.atomic_io import write_text
from loupe.errors import PipelineError, exit_on_user_error

MIN_LENGTH, MAX_LENGTH = 12, 256
_LOG2_N, _BLOCK_SIZE, _PARALLEL = 15, 8, 3
"""32 MiB and about 0.2 s a try: one of the settings that OWASP's password storage cheat sheet recommends."""
_SALT_BYTES, _DIGEST_BYTES = 16, 32
_ENCODED = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([\w+/=]+)\$([\w+/=]+)")
_MAX_MEMORY_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password."""

    log2_n: int
    block_size: int
    parallel: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def matches(self, password: str) -> bool:
        """Return whether this is the password, after the same work and the same comparison for a wrong one."""
        found = _scrypt(password, self.salt, self.log2_n, self.block_size, self.parallel)
        return hmac.compare_digest(found, self.digest)

    def encoded(self) -> str:
        """Return one line that parse_hash reads, in the form of the Password Hashing Competition."""
        salt, digest = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.digest))
        return f"$scrypt$ln={self.log2_n},r={self.block_size},p={self.parallel}${salt}${digest}"


def hash_password(password: str) -> PasswordHash:
    """Return the hash of a new password under a fresh salt; PipelineError when it is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise PipelineError(f"The password has {len(password)} characters; it must have {MIN_LENGTH} to {MAX_LENGTH}.")
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, salt, _LOG2_N, _BLOCK_SIZE, _PARALLEL)
    return PasswordHash(_LOG2_N, _BLOCK_SIZE, _PARALLEL, salt, digest)


def parse_hash(text: str) -> PasswordHash:
    """Return the hash that a file holds; PipelineError for anything else, a bare password above all."""
    found = _ENCODED.fullmatch(text.strip())
    try:
        log2_n, block_size, parallel = (int(found[place]) for place in (1, 2, 3)) if found else (0, 0, 0)
        salt, digest = (base64.b64decode(found[place], validate=True) for place in (4, 5)) if found else (b"", b"")
    except binascii.Error:
        log2_n, block_size, parallel, salt, digest = 0, 0, 0, b"", b""
    sound = log2_n >= 10 and block_size and parallel and len(salt) >= _SALT_BYTES and len(digest) == _DIGEST_BYTES
    if not sound or 128 * block_size * 2**log2_n > _MAX_MEMORY_BYTES // 2:
        raise PipelineError(
            "it holds no password hash of Loupe's. Write one with: python -m dashboard.access.password FILE"
        )
    return PasswordHash(log2_n, block_size, parallel, salt, digest)


def _scrypt(password: str, salt: bytes, log2_n: int, block_size: int, parallel: int) -> bytes:
    # The same letters may come composed or decomposed, depending on the keyboard.
    secret = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(
        secret, salt=salt, n=2**log2_n, r=block_size, p=parallel, maxmem=_MAX_MEMORY_BYTES, dklen=_DIGEST_BYTES
    )


def main() -> None:
    """Ask for a password twice and write its hash to a file that only its owner can read."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboard.access.password",
        description="Write the hash of a password for the review. Then start it with LOUPE_PASSWORD_FILE=FILE.",
    )
    parser.add_argument("file", type=Path, help="for example .work/password, which git and DVC ignore")
    file: Path = parser.parse_args().file

    def ask_and_write() -> None:
        password = getpass.getpass("Password of the review: ")
        if password != getpass.getpass("Once more: "):
            raise PipelineError("The two differ; nothing was written.")
        line = hash_password(password).encoded()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, f"{line}\n")
        file.chmod(0o600)
        print(f"Written. Start the review with LOUPE_PASSWORD_FILE={file}")

    exit_on_user_error(ask_and_write)


if __name__ == "__main__":
    main()
