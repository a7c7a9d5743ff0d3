"""How other devices of the same network open this Parlor: its address, and that address as a QR code."""

from __future__ import annotations

import io
import ipaddress
import socket

EVERYWHERE = ("0.0.0.0", "::")
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # nobody's


def address_for_others(host: str, port: int | str) -> str | None:
    """Of a server that listens on `host`; None if it listens to nobody but this machine."""
    if is_loopback(host):
        return None
    return url_of((_network_address() or socket.gethostname()) if host in EVERYWHERE else host, port)


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def url_of(host: str, port: int | str) -> str:
    """The address to open in a browser."""
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}/" if ":" in bare else f"http://{bare}:{port}/"


def qr_svg(address: str) -> bytes:
    """Black on white, with its quiet zone, of any size."""
    import segno  # when somebody looks

    file = io.BytesIO()
    segno.make_qr(address).save(file, kind="svg", light="#fff", omitsize=True, xmldecl=False)
    return file.getvalue()


def qr_text(address: str) -> str:
    """For a console that knows Unicode's half blocks, dark as most are."""
    import segno

    file = io.StringIO()
    segno.make_qr(address).terminal(file, compact=True)
    return file.getvalue()


def _network_address() -> str | None:
    """This machine's in the network by which it reaches others. Nothing is sent: the system is asked which
    way it would be."""
    for family, somewhere in _SOMEWHERE.items():
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as asked:
                asked.connect((somewhere, 9))
                found = asked.getsockname()[0]
        except OSError:  # no network
            continue
        if not ipaddress.ip_address(found.partition("%")[0]).is_link_local:
            return found
    return None
