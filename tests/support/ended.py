"""Runs a gunicorn that ends by itself: it finds an error, or only checks its configuration."""

import os
import subprocess
import sys

from support import CHECKOUT, PATIENCE, TESTS


def run_gunicorn(*arguments, cwd=None, path=(), **env):
    """Run gunicorn until it ends; return the completed process.

    Args:
        arguments: of its command line.
        cwd: the folder in which it runs, and from which it imports.
        path: folders from which it imports first.
        env: its environment.

    """
    folders = [*path, TESTS, CHECKOUT, *([cwd] if cwd else [])]
    return subprocess.run(
        [sys.executable, "-m", "gunicorn", *arguments, "apps.router:app"],
        cwd=cwd,
        env={"PYTHONPATH": os.pathsep.join(map(str, folders))} | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def refusal_of(*arguments, **options):
    """Run a gunicorn that must refuse to start a worker; return the line that says why."""
    result = run_gunicorn("--bind", "127.0.0.1:0", *arguments, **options)
    assert result.returncode == 1
    assert "Booting worker" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if line and "[INFO]" not in line]
    return line
