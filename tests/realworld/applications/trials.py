"""What is done with each application, and what must be seen."""

import base64
import contextlib
import dataclasses
import textwrap
import zipfile
from collections.abc import Callable

from setting import ADA, curl, cut_off, digest, found, random_file, refused, run, url


@dataclasses.dataclass(frozen=True)
class Trial:
    """An application, the packages that it needs with its own first, and what is done."""

    name: str
    packages: tuple[str, ...]
    done: str
    #: Does it, with an environment, a worker and an empty folder; returns what was seen.
    use: Callable[..., str]


BASIC = "Authorization: Basic " + base64.b64encode(b"ada:letmein").decode()
MB = 1_000_000

EVENT = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//tests//EN
BEGIN:VEVENT
UID:{name}
DTSTAMP:20261126T120000Z
DTSTART:20261126T120000Z
DTEND:20261126T130000Z
SUMMARY:{summary}
END:VEVENT
END:VCALENDAR
"""


def radicale(environment, worker, folder):
    folder.joinpath("users").write_text("ada:letmein\n")
    folder.joinpath("config").write_text(
        textwrap.dedent(f"""\
        [auth]
        type = htpasswd
        htpasswd_filename = {folder}/users
        htpasswd_encryption = plain
        [storage]
        filesystem_folder = {folder}/collections
        """)
    )
    config = str(folder / "config")
    arguments = ("-c", "python:calendar_policy")
    with environment.serve(
        worker, "radicale:application", *arguments, RADICALE_CONFIG=config
    ) as server:
        environment.python(
            """\
import sys, caldav
address, event = sys.argv[1:]
with caldav.DAVClient(address, username="ada", password="letmein") as client:
    calendar = client.principal().make_calendar(name="work")
    calendar.save_event(event)
    [stored] = calendar.events()
    assert "SUMMARY:caldav" in stored.data, stored.data
""",
            *(url(server), EVENT.format(name="1", summary="caldav")),
        )
        [collection] = folder.joinpath("collections/collection-root/ada").iterdir()
        summary = random_file(folder / "random", 2 * MB).read_bytes().hex()
        big = folder / "big.ics"
        big.write_text(EVENT.format(name="big", summary=summary))
        there = url(server, f"ada/{collection.name}/big.ics")
        stored = curl(*ADA, "--header", "Content-Type: text/calendar", "--upload-file", big, there)
        assert (stored.status, stored.asked) == (201, 1), stored
        got = run("curl", "--silent", *ADA, there)
        assert summary in got.replace("\r\n ", "").replace("\n ", "")
        unknown = curl("--upload-file", big, there)
        too_large = curl(*ADA, "--upload-file", random_file(folder / "huge", 21 * MB), there)
        short = cut_off(server, "PUT", f"/ada/{collection.name}/short.ics", BASIC)
        names = sorted(x.name for x in collection.iterdir() if x.suffix == ".ics")
        assert len(names) == 2, names
    return (
        f"stored, after one `100 Continue`. Without a password: {unknown}; "
        f"over the policy's limit: {too_large}. Cut off: {short}, nothing stored"
    )


def tuswsgi(environment, worker, folder):
    uploads = folder / "uploads"
    with environment.serve(worker, "tuswsgi_files:app", FOLDER=str(uploads)) as server:
        file = random_file(folder / "file", 20 * MB)
        client = """\
import sys
from tusclient.client import TusClient
TusClient(sys.argv[1]).uploader(sys.argv[2], chunk_size=6_000_000).upload()
"""
        files = url(server, "files")
        environment.python(client, files, file)
        assert found(uploads, file) == 1
        huge = random_file(folder / "huge", 31 * MB)
        said = refused(environment.program("python"), "-c", client, files, huge)
        assert "413" in said, said
        [stored] = [path for path in uploads.iterdir() if path.suffix != ".info"]
        fields = ("Tus-Resumable: 1.0.0", "Upload-Length: 20000000")
        # The upload is complete: see what the application answers to a further append.
        wrong = curl(
            *("--request", "PATCH", "--upload-file", file, "--header", "Tus-Resumable: 0.9"),
            f"{files}/{stored.name}",
        )
        made = run(
            *("curl", "--silent", "--include", "--request", "POST"),
            *("--header", fields[0], "--header", fields[1], files),
        )
        [path] = [x.split()[1] for x in made.splitlines() if x.lower().startswith("location:")]
        short = cut_off(
            *(server, "PATCH", "/files/" + path.rpartition("/")[2], fields[0]),
            *("Upload-Offset: 0", "Content-Type: application/offset+octet-stream"),
        )
        size = uploads.joinpath(path.rpartition("/")[2]).stat().st_size
    return (
        f"stored. Over its limit tuspy gets 413; curl with an unknown version: {wrong}. "
        f"Cut off after 4 bytes: {short}, {size} bytes kept"
    )


def mlflow(environment, worker, folder):
    env = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "HOME": str(folder),
    }
    folder.joinpath("auth.ini").write_text(
        textwrap.dedent(f"""\
        [mlflow]
        default_permission = EDIT
        database_uri = sqlite:///{folder}/auth.db
        admin_username = ada
        admin_password = letmein-please
        authorization_function = mlflow.server.auth:authenticate_request_basic_auth
        """)
    )
    arguments = ("--timeout", "120")
    with environment.serve(worker, "mlflow.server.auth:create_app()", *arguments, **env) as server:
        file = random_file(folder / "model.bin", 20 * MB)
        client = """\
import sys, mlflow
address, file, folder = sys.argv[1:]
mlflow.set_tracking_uri(address)
with mlflow.start_run() as run:
    mlflow.log_artifact(file, "models")
print(mlflow.artifacts.download_artifacts(
    run_id=run.info.run_id, artifact_path="models/model.bin", dst_path=folder))
"""
        user = {
            "MLFLOW_TRACKING_USERNAME": "ada",
            "MLFLOW_TRACKING_PASSWORD": "letmein-please",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "HOME": str(folder),
        }
        downloads = folder / "downloads"
        downloads.mkdir()
        environment.python(client, url(server), file, downloads, env=user)
        [stored] = folder.joinpath("artifacts").rglob("model.bin")
        assert digest(stored) == digest(file)
        artifacts = stored.parent.relative_to(folder / "artifacts")
        assert found(downloads, file) == 1
        stranger = user | {"MLFLOW_TRACKING_PASSWORD": "wrong"}
        python = environment.program("python")
        said = refused(python, "-c", client, url(server), file, downloads, env=stranger)
        assert "401" in said, said
        there = f"api/2.0/mlflow-artifacts/artifacts/{artifacts}/short.bin"
        unknown = curl("--upload-file", file, url(server, there))
        token = base64.b64encode(b"ada:letmein-please").decode()
        short = cut_off(server, "PUT", f"/{there}", f"Authorization: Basic {token}")
        kept = [x.stat().st_size for x in folder.joinpath("artifacts").rglob("short.bin")]
    return (
        f"stored. With a wrong password its client gets 401; curl without a password: {unknown}. "
        f"Cut off: {short}, {f'{kept[0]} bytes stored' if kept else 'nothing stored'}"
    )


def package(folder, name, size):
    """Make a wheel with a large file."""
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    information = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/data.bin", random_file(folder / "data", size).read_bytes())
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{information}/RECORD", "")
    return wheel


def pypiserver(environment, worker, folder):
    packages = folder / "packages"
    packages.mkdir()
    environment.python(
        "import sys; from passlib.apache import HtpasswdFile as File;"
        "file = File(sys.argv[1], new=True); file.set_password('ada', 'letmein'); file.save()",
        folder / "users",
    )
    env = {"FOLDER": str(packages), "PASSWORDS": str(folder / "users")}
    with environment.serve(worker, "packages:app", **env) as server:
        wheel = package(folder, "large", 20 * MB)
        twine = ("upload", "--non-interactive", "--disable-progress-bar", "-u", "ada")
        twine += ("--repository-url", url(server))
        environment.run("twine", *twine, "-p", "letmein", wheel)
        assert found(packages, wheel) == 1
        other = package(folder, "other", 20 * MB)
        said = refused(environment.program("twine"), *twine, "-p", "wrong", other)
        assert "403" in said, said
        form = ("--form", ":action=file_upload", "--form", f"content=@{other}")
        unknown = curl(*form, url(server))
        environment.run(
            *("pip", "--quiet", "download", "--no-deps", "--index-url", url(server, "simple")),
            *("--dest", folder / "downloads", "large==1.0"),
        )
        assert digest(folder / "downloads" / wheel.name) == digest(wheel)
        assert len(list(packages.iterdir())) == 1
    return (
        "stored, and downloaded by pip. With a wrong password twine gets 403; "
        f"curl without a password: {unknown}"
    )


def hgweb(environment, worker, folder):
    hg = ("hg", "--noninteractive", "--config", "ui.username=ada")
    served, working = folder / "served", folder / "working"
    for repository in (served, working):
        environment.run(*hg, "init", repository)
    random_file(working / "big", 20 * MB)
    environment.run(*hg, "commit", "--addremove", "--message", "big", cwd=working)
    configuration = folder / "hgweb.config"
    configuration.write_text(
        f"[paths]\nrepository = {served}\n[web]\npush_ssl = false\nallow-push = ada\n"
    )
    policy = "python:hg_policy"
    env = {"CONFIGURATION": str(configuration), "HGRCPATH": ""}
    with environment.serve(worker, "hg_repositories:app", "-c", policy, **env) as server:
        there = url(server, "repository")
        said = refused(environment.program("hg"), *hg[1:], "push", there, cwd=working)
        assert "authorization required" in said, said
        with_user = there.replace("://", "://ada:letmein@")
        environment.run(*hg, "push", with_user, cwd=working)
        asks = ("identify", "--id", "--rev", "tip")
        assert environment.run(*hg, *asks, cwd=working) == environment.run(*hg, *asks, cwd=served)
        environment.run(*hg, "verify", cwd=served)
        environment.run(*hg, "clone", there, folder / "clone")
        assert digest(folder / "clone" / "big") == digest(working / "big")
        unknown = curl(
            *("--request", "POST", "--header", "Content-Type: application/mercurial-0.1"),
            *("--upload-file", working / "big", f"{there}?cmd=unbundle&heads=666f726365"),
        )
    return (
        "pushed, verified, cloned. Without a user hg prints `authorization required`; "
        f"curl without a user: {unknown}"
    )


def wsgidav(environment, worker, folder):
    served = folder / "served"
    served.mkdir()
    with environment.serve(worker, "webdav:app", FOLDER=str(served)) as server:
        file = random_file(folder / "file", 50 * MB)
        there = url(server, "file")
        unknown = curl("--upload-file", file, there)
        for arguments, path in ((ADA, "one"), ((*ADA, "--digest"), "two")):
            stored = curl(*arguments, "--upload-file", file, url(server, path))
            assert (stored.status, stored.asked) == (201, 1), stored
        chunks = curl(*ADA, "--header", "Transfer-Encoding: chunked", "--upload-file", file, there)
        assert (chunks.status, chunks.asked) == (201, 1), chunks
        assert found(served, file) == 3
        nowhere = curl(*ADA, "--upload-file", file, url(server, "nowhere/file"))
        short = cut_off(server, "PUT", "/short", BASIC)
    return (
        f"stored, each after one `100 Continue`. Without a password: {unknown}; "
        f"into a missing folder: {nowhere}. Cut off: {short}"
    )


def klaus(environment, worker, folder):
    git = ("git", "-c", "user.name=ada", "-c", "user.email=ada@tests.example")
    served, working = folder / "served.git", folder / "working"
    run("git", "init", "--quiet", "--bare", "--initial-branch", "main", served)
    run("git", "init", "--quiet", "--initial-branch", "main", working)
    random_file(working / "big", 20 * MB)
    run(*git, "add", "big", cwd=working)
    run(*git, "commit", "--quiet", "--message", "big", cwd=working)
    secret = "import hashlib; print(hashlib.md5(b'ada:site:letmein').hexdigest())"
    password = environment.python(secret).strip()
    folder.joinpath("users").write_text(f"ada:site:{password}\n")
    env = {"REPOSITORY": str(served), "PASSWORDS": str(folder / "users")}
    env_of_git = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": "/dev/null"}
    with environment.serve(
        worker, "git_repositories:app", "-c", "python:git_policy", **env
    ) as server:
        there = url(server, "served")

        def address(user):
            return there.replace("://", f"://{user}@")

        said = refused(
            *git, "push", "--quiet", address("ada:wrong"), "main", cwd=working, env=env_of_git
        )
        assert "Authentication failed" in said, said
        run(*git, "push", "--quiet", address("ada:letmein"), "main", cwd=working, env=env_of_git)
        heads = [run("git", "rev-parse", "main", cwd=x) for x in (working, served)]
        assert heads[0] == heads[1]
        run("git", "fsck", "--full", "--strict", cwd=served)
        run(*git, "clone", "--quiet", there, folder / "clone", env=env_of_git)
        assert digest(folder / "clone" / "big") == digest(working / "big")
        unknown = curl(
            *("--request", "POST", "--upload-file", working / "big"),
            f"{there}/git-receive-pack",
        )
    return (
        "pushed, checked, cloned. With a wrong password git prints `Authentication failed`; "
        f"curl without a password: {unknown}"
    )


def wagtail(environment, worker, folder):
    site = folder / "site"
    site.mkdir()
    env = {"DJANGO_SETTINGS_MODULE": "ours.settings.dev", "PYTHONPATH": str(site)}
    environment.run("wagtail", "start", "ours", site)
    environment.run("python", site / "manage.py", "migrate", "--verbosity", "0", env=env)
    user = {"DJANGO_SUPERUSER_PASSWORD": "letmein"}
    create = ("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@tests.example")
    environment.run("python", site / "manage.py", *create, env=env | user)
    with environment.serve(worker, "ours.wsgi:application", **env) as server:
        file = random_file(folder / "file.pdf", 9 * MB)  # its limit is 10 MB
        huge = folder / "huge.png"
        environment.python(
            "import os, sys; from PIL import Image;"
            "Image.frombytes('RGB', (3000, 2000), os.urandom(18_000_000)).save(sys.argv[1])",
            huge,
        )
        # As a browser does it: the token of each form, in a session.
        cookies = environment.python(
            """\
import re, sys, requests
address, document, huge = sys.argv[1:]
browser = requests.Session()
def form(path):
    page = browser.get(address + path).text
    return {"csrfmiddlewaretoken": re.search('csrfmiddlewaretoken" value="([^"]+)', page)[1]}
login = "admin/login/"
user = {"username": "ada", "password": "letmein"}
assert "admin/login" not in browser.post(address + login, form(login) | user).url
def upload(kind, file):
    name = file.rpartition('/')[2]
    path = f"admin/{kind}/multiple/add/"
    fields = form(path) | {"title": name, "collection": "1"}
    return browser.post(
        address + path, fields, files={"files[]": (name, open(file, "rb"))},
        headers={"X-Requested-With": "XMLHttpRequest"},
    ).json()
answer = upload("documents", document)
assert answer["success"], str(answer)
image = upload("images", huge)
assert not image["success"] and "too big" in str(image), image
print(browser.cookies["csrftoken"], browser.cookies["sessionid"])
""",
            *(url(server), file, huge),
        )
        assert found(site / "media", file) == 1
        unknown = curl("--form", f"file=@{file}", url(server, "admin/documents/multiple/add/"))
        token, session = cookies.split()
        short = cut_off(
            *(server, "POST", "/admin/documents/multiple/add/"),
            f"Cookie: csrftoken={token}; sessionid={session}",
            f"X-CSRFToken: {token}",
            "Content-Type: multipart/form-data; boundary=limit",
        )
        kept = [path for path in (site / "media").rglob("*") if path.is_file()]
        assert len(kept) == 1, kept
    return (
        "stored; an image over its limit is refused after it has arrived. "
        f"Without a session: {unknown}. Cut off: {short}, nothing stored"
    )


def swift(environment, worker, folder):
    """Four kinds of servers, with erasure coding: two fragments of data, and one of parity."""
    etc, devices = folder / "etc", folder / "devices"
    for path in (etc, *(devices / name for name in ("d1", "d2", "d3"))):
        path.mkdir(parents=True)
    etc.joinpath("swift.conf").write_text(
        textwrap.dedent("""\
        [swift-hash]
        swift_hash_path_suffix = tests
        [storage-policy:0]
        name = coded
        default = yes
        policy_type = erasure_coding
        ec_type = liberasurecode_rs_vand
        ec_num_data_fragments = 2
        ec_num_parity_fragments = 1
        """)
    )
    with contextlib.ExitStack() as stack:

        def serve(name, text, *arguments):
            configuration = folder / f"{name}.conf"
            configuration.write_text(text)
            return stack.enter_context(
                environment.serve(
                    worker,
                    "swift_server:app",
                    *("--timeout", "60", *arguments),
                    CONFIGURATION=str(configuration),
                    SWIFT_ETC=str(etc),
                )
            )

        # The rings have the addresses of the servers, which read them when they are asked.
        default = f"[DEFAULT]\nswift_dir = {etc}\ndevices = {devices}\nmount_check = false\n"
        for kind in ("account", "container", "object"):
            text = f"{default}[pipeline:main]\npipeline = server\n[app:server]\n"
            text += f"use = egg:swift#{kind}\n"
            address = serve(kind, text, "--workers", "4").address
            ring = (etc / f"{kind}.builder",)
            build = environment.program("swift-ring-builder")
            run(build, *ring, "create", "4", "3", "0")
            for device in ("d1", "d2", "d3"):
                run(build, *ring, "add", "r1z1-{}:{}/{}".format(*address, device), "1")
            run(build, *ring, "rebalance")
        text = (
            f"{default}[pipeline:main]\npipeline = proxy-server\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        )
        proxy = serve("proxy", text, "--workers", "2")
        account = url(proxy, "v1/AUTH_tests")
        proxy.get("/healthcheck")  # it serves
        client = ("--os-storage-url", account, "--os-auth-token", "none")
        file = random_file(folder / "file", 20 * MB)
        environment.run("swift", *client, "upload", "box", file, "--object-name", "file")
        environment.run("swift", *client, "download", "box", "file", "--output", folder / "back")
        assert digest(folder / "back") == digest(file)
        stored = curl("--upload-file", file, f"{account}/box/by-curl")
        assert (stored.status, stored.asked) == (201, 1), stored
        run("curl", "--silent", "--output", folder / "by-curl", f"{account}/box/by-curl")
        assert digest(folder / "by-curl") == digest(file)
        nowhere = curl("--upload-file", file, f"{account}/nowhere/file")
        short = cut_off(proxy, "PUT", "/v1/AUTH_tests/box/short")
        missing = curl(f"{account}/box/short")
        assert missing.status == 404, missing
    return (
        f"stored as 2 + 1 fragments, and read back. Into a missing container: {nowhere}. "
        f"Cut off: {short}, nothing stored"
    )


TRIALS = {
    "radicale": Trial(
        "Radicale",
        ("radicale", "caldav"),
        "an event by `caldav`, one of 4 MB by curl",
        radicale,
    ),
    "tuswsgi": Trial("tuswsgi", ("tuswsgi", "tuspy"), "20 MB by `tuspy`, in 4 parts", tuswsgi),
    "mlflow": Trial(
        "MLflow", ("mlflow[auth]==3.17.2",), "an artifact of 20 MB by its own client", mlflow
    ),
    "pypiserver": Trial(
        "pypiserver", ("pypiserver", "passlib", "twine"), "a wheel of 20 MB by twine", pypiserver
    ),
    "hgweb": Trial("hgweb", ("mercurial",), "`hg push` of 20 MB", hgweb),
    "klaus": Trial("klaus", ("klaus",), "`git push` of 20 MB", klaus),
    "wsgidav": Trial("WsgiDAV", ("wsgidav",), "50 MB by curl: Basic, Digest, in chunks", wsgidav),
    "wagtail": Trial(
        "Wagtail",
        ("wagtail", "requests"),
        "a document of 9 MB, through a form of its admin, by requests",
        wagtail,
    ),
    "swift": Trial(
        "Swift",
        ("swift", "python-swiftclient"),
        "20 MB by its own client and by curl, with all its servers and erasure coding",
        swift,
    ),
}
