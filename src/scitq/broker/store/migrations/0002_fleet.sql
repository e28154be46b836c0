CREATE TABLE fleet_fact (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE flavor (
    provider TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    cpus REAL NOT NULL,
    mem_gib REAL NOT NULL,
    disk_gb REAL NOT NULL DEFAULT 0,
    gpus INTEGER NOT NULL DEFAULT 0,
    gpu TEXT NOT NULL DEFAULT '',
    gpumem_gib REAL NOT NULL DEFAULT 0,
    eviction_percent REAL NOT NULL DEFAULT 0,
    cost REAL,
    longest_s REAL,
    is_offered INTEGER NOT NULL DEFAULT 1,
    is_disabled INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    aside_until_ms INTEGER NOT NULL DEFAULT 0,
    aside_reason TEXT NOT NULL DEFAULT '',
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (provider, region, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_state (
    name TEXT PRIMARY KEY,
    updated_ms INTEGER,
    error TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE TABLE quota (
    provider TEXT NOT NULL,
    region TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL CHECK (kind IN ('workers', 'cpu', 'cost')),
    most REAL NOT NULL CHECK (most >= 0),
    PRIMARY KEY (provider, region, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE machine (
    name TEXT PRIMARY KEY,
    worker_id INTEGER NOT NULL REFERENCES worker (id),
    provider TEXT NOT NULL,
    flavor TEXT NOT NULL,
    provider_id TEXT NOT NULL DEFAULT '',
    time_limit_s REAL,
    made_ms INTEGER,
    begun_ms INTEGER,
    is_wanted INTEGER NOT NULL DEFAULT 1,
    is_deleted INTEGER NOT NULL DEFAULT 0,
    misses INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX machine_by_worker ON machine (worker_id);
CREATE INDEX machine_live ON machine (provider) WHERE is_deleted = 0;

CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('create', 'delete')),
    provider TEXT NOT NULL,
    machine TEXT NOT NULL,
    worker_id INTEGER,
    status TEXT NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'failed', 'dropped')),
    tries INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX job_open ON job (next_ms, id) WHERE status IN ('queued', 'running');
CREATE INDEX job_by_machine ON job (machine, id);

CREATE TABLE recruiter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    step_id INTEGER NOT NULL REFERENCES step (id) ON DELETE CASCADE,
    filter TEXT NOT NULL DEFAULT '',
    rank INTEGER NOT NULL DEFAULT 1,
    concurrency INTEGER,
    cpus_per_task REAL,
    mem_per_task_gib REAL,
    disk_per_task_gb REAL,
    concurrency_min INTEGER NOT NULL DEFAULT 1,
    concurrency_max INTEGER,
    prefetch INTEGER NOT NULL DEFAULT 0,
    prefetch_percent INTEGER,
    rounds REAL NOT NULL DEFAULT 1 CHECK (rounds > 0),
    max_workers INTEGER,
    timeout_s REAL NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    next_try_ms INTEGER NOT NULL DEFAULT 0,
    unmet_since_ms INTEGER,
    last_error TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX recruiter_by_step ON recruiter (step_id, rank, id);
CREATE INDEX task_open_by_step ON task (step_id, status) WHERE step_id IS NOT NULL AND status NOT IN ('S', 'F', 'X');
