"""What the orchestrator counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

_PREFIX = "octollm_orchestrator_"

EVENTS_FOLDED = Counter(_PREFIX + "events_folded_total", "Events folded into a task's state", ["kind"])
UNREADABLE = Counter(
    _PREFIX + "unreadable_events_total", "Events passed over as this version can't read them", ["kind"]
)
INTENTS_APPENDED = Counter(_PREFIX + "intents_appended_total", "Events that the saga put on record", ["kind"])
TASKS_ENDED = Counter(_PREFIX + "tasks_ended_total", "Tasks that the saga ended", ["outcome"])
CONFLICTS = Counter(_PREFIX + "conflicts_total", "Appends that found the task moved on")
DECISIONS = Counter(_PREFIX + "decisions_total", "Calls of decide", ["trigger"])
READS_FORWARD = Counter(_PREFIX + "reads_forward_total", "Reads of a task whose state was behind or unknown")
TIMERS_SET = Counter(_PREFIX + "timers_set_total", "Deadlines handed to the broker")
TIMERS_FIRED = Counter(_PREFIX + "timers_fired_total", "Deadlines that the broker brought back")
TIMERS_STALE = Counter(_PREFIX + "timers_stale_total", "Deadlines that no longer applied when they came back")
RECOVERIES = Counter(_PREFIX + "recoveries_total", "Looks at all open tasks of the log", ["outcome"])
TASKS_RECOVERED = Counter(_PREFIX + "tasks_recovered_total", "Tasks looked at for a deadline that is lost", ["outcome"])
COMMANDS = Counter(_PREFIX + "commands_total", "Commands taken", ["command", "outcome"])
DELIVERIES = Counter(_PREFIX + "deliveries_total", "Messages delivered", ["stream"])
REDELIVERIES = Counter(_PREFIX + "redeliveries_total", "Messages delivered again", ["stream"])
HANDLER_FAILURES = Counter(_PREFIX + "handler_failures_total", "Deliveries that failed", ["stream", "error"])
HANDED_BACK = Counter(_PREFIX + "handed_back_total", "Deliveries handed back for an outage", ["dependency"])
CACHED_TASKS = Gauge(_PREFIX + "cached_tasks", "Open tasks whose state is in memory")
IN_FLIGHT = Gauge(_PREFIX + "deliveries_in_flight", "Deliveries being handled now")
DECISION_SECONDS = Histogram(
    _PREFIX + "decision_seconds",
    "From taking a delivery until all that follows from it is on record",
    ["stream"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
