"""A receiver of webhooks that sends each event by e-mail. It needs only the standard library.

    WEBHOOK_SECRET=whsec_... MAIL_TO=team@example.com python examples/webhook_to_mail.py

Further settings: HOST and PORT to listen on (127.0.0.1, 8090), SMTP_HOST and SMTP_PORT of the mail server (127.0.0.1, 25),
SMTP_TLS=1 for STARTTLS, SMTP_USER and SMTP_PASSWORD, MAIL_FROM (nanochat@localhost). Put a proxy with TLS in front of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import smtplib
import ssl
import sys
import time
from collections.abc import Mapping
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONGEST_BODY = 1 << 20
TOLERANCE_S = 300  # of the timestamp: an older request may be a recorded one that somebody sends again


def verified(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether the request was signed with the secret just now (https://www.standardwebhooks.com)."""
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 12 and abs(now - int(timestamp)) <= TOLERANCE_S):
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id', '')}.{timestamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # More than one signature: the secret is being rotated. As bytes, since compare_digest takes text only if it is ASCII.
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(wanted.encode(), signature) for signature in given)


def mail(message_id: str, body: bytes, sender: str, to: str) -> EmailMessage:
    """The e-mail of a delivery in the format json. Raises ValueError, KeyError and TypeError for what is none."""
    event = json.loads(body)
    data = event["data"]
    about = (data.get("run") or {}).get("name", data["project"])
    details = data.get("details", {})
    subject = " ".join(
        str(part) for part in ("[nanochat]", about, data.get("stage") or "", event["type"], details.get("to", ""))
    )
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())[:200]
    message["From"], message["To"] = sender, to
    message["Message-ID"] = f"<{message_id}@nanochat>"  # a delivery that comes twice is the same e-mail
    message.set_content(json.dumps(event, indent=1, ensure_ascii=False))
    return message


def send(message: EmailMessage) -> None:
    """Raises OSError; smtplib's errors are such."""
    with smtplib.SMTP(os.environ.get("SMTP_HOST", "127.0.0.1"), int(os.environ.get("SMTP_PORT", "25")), timeout=10) as server:
        if os.environ.get("SMTP_TLS"):
            server.starttls(context=ssl.create_default_context())
        if os.environ.get("SMTP_USER"):
            server.login(os.environ["SMTP_USER"], os.environ["SMTP_PASSWORD"])
        server.send_message(message)


class Receiver(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        self.send_response(self.answer())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self) -> int:
        """The status of the response. Any but 2xx makes nanochat try again later."""
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            self.close_connection = True
            return 413
        body = self.rfile.read(int(length))
        if not verified(os.environ["WEBHOOK_SECRET"], self.headers, body, time.time()):
            return 401
        try:
            message = mail(
                self.headers["webhook-id"], body, os.environ.get("MAIL_FROM", "nanochat@localhost"), os.environ["MAIL_TO"]
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return 400
        try:
            send(message)
        except OSError as err:
            sys.stderr.write(f"the mail server does not take the e-mail: {err}\n")
            return 503
        return 204


def main() -> None:
    missing = [name for name in ("WEBHOOK_SECRET", "MAIL_TO") if not os.environ.get(name)]
    if missing:
        sys.exit(f"set {' and '.join(missing)}; see the top of {__file__}")
    server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8090"))), Receiver)
    sys.stderr.write(f"listening on port {server.server_port}\n")
    server.serve_forever()


if __name__ == "__main__":
    main()
