"""docs/: the site builds, the pictures are up to date, what is named exists, and the code runs."""

import html
import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest
from gunicorn.config import Config

import gunicorn_expect
from gunicorn_expect import (
    State,
    admission,
    advice,
    exchange,
    framing,
    policies,
    receiver,
    settings,
    transport,
)
from support import CHECKOUT, PATIENCE, TESTS
from support.client import Client, request, waiting
from support.installed import missing
from support.server import Server

DOCS = CHECKOUT / "docs"
PAGES = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}


def matches(pattern):
    """Return each match in each page, with the name of the page."""
    return [(page, found) for page, text in PAGES.items() for found in re.findall(pattern, text)]


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the pages as HTML, built without a warning."""
    for module in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(module) is None:
            missing(module)
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"),
            *("-d", folder / "doctrees", DOCS, folder / "html"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


def test_the_site_has_every_page_and_every_public_name(site):
    assert {path.stem for path in site.glob("*.html")} >= {Path(page).stem for page in PAGES}
    described = re.findall(
        r'id="gunicorn_expect\.([\w.]+)"', site.joinpath("api.html").read_text("utf-8")
    )
    assert {*gunicorn_expect.__all__} - {"__version__"} <= {*described}
    assert {f"policies.{name}" for name in policies.__all__} <= {*described}
    assert {"Expectation.proceed", "body.Body.readinto", "workers.sync.ExpectSyncWorker"} <= {
        *described
    }
    assert sorted(described) == sorted(set(described)), "a name is described twice"


def test_every_link_of_the_site_leads_to_a_page_and_an_anchor_that_exist(site):
    """Links to other sites are not followed."""
    pages = {
        path.resolve(): path.read_text("utf-8")
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }
    places = {path: {*re.findall(r'\bid="([^"]+)"', text)} for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for link in re.findall(r'<a\b[^>]*? href="([^"]+)"', text):
            address, _, place = html.unescape(link).partition("#")
            if re.match(r"(?:https?|mailto):", address):
                continue
            target = path.parent.joinpath(unquote(address)).resolve() if address else path
            if target not in pages or (place and unquote(place) not in places[target]):
                broken.append((path.name, link))
    assert broken == []


def test_the_search_of_the_site_finds_a_word_of_the_quickstart(site):
    index = site.joinpath("searchindex.js").read_text("utf-8")
    data = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    found = data["terms"]["quickstart"]
    names = [data["docnames"][i] for i in (found if isinstance(found, list) else [found])]
    assert "install" in names


def test_every_page_is_in_one_section_of_the_contents():
    sections = re.findall(r"^:caption: ([^\n]*)\n\n(.*?)^```$", PAGES["index.md"], re.M | re.S)
    assert [caption for caption, _ in sections] == [
        *("Start", "How-to guides", "Reference", "Explanation", "Project")
    ]
    listed = re.findall(r"^(?:.* <)?([\w-]+)>?$", "".join(names for _, names in sections), re.M)
    assert sorted(f"{name}.md" for name in listed) == sorted(PAGES.keys() - {"index.md"})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGES[page])
    assert [link for link in links if not DOCS.joinpath(link).is_file()] == []


# The pictures.


@pytest.fixture(scope="module")
def draw():
    return runpy.run_path(str(DOCS / "draw.py"))


@pytest.mark.parametrize("name", ["states", "endings"])
def test_the_pictures_are_drawn_from_the_code(draw, name):
    assert DOCS.joinpath(f"{name}.svg").read_text("utf-8") == draw[name](), "run docs/draw.py"


def test_every_ending_is_drawn(draw):
    assert set(draw["ENDINGS"]) == set(State) - {State.PENDING}


@pytest.mark.parametrize("name", ["states", "endings"])
def test_every_text_of_a_picture_lies_within_it(name):
    picture = xml.etree.ElementTree.parse(DOCS / f"{name}.svg").getroot()
    _, _, width, height = map(float, picture.get("viewBox").split())
    places = [
        (float(line.get("x")), float(line.get("y")))
        for line in picture.iter("{http://www.w3.org/2000/svg}text")
    ]
    assert places
    assert all(0 < x < width and 0 < y < height for x, y in places)


# Names of tests, and numbers.


NAMED = matches(r"`(\w+/test_\w+\.py)::(test_\w+)`")


def test_every_test_that_a_page_names_exists():
    assert NAMED
    for page, (file, name) in NAMED:
        assert f"\ndef {name}(" in TESTS.joinpath(file).read_text("utf-8"), (
            f"{page}: {file}::{name}"
        )


def test_every_requirement_has_a_test():
    _, *requirements = re.split(r"(?m)^(?:>.*\n)+", PAGES["rfc.md"])
    assert len(requirements) == PAGES["rfc.md"].count("\n\n> ")
    assert [text for text in requirements if "::test_" not in text] == []


def receiver_allows(*sizes):
    """Return the seconds of waiting that these many bytes have in all, by default."""
    limits = settings.Settings.expect_body_timeout, settings.Settings.expect_min_rate
    allowed = []
    for size in sizes:
        allowance = receiver.Allowance(*limits)
        allowance.came = size
        allowed.append(allowance.left)
    return allowed


#: A sentence of a page with a number, and whether the code has the same number.
NUMBERS = {
    ("security.md", "only if that is at most 64 KiB, and for at most 5 s"): (
        (framing.DRAIN_SIZE, exchange.DRAIN_TIMEOUT) == (64 * 1024, 5)
    ),
    ("security.md", "at most 1 MiB from the socket"): receiver.MOST == 1024 * 1024,
    ("security.md", "30 s plus one second for every 240 bytes"): (
        (settings.Settings.expect_body_timeout, settings.Settings.expect_min_rate) == (30, 240)
    ),
    ("security.md", "within 1 s, the worker logs a warning and admits uploads uncounted for 5 s"): (
        (admission.PATIENCE, admission.PAUSE) == (1, 5)
    ),
    ("security.md", "for an hour at most (`lease`)"): admission.LEASE == 3600,
    ("security.md", "819,204"): (
        (8190 + len("\r\n")) * Config().limit_request_fields + len("\r\n\r\n") == 819_204
    ),
    ("settings.md", "31 s for a body of 240 bytes, and 130 s for one of 24,000"): (
        receiver_allows(240, 24_000) == [31, 130]
    ),
    ("settings.md", "warns if the body is longer than 64 KiB"): framing.DRAIN_SIZE == 64 * 1024,
    ("settings.md", "A worker logs 100 of these warnings at most"): advice.MOST_WARNINGS == 100,
    ("how-it-works.md", "after one second without progress"): transport.STUCK == 1,
    ("how-it-works.md", "is at most 64 KiB"): framing.DRAIN_SIZE == 64 * 1024,
    ("how-it-works.md", "for the first 5 ms of a wait"): receiver.BRIEF == 0.005,
    ("how-it-works.md", "Once 256 KiB of its body"): receiver.LARGE == 256 * 1024,
    ("how-it-works.md", "next piece arrives within 10 ms"): receiver.TICK == 0.01,
}


@pytest.mark.parametrize(("page", "words"), NUMBERS)
def test_numbers_on_the_pages_are_those_of_the_code(page, words):
    assert words in " ".join(PAGES[page].split())
    assert NUMBERS[page, words]


# The page of the settings.


SECTIONS = re.findall(
    r"^## (expect_\w+)\n\n\| type .*\n.*\n\| (.*) \| (.*?) ?\| (.*) \| `(.*)` \|$",
    PAGES["settings.md"],
    re.MULTILINE,
)


def test_every_setting_has_its_section_with_its_default():
    def shown(value):
        return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    assert [(name, default) for name, _, _, default, _ in SECTIONS] == [
        (field.name, shown(field.default)) for field in fields(settings.Settings)
    ]


@pytest.mark.parametrize(("name", "kind", "unit", "default", "variable"), SECTIONS)
def test_a_setting_takes_what_its_section_says(name, kind, unit, default, variable):
    with pytest.raises(settings.BadSettingError, match=re.escape(f"{variable} is 'no such'")) as e:
        settings.check({}, {variable: "no such"})
    assert str(e.value).endswith(f"it takes {kind}")
    if default != "none":
        assert settings.check({}, {variable: default}) == settings.Settings()


def test_gunicorns_settings_have_the_defaults_that_are_shown():
    _, table = PAGES["settings.md"].split("| setting | default | what it does here |\n")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", table, re.MULTILINE)
    assert len(rows) == 7
    assert rows == [(name, str(Config().settings[name].default)) for name, _ in rows]


# The reference: each name has one row in one table.


def rows_of(page):
    """Yield the names in the first column of a page's tables. `a.b`, `.c` means a.b and a.c."""
    for row in re.findall(r"^\| (`.*?) \|", PAGES[page], re.MULTILINE):
        names = re.findall(r"`([\w.]+)`", row)
        for name in names:
            yield names[0].rpartition(".")[0] + name if name.startswith(".") else name


SOURCES = "".join(
    path.read_text("utf-8") for path in sorted(Path(gunicorn_expect.__file__).parent.rglob("*.py"))
)


def test_every_environ_key_has_one_row():
    keys = re.findall(r'^_?(?:\w+_)?KEY: Final = "(gunicorn_expect\.\w+)"', SOURCES, re.MULTILINE)
    documented = [name for name in rows_of("environ.md") if name.startswith("gunicorn_expect.")]
    assert len(keys) == 6
    assert sorted(documented) == sorted(keys)


def test_every_counter_has_one_row():
    errors = {each.counter for each in gunicorn_expect.BodyError.__subclasses__()}
    states = {state.name.lower() for state in State} - {"none", "pending"}
    counted = {*re.findall(r'\b_(?:count\(|measure\("\w+", )"(\w+)"', SOURCES)}
    documented = [
        name.removeprefix("gunicorn.expect.")
        for name in rows_of("metrics.md")
        if name.startswith("gunicorn.expect.") and not name.startswith("gunicorn.expect.linger.")
    ]
    connections = [name for name in documented if name.startswith("connections.")]
    assert sorted(set(documented) - set(connections)) == sorted(errors | states | counted)
    assert len(documented) == len(set(documented))


def test_every_error_has_one_row():
    errors = [each.__name__ for each in gunicorn_expect.BodyError.__subclasses__()]
    assert sorted(name for name in rows_of("errors.md") if name in errors) == sorted(errors)


#: Pages of the same kind, and the headings that they have, in this order.
ALIKE = {
    ("flask.md", "django.md", "falcon.md", "bottle.md", "pyramid.md"): [
        *("Refuse by user", "What reads the body", "Broken uploads")
    ],
    ("nginx.md",): ["What to know", "What you still gain"],
    ("haproxy.md", "httpd.md", "caddy.md"): ["What to know"],
}


@pytest.mark.parametrize("pages", ALIKE, ids=lambda pages: pages[0])
def test_pages_of_one_kind_have_the_same_headings(pages):
    for page in pages:
        text = re.sub(r"(?ms)^```.*?^```$", "", PAGES[page])
        assert re.findall(r"^##+ (.*)$", text, re.MULTILINE) == ALIKE[pages]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_one_title_and_its_headings_differ(page):
    text = re.sub(r"(?ms)^```.*?^```$", "", PAGES[page])
    headings = re.findall(r"^(#+) (.*)$", text, re.MULTILINE)
    assert [title for level, title in headings if level == "#"][1:] == []
    titles = [title for _, title in headings]
    assert len(titles) == len(set(titles))
    assert [level for level, _ in headings if len(level) > 3] == []


# The code.


#: Pages whose blocks are all run by another test module.
ELSEWHERE = {
    "frameworks.md": "frameworks/test_broken_uploads.py",
    # and frameworks/test_broken_uploads.py
    "flask.md": "docs/test_policies_page.py",
    "django.md": "docs/test_policies_page.py",
    "falcon.md": "docs/test_policies_page.py",
    "bottle.md": "docs/test_policies_page.py",
    "pyramid.md": "docs/test_policies_page.py",
    "policies.md": "docs/test_policies_page.py",
    "testing.md": "docs/test_testing_page.py",
    "probe.md": "support/probe_page.py",
    "quickstart.md": "docs/test_quickstart.py",
}


def blocks():
    """Yield each block of code: its page, its first line and its text."""
    for page, text in PAGES.items():
        found = re.findall(r"^```(\S+)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert 2 * len(found) == text.count("```"), f"{page} has a block without a language"
        for language, block in found:
            # A language in braces is a directive of Sphinx, which the site runs.
            if page not in ELSEWHERE and not language.startswith("{"):
                yield page, block.split("\n", 1)[0], block


BLOCKS = {(page, line): block for page, line, block in blocks()}


def serves(block, folder):
    """Start gunicorn with this command, and check that it refuses an upload."""
    [command] = re.findall(r"^\$ (.*)\n\Z", block)
    with Server.by_command_line(command, folder) as server, Client(server) as client:
        client.send(waiting("PUT /", "Content-Length: 5"))
        answer = client.receive_all()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nConnection: close\r\n" in answer


def configures(block, folder):
    """Start gunicorn with this configuration, and check that its policy refuses an upload."""
    folder.joinpath("gunicorn.conf.py").write_text(block, "utf-8")
    with Server.by_command_line("gunicorn app:app", folder) as server, Client(server) as client:
        client.send(waiting("PUT /", "Content-Length: 5000000001"))
        assert client.receive_all().startswith(b"HTTP/1.1 413 ")


def logs(block, folder):
    """Start gunicorn with this configuration, and check a line of its access log."""
    folder.joinpath("gunicorn.conf.py").write_text(block, "utf-8")
    line = runpy.run_path(str(folder / "gunicorn.conf.py"))["access_log_format"]
    # The tests set another format in the environment; the command line takes precedence.
    command = f"gunicorn --access-logformat {shlex.quote(line)} app:app"
    with Server.by_command_line(command, folder) as server:
        with Client(server) as client:
            client.send(waiting("PUT /", "Content-Length: 5"))
            client.receive_all()
        server.wait_for_log(r'^127.0.0.1 "PUT / HTTP/1.1" 401 declined 0 0\.\d{6}$')


def warns(block, folder):
    """Upload to the application of the page, and check that the log has the warning of the page."""
    shown = BLOCKS["settings.md", "# refuses_late.py"]
    folder.joinpath("refuses_late.py").write_text(shown, "utf-8")
    command = "gunicorn -k gunicorn_expect.Worker refuses_late:app"
    with Server.by_command_line(command, folder) as server, Client(server) as client:
        client.send(request("PUT /files/big.iso", "Content-Length: 65537"), bytes(65537))
        assert client.receive_head().startswith(b"HTTP/1.1 401 ")
        line = server.wait_for_log(r"\[WARNING\] .*$")[0]

    def without_modules_of_werkzeug(text):
        return re.sub(r" by werkzeug\S+(, called by \S+)* Refuse", " Refuse", text)

    line = line.replace(str(folder), "/srv")
    assert without_modules_of_werkzeug(line) == without_modules_of_werkzeug(" ".join(block.split()))
    assert line != without_modules_of_werkzeug(line)


def stops(block, folder):
    """Run these commands, and check that gunicorn prints what the page shows, and stops."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    transcript = re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.MULTILINE)
    assert transcript
    for command, output in transcript:
        result = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env={
                "PATH": path,
                "PYTHONPATH": str(CHECKOUT),
                "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0 --no-control-socket",
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert result.returncode == 1
        lines = [line for line in result.stderr.splitlines() if line and "[INFO]" not in line]
        assert lines == output.splitlines()


def prints(block, folder):
    """Run this command, and check that its output begins with what the page shows."""
    command, output = block.removeprefix("$ gunicorn-expect ").split("\n", 1)
    printed = subprocess.run(
        [sys.executable, "-m", "gunicorn_expect", *shlex.split(command)],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout
    assert printed.startswith(output)


#: The function that runs each block, or why it can't be run here.
RUN = {
    ("command-line.md", "$ gunicorn-expect --help"): prints,
    ("index.md", "$ gunicorn -k gunicorn_expect.Worker --threads 8 app:app"): serves,
    ("install.md", "$ python -m pip install ../gunicorn_expect"): (
        "it needs the network; see package/test_package.py"
    ),
    ("install.md", "$ python -m pip install '../gunicorn_expect[gevent,http2]'"): (
        "it needs the network; docs/test_quickstart.py looks for the extras"
    ),
    ("systemd.md", "# cp gunicorn-expect.service gunicorn-expect.socket /etc/systemd/system/"): (
        "it installs units into the systemd of this machine; see realworld/test_systemd.py"
    ),
    (
        "containers.md",
        "$ UPLOAD_TOKEN=letmein docker compose --file examples/deploy/containers/compose.yaml "
        "up --build",
    ): "it needs Docker; see realworld/test_containers.py",
    ("containers.md", "$ kubectl create secret generic uploads --from-literal=token=letmein"): (
        "it needs a cluster; see realworld/test_containers.py"
    ),
    ("metrics.md", "# gunicorn.conf.py"): logs,
    ("metrics.md", "# tracing.py"): "frameworks/test_opentelemetry.py serves it",
    ("metrics.md", '127.0.0.1 "PUT /files/big.iso HTTP/1.1" 401 declined 0 0.000412'): (
        "it is what the former logs; see workers/test_counters.py"
    ),
    ("migrating.md", "$ gunicorn -k gunicorn_expect.Worker --threads 8 app:app"): serves,
    (
        "migrating.md",
        "$ gunicorn -k gunicorn_expect.GeventWorker --worker-connections 1000 app:app",
    ): serves,
    ("performance.md", "$ make bench"): (
        "it takes half an hour, and its figures mean something on an idle machine only"
    ),
    ("resumable.md", "$ export GUNICORN_EXPECT_POLICY=examples.resumable_upload:policy"): (
        "docs/test_resumable_upload.py serves it"
    ),
    ("resumable.md", "$ truncate -s 1G big.iso"): "it needs somebody who presses Ctrl-C",
    ("resumable.md", "$ UPLOAD=http://127.0.0.1:8000/uploads/d88e2d10e7494074a43af61f48355faa"): (
        "docs/test_resumable_upload.py runs it"
    ),
    ("resumable.md", 'expectation = environ["gunicorn_expect.expectation"]'): (
        "protocol/test_informing.py does this"
    ),
    ("settings.md", "# gunicorn.conf.py"): configures,
    ("settings.md", "# refuses_late.py"): "it is served to see the warning that is shown next",
    (
        "settings.md",
        "[WARNING] PUT '/files/big.iso' was answered with '401 UNAUTHORIZED' after its",
    ): warns,
    (
        "settings.md",
        "$ GUNICORN_EXPECT_LINGER=soon GUNICORN_EXPECT_POLICY=app:decide gunicorn-expect check "
        "-k gunicorn_expect.Worker app:app",
    ): stops,
    (
        "settings.md",
        "$ GUNICORN_EXPECT_LINGER=soon gunicorn -k gunicorn_expect.Worker app:app",
    ): stops,
}


def test_every_block_of_code_is_run_or_has_a_reason_why_not():
    assert set(BLOCKS) == set(RUN)
    assert len(BLOCKS) == len(list(blocks())), "two blocks of a page begin alike"
    for page, module in ELSEWHERE.items():
        assert page in TESTS.joinpath(module).read_text("utf-8")


@pytest.mark.parametrize(("page", "line"), [key for key, run in RUN.items() if callable(run)])
def test_the_code_of_the_pages_runs(tmp_path, page, line):
    example = CHECKOUT.joinpath("examples/plain_wsgi.py").read_text("utf-8")
    tmp_path.joinpath("app.py").write_text(example, "utf-8")
    RUN[page, line](BLOCKS[page, line], tmp_path)
