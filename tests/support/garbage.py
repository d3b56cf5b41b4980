"""What is left to the garbage collector."""

import contextlib
import gc


@contextlib.contextmanager
def no_garbage_of(*kinds):
    """Check that no object of these classes outlives what is done here.

    What is alive before may be another test's: Bottle, for one, keeps the last environ.
    """
    gc.collect()
    before = {id(x) for x in gc.get_objects() if isinstance(x, kinds)}
    gc.disable()
    try:
        yield
        assert [x for x in gc.get_objects() if isinstance(x, kinds) and id(x) not in before] == []
    finally:
        gc.enable()
