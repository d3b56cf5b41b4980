"""The cells that CI runs: fewer than all, and no combination of three values is lost."""

import dataclasses
import itertools

import pytest

from support.matrix import ALL, QUICK, WIDE


def combinations(cells, of):
    return {
        combination
        for cell in cells
        for combination in itertools.combinations(dataclasses.asdict(cell).items(), of)
    }


@pytest.mark.parametrize(("cells", "of"), [(QUICK, 1), (WIDE, 3)], ids=["make test", "CI"])
def test_every_combination_of_so_many_values_is_in_some_cell(cells, of):
    assert combinations(cells, of) == combinations(ALL, of)
