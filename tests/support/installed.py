"""What `make` has installed on this machine: other Pythons, other gunicorns, programs."""

import os
import pathlib
import sys

import pytest

from support import CHECKOUT

#: Where `make` puts other gunicorns and other Pythons.
INSTALLED = CHECKOUT / ".venv"


def other_pythons():
    """Give the version and the interpreter of each other Python that `make` has set up."""
    return {
        folder.name: folder / "bin" / "python"
        for folder in sorted(INSTALLED.joinpath("pythons").glob("3.*"))
        if folder.joinpath("ready").exists()
        if folder.name != "{}.{}".format(*sys.version_info)
    }


PYTHONS = {"current": pathlib.Path(sys.executable), **other_pythons()}


def missing(what, means="make test"):
    """Skip a test that this machine has no means for; CI must not go without it."""
    if "CI" in os.environ:
        pytest.fail(f"{what} is not installed")
    pytest.skip(f"{what} is not installed: run {means}")


def gunicorn_at(version):
    """Give the folder of another gunicorn."""
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
