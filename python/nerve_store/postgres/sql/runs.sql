-- Runs and claims. Every caller holds the append lock, so that no row of a run needs a lock of its own.

CREATE OR REPLACE FUNCTION @S@.followers(status text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN status = 'queued' THEN '{started,dropped,killed,interrupted,failed}'::text[]
    WHEN status = 'started' THEN '{completed,failed,crashed,interrupted,dropped,killed}'
    WHEN status IN ('crashed', 'interrupted') THEN '{started,queued,completed,failed,dropped,killed}'
    ELSE '{}' END
$$;

CREATE OR REPLACE FUNCTION @S@.run_json(run @S@.workflow_runs) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('run_id', run.run_id, 'workflow', run.workflow, 'status', run.status,
    'timestamp', run.timestamp, 'exit_code', run.exit_code)
$$;

-- A claim is valid while its token is the newest of its run. After the change that ended the run with it, only that
-- change may be repeated.
CREATE OR REPLACE FUNCTION @S@.check_claim(claim jsonb, ops jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE run @S@.workflow_runs;
BEGIN
  SELECT * INTO run FROM @S@.workflow_runs WHERE run_id = claim ->> 'run_id';
  IF run.token IS DISTINCT FROM (claim ->> 'token')::bigint OR run.token IS NULL OR (run.status <> 'started' AND EXISTS (
      SELECT FROM jsonb_array_elements(ops) AS o(op)
      WHERE op ->> 'op' <> 'change' OR op ->> 'run_id' <> run.run_id OR op ->> 'status' <> run.status)) THEN
    PERFORM @S@.refuse(jsonb_build_object('kind', 'claim', 'run_id', claim ->> 'run_id', 'token', claim -> 'token', 'status', run.status,
      'owner', run.owner, 'newest', run.token));
  END IF;
END $$;

-- `transition` and `upsert_workflow_run`; `id` is that of the row that logs it.
CREATE OR REPLACE FUNCTION @S@.change_run(op jsonb, claim jsonb, id bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  run @S@.workflow_runs; is_new boolean; want text := op ->> 'status'; reason text; code bigint;
  is_forced boolean := coalesce((op ->> 'force')::boolean, false);
  is_finished boolean; is_repeated boolean;
BEGIN
  SELECT * INTO run FROM @S@.workflow_runs WHERE run_id = op ->> 'run_id';
  is_new := NOT FOUND;
  IF is_new AND op ->> 'workflow' IS NULL THEN
    reason := 'missing';
  ELSIF NOT is_new AND op ->> 'workflow' <> run.workflow THEN
    PERFORM @S@.refuse(jsonb_build_object('kind', 'workflow', 'run_id', run.run_id, 'workflow', run.workflow));
  ELSIF NOT is_new AND NOT is_forced THEN
    IF jsonb_typeof(op -> 'expect') = 'array' AND NOT op -> 'expect' ? run.status THEN
      reason := 'expect';
    ELSIF run.status <> want AND NOT want = ANY (@S@.followers(run.status)) THEN
      reason := 'illegal';
    ELSIF claim IS NULL AND run.lease_until > clock_timestamp() AND want <> 'killed' THEN
      reason := 'lease';
    END IF;
  END IF;
  IF reason IS NOT NULL THEN
    PERFORM @S@.refuse(jsonb_build_object('kind', 'transition', 'reason', reason, 'run_id', op ->> 'run_id',
      'from', run.status, 'to', want, 'owner', run.owner));
  END IF;
  code := (op ->> 'exit_code')::bigint;
  IF is_new THEN
    INSERT INTO @S@.workflow_runs (run_id, workflow, status, timestamp, exit_code, created_id)
      VALUES (op ->> 'run_id', op ->> 'workflow', want, (op ->> 'timestamp')::bigint, code, id)
      RETURNING * INTO run;
    RETURN @S@.run_json(run);
  END IF;
  is_repeated := run.status = want;
  is_finished := run.status IN ('completed', 'failed', 'dropped', 'killed');
  IF is_repeated AND is_finished AND NOT is_forced THEN
    code := run.exit_code;
  ELSIF is_repeated OR is_finished THEN
    code := coalesce(code, run.exit_code);
  END IF;
  -- Whatever does not carry the claim ends the lease. `not_before` stays until a claim.
  UPDATE @S@.workflow_runs SET status = want, timestamp = (op ->> 'timestamp')::bigint, exit_code = code,
      owner = CASE WHEN claim IS NOT NULL THEN owner END,
      token = CASE WHEN claim IS NOT NULL THEN token END,
      lease_until = CASE WHEN claim IS NOT NULL AND want = 'started' THEN lease_until END
    WHERE run_id = run.run_id RETURNING * INTO run;
  RETURN @S@.run_json(run);
END $$;

CREATE OR REPLACE FUNCTION @S@.create_run(op jsonb, id bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE run @S@.workflow_runs;
BEGIN
  SELECT * INTO run FROM @S@.workflow_runs WHERE run_id = op ->> 'run_id';
  IF FOUND THEN
    IF (op ->> 'exist_ok')::boolean AND run.workflow = op ->> 'workflow' THEN
      RETURN @S@.run_json(run) || '{"is_new": false}';
    END IF;
    PERFORM @S@.refuse(@S@.run_json(run) || '{"kind": "exists"}');
  END IF;
  INSERT INTO @S@.workflow_runs (run_id, workflow, status, timestamp, created_id, not_before)
    VALUES (op ->> 'run_id', op ->> 'workflow', op ->> 'status', (op ->> 'timestamp')::bigint, id,
      (op ->> 'not_before')::bigint)
    RETURNING * INTO run;
  RETURN @S@.run_json(run) || '{"is_new": true}';
END $$;

-- A row that the library logs of its own accord.
CREATE OR REPLACE FUNCTION @S@.log_status(run_id text, status text, ts bigint, last bigint) RETURNS bigint
LANGUAGE sql AS $$
  INSERT INTO @S@.logs (id, source, type, ref_id, payload, timestamp, is_round)
    VALUES (last + 1, 'workflow', status, run_id, NULL, ts, false) RETURNING id
$$;

CREATE OR REPLACE FUNCTION @S@.claim_json(run @S@.workflow_runs) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('run', @S@.run_json(run), 'owner', run.owner, 'attempt', run.attempt, 'token', run.token,
    'expires_at', floor(extract(epoch FROM run.lease_until) * 1000)::bigint)
$$;

-- Leases run by the server's clock. `item` is the claim, or `{"due": milliseconds}`: when to look again, if ever.
CREATE OR REPLACE FUNCTION @S@.claim_run(op jsonb, before bigint, OUT last bigint, OUT item jsonb) LANGUAGE plpgsql AS $$
DECLARE
  run @S@.workflow_runs; now timestamptz := clock_timestamp(); due bigint;
  now_ms bigint := floor(extract(epoch FROM now) * 1000);
  wanted jsonb := op -> 'workflow'; one_run text := op ->> 'run_id'; ts bigint := (op ->> 'timestamp')::bigint;
  most bigint := (op ->> 'max_attempts')::bigint; span interval := make_interval(secs => (op ->> 'lease')::float8);
BEGIN
  last := before;
  LOOP
    -- The lease that ran out first; of equal ones that which was given first.
    SELECT * INTO run FROM @S@.workflow_runs WHERE status = 'started' AND lease_until <= now
      AND (wanted IS NULL OR wanted ? workflow) AND (one_run IS NULL OR run_id = one_run)
      ORDER BY lease_until, token LIMIT 1;
    EXIT WHEN NOT FOUND;
    last := @S@.log_status(run.run_id, 'crashed', ts, last);
    IF most IS NULL OR run.attempt < most THEN EXIT; END IF;
    UPDATE @S@.workflow_runs SET status = 'crashed', timestamp = ts, exit_code = 255, owner = NULL, token = NULL,
      lease_until = NULL WHERE run_id = run.run_id;
  END LOOP;
  IF run.run_id IS NULL THEN
    SELECT * INTO run FROM @S@.workflow_runs WHERE status = 'queued' AND coalesce(not_before, 0) <= now_ms
      AND (wanted IS NULL OR wanted ? workflow) AND (one_run IS NULL OR run_id = one_run)
      ORDER BY timestamp, created_id LIMIT 1;
  END IF;
  IF run.run_id IS NULL THEN
    SELECT min(CASE WHEN status = 'queued' THEN not_before - now_ms
        ELSE ceil(extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint END) INTO due
      FROM @S@.workflow_runs WHERE status IN ('queued', 'started')
      AND (wanted IS NULL OR wanted ? workflow) AND (one_run IS NULL OR run_id = one_run);
    item := jsonb_build_object('due', due);
    RETURN;
  END IF;
  last := @S@.log_status(run.run_id, 'started', ts, last);
  UPDATE @S@.workflow_runs SET status = 'started', timestamp = ts, exit_code = NULL, not_before = NULL,
      owner = op ->> 'owner', attempt = attempt + 1, token = last, lease = span,
      lease_until = clock_timestamp() + span
    WHERE run_id = run.run_id RETURNING * INTO run;
  item := @S@.claim_json(run);
END $$;

CREATE OR REPLACE FUNCTION @S@.renew_claim(op jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE run @S@.workflow_runs; span interval := make_interval(secs => (op ->> 'lease')::float8);
BEGIN
  UPDATE @S@.workflow_runs SET lease = coalesce(span, lease), lease_until = clock_timestamp() + coalesce(span, lease)
    WHERE run_id = op ->> 'run_id' RETURNING * INTO run;
  RETURN @S@.claim_json(run);
END $$;

CREATE OR REPLACE FUNCTION @S@.release_claim(op jsonb, before bigint, OUT last bigint, OUT item jsonb)
LANGUAGE plpgsql AS $$
DECLARE run @S@.workflow_runs; ts bigint := (op ->> 'timestamp')::bigint;
BEGIN
  last := @S@.log_status(op ->> 'run_id', 'interrupted', ts, before);
  last := @S@.log_status(op ->> 'run_id', 'queued', ts, last);
  UPDATE @S@.workflow_runs SET status = 'queued', timestamp = ts, exit_code = NULL, owner = NULL, token = NULL,
      lease_until = NULL, not_before = CASE WHEN (op ->> 'delay')::float8 > 0
        THEN ceil((extract(epoch FROM clock_timestamp()) + (op ->> 'delay')::float8) * 1000)::bigint END
    WHERE run_id = op ->> 'run_id' RETURNING * INTO run;
  item := @S@.run_json(run);
END $$;

-- Makes the partition of a UTC day: true if it is there, false if more than `most` rows of it lie in the default one, NULL
-- if a lock was not to be had, as while a long read lasts. Of a day that is to come, writers do not wait for it: it does
-- not take the append lock, and attaching locks the default partition alone against them; its rows are read then. Where
-- rows of the day lie there already, or may come at this moment, all wait until these have moved. Runs as the owner of the
-- tables, so that a role that may only append needs no right to create.
CREATE OR REPLACE FUNCTION @S@.ensure_day(day date, most bigint DEFAULT 20000) RETURNS boolean LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
  first bigint := (day - date '1970-01-01')::bigint * 86400000; name text := 'logs_' || to_char(day, 'YYYYMMDD');
  late bigint;
BEGIN
  -- Not to_regclass: what it has cached may be older than the lock.
  IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = '@S@'::regnamespace) THEN RETURN true; END IF;
  PERFORM pg_advisory_xact_lock(@DAYS_LOCK@);
  IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = '@S@'::regnamespace) THEN RETURN true; END IF;
  SELECT count(*) INTO late FROM (
    SELECT FROM @S@.logs_rest WHERE timestamp >= first AND timestamp < first + 86400000 LIMIT most + 1) AS found;
  IF late > most THEN RETURN false; END IF;
  -- All at once: while some are left the partition cannot be attached, and until it is nobody finds those that have moved.
  IF late > 0 OR day <= (now() AT TIME ZONE 'UTC')::date THEN
    -- What was planned before knows the default partition alone: a read would miss rows, an append would be refused.
    LOCK TABLE ONLY @S@.logs IN ACCESS EXCLUSIVE MODE;
    LOCK TABLE @S@.logs_rest IN ACCESS EXCLUSIVE MODE;
  END IF;
  EXECUTE format('CREATE TABLE @S@.%I (LIKE @S@.logs INCLUDING ALL)', name);
  IF late > 0 THEN
    EXECUTE format('WITH moved AS (DELETE FROM @S@.logs_rest WHERE timestamp >= %s AND timestamp < %s RETURNING *) '
      'INSERT INTO @S@.%I SELECT * FROM moved ORDER BY id', first, first + 86400000, name);
  END IF;
  EXECUTE format('ALTER TABLE @S@.logs ATTACH PARTITION @S@.%I FOR VALUES FROM (%s) TO (%s)', name, first,
    first + 86400000);
  RETURN true;
EXCEPTION
  WHEN lock_not_available OR deadlock_detected THEN RETURN NULL;
  WHEN check_violation THEN RETURN NULL;  -- a row of the day came meanwhile
END $$;
