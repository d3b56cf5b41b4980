"""WebTest's TestApp, which serves the application as the worker does."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol, cast

from gunicorn_expect import settings
from gunicorn_expect.testing.memory import (
    MANNERS_KEY,
    UPLOAD_KEY,
    DecidedBy,
    Manners,
    Server,
    Upload,
)

try:
    import webtest  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    if error.name != "webtest":
        raise
    raise ImportError(
        "gunicorn_expect.testing needs WebTest: pip install 'gunicorn_expect[testing]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _typeshed.wsgi import WSGIApplication

    from gunicorn_expect.decision import Policy
    from gunicorn_expect.testing.interim import Interim


class TestResponse(webtest.TestResponse):  # type: ignore[misc]
    """WebTest's response, and how the upload before it went."""

    @property
    def interim(self) -> list[Interim]:
        """The interim responses before it, in order."""
        return self._upload.interim

    @property
    def continued(self) -> bool:
        """Whether a ``100 Continue`` was sent."""
        return any(interim.status == 100 for interim in self.interim)

    @property
    def body_bytes_read(self) -> int:
        """Bytes of the request's body that the application, or the policy, has read."""
        body = self._upload.body
        return 0 if body is None else body.bytes_read

    @property
    def decided_by(self) -> DecidedBy:
        """Who decided whether the client sends its body."""
        return self._upload.decided_by

    @property
    def refused_unread(self) -> bool:
        """Whether a body was refused with a 3xx, 4xx or 5xx, and was neither read nor asked for."""
        had_a_body = self._upload.body is not None
        asked = self.continued or self.body_bytes_read > 0
        return had_a_body and not asked and self.status_int >= 300

    @property
    def _upload(self) -> Upload:
        upload: Upload = self.request.environ[UPLOAD_KEY]
        return upload


class TestRequest(webtest.TestRequest):  # type: ignore[misc]
    """WebTest's request, but with HTTP/1.1: in HTTP/1.0 an expectation is ignored."""

    ResponseClass = TestResponse

    @classmethod
    def blank(
        cls, path: str, environ: Mapping[str, Any] | None = None, *args: Any, **options: Any
    ) -> TestRequest:
        """Make a request; the environ takes precedence."""
        environ = {"SERVER_PROTOCOL": "HTTP/1.1", **(environ or {})}
        request: TestRequest = super().blank(path, environ, *args, **options)
        return request


class Send(Protocol):
    """A method of WebTest's TestApp that sends a body."""

    def __call__(
        self,
        url: str,
        params: Any = ...,
        /,
        *,
        expect: bool = False,
        chunked: bool = False,
        leaves_after: int | None = None,
        stalls_after: int | None = None,
        **options: Any,
    ) -> TestResponse:
        """Send a request.

        Args:
            url: of the request.
            params: the body, as WebTest takes it.
            expect: the client sends ``Expect: 100-continue`` and waits for a response.
            chunked: the body is sent in chunks, without a Content-Length.
            leaves_after: bytes of the body after which the client leaves.
            stalls_after: bytes of the body after which the client sends nothing, and stays.
            options: WebTest's.

        Raises:
            ValueError: the client can't behave like this.
            webtest.AppError: the status is not that of ``status``, an option of WebTest's;
                without it, it is not 2xx or 3xx.

        """


def _sends(method: Callable[..., Any]) -> Send:
    @functools.wraps(method)
    def send(
        self: TestApp,
        url: str,
        *params: Any,
        expect: bool = False,
        chunked: bool = False,
        leaves_after: int | None = None,
        stalls_after: int | None = None,
        extra_environ: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        environ = _environ(
            expect=expect, chunked=chunked, leaves_after=leaves_after, stalls_after=stalls_after
        )
        environ.update(extra_environ or {})
        return method(self, url, *params, extra_environ=environ, **options)

    return cast("Send", send)


class TestApp(webtest.TestApp):  # type: ignore[misc]
    """WebTest's TestApp. The methods that send a body take the arguments of `Send`."""

    RequestClass = TestRequest
    app: Callable[..., Any]

    def __init__(
        self,
        app: WSGIApplication,
        *args: Any,
        policy: Policy | str | None = None,
        **options: Any,
    ) -> None:
        """Serve this application.

        Args:
            app: WSGI.
            args: WebTest's.
            policy: called before it, for every request that has a body: a callable, or
                "module:callable", as in ``expect_policy``.
            options: WebTest's.

        Raises:
            gunicorn_expect.settings.BadSettingError: the policy can't be loaded, or called.

        """
        super().__init__(app, *args, **options)
        checked = settings.check({"expect_policy": policy}, {})
        self.app = Server(self.app, settings.policy_of(checked))

    def request(
        self,
        url_or_req: Any,
        status: Any = None,
        expect_errors: bool = False,
        *,
        expect: bool = False,
        chunked: bool = False,
        leaves_after: int | None = None,
        stalls_after: int | None = None,
        **options: Any,
    ) -> TestResponse:
        """Send a request of any method, as `Send` does."""
        environ = _environ(
            expect=expect, chunked=chunked, leaves_after=leaves_after, stalls_after=stalls_after
        )
        if isinstance(url_or_req, str):
            options["environ"] = {**environ, **options.get("environ", {})}
        else:
            url_or_req = url_or_req.copy()
            url_or_req.environ.update(environ)
        response: TestResponse = super().request(url_or_req, status, expect_errors, **options)
        return response

    def do_request(self, req: Any, *args: Any, **options: Any) -> TestResponse:
        """Send this request."""
        if not isinstance(req, TestRequest):
            req = TestRequest(req.environ)
        response: TestResponse = super().do_request(req, *args, **options)
        return response

    post = _sends(webtest.TestApp.post)
    put = _sends(webtest.TestApp.put)
    patch = _sends(webtest.TestApp.patch)
    delete = _sends(webtest.TestApp.delete)
    post_json = _sends(webtest.TestApp.post_json)
    put_json = _sends(webtest.TestApp.put_json)
    patch_json = _sends(webtest.TestApp.patch_json)
    delete_json = _sends(webtest.TestApp.delete_json)


def _environ(
    *, expect: bool, chunked: bool, leaves_after: int | None, stalls_after: int | None
) -> dict[str, Any]:
    """Return the environ keys that describe the client of a request."""
    environ: dict[str, Any] = {MANNERS_KEY: Manners(leaves_after, stalls_after)}
    if expect:
        environ["HTTP_EXPECT"] = "100-continue"
    if chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    return environ
