"""Views of Flask and Django that read an upload, each in another way.

``/<way>`` does not catch what that raises; ``/<way>?caught`` answers with its name.
"""

import json

import django.conf
import django.core.handlers.wsgi
import django.http
import django.urls
import django.views.decorators.csrf
import flask

app = flask.Flask(__name__)

FLASK = {
    "data": lambda request: request.data,
    "get_data": lambda request: request.get_data(),
    "form": lambda request: dict(request.form),
    "files": lambda request: request.files["file"].read(),
    "json": lambda request: request.get_json(),
    "stream": lambda request: request.stream.read(),
}


@app.post("/<way>")
def upload(way):
    try:
        return {"read": repr(FLASK[way](flask.request))}
    except Exception as error:
        if "caught" in flask.request.args:
            return {"raised": type(error).__name__}
        raise


django.conf.settings.configure(
    ALLOWED_HOSTS=["*"], DEBUG=False, ROOT_URLCONF=__name__, SECRET_KEY="of tests", USE_TZ=True
)
django.setup()

DJANGO = {
    "body": lambda request: request.body,
    "read": lambda request: request.read(),
    "lines": lambda request: list(request),
    "POST": lambda request: dict(request.POST),
    "FILES": lambda request: request.FILES["file"].read(),
    "json": lambda request: json.loads(request.body),
}


@django.views.decorators.csrf.csrf_exempt
def view(request, way):
    try:
        return django.http.JsonResponse({"read": repr(DJANGO[way](request))})
    except Exception as error:
        if "caught" in request.GET:
            return django.http.JsonResponse({"raised": type(error).__name__})
        raise


urlpatterns = [django.urls.path("<way>", view)]
django_app = django.core.handlers.wsgi.WSGIHandler()
