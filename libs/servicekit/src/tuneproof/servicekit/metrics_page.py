"""The page /metrics for Prometheus, over HTTP or HTTPS."""

from __future__ import annotations

import ssl
import threading
from socket import AF_INET, AF_INET6, socket
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.settings import join_address, split_address


class _Quiet(WSGIRequestHandler):
    timeout = 30
    """Seconds until a silent client loses its thread."""

    def log_message(self, format: str, *words: Any) -> None:  # noqa: A002 - its name there
        """Logs no requests."""


def serve_metrics(bind: str, context: ssl.SSLContext | None) -> str:
    """Serves in threads of this process, to its end; the page's URL.

    Raises:
        InvalidInput: when the address cannot be bound.
    """
    host, port = split_address(bind)

    class Server(ThreadingWSGIServer):
        address_family = AF_INET6 if ":" in host else AF_INET

        def get_request(self) -> tuple[socket, Any]:
            connection, address = super().get_request()
            if context is not None:
                # The handshake comes with the first read, in the request's own thread.
                connection = context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            return connection, address

        def handle_error(self, *request: Any) -> None:
            """Says nothing: a client broke off, or speaks no TLS."""

    try:
        server = make_server(host, port, make_wsgi_app(), Server, _Quiet)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {bind}: {error.strerror}; choose another metrics_bind"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scheme = "http" if context is None else "https"
    return f"{scheme}://{join_address(host, server.server_port)}/metrics"
