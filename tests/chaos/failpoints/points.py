"""Every fail point by service: a test holds this list against the source, and another kills the service at each."""

POINTS: dict[str, tuple[str, ...]] = {
    "reflex": ("taken", "screened", "kept", "appended", "answered", "command_stored"),
    "planner": ("taken", "read", "answered", "planned", "appended", "acked"),
    "orchestrator": (
        "event_taken",
        "timer_taken",
        "command_taken",
        "read",
        "decided",
        "appended",
        "timer_set",
        "answered",
        "recovered",
    ),
    "executor": (
        "taken",
        "claimed",
        "started",
        "ended",
        "snapshot_kept",
        "settled",
        "late",
        "receipt_kept",
        "answered",
    ),
    "projections": ("read", "written", "committed"),
}
