"""What the planner counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

_PREFIX = "octollm_planner_"

PLANS = Counter(_PREFIX + "plans_total", "Tasks planned or refused, put on record", ["provider", "outcome"])
PLAN_SECONDS = Histogram(
    _PREFIX + "plan_seconds",
    "From taking a task until its plan, or the reason why there is none, is on record",
    ["provider"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0),
)
IN_FLIGHT = Gauge(_PREFIX + "in_flight", "Tasks being planned, or waiting for a free place")
REDELIVERIES = Counter(_PREFIX + "redeliveries_total", "Tasks delivered again")
ALREADY_SETTLED = Counter(_PREFIX + "already_settled_total", "Tasks delivered again that needed no plan any more")
CONFLICTS = Counter(_PREFIX + "conflicts_total", "Appends that found the task moved on")
LATE = Counter(_PREFIX + "late_total", "Plans thrown away: the task was planned, cancelled or over by then")
HANDLER_FAILURES = Counter(_PREFIX + "handler_failures_total", "Deliveries that failed", ["error"])
HANDED_BACK = Counter(_PREFIX + "handed_back_total", "Deliveries handed back for an outage", ["dependency"])

LLM_CALLS = Histogram(
    _PREFIX + "llm_call_seconds",
    "Calls of a model",
    ["provider"],
    buckets=(0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0),
)
LLM_TOKENS = Counter(_PREFIX + "llm_tokens_total", "Tokens of model calls", ["provider", "direction"])
LLM_COST = Counter(_PREFIX + "llm_cost_micro_usd_total", "Cost of model calls, millionths of a US dollar", ["provider"])
LLM_REPAIRS = Counter(_PREFIX + "llm_repairs_total", "Plans that a model was asked to mend", ["provider"])
LLM_ERRORS = Counter(_PREFIX + "llm_errors_total", "Model calls without a usable plan", ["provider", "class"])
SCREENED = Counter(_PREFIX + "screened_texts_total", "Texts of models' plans that were screened", ["result"])
