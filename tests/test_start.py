"""What gunicorn does when it is started with our worker."""

import subprocess
import sys

import pytest
from conftest import WORKERS, gunicorn_at
from wire import CHECKOUT, Server

import gunicorn_expect


@pytest.mark.parametrize("version", ["23.0.0", "26.2.0"])
@pytest.mark.parametrize("worker", [ours for ours, _ in WORKERS.values()])
def test_a_gunicorn_that_is_too_old_is_refused_with_one_line(version, worker):
    path = f"{gunicorn_at(version)}:{CHECKOUT}:{CHECKOUT / 'tests'}"
    result = subprocess.run(
        [
            *(sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0"),
            *("-k", worker, "apps:app"),
        ],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line and "[INFO]" not in line]
    assert line.startswith(
        f"Error: gunicorn_expect {gunicorn_expect.__version__} can't work with gunicorn {version}"
    )
    assert line.endswith("it needs gunicorn 27.0.0 or later")


def test_the_gevent_worker_without_gevent_says_what_to_install(tmp_path):
    tmp_path.joinpath("gevent.py").write_text("raise ImportError('there is no gevent')")
    result = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-k", "gunicorn_expect.GeventWorker", "apps:app"],
        env={"PYTHONPATH": f"{tmp_path}:{CHECKOUT}:{CHECKOUT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines() == [
        "Error: gunicorn_expect.GeventWorker needs the extra gunicorn-expect[gevent]: "
        "gevent worker requires gevent 24.10.1 or higher"
    ]


@pytest.mark.parametrize("threads", ["1", "4"])
def test_gunicorn_runs_our_worker_with_any_number_of_threads(threads):
    with Server("--threads", threads) as server:
        assert server.wait_for_log(r"Using worker: (.*)")[1] == "gunicorn_expect.Worker"
        assert server.get("/hello") == b"hello"


def test_the_package_can_be_imported_without_an_application():
    code = "import gunicorn_expect as g; print(g.Worker.__name__, *sorted(g.__all__))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert output.split() == ["Worker", *sorted(gunicorn_expect.__all__)]
