"""curl, as a client of the tests."""

import shutil
import subprocess

from support.installed import missing


def curl(*arguments):
    """Run curl; return what it received, interim responses included."""
    program = shutil.which("curl") or missing("curl", "apt-get install curl")
    # By itself it sends the body after a second without a response; a busy machine may be slower.
    waits = ("--expect100-timeout", "60")
    command = [program, "--silent", "--show-error", "--include", *waits, *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
