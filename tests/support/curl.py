"""curl, as a client of the tests."""

import shutil
import subprocess

from support.installed import missing


def curl(*arguments):
    """Run curl; return what it received, interim responses included."""
    program = shutil.which("curl") or missing("curl", "apt-get install curl")
    # By default curl sends the body after a second without a response. A busy machine needs more.
    waits = ("--expect100-timeout", "60")
    command = [program, "--silent", "--show-error", "--include", *waits, *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
