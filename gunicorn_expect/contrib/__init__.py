"""For frameworks: a broken upload gets 400, 408 or 413, and no traceback in the log.

One module each for Flask, Django, Falcon, Bottle and Pyramid. Nothing else imports them, and none
of the frameworks is a dependency.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gunicorn_expect.errors import BodyError


def status_code(error: BodyError) -> int:
    """Return the status code that the client gets for this error."""
    return int(error.status.partition(" ")[0])


def log(error: BodyError, method: str, path: str) -> None:
    """Log in one line that an upload failed.

    At WARNING: it is no fault of the application, and Sentry alerts from ERROR on.
    """
    logging.getLogger("gunicorn_expect").warning(
        # %r: a path is decoded, and may have line breaks in it.
        "%s %r: the upload failed, answered with %s: %s",
        method,
        path,
        status_code(error),
        error.strerror,
    )
