"""Asynchronous views of Flask and Django. They read in another thread than the worker's."""

import django.conf
import django.core.handlers.wsgi
import django.http
import django.urls
import django.views.decorators.csrf
import flask
from asgiref.sync import sync_to_async

app = flask.Flask(__name__)


@app.route("/", methods=["GET", "POST"])
async def upload():
    return str(len(flask.request.get_data()))


django.conf.settings.configure(
    ALLOWED_HOSTS=["*"], DEBUG=False, ROOT_URLCONF=__name__, SECRET_KEY="of tests", USE_TZ=True
)
django.setup()


@django.views.decorators.csrf.csrf_exempt
async def view(request):
    return django.http.HttpResponse(
        str(len(await sync_to_async(request.read, thread_sensitive=False)()))
    )


urlpatterns = [django.urls.path("", view)]
django_app = django.core.handlers.wsgi.WSGIHandler()
