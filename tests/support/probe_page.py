"""The commands of docs/probe.md and their output, without what differs each time."""

import re

from support import CHECKOUT

PAGE = CHECKOUT.joinpath("docs/probe.md").read_text("utf-8")
BLOCKS = re.findall(r"^```console\n\$ gunicorn-expect (.*?)\n(.*?)^```$", PAGE, re.M | re.S)


def blocks(address):
    """Return each command line with this address, and its output."""
    return [(command, output) for command, output in BLOCKS if address in command]


def masked(text):
    """Return the words of an output, without times, addresses, versions and counts of bytes."""
    text = re.sub(r"-?\d+\.\d ms", "- ms", text)
    text = re.sub(r"nothing more for \d+\.\d s", "nothing more for - s", text)
    text = re.sub(r"^ *The first response is late:.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"connected to \S+", "connected to -", text)
    text = re.sub(r"nginx/[\d.]+\d", "nginx/-", text)
    text = re.sub(r"\d+ of 50000000", "- of 50000000", text)
    return text.split()
