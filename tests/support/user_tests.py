"""Runs the tests of a user of our test kit, in another pytest."""

import subprocess
import sys

from support import CHECKOUT


def run_pytest(folder, *options):
    """Run the tests in this folder, where a warning is an error; return what pytest printed."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error"),
            *("-W", "ignore:'cgi' is deprecated:DeprecationWarning"),  # WebTest's WebOb
            *options,
        ],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout
