"""Checks of addresses: the ports, the clock, the database, the broker, the API and its key, proxies."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from client.patience import within
from services.standalone.doctor.finding import Finding, bad, fine, odd
from services.standalone.ports import PORTS

SKEW_S = 5.0
TIMEOUT_S = 5.0  # of a connection, and between two bytes
WHOLE_S = 10.0  # of an answer: a server may send byte after byte
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ports(wanted: dict[str, int] = PORTS) -> Iterator[Finding]:
    for name, port in wanted.items():
        try:
            # As the services bind it: a port of a connection that has just ended is free for them.
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as err:
            if _is_ours(port):
                yield fine("ports", f"{port}: the platform's {name} answers there")
            else:
                yield odd(
                    "ports",
                    f"{port} ({name}) is taken by another program or may not be used ({err.strerror})",
                    f"see who has it: ss -ltnp 'sport = :{port}'. `nanochat up` then takes another port and says which; "
                    "Docker Compose needs API_PORT, INFERENCE_PORT or UI_PORT in .env",
                )
        else:
            yield fine("ports", f"{port} is free for {name}")


def clock(home: Path, api_url: str) -> Iterator[Finding]:
    """Compares with the file system of NANOCHAT_HOME, which may be another machine's, and with the API."""
    place = home if home.is_dir() else Path(tempfile.gettempdir())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
            ahead = {f"the file server of {place}": time.time() - os.stat(file.name).st_mtime}
    except OSError:
        ahead = {}  # the check of permissions reports that
    try:
        headers, _ = _answer(f"{api_url}/health")
        ahead[api_url] = time.time() - parsedate_to_datetime(headers["Date"]).timestamp() - 0.5
    except (OSError, TypeError, ValueError):
        pass
    for name, off in ahead.items():
        if abs(off) > SKEW_S:
            yield odd(
                "clock",
                f"this machine's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} that of {name}",
                "switch time synchronization on: timedatectl set-ntp true. Leases use the database's clock and stay right; "
                "the times of events and log lines do not",
            )
        else:
            yield fine("clock", f"agrees with {name}")


def database(url: str | None) -> Iterator[Finding]:
    if not url:
        return  # `nanochat up` brings its own
    try:
        from controlplane import db

        engine = db.make_engine(url)
        with engine.connect() as connection:
            current = db.is_current(connection)
        engine.dispose()
    except ImportError:
        return
    except Exception as err:
        yield bad(
            "database", f"does not answer: {str(err).splitlines()[0]}", "check NANOCHAT_DATABASE_URL and that Postgres runs"
        )
        return
    if current:
        yield fine("database", "answers; its schema is current")
    else:
        yield bad("database", "answers, but its schema is not current", "python -m services.api migrate")


def broker(url: str | None) -> Iterator[Finding]:
    if not url:
        return
    try:
        import redis

        with redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
            client.ping()
    except ImportError:
        return
    except Exception as err:
        yield bad("broker", f"does not answer: {err}", "check NANOCHAT_REDIS_URL, its password, and that Redis or Valkey runs")
    else:
        yield fine("broker", "answers")


def api(url: str, key: str | None, *, expected: bool) -> Iterator[Finding]:
    """`expected`: the user has named an address, or the platform was started here and has not been stopped."""
    try:
        state = json.loads(_answer(f"{url}/ready")[1])["status"]
    except urllib.error.HTTPError as err:
        yield bad(
            "api", f"{url}/ready answers {err.code}", "see its log; the database may be down, or another program has the port"
        )
        return
    except (OSError, ValueError, LookupError, TypeError) as err:
        if expected:
            yield bad("api", f"{url} {_trouble(err)}", "start the platform (`nanochat up`), or correct NANOCHAT_API_URL")
        else:
            yield fine("api", "not running; start the platform with `nanochat up`")
        return
    yield fine("api", f"{url} is {state}") if state == "ready" else odd("api", f"{url} is {state}", "see its /ready")
    request = urllib.request.Request(f"{url}/v1/workers", headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        workers = [w for w in json.loads(_answer(request)[1])["items"] if w["status"] != "lost"]
        alive = {w["queue"] for w in workers}
    except urllib.error.HTTPError as err:
        yield bad(
            "api", f"refuses the key ({err.code})", "set NANOCHAT_API_KEY_FILE to NANOCHAT_HOME/keys/admin.key of that platform"
        )
        return
    except (OSError, ValueError, LookupError, TypeError) as err:
        yield bad("api", f"{url}/v1/workers {_trouble(err)}", "see its log; another program may have the port")
        return
    for name in ("cpu", "gpu"):
        if name not in alive:
            yield bad(
                "workers", f"no worker of the queue {name} is alive", f"python -m services.worker --queue {name}; see its log"
            )


def proxy() -> Iterator[Finding]:
    set_ = [name for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if os.environ.get(name)]
    spared = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if set_ and "127.0.0.1" not in spared and spared.strip() != "*":
        place = urlsplit(os.environ[set_[0]]).hostname
        yield odd("proxy", f"{set_[0]} sends calls to this machine to {place}", "export NO_PROXY=127.0.0.1,localhost")


def _is_ours(port: int) -> bool:
    try:
        return "status" in json.loads(_answer(f"http://127.0.0.1:{port}/health")[1])
    except (OSError, ValueError, TypeError):
        return False


def _answer(request: str | urllib.request.Request) -> tuple[Message, bytes]:
    """The headers and the body of an answer. Raises OSError, of which HTTPError is one, if there is none within WHOLE_S."""

    def ask() -> tuple[Message, bytes]:
        try:
            with _direct.open(request, timeout=TIMEOUT_S) as answer:
                return answer.headers, answer.read()
        except HTTPException as err:
            raise OSError(f"what answers does not speak HTTP ({type(err).__name__})") from err

    try:
        return within(WHOLE_S, ask)
    except TimeoutError as err:
        raise TimeoutError(str(err) or f"the answer was not complete after {WHOLE_S:.0f} s") from err


def _trouble(error: Exception) -> str:
    return f"does not answer: {error}" if isinstance(error, OSError) else "answers, but not as the control API does"
