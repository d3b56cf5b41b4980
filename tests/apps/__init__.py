"""The applications of the tests, each module named after its subject.

Most of them are small, and `router` serves each under its path. The others are applications of
their own, which a server is started with by name.
"""
