"""The example receiver as a process, with a real mail server on loopback."""

from __future__ import annotations

import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import Message
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from tests.waiting import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_to_mail.py"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = (
    '{"type":"run_status","timestamp":"2026-11-28T18:15:51Z","data":{"project":"default",'
    '"run":{"id":"r_1","name":"Größe 1","recipe":"tiny","labels":[]},"stage":null,"attempt":null,"event_id":7,'
    '"details":{"from":"RUNNING","to":"SUCCEEDED","detail":""}}}'
)


class Mailbox(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as smtplib needs, and keeps what arrives. With `full` it refuses every recipient."""

    daemon_threads = True

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.full = False
        super().__init__(("127.0.0.1", 0), Smtp)


class Smtp(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            verb = line.split()[0].upper()
            if verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(message_from_bytes(b"".join(lines), policy=policy.default))
            self.wfile.write(b"452 full\r\n" if verb == b"RCPT" and self.server.full else b"250 ok\r\n")


@pytest.fixture(scope="module")
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def url(mailbox: Mailbox) -> Iterator[str]:
    settings = {
        "WEBHOOK_SECRET": SECRET,
        "MAIL_TO": "team@example.com",
        "PORT": "0",
        "SMTP_PORT": str(mailbox.server_address[1]),
    }
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE)], env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = re.fullmatch(r"listening on port (\d+)\n", process.stderr.readline())
    assert said
    yield f"http://127.0.0.1:{said[1]}/"
    process.kill()
    process.wait()


def post(url: str, body: str = BODY, *, secret: str = SECRET, at: datetime | None = None, **headers: str) -> int:
    at = at or datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", at, body)
    signed = {"webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    return httpx.post(url, content=body, headers={**signed, **headers}).status_code


def test_an_event_becomes_an_e_mail(url: str, mailbox: Mailbox) -> None:
    assert post(url) == 204
    mail = until(lambda: mailbox.mails and mailbox.mails.pop(), "the e-mail")
    assert (mail["Subject"], mail["To"]) == ("[nanochat] Größe 1 run_status SUCCEEDED", "team@example.com")
    assert mail["Message-ID"] == "<msg_1@nanochat>"
    assert '"to": "SUCCEEDED"' in mail.get_content()  # type: ignore[attr-defined]


def test_a_request_that_is_not_signed_just_now_is_refused(url: str, mailbox: Mailbox) -> None:
    now = datetime.now(UTC)
    assert post(url, secret="whsec_" + "A" * 32) == 401
    assert post(url, at=now - timedelta(minutes=6)) == 401
    assert post(url, at=now + timedelta(minutes=6)) == 401
    for headers in (
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "now"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1 v1, ,"},
        {"webhook-signature": "v2,AAAA"},
    ):
        assert post(url, **headers) == 401
    assert httpx.post(url, content=b"{}").status_code == 401
    assert mailbox.mails == []


def test_of_several_signatures_one_is_enough(url: str, mailbox: Mailbox) -> None:
    now = datetime.now(UTC)
    both = f"{Webhook('whsec_' + 'A' * 32).sign('msg_1', now, BODY)} {Webhook(SECRET).sign('msg_1', now, BODY)}"
    assert post(url, at=now, **{"webhook-signature": both}) == 204
    until(lambda: mailbox.mails and mailbox.mails.pop(), "the e-mail")


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"type":"x","data":[]}', "null", '{"type":"x","data":{"project":"p","run":[1]}}']
)
def test_a_signed_body_that_is_no_event_is_refused(url: str, body: str) -> None:
    assert post(url, body) == 400


def test_a_name_cannot_add_a_header(url: str, mailbox: Mailbox) -> None:
    assert post(url, BODY.replace("Größe 1", "x\\r\\nBcc: victim@example.com")) == 204
    mail = until(lambda: mailbox.mails and mailbox.mails.pop(), "the e-mail")
    assert mail["Bcc"] is None


def test_while_the_mail_server_refuses_the_delivery_is_to_be_tried_again(url: str, mailbox: Mailbox) -> None:
    mailbox.full = True
    assert post(url) == 503
    mailbox.full = False
    assert post(url) == 204
    until(lambda: mailbox.mails and mailbox.mails.pop(), "the e-mail")


def test_it_says_what_is_missing() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("set WEBHOOK_SECRET and MAIL_TO")
