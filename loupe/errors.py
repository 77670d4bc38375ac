"""The one exception for mistakes a user can mend, and how it is shown.

It does not catch bugs: anything that is not a `PipelineError`, a full disk or an interrupt keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Callable, Iterable, Sequence

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class PipelineError(Exception):
    """A mistake in parameters, data or environment: what was found, what was expected, what to do next."""


class UnknownNameError(PipelineError):
    """A name in parameters that can mean nothing, here or on any other machine."""


def nearest_names(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return up to `limit` of `known` that look most like `name`, best first, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=0.5)
    return [by_lower[match] for match in matches]


def problems_message(where: str, problems: Sequence[str]) -> str:
    """Return one message that lists every problem of `where`, so that the user mends them all in one go."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)])


def exit_on_user_error(work: Callable[[], None]) -> None:
    """Run `work`; print a user's mistake bare and exit 2, a full disk or an interrupt in one line each."""
    try:
        work()
    except PipelineError as error:
        sys.exit(_say(str(error), EXIT_USER_ERROR))
    except KeyboardInterrupt:
        sys.exit(_say("Interrupted. Finished work is kept; run the same command again to go on.", EXIT_INTERRUPTED))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        message = f"The disk is full{where}. Nothing half-written is kept; free some space and run it again."
        sys.exit(_say(message, EXIT_USER_ERROR))


def _say(message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    return code
