"""The tables and pictures of docs/performance.md."""

from __future__ import annotations

import platform
import statistics
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from lines import OURS, PEERS, PYTHON, STOCK
from matplotlib import pyplot
from noise import NOISE
from servers import CORES, GEVENT, SYNC
from storing import AIM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from beside import Costs
    from growth import Growth
    from lines import Result
    from noise import Effort, Spread
    from storing import Stored

#: gunicorn's own parser may cost a fifth of the rate with gunicorn_h1c.
AIM_OF_PYTHON: Final = 0.8
#: Of our gevent and sync workers beside gunicorn's, for refusals and for all other requests.
AIM_OF_REFUSALS, AIM_OF_OTHERS = 2.0, 1.0
COLORS: Final = ("#9aa5b1", "#d9480f", "#4c6ef5", "#2b8a3e", "#ae3ec9", "#343a40")


def machine(effort: Effort) -> str:
    """Return a sentence on what was measured, on which machine, and when."""
    of = ", ".join(
        f"{name} {version(name)}"
        for name in ("gunicorn_expect", "gunicorn", "gunicorn_h1c", "gevent", "uvicorn", "granian")
    )
    cores = f"{len(CORES)} cores" if len(CORES) > 1 else "1 core for both: don't trust the figures"
    return (
        f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())}: {of}, Python "
        f"{platform.python_version()}, {platform.system()} {platform.release()}, {cores}; "
        f"{effort.rounds} rounds of {effort.seconds:g} s. In lines marked ~ the machine was too "
        f"noisy: for some server, the middle half of the rounds differs by more than {NOISE:.0%}."
    )


#: The heading of the rate with gunicorn's own parser, divided by that with gunicorn_h1c.
PARSERS: Final = "Python parser / fast parser"
#: The ticks of a picture with ratios.
TIMES: Final = (0.2, 0.5, 1, 2, 5, 10, 20, 50)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _aimed(ratio: float, aim: float | None) -> str:
    digits = f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"
    return f"**{digits}** ({aim:g})" if aim else digits


def _figures(result: Result, server: str) -> str:
    least = "≥ " if result.client_bound(server) else ""
    cpu = result.cpu(server)
    return f"{least}{result.rate(server):,.0f} / {cpu:,.0f}"


def _marked(title: str, measured: Spread) -> str:
    return title + (" ~" if measured.spread() > NOISE else "")


def _title(result: Result) -> str:
    return _marked(result.line.title, result)


def _floor(result: Result) -> str:
    return result.line.floor or ""


def _ratios(result: Result) -> list[str]:
    others = [STOCK, *PEERS, _floor(result)]
    cells = [
        _aimed(result.ratio(OURS, name), result.line.aims.get(name)) if name else ""
        for name in others
    ]
    return [*cells, _aimed(result.ratio(PYTHON, OURS), AIM_OF_PYTHON)]


def _other_workers(result: Result) -> list[str]:
    refusal = result.line.request.status == 403
    cells = []
    for stock, ours, python in (GEVENT, SYNC):
        cells += [_figures(result, kind.name) for kind in (stock, ours)]
        aim = AIM_OF_REFUSALS if refusal else AIM_OF_OTHERS
        cells.append(_aimed(result.ratio(ours.name, stock.name), aim))
        cells.append(_aimed(result.ratio(python.name, ours.name), AIM_OF_PYTHON))
    return cells


def _sent(results: Sequence[Result]) -> list[str]:
    """Return a sentence on the servers that let a refused client send its body, if any did."""
    sent = {
        name: statistics.median(each.sent for each in figures)
        for result in results
        if result.line.request.status == 403
        for name, figures in result.figures.items()
    }
    asked = [f"{name} {count:,.0f}" for name, count in sent.items() if count >= 1]
    if not asked:
        return []
    return [f"Body bytes sent per refusal: {', '.join(asked)}; all others 0."]


def lines(results: Sequence[Result]) -> str:
    """Return the tables of all kinds of request."""
    threads = [STOCK, OURS, PYTHON, *PEERS]
    figures = _table(
        ["requests per second / µs of CPU each", *threads, "floor"],
        [
            [_title(result)]
            + [_figures(result, name) for name in threads]
            + [_figures(result, _floor(result)) if _floor(result) else ""]
            for result in results
        ],
    )
    ratios = _table(
        [f"rate of {OURS}, divided by that of", STOCK, *PEERS, "floor", PARSERS],
        [[_title(result), *_ratios(result)] for result in results],
    )
    compared = ("ours", "ours / stock", PARSERS)
    others = _table(
        ["", *(name for kind in ("gevent", "sync") for name in (f"stock {kind}", *compared))],
        [[_title(result), *_other_workers(result)] for result in results],
    )
    return "\n\n".join([figures, ratios, others, *_sent(results)])


def beside(measured: Sequence[Costs]) -> str:
    """Return the table of what slow and idle clients cost."""
    return _table(
        [
            "slow clients",
            "request",
            "server",
            "alone",
            "beside them",
            "ratio",
            "KiB per slow client",
        ],
        [
            [_marked(each.company.title, each), request, cost.server]
            + [f"{statistics.median(rates[request]):,.0f}" for rates in (cost.alone, cost.beside)]
            + [
                _aimed(cost.ratio(request), each.company.aims[request] if cost.ours else None),
                f"{cost.memory:.1f}",
            ]
            for each in measured
            for request in each.company.requests
            for cost in each.costs
        ],
    )


def growth(growths: Sequence[Growth]) -> str:
    """Return the tables of rates against something that grows."""
    return "\n\n".join(
        _table(
            [
                _marked(each.title, each),
                *(f"{step:,}" for step in each.steps),
                "lowest / first",
            ],
            [
                [server, *(f"{x:,.0f}" for x in each.rates(server)), f"{each.least(server):.2f}"]
                for server in each.rounds
            ],
        )
        for each in growths
    )


def stored(measured: Stored) -> str:
    """Return the table of what resumable uploads cost."""
    medians = [statistics.median(rates) for rates in measured.rates.values()]
    return _table(
        ["", *measured.rates, "resumable / plain"],
        [
            [
                _marked(measured.title, measured),
                *(f"{rate:,.0f}" for rate in medians),
                _aimed(measured.ratio(), AIM),
            ]
        ],
    )


def _save(figure: mpl.figure.Figure, picture: Path) -> None:
    # Text stays text; and the same numbers give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gunicorn_expect"}):
        figure.savefig(picture, metadata={"Date": None})
    pyplot.close(figure)


def draw_lines(results: Sequence[Result], picture: Path) -> None:
    """Draw how many times stock gthread's rate each server has, and write both figures at it."""
    figure, axes = pyplot.subplots(figsize=(10, 1.1 * len(results) + 1), layout="constrained")
    height = 0.14
    for number, label in enumerate((STOCK, OURS, *PEERS, "floor")):
        shown = [
            (place, result, _floor(result) if label == "floor" else label)
            for place, result in enumerate(results)
            if label != "floor" or _floor(result)
        ]
        bars = axes.barh(
            [place + number * height for place, _, _ in shown],
            [result.ratio(server, STOCK) for _, result, server in shown],
            height=height,
            color=COLORS[number],
            label=label,
        )
        figures = [_figures(result, server) for _, result, server in shown]
        axes.bar_label(bars, figures, padding=3, fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks(TIMES, [f"{times:g}" for times in TIMES])
    axes.minorticks_off()
    axes.axvline(1, color=COLORS[0], linewidth=0.8, zorder=0)
    axes.set_xlabel(
        "rate divided by stock gthread's; at each bar: requests or MB per second / µs of CPU each"
    )
    axes.set_yticks(
        [place + 2.5 * height for place in range(len(results))],
        [_title(result).replace("`", "") for result in results],
    )
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=6, frameon=False)
    _save(figure, picture)


def draw_growth(growths: Sequence[Growth], picture: Path) -> None:
    """Draw refusals a second against what grows."""
    figure, sides = pyplot.subplots(
        1, len(growths), figsize=(10, 4), layout="constrained", squeeze=False
    )
    for axes, each in zip(sides[0], growths, strict=True):
        seen: set[str] = set()
        for server in each.rounds:
            color = COLORS["ours" in server]
            axes.plot(
                each.steps,
                each.rates(server),
                marker="o",
                color=color,
                linestyle="--" if color in seen else "-",
                label=server,
            )
            seen.add(color)
        axes.set_xscale("log")
        axes.set_xticks(each.steps, [f"{step:,}" for step in each.steps])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(each.title)
        axes.set_ylabel("refusals per second")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8)
    _save(figure, picture)


def write(page: Path, parts: Mapping[str, str]) -> None:
    """Write the parts of the page between their markers."""
    text = page.read_text("utf-8")
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- bench: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, f"{page} has no place for {name}"
        text = f"{before}{begin}\n{part}\n\n{end}{after}"
    page.write_text(text, "utf-8")
