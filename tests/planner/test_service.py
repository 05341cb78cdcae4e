"""The planner as a process of its own: probes, metrics, configuration, and an orderly end."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGTERM

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from octollm.events import bus
from octollm.events.carrier import ErrorCode, PlanFailed, PlanFailureClass, TaskPlanned
from octollm.events.config import ConfigError, NatsSettings, load
from octollm.planner import __main__ as service
from octollm.planner.settings import PlannerSettings
from octollm.stack import SERVICES, ProcessState, Stack, StackOptions
from tests.events.examples import example
from tests.planner.chat import GOOD_PLAN, error, said
from tests.planner.http_stub import HttpStub, Reply
from tests.planner.tasks import received, step
from tests.planner.test_intake import append, history, submit, until

PLANNER = next(service for service in SERVICES if service.name == "planner")


@asynccontextmanager
async def stack(reflex: HttpStub | None = None, **settings: str) -> AsyncIterator[Stack]:
    """A broker of the test's own and the planner as `octo up` runs it, screened by a reflex of the test's."""
    reflex_url = reflex.url if reflex else "http://127.0.0.1:9"
    planner = replace(PLANNER, settings=lambda _: {"OCTO_PLANNER__REFLEX_URL": reflex_url})
    environment = {f"OCTO_PLANNER__{name.upper()}": value for name, value in settings.items()}
    options = StackOptions(
        ephemeral=True,
        ports="free",
        accounts=False,
        servers=frozenset({"nats"}),
        services=(planner,),
        environment=environment | {"OPENAI_API_KEY": "sk-canary-0123456789"},
    )
    async with Stack(options) as running:
        yield running


@asynccontextmanager
async def connection(running: Stack) -> AsyncIterator[bus.Client]:
    client = await bus.connect(NatsSettings(url=running.nats_url), "test")
    try:
        yield client
    finally:
        await client.close()


def process(running: Stack) -> ProcessState:
    """The planner's."""
    return next(one for one in running.processes() if one.name == "planner")


async def samples(url: str) -> dict[str, float]:
    """Every sample of the planner's own metrics, summed over labels."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{url}/metrics")).text
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("octollm_planner_") and not sample.name.endswith("_created"):
                totals[sample.name] = totals.get(sample.name, 0) + sample.value
    return totals


async def test_without_a_key_it_plans_and_is_ready_without_reflex() -> None:
    async with stack() as running, connection(running) as client:
        task = await submit(client, received("Echo hello world"))
        assert isinstance((await history(client, task, 2))[1].payload, TaskPlanned)
        async with httpx.AsyncClient(base_url=running.url("planner")) as http:
            assert (await http.get("/health")).json() == {"status": "ok", "service": "planner"}
            assert (await http.get("/ready")).json()["checks"] == {"nats": "ok", "intake": "ok"}


async def test_a_model_is_asked_where_one_is_configured(chat: HttpStub, reflex: HttpStub) -> None:
    settings = {"provider": "openai", "model": "gpt-4o-mini", "base_url": f"{chat.url}/v1"}
    async with stack(reflex, **settings) as running, connection(running) as client:
        task = await submit(client, received("Greet me"))
        plan = (await history(client, task, 2))[1].payload
        assert isinstance(plan, TaskPlanned)
        assert (plan.provider, plan.cost_micro_usd) == ("openai", 225)
        own = await submit(client, received("Greet me", plan={"steps": [step("a")]}))
        assert isinstance((await history(client, own, 2))[1].payload, TaskPlanned)
        assert len(chat.requests) == 1, "the caller's own plan asks no model"
        assert chat.requests[0].headers["authorization"] == "Bearer sk-canary-0123456789"
        chat.script.append(error(401, "invalid_api_key", "Incorrect API key provided: sk-canary-0123456789"))
        refused = (await history(client, await submit(client, received("Greet me")), 2))[1].payload
        assert isinstance(refused, PlanFailed)
        assert (refused.code, refused.class_) == (ErrorCode.LLM_UNAVAILABLE, PlanFailureClass.auth)
        async with httpx.AsyncClient(base_url=running.url("planner")) as http:
            assert (await http.get("/ready")).json()["checks"] == {"nats": "ok", "reflex": "ok", "intake": "ok"}
            reflex.otherwise = lambda _: Reply(503, {})
            assert (await http.get("/ready")).status_code == 503
        log = await asyncio.to_thread(Path(process(running).log).read_text)
        assert "task planned" in log
        assert "sk-canary" not in log


MOVED = {
    "octollm_planner_plans_total",
    "octollm_planner_plan_seconds_count",
    "octollm_planner_redeliveries_total",
    "octollm_planner_conflicts_total",
    "octollm_planner_late_total",
    "octollm_planner_handler_failures_total",
    "octollm_planner_handed_back_total",
    "octollm_planner_llm_call_seconds_count",
    "octollm_planner_llm_tokens_total",
    "octollm_planner_llm_cost_micro_usd_total",
    "octollm_planner_llm_repairs_total",
    "octollm_planner_llm_errors_total",
    "octollm_planner_screened_texts_total",
}


async def test_its_metrics_move(chat: HttpStub, reflex: HttpStub) -> None:
    settings = {"provider": "openai", "model": "gpt-4o-mini", "base_url": f"{chat.url}/v1"}
    async with stack(reflex, **settings) as running, connection(running) as client:
        url = running.url("planner")
        before = await samples(url)
        chat.script += [error(500), said("prose")]
        await history(client, await submit(client, received("Greet me")), 2)

        meanwhile = asyncio.Event()
        chat.script.append(said(GOOD_PLAN, after=meanwhile))
        cancelled = await submit(client, received("Greet me"))

        async def in_flight() -> bool:
            return (await samples(url))["octollm_planner_in_flight"] == 1

        await until(in_flight, "the planner is at work")
        await append(client, cancelled, example("task.cancel_requested"))
        meanwhile.set()

        async def late() -> bool:
            return (await samples(url)).get("octollm_planner_late_total", 0) > before.get(
                "octollm_planner_late_total", 0
            )

        await until(late, "the plan is thrown away")
        screening, reflex.otherwise = reflex.otherwise, lambda _: Reply(503, {})
        unscreened = await submit(client, received("Greet me"))

        async def waiting() -> bool:
            return (await samples(url)).get("octollm_planner_handed_back_total", 0) > 0

        await until(waiting, "a plan waits for its screening")
        async with httpx.AsyncClient(base_url=url) as http:
            assert "reflex" in (await http.get("/ready")).json()["checks"]["intake"]
        assert len(await history(client, unscreened, 1)) == 1, "nothing goes on record unscreened"
        reflex.otherwise = screening
        await history(client, unscreened, 2)
        await client.jetstream().publish(f"task.received.{uuid.uuid4()}", b"no event")

        async def moved() -> bool:
            after = await samples(url)
            return all(after.get(name, 0) > before.get(name, 0) for name in MOVED)

        await until(moved, "every series has moved")
        assert (await samples(url))["octollm_planner_in_flight"] == 0
        assert len(chat.requests) == 5, "what was paid for is not bought again"


async def test_sigterm_ends_it_in_order() -> None:
    async with stack() as running, connection(running) as client:
        task = await submit(client, received("Echo hello"))
        await history(client, task, 2)
        first = process(running)
        await running.kill("planner", SIGTERM)

        async def another() -> bool:
            return process(running).pid not in (None, first.pid)

        await until(another, "the supervisor has started it again")
        await history(client, await submit(client, received("Echo hello")), 2)
        log = await asyncio.to_thread(Path(first.log).read_text)
        assert '"event": "stopped"' in log
        assert "drain time is over" not in log


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"PROVIDER": "openai", "MODEL": "m"}, "needs OPENAI_API_KEY"),
        ({"PROVIDER": "openai"}, "needs OCTO_PLANNER__MODEL"),
        ({"PROVIDER": "oracle"}, "OCTO_PLANNER__PROVIDER"),
        ({"MODLE": "m"}, "OCTO_PLANNER__MODLE"),
        ({"PROVIDER": "openai", "MODEL": "m", "API_KEY_FILE": "no/such/file"}, "OCTO_PLANNER__API_KEY_FILE"),
        ({"BASE_URL": "localhost:11434"}, "OCTO_PLANNER__BASE_URL"),
    ],
)
def test_a_configuration_that_cannot_work_stops_the_start(
    settings: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(service, "configure_logging", lambda _: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(f"OCTO_PLANNER__{name}", value)
    assert service.main() == 2
    assert says in capsys.readouterr().err


def test_without_a_broker_it_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "configure_logging", lambda _: None)
    monkeypatch.setattr(bus, "connect", partial(bus.connect, patience_s=0.2))
    monkeypatch.setenv("OCTO_NATS__URL", "nats://127.0.0.1:9")
    assert service.main() == 1
    assert "OCTO_NATS__URL" in capsys.readouterr().err


def test_the_key_comes_from_the_nearest_place(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    everywhere = {"OPENAI_API_KEY": "from-environment"}
    assert (
        load("planner", PlannerSettings, {}, api_key="own", api_key_file=file).key(everywhere).get_secret_value()
        == "own"
    )
    assert load("planner", PlannerSettings, {}, api_key_file=file).key(everywhere).get_secret_value() == "from-file"
    assert load("planner", PlannerSettings, {}).key(everywhere).get_secret_value() == "from-environment"
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        load("planner", PlannerSettings, {}, api_key_file=file).key(everywhere)
    own = load("planner", PlannerSettings, {}, base_url="http://127.0.0.1:11434/v1")
    assert own.key({}).get_secret_value() == "none", "an endpoint of one's own may need no key"
    with pytest.raises(ConfigError):
        load("planner", PlannerSettings, {}).key({})
    assert "own" not in repr(load("planner", PlannerSettings, {}, api_key="own"))
