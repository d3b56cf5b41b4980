"""A clock that a test advances, instead of the module `time`."""


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now
