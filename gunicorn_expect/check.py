"""The command ``gunicorn-expect check``: print a line for every problem of a configuration.

It takes gunicorn's arguments. ``gunicorn --check-config`` alone does not check our settings.
"""

from __future__ import annotations

import contextlib
import io
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import Application
from gunicorn.app.wsgiapp import WSGIApplication

from gunicorn_expect import settings
from gunicorn_expect.workers.base import BaseWorker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gunicorn.config import Config


def run(argv: Sequence[str]) -> int:
    """Check a configuration; return the exit status: 1 if there are errors.

    Args:
        argv: gunicorn's arguments.

    Raises:
        SystemExit: with 2 if gunicorn does not accept them, with 0 after ``--help``.

    """
    sys.argv = ["gunicorn-expect check", *argv]  # gunicorn reads only these
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            configuration = _Configuration("%(prog)s [OPTIONS] [APP_MODULE]")
    except SystemExit:
        sys.stderr.write(errors.getvalue())
        raise
    found = [*dict.fromkeys(_problems(configuration))]
    for problem in found:
        print("Error:", *problem.split(), file=sys.stderr)  # in one line, whatever raised it
    return 1 if found else 0


class _Configuration(WSGIApplication):
    """gunicorn's configuration, and the error that loading it raised, if any."""

    cfg: Config
    app_uri: str | None
    loaded = False
    error: BaseException | None = None

    def do_load_config(self) -> None:
        """Load it and keep the first error, at which gunicorn itself would exit."""
        try:
            super().do_load_config()
        except SystemExit as exited:
            if exited.code != 1:  # argparse has printed its help, or found wrong arguments
                raise
            self.error = exited.__context__

    def load_config(self) -> None:
        """Load it. After this, gunicorn checks whether the settings fit together."""
        Application.load_config(self)  # WSGIApplication's method requires an application
        self.app_uri = self.app_uri or self.cfg.wsgi_app
        self.loaded = True

    def get_config_from_filename(self, filename: str) -> dict[str, Any]:
        """Read a file."""
        return _without_checks(super().get_config_from_filename(filename))

    def get_config_from_module_name(self, module_name: str) -> dict[str, Any]:
        """Import a module."""
        return _without_checks(super().get_config_from_module_name(module_name))


def _without_checks(names: dict[str, Any]) -> dict[str, Any]:
    """Return these names with the worker itself for `BaseWorker.checked`, which would exit."""
    worker = names.get("worker_class")
    if isinstance(worker, types.MethodType) and worker.__func__ is BaseWorker.checked.__func__:  # type: ignore[attr-defined]
        return {**names, "worker_class": worker.__self__}
    return names


def _problems(configuration: _Configuration) -> Iterator[str]:
    if configuration.error is not None:
        yield _line(configuration.error)
    if not configuration.loaded:
        return
    cfg = configuration.cfg
    for folder in (cfg.pythonpath or "").split(","):
        if folder:
            sys.path.insert(0, str(Path(folder).resolve()))
    yield from _worker_problems(cfg)
    try:
        cfg.logger_class  # noqa: B018  reading it imports the class
    except Exception as error:  # noqa: BLE001  whatever its module raises
        yield _line(error)
    if configuration.app_uri:
        try:
            configuration.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever its module raises
            yield f"the application {configuration.app_uri!r} can't be loaded: {_line(error)}"


def _worker_problems(cfg: Config) -> Iterator[str]:
    try:
        worker = cfg.worker_class
    except Exception as error:  # noqa: BLE001  whatever its module raises
        yield _line(error)
        return
    if isinstance(worker, str):  # so gunicorn reports that a module has no such name
        yield f"worker_class is {worker!r}, and there is no such worker"
    elif not issubclass(worker, BaseWorker):
        yield (
            f"worker_class is {cfg.worker_class_str!r}, which ignores expect_ settings: "
            "use gunicorn_expect.Worker"
        )
    else:
        yield from worker.problems(cfg)
        yield from settings.problems(cfg)  # also those of the policy, which is imported now


def _line(error: BaseException) -> str:
    """Return an error in one line."""
    lines = [line.strip(" ]") for line in str(error).splitlines()]
    lines = [line for line in lines if line]
    if any("Traceback" in line for line in lines):  # gunicorn puts a traceback into its message
        lines = [lines[0], lines[-1]]
    text = " ".join(lines)
    return text if isinstance(error, RuntimeError) else f"{type(error).__name__}: {text}"
