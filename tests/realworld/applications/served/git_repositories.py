"""klaus with one repository, and a user who may push."""

import os
from pathlib import Path

from klaus import make_app

with Path(os.environ["PASSWORDS"]).open(encoding="utf-8") as passwords:
    app = make_app([os.environ["REPOSITORY"]], "site", use_smarthttp=True, htdigest_file=passwords)
