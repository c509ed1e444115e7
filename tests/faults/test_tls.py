"""TLS: every ssl_mode means the same in both implementations."""

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
import struct
import threading
from typing import Any, Dict, Iterator, List, Optional

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from io_kinds import IO

from dualdb import ConnectionFailed, DatabaseConfig
from dualdb.sandbox import Sandbox

#: They start servers of their own.
pytestmark = pytest.mark.slow


def make_authority(directory: Any, name: str, address: str) -> Dict[str, str]:
    """An authority, and a server's certificate by it for an IP address: the paths of
    the PEM files.
    """

    def certificate(subject: str, key: Any, issuer: str, issuer_key: Any, extensions: Any) -> Any:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    ca_key, key = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    ca = certificate(name, ca_key, name, ca_key, [x509.BasicConstraints(ca=True, path_length=None)])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    server = certificate("server", key, name, ca_key, [names])
    paths = {}
    for part, data in {
        "ca": ca.public_bytes(serialization.Encoding.PEM),
        "cert": server.public_bytes(serialization.Encoding.PEM),
        "key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    }.items():
        path = directory / f"{name}-{part}.pem"
        path.write_bytes(data)
        paths[part] = str(path)
    return paths


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Dict[str, str]]:
    directory = tmp_path_factory.mktemp("tls")
    return {
        "right": make_authority(directory, "right", "127.0.0.1"),
        "wrong name": make_authority(directory, "elsewhere", "10.0.0.1"),
    }


@pytest.fixture(scope="module")
def boxes(certificates: Dict[str, Dict[str, str]]) -> Iterator[Dict[str, Sandbox]]:
    """A server without TLS, one with a certificate for its address, one with a
    certificate for another.
    """

    def options(files: Dict[str, str]) -> Any:
        return [f"--ssl-{part}={path}" for part, path in files.items()]

    with Sandbox(0) as plain, Sandbox(0, options=options(certificates["right"])) as right:
        with Sandbox(0, options=options(certificates["wrong name"])) as wrong:
            yield {"plain": plain, "right": right, "wrong name": wrong}


@pytest.mark.parametrize(
    ("mode", "authority", "server", "outcome"),
    [
        ("disabled", None, "plain", "plain"),
        ("disabled", None, "right", "plain"),
        ("preferred", None, "plain", "plain"),
        ("preferred", None, "right", "tls"),
        ("preferred", None, "wrong name", "tls"),
        ("required", None, "plain", "refused"),
        ("required", None, "right", "tls"),
        ("required", None, "wrong name", "tls"),
        ("verify_ca", "right", "plain", "refused"),
        ("verify_ca", "right", "right", "tls"),
        ("verify_ca", "wrong name", "wrong name", "tls"),
        ("verify_ca", "wrong name", "right", "refused"),
        ("verify_identity", "right", "plain", "refused"),
        ("verify_identity", "right", "right", "tls"),
        ("verify_identity", "wrong name", "wrong name", "refused"),
        ("verify_identity", "wrong name", "right", "refused"),
    ],
)
def test_ssl_modes(
    boxes: Any,
    certificates: Any,
    io: IO,
    quick_retries: None,
    mode: str,
    authority: Any,
    server: str,
    outcome: str,
) -> None:
    changes = {"ssl_mode": mode, "ssl_ca": certificates[authority]["ca"] if authority else None}
    client = io.Client(boxes[server].config.model_copy(update=changes))
    if outcome == "refused":
        with pytest.raises(ConnectionFailed):
            io(client.query("SELECT 1"))
    else:
        cipher = io(client.query_one("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))["Value"]
        assert bool(cipher) is (outcome == "tls")
    io(client.close_pool())


def test_a_password_is_not_sent_to_a_server_that_lacks_the_tls_asked_for(
    boxes: Any, io: IO, quick_retries: None
) -> None:
    client = io.Client(boxes["plain"].config.model_copy(update={"ssl_mode": "required"}))
    with pytest.raises(ConnectionFailed) as caught:
        io(client.query("SELECT 1"))
    assert (caught.value.errno, "SSL is required" in str(caught.value)) == (2026, True)
    io(client.close_pool())


def test_a_unix_socket(boxes: Any, io: IO) -> None:
    path = f"{boxes['plain'].servers['global'].directory}/s"
    boxes["plain"].run(
        "global", "GRANT ALL ON app_global.* TO 'local'@'localhost' IDENTIFIED BY 'p'"
    )
    changes = {"unix_socket": path, "host": "nowhere.invalid", "user": "local", "password": "p"}
    client = io.Client(boxes["plain"].config.model_copy(update=changes))
    assert io(client.query_value("SELECT 1")) == 1
    assert path in repr(client)
    io(client.close_pool())


def test_a_unix_socket_that_is_not_there(io: IO, boxes: Any, quick_retries: None) -> None:
    client = io.Client(boxes["plain"].config.model_copy(update={"unix_socket": "/nowhere/s"}))
    with pytest.raises(ConnectionFailed) as caught:
        io(client.query("SELECT 1"))
    assert caught.value.errno == 2003
    io(client.close_pool())


class RogueServer:
    """Answers in a server's place with a certificate, and asks for the password as
    ``caching_sha2_password`` does for an account that a server does not remember.
    """

    def __init__(self, files: Dict[str, str]) -> None:
        self.received: List[bytes] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files["cert"], files["key"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                with plain, contextlib.suppress(OSError):
                    plain.settimeout(5)
                    self._answer(plain)

    def _answer(self, plain: socket.socket) -> None:
        # LONG_PASSWORD, PROTOCOL_41, SSL, SECURE_CONNECTION, PLUGIN_AUTH and the like
        capabilities = 0xAA0D | 1 << 19
        low, high = struct.pack("<H", capabilities & 0xFFFF), struct.pack("<H", capabilities >> 16)
        plain.sendall(
            _packet(
                0,
                b"\x0a8.0.36\0" + struct.pack("<I", 7) + b"12345678\0" + low + b"\x2d\2\0" + high,
                b"\x15" + b"\0" * 10 + b"901234567890\0caching_sha2_password\0",
            )
        )
        plain.recv(36)  # the request for TLS
        with self._context.wrap_socket(plain, server_side=True) as link:
            self._converse(link)

    def _converse(self, link: ssl.SSLSocket) -> None:
        self.received.append(link.recv(4096))
        link.sendall(_packet(3, b"\1\4"))  # "perform full authentication"
        self.received.append(link.recv(4096))


def _packet(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


@pytest.mark.parametrize(
    ("mode", "trusted", "presented", "is_sent"),
    [
        ("preferred", None, "right", True),
        ("required", None, "right", True),
        ("preferred", "right", "wrong name", False),
        ("required", "right", "wrong name", False),
        ("verify_ca", None, "right", False),
        ("verify_ca", "right", "wrong name", False),
        ("verify_ca", "wrong name", "wrong name", True),
        ("verify_identity", "wrong name", "wrong name", False),
        ("verify_identity", "right", "right", True),
    ],
)
def test_who_is_sent_the_password_is_what_the_page_about_security_says(
    certificates: Any,
    io: IO,
    quick_retries: None,
    mode: Any,
    trusted: Optional[str],
    presented: str,
    is_sent: bool,
) -> None:
    rogue = RogueServer(certificates[presented])
    config = DatabaseConfig(
        host="127.0.0.1",
        port=rogue.port,
        database="d",
        user="u",
        password="known-to-nobody",
        connect_timeout=5,
        ssl_mode=mode,
        ssl_ca=certificates[trusted]["ca"] if trusted else None,
    )
    client = io.Client(config)
    with pytest.raises(ConnectionFailed):
        io(client.init_pool())
    rogue.close()
    assert any(b"known-to-nobody" in each for each in rogue.received) is is_sent


class RefusingServer(RogueServer):
    """Refuses the login, and then waits for the end of the connection, without an end
    of the TLS session.
    """

    def __init__(self, files: Dict[str, str]) -> None:
        self.hung_up = threading.Event()
        super().__init__(files)

    def _answer(self, plain: socket.socket) -> None:
        below = plain.dup()
        with below:
            super()._answer(plain)
            below.settimeout(5)
            while below.recv(4096):
                pass
            self.hung_up.set()

    def _converse(self, link: ssl.SSLSocket) -> None:
        link.recv(4096)
        link.sendall(_packet(3, b"\xff", struct.pack("<H", 1045), b"#28000Access denied"))
        os.close(link.detach())


def test_a_refused_login_leaves_no_socket_open(
    certificates: Any, io: IO, quick_retries: None
) -> None:
    server = RefusingServer(certificates["right"])
    config = DatabaseConfig(host="127.0.0.1", port=server.port, database="d", user="u", password="")
    client = io.Client(config)
    with pytest.raises(ConnectionFailed, match="Access denied"):
        io(client.init_pool())
    server.close()
    assert server.hung_up.wait(20)
