"""The REST view over a real projection."""

import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest

from octollm.events import bus
from octollm.events.carrier import Priority
from octollm.events.config import PostgresSettings
from octollm.events.log import Log
from octollm.projections import metrics, views
from octollm.projections.progress import Progress
from octollm.projections.queries import Queries
from octollm.projections.stream import EventStream
from tests.projections import story
from tests.projections.conftest import Rest, Running, serving
from tests.projections.story import Told

TASKS = "/api/v1/tasks"


def body(answer: httpx.Response, status: int = 200) -> Any:
    """The JSON of an answer, which must match the OpenAPI schema of its kind and say how new it is."""
    assert answer.status_code == status, answer.text
    assert int(answer.headers["octo-projected-seq"]) >= 0
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        return problem(answer, status)
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def problem(answer: httpx.Response, status: int) -> Any:
    """A problem+json body that has every member it must have."""
    found = msgspec.json.decode(answer.content, type=views.Problem)
    assert found.status == status
    assert found.type == f"urn:octollm:error:{found.code.value}"
    assert found.title
    assert found.detail
    assert found.hint
    return answer.json()


def matches(rest: Rest, name: str, value: Any) -> Any:
    """The value, checked against a schema of the OpenAPI document."""
    document = rest.app.openapi()
    root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    errors = [
        f"{error.instance_path}: {error.message}"
        for error in jsonschema_rs.Draft202012Validator(root, validate_formats=True).iter_errors(value)
    ]
    assert errors == []
    return value


async def shown(rest: Rest, task: Told, suffix: str = "", **query: Any) -> Any:
    answer = await rest.http.get(
        f"{TASKS}/{task.task_id}{suffix}", params={"min_seq": task.position.seq, "wait": 10, **query}
    )
    return body(answer)


async def test_a_completed_task(log: Log, rest: Rest) -> None:
    task = Told(log)
    end = await task.tell(*story.COMPLETED)
    answer = await rest.http.get(f"{TASKS}/{task.task_id}", params={"min_seq": end, "wait": 10})
    found = matches(rest, "TaskView", body(answer))
    assert (found["status"], found["phase"], found["goal"]) == ("completed", "done", "Echo hello world")
    assert found["result"]["output"] == "hello world\n"
    assert (found["cost_usd"], found["cost_micro_usd"], found["tokens"]) == (0.0015, 1500, 30)
    assert (found["plan_version"], found["steps"]) == (1, {"total": 2, "done": 2, "running": []})
    assert (found["version"], found["last_seq"], found["error"]) == (9, end, None)
    assert found["budget"]["max_time_seconds"] == 300
    stored = await log.read(task.task_id)
    assert datetime.fromisoformat(found["created_at"]) == stored[0].stored_at
    assert datetime.fromisoformat(found["finished_at"]) == stored[-1].stored_at.astimezone(UTC)
    assert int(answer.headers["octo-projected-seq"]) >= end


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("failed", "failed", "TIMEOUT"),
        ("cancelled", "cancelled", "CANCELLED"),
        ("rejected", "rejected", "INVALID_REQUEST"),
        ("unplanned", "failed", "PLANNING_FAILED"),
    ],
)
async def test_a_task_that_did_not_complete_says_why(log: Log, rest: Rest, name: str, status: str, code: str) -> None:
    task = Told(log)
    await task.tell(*story.STORIES[name])
    found = matches(rest, "TaskView", await shown(rest, task))
    assert (found["status"], found["error"]["code"], found["result"]) == (status, code, None)
    assert found["error"]["message"]
    assert found["error"]["hint"]


async def test_a_rejection_names_the_fields(log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(*story.REJECTED)
    found = await shown(rest, task)
    assert found["error"]["reasons"] == [{"field": "/goal", "message": "must not be blank"}]


async def test_steps_with_every_attempt(log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(*story.COMPLETED)
    found = matches(rest, "AttemptPage", await shown(rest, task, "/steps"))
    assert [(s["step_id"], s["attempt"], s["status"]) for s in found["steps"]] == [
        ("one", 1, "executed"),
        ("two", 1, "failed"),
        ("two", 2, "executed"),
    ]
    one, two, _ = found["steps"]
    assert one["output"]["stdout"]["head"] == "hello world\n"
    assert (one["action"]["kind"], one["exit_code"], one["error"]) == ("command", 0, None)
    assert two["error"]["code"] == "TIMEOUT"
    assert found["next_cursor"] is None


async def test_events_are_those_of_the_log(log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(*story.COMPLETED)
    found = matches(rest, "EventPage", await shown(rest, task, "/events"))
    stored = await log.read(task.task_id)
    assert [event["seq"] for event in found["events"]] == [event.seq for event in stored]
    for event, original in zip(found["events"], stored, strict=True):
        assert event["payload"] == original.data
        assert (event["kind"], event["id"], event["hash"]) == (original.kind, original.id, original.hash)
        assert event["headers"] == dict(original.headers)


async def test_an_event_that_cannot_be_read_is_shown_raw(client: bus.Client, log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(story.received())
    answer = json.loads((await client.request(f"step.executed.{task.task_id}", b"\xffno")).data)
    found = matches(rest, "EventPage", await shown(rest, task, "/events", min_seq=answer["seq"]))
    assert found["events"][1]["payload"] is None
    assert found["events"][1]["raw"] == "/25v"
    assert found["events"][1]["undecodable"]


async def test_the_plan_and_its_versions(log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(story.received(), story.planned("a"), story.planned("b", "c", version=2, cost_micro_usd=2500))
    newest = matches(rest, "PlanView", await shown(rest, task, "/plan"))
    assert ([step["id"] for step in newest["steps"]], newest["cost_usd"]) == (["b", "c"], 0.0025)
    assert [step["id"] for step in (await shown(rest, task, "/plan", version=1))["steps"]] == ["a"]
    missing = await rest.http.get(f"{TASKS}/{task.task_id}/plan", params={"version": 3})
    assert "no plan version 3" in body(missing, 404)["detail"]
    unplanned = Told(log)
    seq = await unplanned.tell(story.received())
    answer = await rest.http.get(f"{TASKS}/{unplanned.task_id}/plan", params={"min_seq": seq, "wait": 10})
    assert "has no plan yet" in body(answer, 404)["detail"]


async def listed(rest: Rest, **query: Any) -> list[str]:
    """The ids on every page, checked page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        parameters = query | ({"cursor": cursor} if cursor else {})
        page = matches(rest, "TaskPage", body(await rest.http.get(TASKS, params=parameters)))
        assert len(page["tasks"]) <= query.get("limit", 50)
        found += [task["task_id"] for task in page["tasks"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_lists_are_newest_first_and_paged(log: Log, rest: Rest) -> None:
    mark = uuid.uuid4().hex
    tasks = [Told(log) for _ in range(7)]
    for task in tasks:
        await task.tell(story.received(goal=f"page {mark}"))
    await rest.running.reach(tasks[-1].position.seq)
    newest_first = [task.task_id for task in reversed(tasks)]
    for limit in (1, 3, 7, 200):
        assert await listed(rest, q=mark, limit=limit) == newest_first


async def test_a_page_does_not_shift_when_tasks_arrive(log: Log, rest: Rest) -> None:
    mark = uuid.uuid4().hex
    tasks = [Told(log) for _ in range(4)]
    for task in tasks:
        await task.tell(story.received(goal=mark))
    await rest.running.reach(tasks[-1].position.seq)
    first = body(await rest.http.get(TASKS, params={"q": mark, "limit": 2}))
    await rest.running.reach(await Told(log).tell(story.received(goal=mark)))
    second = body(await rest.http.get(TASKS, params={"q": mark, "limit": 2, "cursor": first["next_cursor"]}))
    seen = [task["task_id"] for task in first["tasks"] + second["tasks"]]
    assert seen == [task.task_id for task in reversed(tasks)]


async def test_lists_are_filtered(log: Log, rest: Rest) -> None:
    mark = uuid.uuid4().hex
    done, running, urgent = Told(log), Told(log), Told(log)
    await done.tell(story.received(goal=f"{mark} 100% done_"), *story.COMPLETED[1:])
    await running.tell(story.received(goal=f"{mark} RUNNING"), story.planned("one"))
    await urgent.tell(story.received(goal=f"{mark} urgent", priority=Priority.critical))
    await rest.running.reach(urgent.position.seq)
    assert await listed(rest, q=mark, status="completed") == [done.task_id]
    assert await listed(rest, q=mark, status=["completed", "in_progress"]) == [running.task_id, done.task_id]
    assert await listed(rest, q=mark, priority="critical") == [urgent.task_id]
    assert await listed(rest, q=mark, priority="critical", status="completed") == []
    assert await listed(rest, q=f"{mark} running") == [running.task_id], "case does not matter"
    assert await listed(rest, q=f"{mark} 100% d") == [done.task_id]
    assert await listed(rest, q=f"{mark} 100_ d") == [], "no wildcard is left in a search"


async def test_min_seq_waits_for_the_view(log: Log, rest: Rest) -> None:
    task = Told(log)
    seq = await task.tell(story.received())
    asked = asyncio.create_task(rest.http.get(f"{TASKS}/{task.task_id}", params={"min_seq": seq + 1, "wait": 10}))
    await rest.running.reach(seq)
    assert not asked.done()
    assert await task.tell(story.planned("one")) == seq + 1
    assert body(await asked)["status"] == "in_progress"


async def test_min_seq_that_does_not_come_is_503_not_an_old_answer(log: Log, rest: Rest) -> None:
    task = Told(log)
    seq = await task.tell(story.received())
    for path in (f"{TASKS}/{task.task_id}", TASKS):
        answer = await rest.http.get(path, params={"min_seq": seq + 1000, "wait": 0.05})
        found = body(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert found["projected_seq"] == int(answer.headers["octo-projected-seq"])
        assert f"has not reached sequence {seq + 1000}" in found["detail"]


async def test_an_unknown_task_is_404_once_the_view_is_level(log: Log, rest: Rest) -> None:
    end = await Told(log).tell(*story.REJECTED)
    unknown = str(uuid.uuid4())
    for suffix in ("", "/steps", "/events", "/plan"):
        found = body(await rest.http.get(f"{TASKS}/{unknown}{suffix}", params={"wait": 10}), 404)
        assert (found["code"], found["task_id"]) == ("NOT_FOUND", unknown)
        assert found["projected_seq"] >= end


async def test_a_task_just_submitted_is_never_unknown(log: Log, rest: Rest) -> None:
    """No min_seq: the view waits for what was in the log when it was asked."""
    for _ in range(20):
        task = Told(log)
        await task.tell(story.received())
        assert body(await rest.http.get(f"{TASKS}/{task.task_id}", params={"wait": 10}))["status"] == "pending"


async def test_a_view_that_is_behind_says_so(
    log: Log, servers: Any, postgres: PostgresSettings, projector: Running
) -> None:
    """No projector moves this view: what it doesn't hold may exist, so it is 503 and not 404."""
    await projector.reach(await log.last_seq())
    stream = EventStream(servers.nats)
    await stream.connect()
    task = Told(log)
    await task.tell(story.received())
    async with serving(Running(Progress(), stream), postgres) as rest:
        answer = await rest.http.get(f"{TASKS}/{uuid.uuid4()}", params={"wait": 0.05})
        assert body(answer, 503)["projected_seq"] == 0
        assert answer.headers["retry-after"] == "1"
    await stream.close()


async def test_ids_are_taken_in_any_case(log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(story.received())
    answer = await rest.http.get(f"{TASKS}/{task.task_id.upper()}", params={"wait": 10})
    assert body(answer)["task_id"] == task.task_id


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        (f"{TASKS}/no-uuid", "/path/task_id"),
        (f"{TASKS}/no-uuid/steps", "/path/task_id"),
        (f"{TASKS}?limit=0", "/query/limit"),
        (f"{TASKS}?limit=201", "/query/limit"),
        (f"{TASKS}?status=odd", "/query/status/0"),
        (f"{TASKS}?priority=odd", "/query/priority/0"),
        (f"{TASKS}?min_seq=0", "/query/min_seq"),
        (f"{TASKS}?min_seq=99999999999999999999", "/query/min_seq"),
        (f"{TASKS}?wait=11", "/query/wait"),
        (f"{TASKS}?wait=nan", "/query/wait"),
        (f"{TASKS}?q=", "/query/q"),
        (f"{TASKS}?q=%00", "/query/q"),
        (f"{TASKS}?q={'x' * 201}", "/query/q"),
        (f"{TASKS}?cursor=%21", "/query/cursor"),
        (f"{TASKS}?cursor=YWJj", "/query/cursor"),
        (f"{TASKS}?cursor=LTE", "/query/cursor"),
        (f"{TASKS}?cursor={'x' * 65}", "/query/cursor"),
        (f"{TASKS}/{uuid.UUID(int=0)}/plan?version=101", "/query/version"),
    ],
)
async def test_a_wrong_request_names_the_field_and_not_the_value(bare: Rest, path: str, pointer: str) -> None:
    found = body(await bare.http.get(path), 422)
    assert found["code"] == "INVALID_REQUEST"
    assert [error["pointer"] for error in found["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", f"{TASKS}/", 404), ("DELETE", TASKS, 405), ("PUT", f"{TASKS}/x", 405)],
)
async def test_what_is_not_there_is_a_problem_too(bare: Rest, method: str, path: str, status: int) -> None:
    answer = await bare.http.request(method, path)
    body(answer, status)
    assert status != 405 or answer.headers["allow"]


async def test_no_foreign_origin_is_let_in(bare: Rest) -> None:
    answer = await bare.http.get(TASKS, headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_page_of_events_ends_at_its_size(log: Log, rest: Rest) -> None:
    """25 events of 200 KB are more than 4 MiB."""
    task = Told(log)
    await task.tell(*[story.received(context={"text": "x" * 200_000})] * 25)
    versions: list[int] = []
    sizes: list[int] = []
    cursor: str | None = None
    while True:
        page = await shown(rest, task, "/events", limit=200, **({"cursor": cursor} if cursor else {}))
        versions += [event["version"] for event in page["events"]]
        sizes.append(len(page["events"]))
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert versions == list(range(1, 26))
    assert sizes == [21, 4]


async def test_a_page_of_steps_ends_at_its_size(log: Log, rest: Rest) -> None:
    """70 outputs of 80 KB are more than 4 MiB."""
    task = Told(log)
    await task.tell(story.received(), story.planned("one"))
    text = "x" * 40_000
    for attempt in range(1, 71):
        ended = story.executed("one", attempt, stdout=text)
        stdout = msgspec.structs.replace(ended.output.stdout, tail=text)
        output = msgspec.structs.replace(ended.output, stdout=stdout)
        await task.tell(story.dispatched("one", attempt), msgspec.structs.replace(ended, output=output))
    await task.tell(story.dispatched("one", 71))  # no output yet: small, and yet not before the large ones
    first = await shown(rest, task, "/steps", limit=200)
    second = await shown(rest, task, "/steps", limit=200, cursor=first["next_cursor"])
    assert [step["attempt"] for step in first["steps"] + second["steps"]] == list(range(1, 72))
    assert (len(first["steps"]), second["next_cursor"]) == (53, None)


async def test_pages_of_steps_and_events_by_number(log: Log, rest: Rest) -> None:
    task = Told(log)
    await task.tell(*story.COMPLETED)
    for suffix, key, total in (("/steps", "steps", 3), ("/events", "events", 9)):
        for limit in (1, 2, total, total + 1):
            seen, cursor, pages = [], None, 0
            while cursor or not pages:
                page = await shown(rest, task, suffix, limit=limit, **({"cursor": cursor} if cursor else {}))
                seen += [entry["seq"] for entry in page[key]]
                cursor, pages = page["next_cursor"], pages + 1
            assert len(seen) == len(set(seen)) == total
            assert (seen, pages) == (sorted(seen), -(-total // limit))


async def test_a_defect_is_a_problem_and_counted(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("with a secret in it")

    monkeypatch.setattr(Queries, "tasks", broken)
    count = metrics.REQUESTS.labels("GET", TASKS, 500)
    before = count._value.get()
    answer = await rest.http.get(TASKS)
    assert problem(answer, 500)["code"] == "INTERNAL_ERROR"
    assert "secret" not in answer.text
    assert count._value.get() == before + 1


async def test_deeply_nested_documents_pass_through(log: Log, rest: Rest) -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"d": deep}
    task = Told(log)
    await task.tell(story.received(metadata=deep))
    assert (await shown(rest, task))["metadata"] == deep
    assert (await shown(rest, task, "/events"))["events"][0]["payload"]["metadata"] == deep
