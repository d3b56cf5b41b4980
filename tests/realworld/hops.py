"""The proxies of a table in docs/deploy.md, each as it is usually set up before an application."""

import dataclasses
import re
import shutil
import subprocess

from realworld.daemon import PATH, Daemon
from realworld.proxies import PROXIES, RunningProxy
from support import PATIENCE


@dataclasses.dataclass(frozen=True)
class Hop:
    """One proxy: how it is run, and the files that it needs besides those of examples/deploy."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    #: The text of each file; the first is its configuration.
    files: tuple[tuple[str, str], ...] = ()
    #: The argument that makes it print its version.
    version: str = "-v"
    #: Its name in realworld.proxies, if its file is in examples/deploy.
    deployed: str = ""
    #: The setting that the row of the table names.
    setting: str = ""
    #: Whether CI has it.
    in_ci: bool = False
    #: Whether the client gets nothing after an interim response. CI can't wait 20 s to see that.
    falls_silent: bool = False


ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": "type.googleapis.com/envoy.extensions.filters.network.\
http_connection_manager.v3.HttpConnectionManager"
          stat_prefix: public
          %s
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: uploads
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: application, timeout: 0s}}}}]
  clusters:
  - name: application
    load_assignment:
      cluster_name: application
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}
"""
VARNISH = """\
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{upstream}"; }}
sub vcl_recv {{ return (%s); }}
"""
TRAEFIK = """\
entryPoints: {{public: {{address: "127.0.0.1:{port}"}}}}
providers: {{file: {{filename: "{folder}/routes.yml"}}}}
"""
TRAEFIK_ROUTES = """\
http:
  routers: {{all: {{rule: "PathPrefix(`/`)", service: application}}}}
  services: {{application: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{upstream}"}}]}}}}}}
"""
TRAFFIC_SERVER = """\
CONFIG proxy.config.http.server_ports STRING {port}:ip-in=127.0.0.1
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.http.cache.http INT 0
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.admin.user_id STRING #-1
"""
TRAFFIC_SERVER_PLACES = "".join(
    f"{name}: {{folder}}\n"
    for name in (
        *("prefix", "exec_prefix", "sysconfdir", "datadir", "localstatedir", "runtimedir"),
        *("logdir", "cachedir"),
    )
)
TRAFFIC_SERVER_CLIENTS = """\
ip_allow: [{{apply: in, ip_addrs: 127.0.0.1, action: allow, methods: ALL}}]
"""
LIGHTTPD = """\
server.modules = ("mod_proxy")
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.stream-request-body = 2
proxy.server = ("" => (("host" => "127.0.0.1", "port" => {upstream})))
"""
SQUID = """\
http_port 127.0.0.1:{port} accel defaultsite=test
cache_peer 127.0.0.1 parent {upstream} 0 no-query no-digest no-netdb-exchange originserver
http_access allow all
cache deny all
access_log none
cache_log /dev/null
pid_filename none
pinger_enable off
shutdown_lifetime 0 seconds
"""

HOPS = [
    Hop(
        "nginx",
        "nginx",
        deployed="nginx",
        setting="`proxy_request_buffering off`",
        in_ci=True,
        falls_silent=True,
    ),
    Hop("HAProxy", "haproxy", deployed="haproxy", in_ci=True),
    Hop("Apache httpd", "apache2", deployed="apache", in_ci=True),
    Hop(
        "Caddy",
        "caddy",
        version="version",
        deployed="caddy",
        setting="`expect_continue_timeout`",
        in_ci=True,
    ),
    Hop(
        "Traefik",
        "traefik",
        ("--configFile={folder}/traefik.yml",),
        (("traefik.yml", TRAEFIK), ("routes.yml", TRAEFIK_ROUTES)),
        version="version",
    ),
    *(
        Hop(
            "Envoy",
            "envoy",
            ("-c", "{folder}/envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1"),
            (("envoy.yaml", ENVOY % text),),
            version="--version",
            setting=setting,
        )
        for setting, text in {
            "": "",
            "`proxy_100_continue`": "proxy_100_continue: true",
        }.items()
    ),
    *(
        Hop(
            "Varnish",
            "varnishd",
            (
                *("-F", "-f", "{folder}/default.vcl", "-a", "127.0.0.1:{port}"),
                *("-n", "{folder}/varnish", "-s", "malloc,16m", "-j", "none"),
            ),
            (("default.vcl", VARNISH % verb),),
            version="-V",
            setting=f"`return ({verb})`",
        )
        for verb in ("pass", "pipe")
    ),
    Hop(
        "Traffic Server",
        "traffic_server",
        ("--run-root={folder}/runroot.yaml",),
        (
            ("runroot.yaml", TRAFFIC_SERVER_PLACES),
            ("records.config", TRAFFIC_SERVER),
            ("remap.config", "map / http://127.0.0.1:{upstream}/\n"),
            ("storage.config", ""),
            ("ip_allow.yaml", TRAFFIC_SERVER_CLIENTS),
        ),
        version="-V",
    ),
    Hop(
        "lighttpd",
        "lighttpd",
        ("-D", "-f", "{folder}/lighttpd.conf"),
        (("lighttpd.conf", LIGHTTPD),),
        setting="`server.stream-request-body = 2`",
    ),
    Hop("Squid", "squid", ("-N", "-f", "{folder}/squid.conf"), (("squid.conf", SQUID),)),
]


def versions(hop):
    """Return the path of each version of this program that is installed."""
    found = {}
    for folder in PATH.split(":"):
        if path := shutil.which(hop.program, path=folder):
            said = subprocess.run(
                [path, hop.version], capture_output=True, text=True, check=False, timeout=PATIENCE
            )
            number = re.search(r"(?<![\d.])\d+\.\d+(\.\d+)*", said.stdout + said.stderr)
            found.setdefault(number[0], path)
    return found


class RunningHop(Daemon):
    """A proxy with the files of its `Hop`."""

    def __init__(self, hop, program, upstream):
        super().__init__(program)
        self._hop = hop
        self._upstream = upstream

    def _arguments(self, folder):
        places = {
            "folder": folder,
            "port": self.address[1],
            "upstream": self._upstream.address[1],
        }
        for name, text in self._hop.files:
            folder.joinpath(name).write_text(text.format(**places), "utf-8")
        return [argument.format(**places) for argument in self._hop.arguments]


def running(hop, program, upstream):
    """Return this proxy, to be entered, in front of this address."""
    if hop.deployed:
        deployed = dataclasses.replace(PROXIES[hop.deployed], program=program)
        return RunningProxy(deployed, upstream)
    return RunningHop(hop, program, upstream)
