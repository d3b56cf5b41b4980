"""Which code has read a body, found in the calls that led to the read, for the warnings."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType

    #: The module, the code and the line of a function that runs.
    Call = tuple[str, CodeType, int]
    #: The innermost call first.
    Calls = tuple[Call, ...]

#: Packages that never belong to the application, whatever folder they are in.
_LIBRARIES: Final = frozenset({"gunicorn", "gunicorn_expect"}) | sys.stdlib_module_names

#: Names of folders with installed packages; the second is that of Debian.
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})

#: The most modules in a message: enough for a framework's request and an extension that uses it.
_LISTED: Final = 6


class Reading:
    """Which code has read a body."""

    def __init__(self, calls: Calls, application: str) -> None:
        """Find it in the calls that led to the read.

        Args:
            calls: the calls between the server and the body.
            application: the module of the application, as it was given to gunicorn. What is in the
                same package is its own code, even if that package is installed.

        """
        package = application.partition(".")[0]
        self._own = tuple(call for call in calls if _is_own(call, package))
        before = calls.index(self._own[0]) if self._own else None
        #: The modules through which the application has read, or which have read by themselves.
        self._through = tuple(dict.fromkeys(call[0] for call in calls[:before]))

        #: Equal for two reads that the same lines of the application led to. Two views that
        #: read through the same function differ.
        self.key: tuple[object, ...] = self._own or self._through
        #: Whether Sentry's SDK has read it.
        self.is_sentry = any(module.startswith("sentry_sdk.") for module in self._through)

    def __str__(self) -> str:
        """Return the application's own line, or the libraries if none of its lines did it."""
        through = ", called by ".join(self._through[:_LISTED])
        if not self._own:
            return f"by {through}"
        module, code, line = self._own[0]
        place = f"in {module}.{code.co_name} ({code.co_filename}, line {line})"
        return f"{place} by {through}" if through else place


def _is_own(call: Call, package: str) -> bool:
    module, code, _ = call
    top = module.partition(".")[0]
    if top == package:
        return True
    file = PurePath(code.co_filename)
    return not (
        top in _LIBRARIES or _INSTALLED.intersection(file.parts) or file.name.startswith("<")
    )
