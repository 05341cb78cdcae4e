"""What is asked of the system in a run: tasks, their plans, how their steps go, and who cancels what."""

from dataclasses import dataclass
from random import Random
from uuid import UUID

from msgspec import UNSET
from msgspec.structs import replace

from octollm.events.carrier import Effect, ErrorCode, Retry, RetryCause, Step
from octollm.planner.outcome import Outcome
from tests.chaos.simulation.executor import Behaviour
from tests.orchestrator.history import plan_failed, planned, step

CODES = (
    ErrorCode.STEP_FAILED,
    ErrorCode.OOM_KILLED,
    ErrorCode.SANDBOX_UNAVAILABLE,
    ErrorCode.SANDBOX_UNAVAILABLE,
    ErrorCode.INTERNAL_ERROR,
)
RETRIES = (UNSET, UNSET, Retry(max_attempts=1), Retry(max_attempts=2, backoff_ms=20, on=[RetryCause.STEP_FAILED]))
EFFECTS = (Effect.pure, Effect.pure, Effect.idempotent, Effect.side_effecting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A task. Times are virtual seconds from the start of the run; `plan` None: the planner never comes to an end."""

    task_id: str
    submitted: float
    time_budget: int
    planning_s: float
    plan: Outcome | None
    behaviours: dict[str, Behaviour]
    cancelled: float | None
    resumed: float | None
    max_retries: int

    @property
    def must_complete(self) -> bool:
        """Nothing about the task itself keeps it from completing."""
        steps_end = all(not behaviour.is_silent and behaviour.code is None for behaviour in self.behaviours.values())
        return self.cancelled is None and bool(self.behaviours) and steps_end and self.time_budget >= PATIENT_S


PATIENT_S = 120
"""A time budget that no fault of a run can use up."""


def draw(rng: Random) -> list[Work]:
    """One to three tasks."""
    return [_work(rng) for _ in range(rng.choice((1, 1, 2, 3)))]


def _work(rng: Random) -> Work:
    steps = _steps(rng)
    plan = rng.choices((planned(*steps), plan_failed(), None), (18, 1, 1))[0]
    return Work(
        task_id=str(UUID(int=rng.getrandbits(128), version=4)),
        submitted=rng.uniform(0, 1),
        time_budget=rng.choice((3, 20) if plan is None else (PATIENT_S, PATIENT_S, 3, 20)),
        planning_s=rng.choice((0.005, 0.05, 2.0)) * rng.random(),
        plan=plan,
        behaviours={planned_step.id: _behaviour(rng) for planned_step in steps} if plan is not None else {},
        cancelled=rng.uniform(0, 3) if rng.random() < 0.2 else None,
        resumed=rng.uniform(0, 3) if rng.random() < 0.3 else None,
        max_retries=rng.choice((0, 1, 3)),
    )


def _steps(rng: Random) -> list[Step]:
    names = "abcde"[: rng.randint(1, 5)]
    match rng.choice(("linear", "parallel", "parallel", "diamond", "any")):
        case "linear":
            needs = {name: names[place - 1 : place] for place, name in enumerate(names)}
        case "parallel":
            needs = dict.fromkeys(names, "")
        case "diamond":
            names = "abcd"
            needs = {"a": "", "b": "a", "c": "a", "d": "bc"}
        case _:
            needs = {
                name: "".join(rng.sample(names[:place], rng.randint(0, place))) for place, name in enumerate(names)
            }
    return [
        replace(
            step(name, *needs[name], wall_ms=rng.choice((1000, 30_000))),
            effect=rng.choice(EFFECTS),
            retry=rng.choice(RETRIES),
        )
        for name in names
    ]


def _behaviour(rng: Random) -> Behaviour:
    match rng.choices(("succeeds", "stalls", "fails", "silent"), (20, 3, 4, 2))[0]:
        case "stalls":  # beyond the limit of some steps: as a host that is suspended for a while
            return Behaviour(rng.uniform(1, 3))
        case "fails":
            return Behaviour(rng.uniform(0, 0.2), rng.choice(CODES), attempts=rng.choice((1, 1, 2, 100)))
        case "silent":
            return Behaviour(is_silent=True, attempts=rng.choice((1, 100)))
        case _:
            return Behaviour(rng.choice((0.001, 0.02, 0.7)) * rng.random())
