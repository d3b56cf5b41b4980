"""A project for the recipe for Django, with the middleware that reads forms."""

import django.conf
import django.core.wsgi

django.conf.settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF="django_files",
    SECRET_KEY="of tests",
    USE_TZ=True,
)
app = django.core.wsgi.get_wsgi_application()
