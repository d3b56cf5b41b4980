"""The tables of the pages that tests compare with what they observe, or write."""

import dataclasses
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Table:
    """A table between two comments of a page: ``<!-- mark -->`` and ``<!-- /mark -->``."""

    page: Path
    mark: str
    columns: list[str]

    @property
    def _pattern(self):
        return re.compile(rf"(?<=<!-- {self.mark} -->\n).*?(?=<!-- /{self.mark} -->)", re.DOTALL)

    def lines(self):
        return self._pattern.search(self.page.read_text("utf-8"))[0].splitlines()

    def row(self, name):
        return next(line for line in self.lines() if line.startswith(f"| {name} |"))

    def heading(self):
        return [f"| {' | '.join(self.columns)} |", f"{'|---' * len(self.columns)}|"]

    def write(self, rows):
        text = "".join(f"{line}\n" for line in [*self.heading(), *rows])
        self.page.write_text(
            self._pattern.sub(lambda _: text, self.page.read_text("utf-8")), "utf-8"
        )


def amounts(sent, size):
    """Return how many of ``size`` bytes were sent, the fewest and the most of several tries."""
    words = [
        {0: "0 bytes", size: "all"}.get(of(sent), f"{of(sent) / 1e6:.1f} MB")
        for of in (min, max)
        if sent
    ]
    return " to ".join(dict.fromkeys(words))
