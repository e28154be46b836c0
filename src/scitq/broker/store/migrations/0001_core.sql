CREATE TABLE user (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    created_ms INTEGER NOT NULL,
    is_from_config INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL,
    user_name TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX token_by_user ON token (user_id);

CREATE TABLE workflow (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    owner_id INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'ready', 'suspended', 'canceled')),
    maximum_workers INTEGER,
    created_ms INTEGER NOT NULL,
    template TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX workflow_by_name ON workflow (name);

CREATE TABLE step (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow_id INTEGER NOT NULL REFERENCES workflow (id),
    name TEXT NOT NULL,
    retries INTEGER NOT NULL DEFAULT 0,
    is_paused INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    UNIQUE (workflow_id, name)
) STRICT;

CREATE TABLE worker (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT UNIQUE,
    machine TEXT UNIQUE,
    name TEXT NOT NULL,
    status TEXT NOT NULL
        CHECK (status IN ('installing', 'ready', 'draining', 'paused', 'offline', 'failed', 'deleting', 'deleted')),
    wanted TEXT NOT NULL DEFAULT 'ready' CHECK (wanted IN ('ready', 'draining', 'paused')),
    concurrency INTEGER NOT NULL DEFAULT 1 CHECK (concurrency >= 0),
    prefetch INTEGER NOT NULL DEFAULT 0 CHECK (prefetch >= 0),
    step_id INTEGER,
    owner_id INTEGER,
    provider TEXT NOT NULL DEFAULT '',
    region TEXT NOT NULL DEFAULT '',
    flavor TEXT NOT NULL DEFAULT '',
    recruiter_id INTEGER,
    scope TEXT NOT NULL DEFAULT 'W' CHECK (scope IN ('W', 'G', 'N')),
    is_permanent INTEGER NOT NULL DEFAULT 0,
    host TEXT NOT NULL DEFAULT '',
    addresses TEXT NOT NULL DEFAULT '[]',
    hardware TEXT,
    runtimes TEXT NOT NULL DEFAULT '[]',
    allows_bare INTEGER NOT NULL DEFAULT 1,
    reason TEXT NOT NULL DEFAULT '',
    version TEXT NOT NULL DEFAULT '',
    created_ms INTEGER NOT NULL,
    seen_ms INTEGER,
    ends_ms INTEGER,
    worked_ms INTEGER,
    failures INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX worker_live ON worker (status) WHERE status <> 'deleted';

CREATE TABLE worker_event (
    id INTEGER PRIMARY KEY,
    worker_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX worker_event_by_worker ON worker_event (worker_id, id);

CREATE TABLE task_spec (
    id INTEGER PRIMARY KEY,
    container TEXT NOT NULL,
    command TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE array_job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner_id INTEGER NOT NULL,
    most_running INTEGER,
    max_fails INTEGER
) STRICT;

CREATE TABLE task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    spec_id INTEGER NOT NULL,
    owner_id INTEGER NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL CHECK (status IN ('W', 'P', 'A', 'C', 'D', 'O', 'R', 'U', 'V', 'S', 'F', 'Z', 'X', 'I')),
    attempt INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER,
    worker_id INTEGER,
    step_id INTEGER,
    workflow_id INTEGER,
    exit_status INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    cause TEXT NOT NULL DEFAULT '',
    retries_left INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    predecessor_id INTEGER,
    successor_id INTEGER,
    array_id INTEGER,
    array_index INTEGER,
    item TEXT,
    labels TEXT,
    resumes_to TEXT,
    cancels_with_dependency INTEGER NOT NULL DEFAULT 0,
    wish TEXT NOT NULL DEFAULT '',
    use TEXT
) STRICT;
CREATE INDEX task_by_status ON task (status, id) WHERE status NOT IN ('S');
CREATE INDEX task_succeeded ON task (id) WHERE status = 'S' AND successor_id IS NULL;
CREATE INDEX task_by_worker ON task (worker_id, id) WHERE worker_id IS NOT NULL;
CREATE INDEX task_by_step ON task (step_id, id) WHERE step_id IS NOT NULL;
CREATE INDEX task_by_workflow ON task (workflow_id, id) WHERE workflow_id IS NOT NULL;
CREATE INDEX task_by_array ON task (array_id, id) WHERE array_id IS NOT NULL;
CREATE INDEX task_by_spec ON task (spec_id);

CREATE TABLE task_key (
    owner_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (owner_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_key_by_task ON task_key (task_id);

CREATE TABLE task_label (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    PRIMARY KEY (name, value, task_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_dependency (
    task_id INTEGER NOT NULL,
    on_id INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('success', 'end')),
    is_met INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, on_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_dependency_on ON task_dependency (on_id, task_id);

CREATE TABLE task_change (
    id INTEGER PRIMARY KEY,
    task_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker_id INTEGER,
    path TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX task_change_by_task ON task_change (task_id, id);

CREATE TABLE task_log (
    task_id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    size INTEGER NOT NULL,
    small BLOB,
    PRIMARY KEY (task_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE request (
    id TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    reply BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX request_by_time ON request (at_ms);
