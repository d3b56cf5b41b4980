"""Finds out which hop answers ``Expect: 100-continue``: ``gunicorn-expect probe URL``.

`exchange` sends the request of a `question` on one connection, and records a `timeline`. `verdict`
interprets it, and `rendering` shows both as text or as JSON. It uses no code of the server.
"""
