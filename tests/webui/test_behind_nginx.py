"""A real server behind a real nginx with the settings of docs/service.md, where there is an nginx."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import textwrap

import pytest

from tests.helpers.api import wait_until
from tests.helpers.metrics import values
from tests.helpers.server_process import ROOT, Server

NAME, WORD, KEY = "chat.example.org", "correct horse", "0123456789abcdef"
NGINX = shutil.which("nginx", path=f"/usr/sbin:/usr/bin:/usr/local/bin:{ROOT / 'build/nginx/usr/sbin'}")
"""Of this machine, or as test.sh has unpacked it."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def settings(port, behind, folder):
    """The block of the docs, for other ports and with a certificate of our own."""
    text = (ROOT / "docs/service.md").read_text(encoding="utf-8")
    block = textwrap.dedent(re.search(r"^    server \{\n.*?^    \}\n", text, re.DOTALL | re.MULTILINE)[0])
    for old, new in (("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
                     ("127.0.0.1:5005", f"127.0.0.1:{behind}"), ("/etc/ssl", str(folder))):
        assert block.count(old), f"the docs say nothing of {old}"
        block = block.replace(old, new)
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in (
        "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return (f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;\nevents {{}}\n"
            f"http {{ access_log off; gzip on;\n{temporary}\n{block} }}\n")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """A new connection to nginx in front of a server, with each call."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("there is no nginx here")
    folder = tmp_path_factory.mktemp("nginx")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                    f"/CN={NAME}", "-keyout", folder / "chat.key", "-out", folder / "chat.pem"],
                   check=True, capture_output=True)
    (folder / "password").write_text(WORD)
    (folder / "keys").write_text(KEY)
    with Server(folder, "--delay", "0.05", "--password", str(folder / "password"), "--allow-host", NAME,
                "--api-key", str(folder / "keys"), "--behind-proxy", "127.0.0.1") as server:
        port = free_port()
        (folder / "nginx.conf").write_text(settings(port, server.port, folder))
        nginx = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.PIPE)
        context = ssl.create_default_context(cafile=folder / "chat.pem")
        context.check_hostname = False

        def connect():
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
            connection.connect()
            return connection

        def listens():
            assert nginx.poll() is None, nginx.stderr.read()
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        wait_until(listens)
        yield connect
        nginx.terminate()
        nginx.communicate()


def ask(connection, method, path, body=None, **headers):
    kind = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body),
                       {"Host": NAME, **kind, **headers})
    return connection.getresponse()


def test_the_page_opens_under_the_proxys_name_and_its_cookie_is_for_https_alone(proxied):
    connect = proxied
    page = ask(connect(), "GET", "/")
    assert page.status == 200 and b"Parlor" in page.read()
    login = ask(connect(), "POST", "/api/login", {"password": WORD}, **{"Sec-Fetch-Site": "same-origin"})
    assert login.status == 200 and "; Secure" in login.headers["Set-Cookie"]
    cookie = login.headers["Set-Cookie"].partition(";")[0]
    assert ask(connect(), "GET", "/api/status", Cookie=cookie).status == 200
    assert ask(connect(), "GET", "/metrics").status == 401, "nginx's requests come from loopback, too"


def test_words_come_through_as_they_are_written_and_closing_ends_the_request(proxied):
    connect = proxied
    connection = connect()
    body = {"messages": [{"role": "user", "content": "something long"}], "stream": True}
    response = ask(connection, "POST", "/v1/chat/completions", body, Authorization=f"Bearer {KEY}")
    pieces = []
    while sum(b'"content":"' in piece for piece in pieces) < 4:
        pieces.append(response.read1())
    assert len(pieces) >= 4 and not any(b"[DONE]" in piece for piece in pieces)
    connection.close()
    response.close()

    def running():
        metrics = ask(connect(), "GET", "/metrics", Authorization=f"Bearer {KEY}").read().decode()
        return values(metrics)["vllm:num_requests_running",]

    wait_until(lambda: running() == 0, 20)
