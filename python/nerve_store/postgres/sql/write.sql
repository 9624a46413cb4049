-- All writes: one procedure call, one round trip. `@S@` is the quoted schema, `@CHANNEL@` its channel of notices.

-- Ids go on after this one, and nothing is lost: for who holds the append lock, or makes the schema.
CREATE OR REPLACE FUNCTION @S@.go_on_after(last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE mask bigint := floor(random() * 1048576);
BEGIN
  DELETE FROM @S@.alive;
  INSERT INTO @S@.alive (started, file, xid, after, mask)
    VALUES (pg_postmaster_start_time(), pg_relation_filepath('@S@.alive'), pg_current_xact_id()::xid, last, mask);
  PERFORM setval('@S@.log_id', greatest(last, 1), last > 0), setval('@S@.given_id', greatest(last, 0) # mask);
END $$;

-- The last commits may be gone, or those of days if this comes from a backup. Ids that a reader saw must not be given again to
-- other rows: they go on after `known`, the greatest that was given as far as is known, and after the microseconds since 2026,
-- of which more have passed than rows were written, however often the lost server skipped since the backup. Until the year
-- 2311 a double holds them.
CREATE OR REPLACE FUNCTION @S@.skipped(known bigint) RETURNS bigint LANGUAGE sql AS $$
  SELECT greatest(known + 1000000, ((extract(epoch FROM clock_timestamp()) - 1767225600) * 1000000)::bigint)
$$;

-- The last id that was given, the greatest that is known to be given, and whether the first is true: one row.
CREATE OR REPLACE FUNCTION @S@.known_ids() RETURNS TABLE (last bigint, known bigint, is_alive boolean)
LANGUAGE sql STABLE AS $$
  SELECT max(i.last), max(greatest(i.last, a.after, g.last_value # a.mask)), count(*) = 1
      AND bool_and(a.started = pg_postmaster_start_time() AND a.file = pg_relation_filepath(a.tableoid) AND a.xid = a.xmin
        AND g.last_value # a.mask = i.last) IS TRUE
    FROM (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM @S@.log_id) AS i(last), @S@.given_id g
      LEFT JOIN @S@.alive a ON true
$$;

-- Takes the append lock until the transaction ends, and returns the last id that was given; waits for each lock `wait`
-- milliseconds at the most. From here on ids are given in the order of the commits, and no row of a run is locked by
-- anybody else. The commit that follows does not wait for the disk: the lock is held for microseconds.
CREATE OR REPLACE FUNCTION @S@.lock_ids(wait int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE ids record;
BEGIN
  -- Of this transaction alone: behind a pooler, the next one of the session is another client's.
  PERFORM set_config('synchronous_commit', 'off', true), set_config('lock_timeout', wait::text, true),
    pg_advisory_xact_lock(@LOCK@);
  SELECT * INTO ids FROM @S@.known_ids();
  IF ids.is_alive THEN RETURN ids.last; END IF;
  ids.last := @S@.skipped(ids.known);
  PERFORM @S@.go_on_after(ids.last);
  RETURN ids.last;
END $$;

-- Waits until all that was committed before is on the disk.
CREATE OR REPLACE FUNCTION @S@.flush() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  PERFORM pg_logical_emit_message(true, 'nerve_store', '');
END $$;

-- The same for who only reads: those who committed are mostly about to flush it, and a flush of its own would take
-- from theirs. Falls back on one of its own.
CREATE OR REPLACE FUNCTION @S@.await_flush() RETURNS void LANGUAGE plpgsql AS $$
DECLARE read_until pg_lsn := pg_current_wal_insert_lsn();
BEGIN
  FOR attempt IN 1..10 LOOP
    IF pg_current_wal_flush_lsn() >= read_until THEN RETURN; END IF;
    PERFORM pg_sleep(0.0003);
  END LOOP;
  PERFORM @S@.flush();
END $$;

CREATE OR REPLACE FUNCTION @S@.refuse(detail jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'refused' USING ERRCODE = 'NS010', DETAIL = detail::text;
END $$;

-- `jobs` NULL: all rows are plain appends, which nothing can refuse.
CREATE OR REPLACE PROCEDURE @S@.write(
  w uuid, wait int, e bigint, q bigint, s text[], t text[], r text[], p text[], ts bigint[], k boolean[], jobs jsonb,
  is_durable boolean, INOUT first bigint, INOUT outcomes jsonb
) LANGUAGE plpgsql AS $$
DECLARE before bigint; last bigint; wake text := '';
BEGIN
  -- The default of the role or the database: a snapshot that is older than the lock hides what was committed before it.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  END IF;
  before := @S@.lock_ids(wait);
  last := before;
  UPDATE @S@.writers SET seq = q, first_id = before + 1, results = NULL, seen = now()
    WHERE writer = w AND epoch = e AND seq < q;
  IF NOT FOUND THEN RAISE EXCEPTION 'fenced' USING ERRCODE = 'NS001'; END IF;
  IF jobs IS NULL THEN
    last := @S@.put(s, t, r, p, ts, k, last);
  ELSE
    SELECT applied.last, applied.outcomes, applied.wake INTO last, outcomes, wake
      FROM @S@.apply(jobs, s, t, r, p, ts, k, before) AS applied;
    UPDATE @S@.writers SET results = outcomes WHERE writer = w;
  END IF;
  first := before + 1;
  IF last > before THEN
    PERFORM setval('@S@.log_id', last), setval('@S@.given_id', g.last_value # before # last) FROM @S@.given_id g;
  END IF;
  PERFORM pg_notify('@CHANNEL@', wake);
  COMMIT;
  IF is_durable THEN PERFORM @S@.flush(); END IF;
END $$;

-- The greatest id that there is, as far as it shows, also where rows came without the sequence, as by logical replication.
-- Of many days only the newest are looked at: a statement locks each partition that it may read, and its indexes. One that
-- another session has locked is not waited for.
CREATE OR REPLACE FUNCTION @S@.greatest_id() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE found bigint; since text := ''; patience text := current_setting('lock_timeout');
BEGIN
  IF (SELECT count(*) > 32 FROM pg_inherits WHERE inhparent = '@S@.logs'::regclass) THEN
    since := format(' WHERE timestamp >= %s', (extract(epoch FROM now() - interval '7 days') * 1000)::bigint);
  END IF;
  BEGIN
    PERFORM set_config('lock_timeout', '50ms', true);
    EXECUTE 'SELECT max(id) FROM @S@.logs' || since INTO found;
    PERFORM set_config('lock_timeout', patience, true);
  EXCEPTION WHEN lock_not_available OR out_of_memory THEN
    NULL;
  END;
  RETURN greatest(found, (SELECT max(last_id) FROM @S@.archive_days), (SELECT max(first_id) - 1 FROM @S@.writers));
END $$;

-- Before a connection writes: fences the one that it takes the place of, whose call may still be waiting for the lock, and
-- says whether its last call was committed. What it says is durable. `outcomes` comes in as the log that the caller has open:
-- the schema may have been renamed since, and another one may have its name, or procedures that were made for another name.
-- NULL is of a store of an earlier version.
CREATE OR REPLACE PROCEDURE @S@.recover(
  w uuid, wait int, INOUT current_epoch bigint, INOUT last_seq bigint, INOUT first bigint, INOUT outcomes jsonb
) LANGUAGE plpgsql AS $$
DECLARE log jsonb := outcomes; known bigint;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'a standby takes no writes' USING ERRCODE = 'read_only_sql_transaction';
  END IF;
  PERFORM set_config('lock_timeout', wait::text, true);
  known := @S@.greatest_id();
  -- No one waits for the locks of partitions while it holds the append lock, or the other way round.
  COMMIT;
  SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
  IF @S@.lock_ids(wait) < known THEN PERFORM @S@.go_on_after(@S@.skipped(known)); END IF;
  UPDATE @S@.writers SET epoch = epoch + 1, seen = now() WHERE writer = w
    RETURNING epoch, seq, first_id, results INTO current_epoch, last_seq, first, outcomes;
  IF NOT FOUND THEN
    INSERT INTO @S@.writers (writer, epoch, seq, first_id) VALUES (w, 1, 0, 0);
    current_epoch := 1; last_seq := 0; first := 0;
  END IF;
  IF EXISTS (SELECT FROM @S@.state WHERE to_jsonb(store_id || '#@NAME@') <> log) THEN
    RAISE EXCEPTION 'another log has this name' USING ERRCODE = 'NS002';
  END IF;
  COMMIT;
  PERFORM @S@.flush();
END $$;

CREATE OR REPLACE FUNCTION @S@.put(
  s text[], t text[], r text[], p text[], ts bigint[], k boolean[], last bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO @S@.logs (id, source, type, ref_id, payload, timestamp, is_round)
    SELECT last + u.o, u.s, u.t, u.r, u.p, u.ts, u.k
    FROM unnest(s, t, r, p, ts, k) WITH ORDINALITY AS u(s, t, r, p, ts, k, o);
  RETURN last + cardinality(s);
END $$;

-- Jobs that share a commit, each all or nothing: one that is refused leaves nothing behind.
CREATE OR REPLACE FUNCTION @S@.apply(
  jobs jsonb, s text[], t text[], r text[], p text[], ts bigint[], k boolean[], before bigint,
  OUT last bigint, OUT outcomes jsonb, OUT wake text
) LANGUAGE plpgsql AS $$
DECLARE job jsonb; done record; detail text;
BEGIN
  last := before; outcomes := '[]'; wake := '';
  FOR job IN SELECT value FROM jsonb_array_elements(jobs) LOOP
    BEGIN
      SELECT * INTO done FROM @S@.run_job(job, s, t, r, p, ts, k, last);
      last := done.last;
      outcomes := outcomes || jsonb_build_array(jsonb_build_object('done', done.results));
      wake := CASE WHEN done.wakes THEN 'run' ELSE wake END;
    EXCEPTION WHEN SQLSTATE 'NS010' THEN
      GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
      outcomes := outcomes || jsonb_build_array(jsonb_build_object('refused', detail::jsonb));
    END;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION @S@.run_job(
  job jsonb, s text[], t text[], r text[], p text[], ts bigint[], k boolean[], before bigint,
  OUT last bigint, OUT results jsonb, OUT wakes boolean
) LANGUAGE plpgsql AS $$
DECLARE
  op jsonb; i int; n int; item jsonb; known @S@.keys; claim jsonb := job -> 'claim';
BEGIN
  last := before; results := '[]'; wakes := false;
  IF claim IS NOT NULL THEN PERFORM @S@.check_claim(claim, job -> 'ops'); END IF;
  FOR op IN SELECT value FROM jsonb_array_elements(job -> 'ops') LOOP
    i := (op ->> 'row')::int;
    n := coalesce((op ->> 'rows')::int, 0);
    item := NULL;
    CASE op ->> 'op'
      WHEN 'rows' THEN
        item := jsonb_build_object('id', last + 1);
        last := @S@.put(s[i:i+n-1], t[i:i+n-1], r[i:i+n-1], p[i:i+n-1], ts[i:i+n-1], k[i:i+n-1], last);
      WHEN 'key' THEN
        SELECT * INTO known FROM @S@.keys WHERE key = op ->> 'key';
        IF NOT FOUND THEN
          last := @S@.put(s[i:i], t[i:i], r[i:i], p[i:i], ts[i:i], k[i:i], last);
          INSERT INTO @S@.keys (key, id, timestamp, digest)
            VALUES (op ->> 'key', last, ts[i], decode(op ->> 'digest', 'hex'));
          item := jsonb_build_object('id', last);
        ELSIF known.digest = decode(op ->> 'digest', 'hex') THEN
          item := jsonb_build_object('id', known.id, 'timestamp', known.timestamp);
        ELSE
          PERFORM @S@.refuse(jsonb_build_object('kind', 'key', 'key', coalesce(op ->> 'name', known.key), 'id', known.id));
        END IF;
      WHEN 'change' THEN
        -- A batch that one run's claim fences may change other runs as any caller may.
        item := @S@.change_run(op, CASE WHEN op ->> 'run_id' = claim ->> 'run_id' THEN claim END, last + 1);
        IF item IS NOT NULL THEN
          last := @S@.put(s[i:i], t[i:i], r[i:i], p[i:i], ts[i:i], k[i:i], last);
          item := item || jsonb_build_object('id', last);
        END IF;
        wakes := wakes OR item ->> 'status' = 'queued';
      WHEN 'create' THEN
        item := @S@.create_run(op, last + 1);
        IF item ->> 'is_new' = 'true' THEN
          last := @S@.put(s[i:i], t[i:i], r[i:i], p[i:i], ts[i:i], k[i:i], last);
          item := item || jsonb_build_object('id', last);
          wakes := wakes OR item ->> 'status' = 'queued';
        END IF;
      WHEN 'claim' THEN
        SELECT claimed.last, claimed.item INTO last, item FROM @S@.claim_run(op, last) AS claimed;
      WHEN 'renew' THEN
        item := @S@.renew_claim(op);
      WHEN 'release' THEN
        SELECT released.last, released.item INTO last, item FROM @S@.release_claim(op, last) AS released;
        wakes := true;
      WHEN 'set_meta' THEN
        UPDATE @S@.meta SET value = op ->> 'value' WHERE key = op ->> 'key';
        IF NOT FOUND THEN INSERT INTO @S@.meta VALUES (op ->> 'key', op ->> 'value'); END IF;
      WHEN 'delete_meta' THEN
        DELETE FROM @S@.meta WHERE key = op ->> 'key';
        item := to_jsonb(FOUND);
      WHEN 'delete_runs' THEN
        DELETE FROM @S@.workflow_runs WHERE status NOT IN ('queued', 'started')
          AND timestamp < (op ->> 'before')::bigint
          AND (op -> 'workflow' IS NULL OR op -> 'workflow' ? workflow);
        GET DIAGNOSTICS n = ROW_COUNT;
        item := to_jsonb(n);
    END CASE;
    results := results || jsonb_build_array(item);
  END LOOP;
END $$;
