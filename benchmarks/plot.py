"""Draw what ``bodies.py FILE`` has measured, and print it as the table of docs/performance.md.

``python plot.py FILE PICTURE.svg``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot

COLORS = {"stock": "#9aa5b1", "ours": "#d9480f", "bare": "#343a40"}
NAMES = {"stock": "stock gunicorn", "ours": "gunicorn_expect", "bare": "bare socket"}


def table(lines: dict[str, dict[str, float]]) -> None:
    """Print it in Markdown."""
    print(
        "| | 64 MiB: stock | ours | bare | to stock | to bare | 64 KiB: stock | ours | to stock |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, line in lines.items():
        print(
            f"| {name} "
            "| {large stock:,.0f} | {large ours:,.0f} | {large bare:,.0f} "
            "| {large to stock:.1f} | {large to bare:.2f} "
            "| {small stock:,.0f} | {small ours:,.0f} | {small to stock:.1f} |".format(**line)
        )


def draw(lines: dict[str, dict[str, float]], picture: Path) -> None:
    """Draw the thread worker's lines, 64 MiB bodies beside 64 KiB bodies."""
    ways = {
        name.partition(", ")[2]: line
        for name, line in lines.items()
        if name.startswith("gthread, ")
    }
    # Text stays text; and the same numbers give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gunicorn_expect"})
    figure, sides = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for side, size, unit in zip(
        sides, ("large", "small"), ("64 MiB bodies, MB/s", "64 KiB bodies a second"), strict=True
    ):
        servers = [server for server in COLORS if size == "large" or server != "bare"]
        height = 0.8 / len(servers)
        for number, server in enumerate(servers):
            side.barh(
                [place + number * height for place in range(len(ways))],
                [line[f"{size} {server}"] for line in ways.values()],
                height=height,
                color=COLORS[server],
                label=NAMES[server],
            )
        side.set_title(unit)
        side.spines[["top", "right"]].set_visible(False)
        side.set_yticks([place + 0.4 - height / 2 for place in range(len(ways))], list(ways))
    sides[0].invert_yaxis()
    sides[0].legend(loc="lower right", frameon=False)
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    """Do both."""
    lines = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    table(lines)
    draw(lines, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
