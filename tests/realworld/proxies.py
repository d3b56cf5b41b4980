"""The proxies of examples/deploy, as they are run here."""

import dataclasses
import socket
from pathlib import Path

from realworld.daemon import Daemon
from support import CHECKOUT
from support.relay import Relay

DEPLOY = CHECKOUT / "examples" / "deploy"


#: The addresses in the files, of the proxy and of gunicorn. The tests replace them.
PUBLIC = "127.0.0.1:8080"
TCP = "127.0.0.1:8000"
UNIX = "/run/gunicorn-expect/http.socket"


@dataclasses.dataclass(frozen=True)
class Proxy:
    """One proxy, how it is run, and what it does."""

    file: str
    program: str
    arguments: tuple[str, ...]
    #: The line of the file with gunicorn's address, and the one for a unix socket.
    tcp: str
    unix: str
    #: Where it listens.
    public: tuple[str, str] = (PUBLIC, "127.0.0.1:{port}")
    #: Other text in the file that the tests replace.
    paths: tuple[tuple[str, str], ...] = ()
    #: Whether only the application sends the 100; otherwise the proxy sends it itself.
    asks_application: bool = True
    #: Whether a response ends an upload; otherwise the client gets it after the whole upload.
    stops_upload: bool = True
    #: Whether it knows other interim responses than 100; else it takes them for the response.
    knows_interim: bool = True


PROXIES = {
    "nginx": Proxy(
        "nginx.conf",
        "nginx",
        ("-c", "{file}", "-p", "{folder}", "-e", "error.log", "-g", "daemon off; pid nginx.pid;"),
        "server 127.0.0.1:8000;",
        "# server unix:/run/gunicorn-expect/http.socket;",
        paths=(
            ("access_log /var/log/nginx/access.log", "access_log {folder}/access.log"),
            # nginx makes these folders when it starts, and Debian's belong to root.
            (
                "http {{",
                "http {{"
                "client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
                "fastcgi_temp_path {folder}/fastcgi; scgi_temp_path {folder}/scgi;"
                "uwsgi_temp_path {folder}/uwsgi;",
            ),
        ),
        asks_application=False,
        knows_interim=False,
    ),
    "haproxy": Proxy(
        "haproxy.cfg",
        "haproxy",
        ("-db", "-f", "{file}"),
        "server gunicorn 127.0.0.1:8000",
        "# server gunicorn unix@/run/gunicorn-expect/http.socket",
    ),
    "apache": Proxy(
        "apache.conf",
        "apache2",
        ("-f", "{file}", "-D", "FOREGROUND"),
        'ProxyPass "/" "http://127.0.0.1:8000/" ttl=120',
        '# ProxyPass "/" "unix:/run/gunicorn-expect/http.socket|http://localhost/" ttl=120',
        paths=(
            ('"/run/apache2/apache2.pid"', '"{folder}/pid"'),
            ('"/var/log/apache2/error.log"', '"{folder}/error.log"'),
        ),
        stops_upload=False,
    ),
    "caddy": Proxy(
        "Caddyfile",
        "caddy",
        ("run", "--adapter", "caddyfile", "--config", "{file}"),
        "reverse_proxy 127.0.0.1:8000 {",
        "# reverse_proxy unix//run/gunicorn-expect/http.socket {",
        public=("http://:8080", "http://:{port}"),
    ),
}


class Upstream(Relay):
    """Stands between a proxy and gunicorn, on either kind of socket, and keeps what they send."""

    def __init__(self, server, path):
        super().__init__(server)
        self.path = path
        if isinstance(server.address, str):
            self._listener.close()
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            Path(path).chmod(0o777)  # httpd is not root when it connects
            self._listener.listen()
            self.address = path

    def _connect(self):
        return self._server.connect()


class RunningProxy(Daemon):
    """A proxy with its file, in which only addresses and paths are replaced."""

    def __init__(self, proxy, upstream):
        super().__init__(proxy.program)
        self.proxy = proxy
        self._upstream = upstream

    def _arguments(self, folder):
        file = folder / self.proxy.file
        file.write_text(self._configuration(folder), "utf-8")
        return [x.format(file=file, folder=folder) for x in self.proxy.arguments]

    def _configuration(self, folder):
        text = DEPLOY.joinpath(self.proxy.file).read_text("utf-8")
        assert text.count(self.proxy.tcp) == 1
        assert text.count(self.proxy.unix) == 1
        if isinstance(self._upstream.address, str):
            in_use = self.proxy.unix.removeprefix("# ").replace(UNIX, self._upstream.address)
            text = text.replace(self.proxy.unix, "").replace(self.proxy.tcp, in_use)
        else:
            in_use = self.proxy.tcp.replace(TCP, "{}:{}".format(*self._upstream.address))
            text = text.replace(self.proxy.tcp, in_use)
        for there, here in (self.proxy.public, *self.proxy.paths):
            places = {"folder": folder, "port": self.address[1]}
            there = there.format(**places)
            assert text.count(there) == 1, there
            text = text.replace(there, here.format(**places))
        return text
