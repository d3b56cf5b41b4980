"""Checks that objects are freed without the garbage collector."""

import contextlib
import gc


@contextlib.contextmanager
def no_garbage_of(*kinds):
    """Check that no new object of these classes is alive at the end of the block.

    Objects of earlier tests may still be alive: Bottle, for example, keeps the last environ.
    """
    gc.collect()
    before = {id(x) for x in gc.get_objects() if isinstance(x, kinds)}
    gc.disable()
    try:
        yield
        assert [x for x in gc.get_objects() if isinstance(x, kinds) and id(x) not in before] == []
    finally:
        gc.enable()
