"""Who may ask the server, and how much a request may send."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import Message, Scope
from web_support import LOCAL

from vecsearch.errors import InvalidInput
from vecsearch.web import serving
from vecsearch.web.access import bodies
from vecsearch.web.access.bodies import FORM, SMALL, Bodies
from vecsearch.web.access.guard import COOKIE, HEADERS, Access, Guard, names_this_machine, ours
from vecsearch.web.access.throttle import BURST, INTERVAL_S, REMEMBERED, Throttle


def guarded(
    token: str | None = None,
    max_bytes: int = 2**20,
    is_known: Callable[[Scope], bool] | None = None,
    key: bytes = b"key",
) -> TestClient:
    """Return a client of an application that reads the body and says what it was asked for."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            size = len(await Request(scope, receive).body())
        except HTTPException as error:
            await refuse(None, error.status_code, error.detail)(scope, receive, send)
            return
        text = f"{scope['path']}?{scope['query_string'].decode()} {size}"
        await PlainTextResponse(text)(scope, receive, send)

    def refuse(
        _: object, status: int, sentence: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        return PlainTextResponse(sentence, status, headers)

    access = Access(token, key, is_known)
    guard = Guard(Bodies(app, max_bytes, refuse), access, refuse)
    return TestClient(guard, base_url=LOCAL, follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("127.0.0.2:8000", True),
        ("localhost", True),
        ("LocalHost:8000", True),
        ("[::1]", True),
        ("[::1]:8000", True),
        ("", False),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("evil.example:99999", False),
        ("127.0.0.1:999999", False),
        ("evil_name.example", False),
        ("evil.example@127.0.0.1", False),
        ("127.0.0.1/api/health?", False),
        ("127.0.0.1, evil.example", False),
        ("127.0.0.1\n", False),
        ("[", False),
        ("[::1", False),
        ("a b", False),
        ("\u00b2", False),
    ],
)
def test_without_a_token_only_this_machines_names_are_answered(host: str, is_ours: bool) -> None:
    assert names_this_machine(host) == is_ours
    if host.isascii() and "\n" not in host:
        status = guarded().get("/x", headers={"Host": host}).status_code
        assert status == (200 if is_ours else 421)


def test_a_token_is_known_by_bearer_and_by_cookie() -> None:
    client = guarded("s3cret")
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "s3cret"},
        {"Authorization": "Basic s3cret"},
        {"Cookie": f"{COOKIE}=s3cret"},
        {"Host": "127.0.0.1/api/health?"},
    ):
        assert client.get("/x", headers=headers).status_code == 401
    assert client.get("/x", headers={"Authorization": "Bearer s3cret"}).text == "/x? 0"
    assert client.get("/x", headers={"Authorization": "bearer  s3cret "}).status_code == 200
    # Whatever name the caller has for this server, which a token lets be reached from elsewhere.
    elsewhere = {"Authorization": "Bearer s3cret", "Host": "photos.example"}
    assert client.get("/x", headers=elsewhere).status_code == 200
    for path in ("/api/health", "/static/page.css", "/token"):
        assert client.get(path).status_code == 200
    for path in ("/", "/api", "/api/collections", "/openapi.json", "/api%2Fhealt", "//api/health"):
        assert client.get(path).status_code == 401


def test_an_address_with_the_token_lets_a_browser_in_again_and_again() -> None:
    client = guarded("s3cret")
    assert client.get("/x?token=wrong").status_code == 401
    assert client.post("/x?token=s3cret").status_code == 401
    for _ in range(2):
        answer = client.get("/x?a=1&token=s3cret&b=%20")
        assert (answer.status_code, answer.headers["location"]) == (303, "/x?a=1&b=+")
        assert "s3cret" not in answer.headers["set-cookie"]
        assert "HttpOnly" in answer.headers["set-cookie"]
    assert client.get("/x").status_code == 200


def test_other_sites_may_not_send_and_bodies_are_limited() -> None:
    client = guarded(max_bytes=2**20)
    # Another port of this machine is another site.
    for site in ("cross-site", "same-site"):
        assert client.post("/x", headers={"Sec-Fetch-Site": site}).status_code == 403
        assert client.get("/x", headers={"Sec-Fetch-Site": site}).status_code == 200
    assert client.post("/x", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    here, elsewhere = client.base_url.netloc.decode(), "evil.example"
    for origin, status in ((f"http://{here}", 200), (f"http://{elsewhere}", 403), ("null", 403)):
        assert client.post("/x", headers={"Origin": origin}).status_code == status
        assert client.get("/x", headers={"Origin": origin}).status_code == 200
    # A proxy may change the name; what the browser says of both counts.
    both = {"Sec-Fetch-Site": "same-origin", "Origin": f"https://{elsewhere}"}
    assert client.post("/x", headers=both).status_code == 200
    assert client.post("/x", content=b"x" * 2**20).text == f"/x? {2**20}"
    assert client.post("/x", content=b"x" * (2**20 + 1)).status_code == 413
    # Without a size, what arrives is counted.
    assert client.post("/x", content=iter([b"x"] * 100)).text == "/x? 100"
    assert client.post("/x", content=iter([b"x" * 2**18] * 5)).status_code == 413
    assert client.post("/x", headers={"Content-Length": "9" * 5_000}).status_code == 413


def test_every_answer_tells_a_browser_what_to_refuse() -> None:
    for answer in (guarded().get("/x"), guarded("t").get("/x")):
        assert answer.headers.items() >= {name.lower(): HEADERS[name] for name in HEADERS}.items()


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("/", "/"),
        ("/?k=1", "/?k=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("", "/"),
        ("/\ud800", "/?"),
    ],
)
def test_a_browser_that_is_let_in_is_sent_nowhere_else(address: str, kept: str) -> None:
    assert ours(address) == kept


def test_a_connection_of_another_user_is_refused_and_learns_nothing() -> None:
    stranger = guarded(is_known=lambda _: False)
    for path in ("/", "/api/collections", "/openapi.json"):
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert "only the user who started it" in answer.text
    assert stranger.get("/api/health").status_code == 200
    assert guarded(is_known=lambda _: True).get("/").status_code == 200
    # With a token, it is the token that counts.
    bearer = {"Authorization": "Bearer t"}
    assert guarded("t", is_known=lambda _: False).get("/", headers=bearer).status_code == 200


def test_a_request_without_access_may_send_a_small_form_and_nothing_else() -> None:
    client = guarded("s3cret")
    form = {"Content-Type": FORM}
    given = b"given=x"

    def read_to_the_end() -> Iterator[bytes]:
        yield b"x" * SMALL
        yield b"x"

    assert client.post("/token", content=given, headers=form).text == "/token? 7"
    assert client.post("/token", content=b"x" * SMALL, headers=form).status_code == 200
    assert client.post("/token", content=b"x" * (SMALL + 1), headers=form).status_code == 413
    assert client.post("/token", content=read_to_the_end(), headers=form).status_code == 413
    for kind in ("multipart/form-data; boundary=x", "application/octet-stream", ""):
        answer = client.post("/token", content=given, headers={"Content-Type": kind})
        assert answer.status_code == 415, kind
    # Elsewhere nothing is read: the refusal is the first thing that happens.
    assert client.post("/x", content=b"x" * 2**21).status_code == 401


def test_wrong_tokens_are_counted_and_then_no_longer_compared() -> None:
    client = guarded("s3cret")
    right = {"Authorization": "Bearer s3cret"}
    entered = client.get("/?token=s3cret")
    cookie = {"Cookie": f"{COOKIE}={entered.cookies[COOKIE]}"}
    client.cookies.clear()
    ways: list[tuple[str, dict[str, str]]] = [
        ("/?token=guess", {}),
        ("/", {"Authorization": "Bearer guess"}),
    ]
    statuses = [client.get(*way[:1], headers=way[1]).status_code for way in ways * (BURST // 2)]
    assert statuses == [401] * BURST
    for path, headers in [*ways, ("/", right), ("/?token=s3cret", {})]:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 429
        assert 0 < int(answer.headers["retry-after"]) <= INTERVAL_S
    # Who is in stays in, and a cookie that is not ours is no guess.
    assert client.get("/", headers=cookie).status_code == 200
    assert client.get("/", headers={"Cookie": f"{COOKIE}=x"}).status_code == 401


def test_a_cookie_is_of_one_token_and_one_key() -> None:
    def cookie(token: str, key: bytes) -> str:
        return guarded(token, key=key).get(f"/?token={token}").cookies[COOKIE]

    made = [cookie("a", b"1"), cookie("a", b"2"), cookie("b", b"1")]
    assert len(set(made)) == 3
    assert cookie("a", b"1") == made[0]


def test_an_address_waits_for_its_own_wrong_tokens_and_memory_is_bounded() -> None:
    now = 0.0
    counted = Throttle(clock=lambda: now)
    for _ in range(BURST):
        assert counted.wait("10.0.0.1") == 0
        counted.failed("10.0.0.1")
    assert counted.wait("10.0.0.1") == INTERVAL_S
    assert counted.wait("::ffff:10.0.0.1") == INTERVAL_S
    assert counted.wait("10.0.0.2") == 0
    now = INTERVAL_S
    assert counted.wait("10.0.0.1") == 0
    counted.failed("10.0.0.1")
    assert counted.wait("10.0.0.1") == INTERVAL_S
    # Of IPv6, a caller has a whole network.
    for host in range(BURST):
        counted.failed(f"2001:db8::{host:x}")
    assert counted.wait("2001:db8::ffff") > 0
    assert counted.wait("2001:db8:0:1::1") == 0
    counted.succeeded("10.9.9.9")
    for host in range(2 * REMEMBERED):
        counted.failed(f"10.1.{host // 256}.{host % 256}")
    # All together wait, too, but for those that have sent the right one.
    assert counted.wait("10.3.0.1") > 0
    assert counted.wait("10.9.9.9") == 0
    assert len(counted._debts) == REMEMBERED  # noqa: SLF001 - the memory


def test_a_slow_body_and_too_many_large_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.05)
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.05)
    monkeypatch.setattr(bodies, "LARGE_AT_ONCE", 2)
    statuses = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()

    async def silent() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    def refuse(_: object, status: int, sentence: str, headers: object) -> Response:
        return PlainTextResponse(sentence, status)

    def upload(*, admitted: bool = True) -> Scope:
        headers = [
            (b"transfer-encoding", b"chunked"),
            (b"content-type", bodies.FORM.encode()),
        ]
        return {"type": "http", "headers": headers, "state": {"admitted": admitted}}

    async def both() -> None:
        limited = Bodies(app, 2**20, refuse)
        with pytest.raises(HTTPException) as slow:
            await limited(upload(), silent, send)
        assert slow.value.status_code == 408
        monkeypatch.setattr(bodies, "GRACE_S", 60)
        scopes = [*(upload(admitted=False) for _ in range(2)), *(upload() for _ in range(2))]
        waiting = [asyncio.ensure_future(limited(scope, silent, send)) for scope in scopes]
        await asyncio.sleep(0)  # they start
        await limited(upload(), silent, send)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        # Who has no access has taken no turn of an upload.
        assert statuses == [503]

    asyncio.run(both())


def test_the_key_of_the_cookies_is_kept_and_is_the_owners_alone(tmp_path: Path) -> None:
    key = serving.cookie_key(tmp_path / "data")
    assert serving.cookie_key(tmp_path / "data") == key
    [file] = (tmp_path / "data").iterdir()
    assert (len(key), file.stat().st_mode & 0o777) == (32, 0o600)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be used"):
        serving.cookie_key(tmp_path / "file")


def test_a_link_with_a_token_is_opened_by_a_file_of_the_owner() -> None:
    with serving.private_link("http://127.0.0.1:8000/") as opened:
        assert opened == "http://127.0.0.1:8000/"
    with serving.private_link("http://127.0.0.1:8000/?token=a-b_c") as opened:
        file = Path(opened.removeprefix("file://"))
        assert "url=http://127.0.0.1:8000/?token=a-b_c" in file.read_text()
        assert file.parent.stat().st_mode & 0o777 == 0o700
    assert not file.exists()
