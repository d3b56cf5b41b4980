"""docs/testing.md: its tests are run."""

import re

from gunicorn_expect import testing
from support import CHECKOUT
from support.user_tests import run_pytest

PAGE = CHECKOUT.joinpath("docs/testing.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {block.split("\n", 1)[0].removeprefix("# "): block for _, block in BLOCKS}


def write(folder, **replaced):
    for name, text in {**FILES, **replaced}.items():
        folder.joinpath(name).write_text(text, "utf-8")


def test_the_tests_of_the_page_pass(tmp_path):
    assert {language for language, _ in BLOCKS} == {"python"}
    assert set(FILES) == {"uploads.py", "test_uploads.py", "conftest.py", "test_on_the_wire.py"}
    write(tmp_path)
    output = run_pytest(tmp_path, "-rA")
    tests = re.findall(r"^def (test_\w+)", PAGE, re.MULTILINE)
    assert set(re.findall(r"^PASSED \S+::(\w+)", output, re.MULTILINE)) == set(tests), output
    assert "FAILED" not in output


def test_the_tests_of_the_page_find_a_view_that_reads_too_early(tmp_path):
    early = FILES["uploads.py"].replace(
        "def app(environ, start_response):\n",
        "def app(environ, start_response):\n    environ['wsgi.input'].read(1)\n",
    )
    write(tmp_path, **{"uploads.py": early})
    failed = set(re.findall(r"^FAILED \S+::(\w+)", run_pytest(tmp_path, "-rA"), re.MULTILINE))
    assert {
        "test_without_a_token_nothing_is_read",
        "test_a_client_that_waits_sends_no_byte_of_a_refused_upload",
    } <= failed


def test_the_page_has_the_names_of_the_package():
    table = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert table == [member.name for member in testing.DecidedBy]
    outside = {"TestRequest", "TestResponse"}  # TestApp creates these
    assert [name for name in testing.__all__ if name not in PAGE and name not in outside] == []
