"""The judge by HTTP and JSON: the same grades, roles, limits and errors as by gRPC."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme
from prometheus_client import REGISTRY

from tuneproof.servicekit.auth import TokensFile
from tuneproof.servicekit.calls import Limits
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ClientTls, ServerTls

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

USE = "u" * 20


def asked(answer: str = "46 dBm.", *rubrics: str, **more):
    return {
        "question": "Which power?",
        "answer": answer,
        "references": ["It is 46 dBm."],
        "rubrics": list(rubrics),
        **more,
    }


def lines(response: httpx.Response) -> dict[str, dict]:
    found = [json.loads(line) for line in response.text.splitlines()]
    return {each.get("id", ""): each for each in found}


async def test_a_grade_says_all_that_is_known(fake, http_judge, reply) -> None:
    scores = iter([5, 4, 3])
    fake.script = lambda _: reply.says(f"Reasons: so.\nScore: {next(scores, 9)}")
    async with http_judge() as url, httpx.AsyncClient(timeout=50) as client:
        body = asked("46 dBm.", "accuracy@1", repeats=4, seed=2**64 - 1, mode="sampled")
        response = await client.post(f"{url}/v1/grade", json=body)
        rubric = (await client.get(f"{url}/v1/rubrics/accuracy@1")).json()["rubric"]
    assert response.status_code == 200
    grade = response.json()["grade"]
    (criterion,) = grade["criteria"]
    assert criterion["rubric_digest"] == rubric["digest"]
    assert (criterion["mean"], criterion["scored_repeats"], criterion["lost_repeats"]) == (4, 3, 1)
    assert criterion["failures"] == [{"kind": "out_of_range", "count": 2}]
    assert criterion["mode"] == "sampled"
    assert grade["usage"]["cached_tokens"] == 5 * 64
    assert {each["stage"] for each in grade["stage_times"]} == {"lexical", "judge"}
    assert rubric["scale"]["5"]
    assert rubric["reasoning"] == "before"


async def test_unscored_is_absent_and_not_zero(fake, http_judge, reply) -> None:
    fake.script = lambda _: reply.says("")
    async with http_judge() as url, httpx.AsyncClient(timeout=50) as client:
        graded = await client.post(f"{url}/v1/grade", json=asked("A", "accuracy@1", repeats=1))
    (criterion,) = graded.json()["grade"]["criteria"]
    assert "mean" not in criterion
    assert criterion["scored_repeats"] == 0


async def test_pairs_and_rubrics(fake, http_judge, reply) -> None:
    fake.script = lambda _: reply.says("Choice: A")
    async with http_judge() as url, httpx.AsyncClient(timeout=50) as client:
        body = {"question": "Which?", "first": "a", "second": "b", "rubrics": ["relevance@1"]}
        compared = await client.post(f"{url}/v1/compare", json=body | {"repeats": 1})
        first = (await client.get(f"{url}/v1/rubrics", params={"page_size": 3})).json()
        token = {"page_token": first["next_page_token"]}
        second = (await client.get(f"{url}/v1/rubrics", params=token)).json()
    (criterion,) = compared.json()["comparison"]["criteria"]
    assert criterion["repeats"][0]["in_order"].keys() >= {"seed", "completion"}
    ids = [each["id"] for each in (*first["rubrics"], *second["rubrics"])]
    assert ids == sorted(
        {"abstention@1", "accuracy@1", "completeness@1", "faithfulness@1", "relevance@1"}
    )


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
async def test_a_batch_answers_every_item_under_its_id(fake, http_judge, reply, kind) -> None:
    fake.script = lambda _: reply.says("Score: 3")
    items = [{"id": str(n), "grade": asked("A", "accuracy@1", repeats=1)} for n in range(20)]
    items += [{"id": "bad", "grade": {"answer": "A"}}, {"id": "0", "grade": asked("again")}]
    content = json.dumps(items) if kind.endswith("/json") else "\n".join(map(json.dumps, items))
    async with http_judge() as url, httpx.AsyncClient(timeout=50) as client:
        sent = {"content": content, "headers": {"content-type": kind}}
        response = await client.post(f"{url}/v1/grade/batch", **sent)
    assert response.headers["content-type"] == "application/x-ndjson"
    found = [json.loads(line) for line in response.text.splitlines()]
    scored = {each["id"]: each["result"] for each in found if "result" in each}
    assert set(scored) == {str(n) for n in range(20)}
    assert {each["criteria"][0]["mean"] for each in scored.values()} == {3}
    failed = {each["id"]: each["error"] for each in found if "error" in each}
    assert failed["bad"]["field"] == "references"
    assert failed["0"]["status"] == "ALREADY_EXISTS"


async def test_lines_come_and_go_while_the_request_lasts(http_judge) -> None:
    def item(name: str, **grade) -> bytes:
        return json.dumps({"id": name, "grade": grade or asked("A")}).encode()

    def chunk(content: bytes) -> bytes:
        return f"{len(content):x}\r\n".encode() + content + b"\r\n"

    head = b"POST /v1/grade/batch HTTP/1.1\r\nHost: judge\r\nTransfer-Encoding: chunked\r\n"
    async with http_judge() as url:
        reader, writer = await asyncio.open_connection(*httpx.URL(url).netloc.decode().split(":"))
        writer.write(head + b"Content-Type: application/x-ndjson\r\n\r\n")
        writer.write(chunk(item("one") + b"\n\n{half") + chunk(b" a line\n"))
        writer.write(chunk(item("odd", anwser="A") + b"\n"))
        text = (await reader.readuntil(b"}\n")).decode()
        writer.write(chunk(item("two")) + chunk(b""))
        text += (await reader.readuntil(b"0\r\n\r\n")).decode()
        writer.close()
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert found[0]["id"] == "one"
    by_id = {each.get("id", ""): each for each in found}
    assert by_id.keys() == {"one", "two", "", "odd"}
    assert by_id[""]["error"]["message"].startswith("line 2: this is not JSON")
    assert by_id["odd"]["error"]["field"] == "grade.anwser"


@pytest.mark.parametrize(
    ("body", "code", "field", "said"),
    [
        (asked("x" * 100_001), 400, "answer", "answer has 100,001"),
        (asked("A", "nonsense@1"), 404, None, "accuracy@1, completeness@1"),
        ({"answer": "A"}, 400, "references", "references is empty"),
        (asked(repeats=101), 400, "repeats", "repeats is 101"),
        (asked(repeats="10"), 400, "repeats", "repeats is '10', not a number"),
        (asked(repeats=-1), 400, "repeats", "from 0 to 4294967295"),
        (asked(temperature=None), 400, "temperature", "is null"),
        (asked(mode="best"), 400, "mode", "one of sampled, weighted"),
        (asked(answer=["A"]), 400, "answer", "not a text"),
        (asked() | {"references": ["a", 1]}, 400, "references[1]", "is 1, not a text"),
        (asked() | {"anwser": "A"}, 400, "anwser", "known: question, answer"),
        (asked("\ud800"), 400, "answer", "half a character"),
        ([], 400, "", "the request is [], not an object"),
    ],
)
async def test_bad_input_is_refused_with_its_place(http_judge, body, code, field, said) -> None:
    async with http_judge() as url, httpx.AsyncClient(timeout=50) as client:
        sent = {"content": json.dumps(body), "headers": {"content-type": "application/json"}}
        response = await client.post(f"{url}/v1/grade", **sent)
    error = response.json()["error"]
    assert response.status_code == code
    assert said in error["message"]
    assert error.get("field") == (field or None)


@pytest.mark.parametrize(
    ("verb", "path", "sent", "code"),
    [
        (
            "POST",
            "/v1/grade",
            {"content": "{", "headers": {"content-type": "application/json"}},
            400,
        ),
        (
            "POST",
            "/v1/grade",
            {"content": "[" * 1999, "headers": {"content-type": "application/json"}},
            400,
        ),
        ("POST", "/v1/grade", {"content": "{}"}, 415),
        ("POST", "/v1/grade", {"content": "{}", "headers": {"content-type": "text/plain"}}, 415),
        ("POST", "/v1/grade", {"json": {"answer": "x" * 3000}}, 413),
        ("POST", "/v1/grade", {"json": {}, "headers": {"request-timeout": "soon"}}, 400),
        ("POST", "/v1/grade/batch", {"json": {"id": "a"}}, 400),
        ("GET", "/v1/grade", {}, 405),
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/rubrics/brief@1", {}, 404),
        ("GET", "/v1/rubrics?page_size=x", {}, 400),
        ("GET", "/v1/rubrics?page_size=1&page_size=2", {}, 400),
    ],
)
async def test_what_http_alone_can_get_wrong(http_judge, verb, path, sent, code) -> None:
    async with http_judge({"max_bytes": 2000}) as url, httpx.AsyncClient(timeout=50) as client:
        response = await client.request(verb, url + path, **sent)
    assert response.status_code == code
    assert response.json()["error"]["message"]
    if code == 405:
        assert response.headers["allow"] == "POST"


async def test_tokens_are_those_of_grpc(http_judge, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"use {USE}")
    async with (
        http_judge({"tokens": TokensFile(tmp_path / "tokens")}) as url,
        httpx.AsyncClient(timeout=50) as client,
    ):
        for headers in ({}, {"authorization": "Bearer nobody"}):
            refused = await client.post(f"{url}/v1/grade", json=asked(), headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "bearer token" in refused.json()["error"]["message"]
        mine = {"authorization": f"Bearer {USE}"}
        assert (await client.post(f"{url}/v1/grade", json=asked(), headers=mine)).is_success
        assert (await client.get(f"{url}/openapi.json")).json()["security"] == [{"token": []}]


async def test_overload_is_refused_at_once_and_a_caller_who_leaves_frees_its_place(
    fake, http_judge, reply
) -> None:
    async def hang(_):
        await asyncio.Event().wait()

    fake.script = hang
    body = asked("A", "accuracy@1", repeats=2)
    async with (
        http_judge({"limits": Limits(calls=1)}) as url,
        httpx.AsyncClient(timeout=50) as client,
    ):
        waiting = asyncio.create_task(client.post(f"{url}/v1/grade", json=body))
        while not fake.under_way:
            await asyncio.sleep(0.01)
        refused = await client.post(f"{url}/v1/grade", json=asked())
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "1 calls are running" in refused.json()["error"]["message"]
        waiting.cancel()
        while fake.under_way:
            await asyncio.sleep(0.01)
        assert fake.left_early == 1
        while not (await client.post(f"{url}/v1/grade", json=asked())).is_success:
            await asyncio.sleep(0.01)


async def test_the_time_of_a_call_ends_its_requests(fake, http_judge) -> None:
    async def hang(_):
        await asyncio.Event().wait()

    fake.script = hang
    labels = {"service": "tuneproof.judge.v1.JudgeService", "method": "Grade"}
    labels["code"] = "DEADLINE_EXCEEDED"
    before = REGISTRY.get_sample_value("tuneproof_rpc_calls_total", labels) or 0
    async with http_judge() as url, httpx.AsyncClient(timeout=50) as client:
        body, headers = asked("A", "accuracy@1", repeats=2), {"Request-Timeout": "0.2"}
        late = await client.post(f"{url}/v1/grade", json=body, headers=headers)
        assert late.status_code == 504
        while fake.under_way:
            await asyncio.sleep(0.01)
    assert REGISTRY.get_sample_value("tuneproof_rpc_calls_total", labels) == before + 1


async def test_an_endpoint_that_is_away_is_unavailable(closed_url, http_judge) -> None:
    async with http_judge(endpoint_url=closed_url) as url, httpx.AsyncClient(timeout=50) as client:
        response = await client.post(f"{url}/v1/grade", json=asked("A", "accuracy@1", repeats=1))
    assert response.status_code == 503
    assert response.json()["error"]["reason"] == "ENDPOINT_DOWN"
    assert response.headers["retry-after"] == "5"


async def test_certificates_are_those_of_grpc(http_judge, tmp_path: Path) -> None:
    ca = trustme.CA()
    server = MountedSecret(tmp_path / "server", certificate_files(ca, "127.0.0.1"))
    mine = MountedSecret(tmp_path / "mine", certificate_files(ca, "me"))
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody/ca.crt").write_bytes(ca.cert_pem.bytes())
    tls = ServerTls(server.folder, client_certificates=True)
    async with http_judge({"tls": tls}) as url:
        assert url.startswith("https://")
        async with httpx.AsyncClient(verify=ClientTls(mine.folder).context(), timeout=50) as client:
            assert (await client.post(f"{url}/v1/grade", json=asked())).is_success
        async with httpx.AsyncClient(
            verify=ClientTls(tmp_path / "nobody").context(), timeout=50
        ) as client:
            with pytest.raises(httpx.TransportError):
                await client.post(f"{url}/v1/grade", json=asked())


@pytest.mark.process
async def test_the_process_announces_its_door_and_lets_a_call_end(
    fake, reply, tmp_path: Path
) -> None:
    announced = tmp_path / "judge.json"
    going_on = asyncio.Event()

    async def wait(_):
        await going_on.wait()
        return reply.says("Score: 2")

    fake.script = wait
    flags = ["--endpoint-url", fake.url, "--endpoint-model", "fake"]
    command = [sys.executable, "-m", "tuneproof_judge", *flags, "--announce-file", str(announced)]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
    try:
        while not announced.exists():
            assert process.poll() is None
            await asyncio.sleep(0.02)
        url = json.loads(announced.read_text())["http"]
        async with httpx.AsyncClient(timeout=50) as client:
            body = asked("A", "accuracy@1", repeats=1)
            grading = asyncio.create_task(client.post(f"{url}/v1/grade", json=body))
            while not fake.under_way:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            going_on.set()
            assert (await grading).json()["grade"]["criteria"][0]["mean"] == 2
        assert await asyncio.to_thread(process.wait, 15) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.process
def test_other_machines_need_a_token() -> None:
    command = [sys.executable, "-m", "tuneproof_judge", "--http-bind", "0.0.0.0:0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode == 2
    assert "http_bind 0.0.0.0:0" in ended.stderr
    assert "tokens are required" in ended.stderr
