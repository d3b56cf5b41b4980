"""The workers: each accepts connections as one of gunicorn's own does, and answers them."""
