"""The cells that `make test` and CI run: `make test` has each value, CI each three of them."""

import dataclasses
import itertools

import pytest

from support.matrix import ALL, QUICK, WIDE


def combinations(cells, size):
    return {
        combination
        for cell in cells
        for combination in itertools.combinations(dataclasses.asdict(cell).items(), size)
    }


@pytest.mark.parametrize(("cells", "size"), [(QUICK, 1), (WIDE, 3)], ids=["make test", "CI"])
def test_every_combination_of_this_many_values_is_in_some_cell(cells, size):
    assert combinations(cells, size) == combinations(ALL, size)
