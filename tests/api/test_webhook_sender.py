"""What a delivery may reach and what an answer may do: addresses, name servers that lie, redirects, slow and huge answers."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from controlplane.deliveries import Order
from services.api.webhooks.addresses import BadUrl, check, is_public, parse
from services.api.webhooks.sender import Sender
from services.api.webhooks.signing import Secrets
from tests.api.receiver import Receiver, receiving, status

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SECRETS = Secrets("the content of a key file")
NEW, OLD = SECRETS.new(), SECRETS.new()
BODY = '{"type":"ping","name":"Ünï © 🙂"}'


def order(url: str, *, digest: str = NEW.digest, old: str | None = None, body: str = BODY) -> Order:
    return Order(1, "msg_00000000000000ff", "h_00000000000000ff", 1, url, body, NEW.nonce, digest, old)


def names(*answers: list[str]) -> tuple[Callable[[str, int], Awaitable[list[str]]], list[str]]:
    """A name server that gives one answer after another, and the list of what it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    running = Sender(SECRETS, LOOPBACK, timeout_s=2.0)
    running.start()
    yield running
    running.stop()


# -- addresses --


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1",
        "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0",
        "2606:4700::1%eth0", "fec0::1", "ff02::1", "100::1", "4000::1", "nonsense", "",
    ],
)  # fmt: skip
def test_an_address_that_is_not_on_the_internet_is_refused(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(BadUrl, match="not public"):
        check(parse("https://example.com/"), ["1.1.1.1", address], ())


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450::1"])
def test_an_address_on_the_internet_may_be_reached_with_tls_only(address: str) -> None:
    check(parse("https://example.com/"), [address], ())
    with pytest.raises(BadUrl, match="https://"):
        check(parse("http://example.com/"), [address], ())


def test_no_setting_opens_a_metadata_service() -> None:
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "168.63.129.16"):
        with pytest.raises(BadUrl):
            check(parse("https://example.com/"), [address], everything)
    check(parse("http://example.com/"), ["10.0.0.1"], everything)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.com/", "https://"), ("file:///etc/passwd", "https://"), ("gopher://x:70/_", "https://"), ("//x/", "https://"),
        ("example.com", "https://"), ("https://", "host name"), ("https:///path", "host name"), ("https://[::1", "not a URL"),
        ("https://u:p@example.com/", "user name"), ("https://u@example.com/", "user name"), ("https://@example.com/", "user name"),
        ("https://example.com\\@127.0.0.1/", "backslash"), ("https://example.com/a b", "space"), ("https://exa\tmple.com/", "space"),
        ("https://example.com/\r\nX: y", "space"), ("https://ex\u0430mple.com/", "ASCII"), ("https://example.com/#a", "fragment"),
        ("https://example.com:22/", "port 22"), ("https://example.com:0/", "port 0"), ("https://example.com:99999/", "port 99999"),
        ("https://[fe80::1%25eth0]/", "not a URL|host name"), ("https://example.com/" + "a" * 3000, "longer"), ("https://example.com:x/", "not a URL"),
    ],
)  # fmt: skip
def test_a_url_that_no_setting_allows_is_refused(url: str, problem: str) -> None:
    with pytest.raises(BadUrl, match=problem):
        parse(url)


@given(st.text(max_size=60) | st.from_regex(r"https?://[\[\]@:/#?\\%a-f0-9.x]{0,30}", fullmatch=True))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        target = parse(text)
    except BadUrl:
        return
    assert target.host
    assert target.url.scheme in ("http", "https")
    assert not target.url.userinfo


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "017700000001", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_loopback_is_reached(receiver: Receiver, host: str) -> None:
    strict = Sender(SECRETS, timeout_s=2.0)
    strict.start()
    try:
        outcome = strict.send(order(f"https://{host}:{receiver.port}/")).result(timeout=10)
        with pytest.raises(BadUrl):
            strict.check(f"https://{host}:{receiver.port}/")
    finally:
        strict.stop()
    assert outcome.status is None
    assert outcome.error.startswith("the URL")
    assert receiver.arrived == []


def test_a_second_answer_of_the_name_server_has_no_effect(receiver: Receiver) -> None:
    """DNS rebinding: the name is asked for once, and the connection goes to the address that was checked."""
    with receiving("127.0.0.2") as victim:
        resolve, asked = names(["127.0.0.1"], ["127.0.0.2"])
        running = Sender(SECRETS, (ip_network("127.0.0.1/32"),), resolve=resolve, timeout_s=2.0)
        running.start()
        try:
            url = f"http://rebinding.example:{receiver.port}/hook"
            assert running.send(order(url)).result(timeout=10).status == 204
            assert asked == ["rebinding.example"]
            refused = running.send(order(f"http://rebinding.example:{victim.port}/hook")).result(timeout=10)
        finally:
            running.stop()
        assert refused.error.startswith("the URL names a host with an address that is not public")
        assert victim.arrived == []
    assert receiver.arrived[0].headers["host"] == f"rebinding.example:{receiver.port}"


def test_one_private_address_among_public_ones_is_enough_to_refuse(receiver: Receiver) -> None:
    resolve, _ = names(["127.0.0.1", "10.0.0.1"])
    running = Sender(SECRETS, LOOPBACK, resolve=resolve, timeout_s=2.0)
    running.start()
    try:
        assert "not public" in running.send(order(f"http://two.example:{receiver.port}/")).result(timeout=10).error
    finally:
        running.stop()
    assert receiver.arrived == []


def test_the_certificate_is_checked_for_the_name_although_the_address_is_connected(tmp_path: Path) -> None:
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout {key} -out {pem} "
        "-subj /CN=hook.example -addext subjectAltName=DNS:hook.example",
        shell=True,
        check=True,
        capture_output=True,
    )
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem, key)
    seen: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: seen.append(name)
    resolve, _ = names(["127.0.0.1"])
    trusting = Sender(SECRETS, LOOPBACK, resolve=resolve, timeout_s=5.0, tls=ssl.create_default_context(cafile=str(pem)))
    with receiving(tls=tls) as receiver:
        trusting.start()
        try:
            assert trusting.send(order(f"https://hook.example:{receiver.port}/")).result(timeout=10).status == 204
            wrong = trusting.send(order(f"https://other.example:{receiver.port}/")).result(timeout=10)
        finally:
            trusting.stop()
    assert seen == ["hook.example", "other.example"]
    assert wrong.status is None
    assert "certificate" in wrong.error
    assert len(receiver.arrived) == 1


# -- answers --


def test_a_redirect_is_not_followed(sender: Sender, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        for code in (301, 302, 303, 307, 308):
            receiver.answer = status(code, Location=f"http://127.0.0.1:{elsewhere.port}/")
            outcome = sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10)
            assert (outcome.status, "redirects are not followed" in outcome.error) == (code, True)
        assert elsewhere.arrived == []


@pytest.mark.parametrize(
    ("code", "good"), [(200, True), (202, True), (299, True), (304, False), (400, False), (410, False), (599, False)]
)
def test_only_2xx_is_success(sender: Sender, receiver: Receiver, code: int, good: bool) -> None:
    receiver.answer = status(code)
    outcome = sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10)
    assert (outcome.status, outcome.error == "") == (code, good)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("", None), ("-1", None), ("1e9", None), ("9" * 50, None), ("soon", None)]
)
def test_the_receiver_may_ask_for_a_pause(sender: Sender, receiver: Receiver, header: str, seconds: float | None) -> None:
    receiver.answer = status(429, Retry_After=header)
    assert sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10).retry_after == seconds


def test_a_huge_answer_is_not_read(sender: Sender, receiver: Receiver) -> None:
    sent, cut = [0], threading.Event()

    def huge(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        try:
            while sent[0] < 1 << 30:
                sent[0] += request.wfile.write(b"x" * 65_536)
        finally:
            cut.set()

    receiver.answer = huge
    assert sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10).status == 200
    assert cut.wait(10)
    assert sent[0] < 64 << 20  # what the kernel's buffers take


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"])
def test_a_slow_receiver_is_cut_off_in_time_even_if_it_sends_something_all_the_time(
    sender: Sender, receiver: Receiver, drip: bytes
) -> None:
    stop = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        if drip.startswith(b"X"):
            request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not stop.wait(0.1):
            if drip:
                request.wfile.write(drip[:1] if drip.startswith(b"H") else drip)

    receiver.answer = slow
    began = time.monotonic()
    outcome = sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10)
    stop.set()
    assert time.monotonic() - began < 5
    assert outcome.status is None
    assert outcome.error


@pytest.mark.parametrize(
    "raw", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n", b"\0" * 1000]
)
def test_what_is_no_http_is_a_failure_and_the_sender_goes_on(sender: Sender, receiver: Receiver, raw: bytes) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(raw)
        request.close_connection = True

    receiver.answer = answer
    outcome = sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10)
    assert outcome.status is None
    assert outcome.error
    receiver.answer = status(204)
    assert sender.send(order(f"http://127.0.0.1:{receiver.port}/")).result(timeout=10).status == 204


def test_nobody_listens_and_nobody_has_the_name(sender: Sender, receiver: Receiver) -> None:
    with receiving() as gone:
        port = gone.port
    assert sender.send(order(f"http://127.0.0.1:{port}/")).result(timeout=10).error.startswith("no connection")
    assert "cannot be resolved" in sender.send(order("https://nobody.invalid/")).result(timeout=10).error


# -- signatures --


def test_the_signature_is_that_of_standard_webhooks(sender: Sender, receiver: Receiver) -> None:
    """Verified by the scheme's own library, and by openssl."""
    assert sender.send(order(f"http://127.0.0.1:{receiver.port}/hook?a=b")).result(timeout=10).status == 204
    (request,) = receiver.arrived
    assert (request.path, request.body.decode()) == ("/hook?a=b", BODY)
    Webhook(NEW.secret).verify(request.body, dict(request.headers))
    key = b64decode(NEW.secret.removeprefix("whsec_"))
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    mac = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary"]
    made = subprocess.run(mac, input=signed, capture_output=True, check=True).stdout
    assert request.headers["webhook-signature"] == f"v1,{b64encode(made).decode()}"
    assert abs(int(request.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    assert request.headers["content-type"] == "application/json"
    assert "cookie" not in request.headers


def test_both_secrets_verify_while_they_overlap(sender: Sender, receiver: Receiver) -> None:
    sender.send(order(f"http://127.0.0.1:{receiver.port}/", old=OLD.nonce)).result(timeout=10)
    (request,) = receiver.arrived
    for secret in (NEW.secret, OLD.secret):
        Webhook(secret).verify(request.body, dict(request.headers))
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRETS.new().secret).verify(request.body, dict(request.headers))


def test_nothing_is_sent_with_a_signature_of_another_key_file(sender: Sender, receiver: Receiver) -> None:
    other = Secrets("another key file").new()
    outcome = sender.send(order(f"http://127.0.0.1:{receiver.port}/", digest=other.digest)).result(timeout=10)
    assert "webhook.key" in outcome.error
    assert receiver.arrived == []
