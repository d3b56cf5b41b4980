"""Flask with a limit, ``/flask/data``, and Bottle, ``/bottle``, both with an error page for 408."""

import wsgiref.util

import bottle
import flask

import gunicorn_expect.contrib.bottle
import gunicorn_expect.contrib.flask

limited_flask = flask.Flask("limited")
limited_flask.config["MAX_CONTENT_LENGTH"] = 1000
gunicorn_expect.contrib.flask.init_app(limited_flask)


@limited_flask.put("/data")
def data():
    return flask.request.data


@limited_flask.errorhandler(408)
def stalled(error):
    return "a page of the application", 408


bottle_with_pages = bottle.Bottle()
bottle_with_pages.install(gunicorn_expect.contrib.bottle.plugin)


@bottle_with_pages.put("/")
def read():
    return bottle.request.environ["wsgi.input"].read()


@bottle_with_pages.error(408)
def stalled_in_bottle(error):
    return "a page of the application"


APPS = {"flask": limited_flask, "bottle": bottle_with_pages}


def app(environ, start_response):
    return APPS[wsgiref.util.shift_path_info(environ)](environ, start_response)
