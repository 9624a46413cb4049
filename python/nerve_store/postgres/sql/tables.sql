-- Version 5 of the schema. `@S@` is the quoted schema, `@LOCK@` the key of its append lock.
CREATE TABLE @S@.state (            -- one row
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  schema_version int NOT NULL,
  store_id uuid NOT NULL DEFAULT gen_random_uuid()
);

-- Its only row says of itself what is true as long as nothing was lost or brought back. PostgreSQL empties an unlogged table
-- when it recovers: after a crash, after that of one backend, on a promoted standby, from a base backup. A copy of the files
-- is run by a server that was started later; a copy of the database lies in other files; what restores a dump writes a row in
-- a transaction of its own, also beside one that is there. See `lock_ids`.
CREATE UNLOGGED TABLE @S@.alive (
  started timestamptz,              -- when the server was started
  file text,                        -- the file of this table, whose name has the oid of the database
  xid xid,                          -- the transaction that wrote the row
  after bigint,                     -- the id after which ids went on then
  mask bigint                       -- a number of chance: `given_id` is `log_id` XOR this
);

CREATE SEQUENCE @S@.log_id;         -- the last id that was given
-- The same under the mask: who sets `log_id` does not set this one, and what a dump has of both is of another mask.
CREATE UNLOGGED SEQUENCE @S@.given_id MINVALUE 0;

CREATE TABLE @S@.logs (
  id bigint NOT NULL,
  source text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  ref_id text COLLATE "C",
  payload text COLLATE "C",
  timestamp bigint NOT NULL,        -- milliseconds since 1970-01-01T00:00Z
  is_round boolean NOT NULL         -- whether it takes a number in its run's thread
) PARTITION BY RANGE (timestamp);
CREATE INDEX logs_id ON @S@.logs (id);
-- A key of an index is limited to 2,704 bytes, and a reference may have 64 KiB: queries compare both.
CREATE INDEX logs_ref ON @S@.logs (left(ref_id, 512), id) WHERE ref_id IS NOT NULL;
CREATE INDEX logs_round ON @S@.logs (left(ref_id, 512), id) WHERE is_round;
CREATE INDEX logs_time ON @S@.logs (timestamp);
CREATE TABLE @S@.logs_rest PARTITION OF @S@.logs DEFAULT;

-- Texts of any length are unique by a hash index, which holds no texts; every writer holds the lock, so that an update
-- and, if it found nothing, an insert are as good as ON CONFLICT.
CREATE TABLE @S@.meta (
  key text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, EXCLUDE USING hash (key WITH =)
);

CREATE TABLE @S@.workflow_runs (
  run_id text COLLATE "C" NOT NULL,
  workflow text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL
    CHECK (status IN ('queued', 'started', 'completed', 'failed', 'crashed', 'interrupted', 'dropped', 'killed')),
  timestamp bigint NOT NULL,
  exit_code bigint,
  created_id bigint NOT NULL,       -- of the row that created it
  not_before bigint,                -- milliseconds; a queued run is not claimed before
  owner text COLLATE "C",
  attempt bigint NOT NULL DEFAULT 0,
  token bigint,                     -- the id of the `started` row of its newest claim; NULL once another change came
  lease interval,
  lease_until timestamptz,
  EXCLUDE USING hash (run_id WITH =)
) WITH (fillfactor = 70);
CREATE INDEX workflow_runs_active ON @S@.workflow_runs (timestamp, created_id) WHERE status IN ('queued', 'started');
CREATE INDEX workflow_runs_lease ON @S@.workflow_runs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX workflow_runs_time ON @S@.workflow_runs (timestamp, left(run_id, 512));

CREATE TABLE @S@.writers (          -- what each connection that writes did last; see `recover`
  writer uuid PRIMARY KEY,
  epoch bigint NOT NULL,
  seq bigint NOT NULL,
  first_id bigint NOT NULL,
  results jsonb,
  seen timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE @S@.keys (
  key text COLLATE "C" NOT NULL,
  id bigint NOT NULL,
  timestamp bigint NOT NULL,        -- of the row
  digest bytea NOT NULL,            -- of source, type, ref_id and payload
  at timestamptz NOT NULL DEFAULT now(),
  EXCLUDE USING hash (key WITH =)
);
CREATE INDEX keys_at ON @S@.keys (at);

CREATE TABLE @S@.archive_days (
  day date NOT NULL,
  state smallint NOT NULL,          -- 0: the file that is there; 1: the one about to be published
  format text NOT NULL,             -- jsonl or jsonl.zst
  row_count bigint NOT NULL,
  first_id bigint,
  last_id bigint,
  size bigint NOT NULL,
  raw_size bigint NOT NULL,
  sha256 text NOT NULL,
  archived_at bigint NOT NULL,      -- of a file: when it was modified; what was later is compared by jobs
  kinds jsonb,                      -- its pairs [source, type]; NULL: more than 64
  place text COLLATE "C",           -- the URL that its object was sent to; NULL: a file in a directory
  object text COLLATE "C",          -- the object's key there
  PRIMARY KEY (day, state)
);
CREATE TABLE @S@.archive_objects (  -- all that were ever sent, so that no name is given twice
  day date NOT NULL,
  key text COLLATE "C" NOT NULL,
  state text COLLATE "C" NOT NULL,  -- current, pending (about to be sent), superseded (to be deleted), gone
  size bigint NOT NULL,
  sha256 text NOT NULL,
  place text COLLATE "C" NOT NULL,
  PRIMARY KEY (day, key)
);
CREATE TABLE @S@.archive_refs (     -- which references occur in which day
  day date NOT NULL,
  ref_id text COLLATE "C" NOT NULL,
  round_ids bigint[] NOT NULL,      -- the rows of it that are rounds; kept when the day's file is deleted
  expired boolean NOT NULL DEFAULT false  -- of a file that was deleted; the day may have another one by now
);
CREATE INDEX archive_refs_ref ON @S@.archive_refs USING hash (ref_id);
CREATE INDEX archive_refs_day ON @S@.archive_refs (day);

INSERT INTO @S@.state (schema_version) VALUES (5);
