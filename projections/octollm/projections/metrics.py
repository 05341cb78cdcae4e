"""The service's Prometheus series."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("octo_projections_events_applied", "Events written to the view", ["kind"])
UNDECODABLE = Counter("octo_projections_events_undecodable", "Events kept as raw bytes because they could not be read")
BATCHES = Counter("octo_projections_batches", "Transactions of the projector")
TRANSACTION = Histogram(
    "octo_projections_transaction_seconds",
    "Time of one projector transaction",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
RESTARTS = Counter("octo_projections_projector_restarts", "Times the projector had to begin anew, by cause", ["cause"])
LEADER = Gauge("octo_projections_leader", "1 while this process holds the projector's lock")
CHECKPOINT = Gauge("octo_projections_checkpoint_seq", "Every event up to this sequence is in the view")
STREAM_END = Gauge("octo_projections_stream_end_seq", "Sequence of the newest event in the log, as last heard")
LAG_EVENTS = Gauge("octo_projections_lag_events", "Sequences between the log's end and the view")
LAG_SECONDS = Gauge("octo_projections_lag_seconds", "Time since the view last stood at the log's end; 0 while it does")
REQUESTS = Counter("octo_projections_http_requests", "Requests answered", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("octo_projections_http_request_seconds", "Time to the answer's first byte", ["route"])
PROXY_ERRORS = Counter("octo_projections_proxy_errors", "Requests that reflex did not answer, by cause", ["cause"])
POOL_SIZE = Gauge("octo_projections_db_pool_connections", "Connections of the API's pool", ["state"])
