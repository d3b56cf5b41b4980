"""Which hop answers my expectation? ``gunicorn-expect probe URL``.

A `question` is asked on one connection by `exchange`; what was seen is a `timeline`; `verdict` says
what that means, and `rendering` shows both, as text or as JSON. Nothing of the server is used.
"""
