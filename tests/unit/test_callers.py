"""How a warning names the code that has read a body."""

import pytest

from gunicorn_expect.callers import Reading


def call(module, file=None, line=1, name="read"):
    """Return a call as the body records it: the module, the code and the line."""
    code = compile("", file or f"/srv/{module.replace('.', '/')}.py", "exec").replace(co_name=name)
    return module, code, line


def installed(module):
    return call(module, f"/usr/lib/python3/dist-packages/{module.replace('.', '/')}.py")


def reading(*calls, application="wsgi"):
    return Reading(calls, application)


def test_a_reading_is_named_by_the_innermost_line_of_the_application_and_the_libraries_it_called():
    libraries = [
        installed("werkzeug.wsgi"),
        installed("werkzeug.wrappers"),
        installed("werkzeug.wsgi"),
    ]
    found = reading(*libraries, call("shop.views", line=7), installed("flask"), call("shop.early"))
    assert str(found) == (
        "in shop.views.read (/srv/shop/views.py, line 7) "
        "by werkzeug.wsgi, called by werkzeug.wrappers"
    )


def test_a_reading_without_a_line_of_the_application_is_named_by_its_libraries():
    assert str(reading(installed("django.http"), installed("django.csrf"))) == (
        "by django.http, called by django.csrf"
    )


@pytest.mark.parametrize(
    "library",
    [
        installed("flask"),
        call("flask", "/srv/.venv/lib/python3.11/site-packages/flask/app.py"),
        call("json.decoder"),
        call("made", "<string>"),
        call("gunicorn_expect.contrib.django"),
    ],
)
def test_a_library_does_not_count_as_the_application(library):
    assert str(reading(library, call("views"))).startswith("in views.read ")


def test_an_installed_application_counts_as_the_application():
    found = reading(installed("shop.views"), installed("flask"), application="shop.wsgi")
    assert str(found).startswith("in shop.views.read (/usr/lib/python3/dist-packages/shop/views.py")


def test_readings_by_the_same_lines_of_the_application_have_the_same_key():
    shared, one, two = call("shop.shared"), call("shop.views", line=1), call("shop.views", line=2)
    again = reading(installed("werkzeug"), shared, installed("flask"), one)
    assert reading(shared, one).key == again.key
    assert reading(shared, one).key != reading(shared, two).key
    assert reading(installed("one")).key != reading(installed("two")).key


def test_a_reading_is_sentrys_if_the_application_called_sentry_to_read():
    sentry = installed("sentry_sdk.integrations.flask")
    assert reading(installed("werkzeug"), sentry, call("views")).is_sentry
    assert not reading(installed("werkzeug"), call("views"), sentry).is_sentry


def test_a_message_lists_few_libraries_of_many():
    found = reading(*(installed(f"library.m{number}") for number in range(50)))
    assert str(found).count("library") == 6
