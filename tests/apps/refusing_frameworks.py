"""Applications of five frameworks that use the request in some way, and then refuse the upload.

Each is at ``/<framework>/<way>``. `docs/test_policies_page.py` checks on the wire which of them
have read the body by then.
"""

import warnings
import wsgiref.util

import bottle
import django.conf
import django.core.exceptions
import django.core.files.uploadhandler
import django.core.handlers.wsgi
import django.http
import django.test
import django.urls
import django.views.decorators.csrf
import falcon
import flask
import pyramid.config
import pyramid.csrf
import pyramid.response
import pyramid.session

# Flask: in a function that runs before each request.

FLASK = {
    "form": lambda request: request.form,
    "files": lambda request: request.files,
    "values": lambda request: request.values,
    "data": lambda request: request.data,
    "get_data()": lambda request: request.get_data(),
    "get_json()": lambda request: request.get_json(),
    "args": lambda request: request.args,
    "content_length": lambda request: request.content_length,
    "is_json": lambda request: request.is_json,
    "authorization": lambda request: request.authorization,
    "stream": lambda request: request.stream,
}
flask_app = flask.Flask("early")


@flask_app.before_request
def look():
    FLASK[flask.request.path.strip("/")](flask.request)
    return flask.Response(status=403)


aborting_app = flask.Flask("aborting")


@aborting_app.before_request
def abort():
    flask.abort(403)


limited_app = flask.Flask("limited")
limited_app.config["MAX_CONTENT_LENGTH"] = 3


LIMITED = {
    "data": lambda request: request.data,
    "form": lambda request: dict(request.form),
    "read()": lambda request: request.stream.read(),
    "pieces": lambda request: b"".join(iter(lambda: request.stream.read(64), b"")),
}


@limited_app.post("/<way>")
def look_limited(way):
    return LIMITED[way](flask.request)


# Django: with the middleware of a new project that may read a body.

django.conf.settings.configure(
    ALLOWED_HOSTS=["*"],
    CSRF_COOKIE_NAME="csrf",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    LOGGING_CONFIG=None,
    LOGIN_URL="/login",
    ROOT_URLCONF=__name__,
    SECRET_KEY="of tests",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
)
django.setup()

SESSION = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"


def refuse(request):
    return django.http.HttpResponse(status=403)


def refuse_first(get_response):
    return refuse


def post(request):
    return django.http.HttpResponse(request.POST, status=403)


def files(request):
    return django.http.HttpResponse(request.FILES, status=403)


def body(request):
    return django.http.HttpResponse(request.body, status=403)


def file_of_any_size(request):
    return django.http.HttpResponse(request.FILES["file"].read(), status=403)


class TenBytes(django.core.files.uploadhandler.FileUploadHandler):
    """Refuse a form by the length that it announces."""

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):  # noqa: N803
        if content_length > 10:
            raise django.core.exceptions.RequestDataTooBig


def deny(request):
    raise django.core.exceptions.PermissionDenied


def find_nothing(request):
    raise django.http.Http404


def fail(request):
    raise ZeroDivisionError


exempt = django.views.decorators.csrf.csrf_exempt
urlpatterns = [
    django.urls.path("refuse", refuse),
    *(
        django.urls.path(f"exempt/{view.__name__}", exempt(view))
        for view in (refuse, post, files, body, file_of_any_size, deny, find_nothing, fail)
    ),
]


def django_app(view, *middleware, **settings):
    """Return Django with this middleware and these settings, and only this view."""

    def app(environ, start_response):
        with django.test.override_settings(**settings):
            return handler(environ | {"PATH_INFO": f"/{view}"}, start_response)

    with django.test.override_settings(MIDDLEWARE=middleware):
        handler = django.core.handlers.wsgi.WSGIHandler()
    return app


DJANGO = {
    "POST": django_app("exempt/post"),
    "FILES": django_app("exempt/files"),
    "CSRF": django_app("refuse", CSRF),
    "CSRF-exempt": django_app("exempt/refuse", CSRF),
    "CSRF-refused-before": django_app("refuse", f"{__name__}.refuse_first", CSRF),
    "CSRF-then-login": django_app("refuse", *SESSION, CSRF, LOGIN),
    "login-then-CSRF": django_app("refuse", *SESSION, LOGIN, CSRF),
    "PermissionDenied": django_app("exempt/deny"),
    "Http404": django_app("exempt/find_nothing"),
    "no-view": django_app("nowhere"),
    "error": django_app("exempt/fail"),
    "error-DEBUG": django_app("exempt/fail", DEBUG=True),
    "body": django_app("exempt/body"),
    **{
        f"{view}-DATA_UPLOAD": django_app(f"exempt/{view}", DATA_UPLOAD_MAX_MEMORY_SIZE=3)
        for view in ("body", "post", "file_of_any_size")
    },
    "CSRF-DATA_UPLOAD": django_app("refuse", CSRF, DATA_UPLOAD_MAX_MEMORY_SIZE=3),
    "file_of_any_size-FILE_UPLOAD": django_app(
        "exempt/file_of_any_size", FILE_UPLOAD_MAX_MEMORY_SIZE=3
    ),
    "files-handler": django_app("exempt/files", FILE_UPLOAD_HANDLERS=[f"{__name__}.TenBytes"]),
}

# Falcon: in a middleware.

FALCON = {
    "media": lambda request: request.media,
    "get_media()": lambda request: request.get_media(),
    "params": lambda request: request.params,
    "content_length": lambda request: request.content_length,
    "bounded_stream": lambda request: request.bounded_stream,
    "stream": lambda request: request.stream.read(),
}


class Look:
    def process_request(self, request, response):
        FALCON[request.path.strip("/")](request)
        raise falcon.HTTPStatus(falcon.HTTP_403)


falcon_app = falcon.App(middleware=[Look()])
auto_app = falcon.App(middleware=[Look()])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated
    auto_app.req_options.auto_parse_form_urlencoded = True

# Bottle: in a hook.

BOTTLE = {
    "forms": lambda request: request.forms,
    "files": lambda request: request.files,
    "POST": lambda request: request.POST,
    "params": lambda request: request.params,
    "body": lambda request: request.body,
    "json": lambda request: request.json,
    "query": lambda request: request.query,
    "auth": lambda request: request.auth,
    "content_length": lambda request: request.content_length,
}
bottle_app = bottle.Bottle()


@bottle_app.hook("before_request")
def look_in_bottle():
    BOTTLE[bottle.request.path.strip("/")](bottle.request)
    raise bottle.HTTPResponse(status=403)


# Pyramid: before the permission is checked, and after it.


class Nobody:
    def identity(self, request):
        return None

    def authenticated_userid(self, request):
        return None

    def permits(self, request, context, permission):
        return permission == "all"


PYRAMID = {
    "POST": lambda request: request.POST,
    "params": lambda request: request.params,
    "body": lambda request: request.body,
    "json_body": lambda request: request.json_body,
    "GET": lambda request: request.GET,
    "body_file": lambda request: request.body_file,
    "content_length": lambda request: request.content_length,
    "authorization": lambda request: request.authorization,
}


def view(request):
    PYRAMID.get(request.matched_route.name, lambda request: None)(request)
    return pyramid.response.Response(status=403)


def pyramid_app():
    config = pyramid.config.Configurator()
    config.set_session_factory(pyramid.session.SignedCookieSessionFactory("of tests"))
    config.set_security_policy(Nobody())
    config.add_exception_view(
        lambda request: pyramid.response.Response(status=403), context=Exception
    )
    views = {way: {"permission": "all"} for way in PYRAMID} | {
        "permission": {"permission": "none"},
        "permission-request_param": {"permission": "none", "request_param": "a"},
        "permission-require_csrf": {"permission": "none", "require_csrf": True},
        "require_csrf": {"permission": "all", "require_csrf": True},
    }
    for way, settings in views.items():
        config.add_route(way, f"/{way}")
        config.add_view(view, route_name=way, **settings)
    return config.make_wsgi_app()


APPS = {
    "Flask": flask_app,
    "Flask-aborting": aborting_app,
    "Flask-limited": limited_app,
    "Falcon": falcon_app,
    "Falcon-auto": auto_app,
    "Bottle": bottle_app,
    "Pyramid": pyramid_app(),
}


def app(environ, start_response):
    framework = wsgiref.util.shift_path_info(environ)
    if framework == "Django":
        return DJANGO[environ["PATH_INFO"].strip("/")](environ, start_response)
    return APPS[framework](environ, start_response)
