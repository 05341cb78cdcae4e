"""The demo: nine tasks on a stack of their own, each checked against the event log."""
