"""The applications of the tests, each module named after its subject.

Most of them are small, and `router` serves each under its path. The others are separate
applications: a test starts a server with them.
"""
