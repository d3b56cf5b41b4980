"""How each gunicorn worker plugs in: the same verbs in each."""
