"""Django with our middleware and small limits; ``/<way>`` reads an upload in this way."""

import json

import django.conf
import django.core.handlers.wsgi
import django.http
import django.urls
import django.views.decorators.csrf

django.conf.settings.configure(
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=100,
    FILE_UPLOAD_MAX_MEMORY_SIZE=100,
    MIDDLEWARE=[
        "gunicorn_expect.contrib.django.UploadMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of tests",
    USE_TZ=True,
)
django.setup()

DJANGO = {
    "body": lambda request: request.body.decode(),
    "read": lambda request: request.read().decode(),
    "pieces": lambda request: "".join(iter(lambda: request.read(7).decode(), "")),
    "lines": lambda request: [line.decode() for line in request],
    "form": lambda request: request.POST,
    "file": lambda request: [
        type(request.FILES["file"]).__name__,
        request.FILES["file"].read().decode(),
    ],
    "json": lambda request: json.loads(request.body),
    "refused": lambda request: "not read",
}


@django.views.decorators.csrf.csrf_exempt
def view(request, way):
    return django.http.JsonResponse({"read": DJANGO[way](request)})


@django.views.decorators.csrf.csrf_exempt
def clean_up(request):
    """Print the error that the view sees, and raise it again, as a view that cleans up does."""
    try:
        request.read()
    except django.http.UnreadablePostError as error:
        print(f"THE VIEW SAW {type(error.__cause__).__name__}", flush=True)
        raise


def protected(request):
    return django.http.JsonResponse({"read": request.POST})


urlpatterns = [
    django.urls.path("protected", protected),
    django.urls.path("clean-up", clean_up),
    django.urls.path("<way>", view),
]
app = django.core.handlers.wsgi.WSGIHandler()
