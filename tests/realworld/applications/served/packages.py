"""pypiserver with one folder, and a user who may upload."""

import os

import pypiserver

app = pypiserver.app(
    roots=[os.environ["FOLDER"]], password_file=os.environ["PASSWORDS"], authenticate=["update"]
)
