"""What `make` has installed on this machine: other gunicorns, frameworks, programs."""

import importlib.util
import os

import pytest

from support import CHECKOUT

#: Where `make` puts other gunicorns.
INSTALLED = CHECKOUT / ".venv"

#: Where `make` installs packages of npm.
NODE_MODULES = INSTALLED / "node" / "node_modules"


def missing(what, command="make test"):
    """Skip a test because something is not installed; in CI, fail.

    The command installs it.
    """
    if "CI" in os.environ:
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed: run {command}")


def gunicorn_at(version):
    """Return the folder of another gunicorn."""
    folder = INSTALLED / "gunicorns" / version
    if not folder.exists():
        missing(f"gunicorn {version}")
    return folder


def oldest_gunicorn():
    requirement = next(
        line.strip()
        for line in CHECKOUT.joinpath("setup.cfg").read_text("utf-8").splitlines()
        if line.strip().startswith("gunicorn>=")
    )
    return requirement.removeprefix("gunicorn>=")


def require_fast_parser():
    """Skip a test if there is no gunicorn_h1c, which has to be compiled."""
    if importlib.util.find_spec("gunicorn_h1c") is None:
        missing("gunicorn_h1c", "apt-get install gcc python3-dev; make test")
