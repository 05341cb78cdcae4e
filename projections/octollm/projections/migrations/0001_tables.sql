-- The view of the log. Every value comes from the events, none from a clock or a sequence of ours: dropping all of it and
-- replaying the log gives the same bytes.
--
-- Documents are JSON, not JSONB: JSONB refuses U+0000, which a step's output may hold, and would reorder what is on record.

CREATE TABLE checkpoint (
    only_row       BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row),
    stream_created TEXT NOT NULL,          -- tells this log from a new one under the same name
    first_seq      BIGINT NOT NULL,        -- the log's first sequence when the projection began
    last_seq       BIGINT NOT NULL         -- every event up to here is in the tables
);

CREATE TABLE tasks (
    task_id             TEXT PRIMARY KEY,
    first_seq           BIGINT NOT NULL UNIQUE,   -- sequence of its first event: the order of lists
    last_seq            BIGINT NOT NULL,
    version             INTEGER NOT NULL,
    status              TEXT NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed', 'failed', 'cancelled', 'rejected')),
    phase               TEXT NOT NULL CHECK (phase IN ('screening', 'planning', 'awaiting_approval', 'executing', 'compensating', 'done')),
    goal                TEXT,                     -- absent where the submission was rejected
    priority            TEXT,
    retry_of            TEXT,
    budget              JSON,
    metadata            JSON,
    plan_version        INTEGER,
    steps_total         INTEGER NOT NULL,         -- of the plan in force
    steps_done          INTEGER NOT NULL,
    running             TEXT[] NOT NULL,          -- <plan version>/<step>/<attempt> of what was dispatched and has not ended
    code                TEXT,
    message             TEXT,
    reasons             JSON,
    result              JSON,
    cost_micro_usd      BIGINT NOT NULL,
    tokens              BIGINT NOT NULL,
    duration_ms         BIGINT,
    undecodable         INTEGER NOT NULL,         -- events of this task that this version could not read
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL,
    cancel_requested_at TIMESTAMPTZ,
    finished_at         TIMESTAMPTZ
);
CREATE INDEX tasks_by_status ON tasks (status, first_seq DESC);
CREATE INDEX tasks_by_priority ON tasks (priority, first_seq DESC);

CREATE TABLE plans (
    task_id        TEXT NOT NULL,
    plan_version   INTEGER NOT NULL,
    seq            BIGINT NOT NULL,
    provider       TEXT NOT NULL,
    model          TEXT,
    steps          JSON NOT NULL,
    input_tokens   BIGINT NOT NULL,
    output_tokens  BIGINT NOT NULL,
    cost_micro_usd BIGINT NOT NULL,
    confidence     INTEGER NOT NULL,              -- thousandths
    repairs        INTEGER NOT NULL,
    planned_at     TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (task_id, plan_version)
);

-- One row per attempt. What its dispatch says and what its end says arrive apart; either part may be missing.
CREATE TABLE attempts (
    task_id       TEXT NOT NULL,
    plan_version  INTEGER NOT NULL,
    step_id       TEXT NOT NULL,
    attempt       INTEGER NOT NULL,
    seq           BIGINT NOT NULL,                -- sequence of the first event about it: the order of lists
    status        TEXT NOT NULL CHECK (status IN ('running', 'executed', 'failed', 'abandoned')),
    title         TEXT,
    arm           TEXT,
    effect        TEXT,
    action        JSON,
    dispatched_at TIMESTAMPTZ,
    deadline      TEXT,
    exit_code     INTEGER,
    signal        INTEGER,
    code          TEXT,
    message       TEXT,
    violations    JSON,
    output        JSON,
    checks        JSON,
    usage         JSON,
    ended_at      TIMESTAMPTZ,
    PRIMARY KEY (task_id, plan_version, step_id, attempt)
);
CREATE INDEX attempts_by_seq ON attempts (task_id, seq);

CREATE TABLE events (
    seq          BIGINT PRIMARY KEY,
    task_id      TEXT NOT NULL,
    version      INTEGER,
    kind         TEXT NOT NULL,
    id           TEXT,
    causation_id TEXT,
    source       TEXT,
    stored_at    TIMESTAMPTZ NOT NULL,
    hash         TEXT NOT NULL,
    headers      JSON NOT NULL,
    payload      JSON,                            -- the body as it was written; absent where it could not be read
    raw          BYTEA,                           -- the body's bytes where it could not be read
    bytes        INTEGER NOT NULL,                -- size of the body
    undecodable  TEXT                             -- why it could not be read
);
CREATE INDEX events_by_task ON events (task_id, seq);
