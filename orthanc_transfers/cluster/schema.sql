-- The tables of a cluster, version 1. Run once, in a transaction, under the lock (1953653102, 1); see schema.py.
--
-- Whatever must be one step is a function here: one request, whatever comes in between. A transfer's row says who owns
-- it; all that its owner writes is bound to that, so that a node which lost its transfers changes nothing.
-- Advisory locks, the second number: 1 this file, 2 claims where there is a limit, 3 commits that may share instances.

SET LOCAL search_path = orthanc_transfers;

CREATE TABLE meta (
    key text PRIMARY KEY,
    value text NOT NULL
);

-- One row for each start of a node that has not been forgotten.
CREATE TABLE nodes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    start uuid NOT NULL UNIQUE,         -- chosen by the node: a repeated registration is the same
    name text NOT NULL,
    address text NOT NULL,
    folder boolean NOT NULL,            -- whether its staging is shared: node_<number>
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires timestamptz NOT NULL,       -- its lease, by this database's clock
    released boolean NOT NULL DEFAULT false,    -- it stopped by itself
    adopted_by bigint                   -- who has its transfers now: it is fenced
);

-- What is being received, and what has ended and its owner remembers.
CREATE TABLE transfers (
    identifier text PRIMARY KEY,
    kind text NOT NULL,
    token text NOT NULL,
    owner bigint NOT NULL,
    home bigint NOT NULL,               -- the node that has its bytes, or had them when it died
    state text NOT NULL DEFAULT 'receiving',    -- committing, undoing, ended
    meta text,                          -- JSON, as the plan and the outcome; these are for
    plan bytea,                         -- who finishes or undoes an import without its bytes
    absent integer[],
    hashes bigint[],                    -- of the instances that its commit counts on
    kept bigint[] NOT NULL DEFAULT '{}',  -- of those that an undo must not delete
    heritage text[] NOT NULL DEFAULT '{}',    -- instances that others imported, and left to it
    outcome text,
    UNIQUE (kind, token)
);
CREATE INDEX transfers_by_owner ON transfers (owner);
CREATE INDEX transfers_committing ON transfers (state) WHERE state IN ('committing', 'undoing');

CREATE TABLE reports (
    id uuid PRIMARY KEY,                -- a hash of the transfer's identifier
    ended timestamptz NOT NULL,
    content bytea NOT NULL              -- JSON, zlib
);
CREATE INDEX reports_by_end ON reports (ended);
CREATE TABLE report_names (
    name uuid PRIMARY KEY,
    report uuid NOT NULL REFERENCES reports ON DELETE CASCADE
);
CREATE INDEX report_names_by_report ON report_names (report);

-- What an undo could not delete, and is tried again. The row stays as long as there is something to delete.
CREATE TABLE leftovers (
    transfer text NOT NULL,
    instance bigint NOT NULL,           -- its hash
    kept boolean NOT NULL DEFAULT false,    -- a commit has succeeded with it since
    deleter bigint,                     -- the node that is deleting it at this moment
    PRIMARY KEY (transfer, instance)
);

-- Become the owner of a new transfer: 'mine', 'fenced', 'full', 'ending' (a pull, elsewhere), or 'elsewhere'.
CREATE FUNCTION claim(
    me bigint, new_identifier text, new_kind text, new_token text, new_meta text, slots integer
)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    other text;
BEGIN
    IF slots > 0 THEN
        PERFORM pg_advisory_xact_lock(1953653102, 2);
    END IF;
    -- Adoption waits for this, and this for adoption; a renewal of the lease does not.
    PERFORM 1 FROM orthanc_transfers.nodes WHERE number = me AND adopted_by IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN 'fenced';
    END IF;
    DELETE FROM orthanc_transfers.transfers
        WHERE kind = new_kind AND token = new_token AND owner <> me AND kind = 'pull' AND state = 'ended';
    PERFORM 1 FROM orthanc_transfers.transfers
        WHERE kind = new_kind AND token = new_token AND identifier <> new_identifier AND owner = me;
    IF FOUND THEN
        RETURN 'known';
    END IF;
    SELECT state INTO other FROM orthanc_transfers.transfers WHERE kind = new_kind AND token = new_token;
    IF FOUND AND new_kind = 'pull' AND other <> 'receiving' THEN
        RETURN 'ending';
    END IF;
    IF other IS NULL AND slots > 0 AND slots <= (
        SELECT count(*) FROM orthanc_transfers.transfers WHERE kind = new_kind AND state <> 'ended'
    ) THEN
        RETURN 'full';
    END IF;
    INSERT INTO orthanc_transfers.transfers (identifier, kind, token, owner, home, meta)
        VALUES (new_identifier, new_kind, new_token, me, me, new_meta) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM orthanc_transfers.transfers WHERE identifier = new_identifier AND owner = me;
    RETURN CASE WHEN FOUND THEN 'mine' ELSE 'elsewhere' END;
END $$;

-- 64 bits that stand for an instance.
CREATE FUNCTION hash(instance text)
RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended(instance, 0)
$$;

-- Hashes that are in both.
CREATE FUNCTION common(these bigint[], those bigint[])
RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(one), '{}') FROM (SELECT unnest(these) INTERSECT SELECT unnest(those)) AS shared (one)
$$;

CREATE FUNCTION hashes_of(instances text[])
RETURNS bigint[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(orthanc_transfers.hash(one)), '{}') FROM unnest(instances) AS one
$$;

-- A commit begins: from now on others know what it counts on. 'mine', 'fenced', or 'wait' while another node
-- may be about to delete some of it, in an undo.
CREATE FUNCTION begin_commit(me bigint, which text, instances text[], new_plan bytea)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    counted bigint[] := orthanc_transfers.hashes_of(instances);
BEGIN
    PERFORM pg_advisory_xact_lock(1953653102, 3);
    IF EXISTS (
        SELECT FROM orthanc_transfers.transfers
        WHERE state = 'undoing' AND owner <> me AND orthanc_transfers.common(hashes, counted) <> '{}'
    ) OR EXISTS (
        SELECT FROM orthanc_transfers.leftovers WHERE deleter <> me AND instance = ANY (counted)
    ) THEN
        RETURN 'wait';
    END IF;
    UPDATE orthanc_transfers.transfers SET state = 'committing', hashes = counted, plan = new_plan
        WHERE identifier = which AND owner = me;
    RETURN CASE WHEN FOUND THEN 'mine' ELSE 'fenced' END;
END $$;

-- A commit is undone, and would delete ``mine`` and what others left to it. What another node's commit counts on is
-- left to that one. Returns those of ``mine`` that it must not delete, and those left to it that it must.
CREATE FUNCTION overlap(me bigint, which text, mine text[])
RETURNS TABLE (not_to_delete text[], also_to_delete text[]) LANGUAGE plpgsql AS $$
DECLARE
    stay bigint[];
    inherited text[];
    own bigint[];
    other record;
    shared bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(1953653102, 3);
    UPDATE orthanc_transfers.transfers SET state = 'undoing'
        WHERE identifier = which AND owner = me RETURNING kept, heritage INTO stay, inherited;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    own := orthanc_transfers.hashes_of(mine || inherited);
    FOR other IN
        SELECT identifier, hashes FROM orthanc_transfers.transfers WHERE state = 'committing' AND owner <> me
    LOOP
        -- Each is left to one of them.
        shared := ARRAY(
            SELECT unnest(orthanc_transfers.common(own, other.hashes)) EXCEPT SELECT unnest(stay));
        CONTINUE WHEN shared = '{}';
        UPDATE orthanc_transfers.transfers SET heritage = ARRAY(
                SELECT unnest(heritage) UNION SELECT one FROM unnest(mine || inherited) AS one
                WHERE orthanc_transfers.hash(one) IN (SELECT unnest(shared)))
            WHERE identifier = other.identifier;
        stay := stay || shared;
    END LOOP;
    UPDATE orthanc_transfers.transfers SET kept = stay WHERE identifier = which;
    not_to_delete := ARRAY(
        SELECT one FROM unnest(mine) AS one WHERE orthanc_transfers.hash(one) IN (SELECT unnest(stay)));
    also_to_delete := ARRAY(
        SELECT one FROM unnest(inherited) AS one WHERE orthanc_transfers.hash(one) NOT IN (SELECT unnest(stay)));
    RETURN NEXT;
END $$;

-- An undo could not delete these: until that has succeeded, they are known. Says whether ``me`` is not fenced.
CREATE FUNCTION leave_over(me bigint, which text, instances text[])
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM orthanc_transfers.nodes WHERE number = me AND adopted_by IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO orthanc_transfers.leftovers (transfer, instance)
        SELECT DISTINCT which, unnest(orthanc_transfers.hashes_of(instances))
        ON CONFLICT (transfer, instance) DO UPDATE SET kept = false;
    RETURN true;
END $$;

-- What is left is to be deleted: 'delete', 'wait' while a commit counts on it, 'keep' if one has succeeded with it,
-- or 'fenced'.
CREATE FUNCTION begin_deletion(me bigint, which text, one text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hashed bigint := orthanc_transfers.hash(one);
BEGIN
    PERFORM pg_advisory_xact_lock(1953653102, 3);
    PERFORM 1 FROM orthanc_transfers.nodes WHERE number = me AND adopted_by IS NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN 'fenced';
    END IF;
    IF EXISTS (
        SELECT FROM orthanc_transfers.leftovers WHERE transfer = which AND instance = hashed AND kept
    ) THEN
        RETURN 'keep';
    END IF;
    IF EXISTS (
        SELECT FROM orthanc_transfers.transfers WHERE state = 'committing' AND hashed = ANY (hashes)
    ) THEN
        RETURN 'wait';
    END IF;
    INSERT INTO orthanc_transfers.leftovers (transfer, instance, deleter) VALUES (which, hashed, me)
        ON CONFLICT (transfer, instance) DO UPDATE SET deleter = excluded.deleter;
    RETURN 'delete';
END $$;

CREATE FUNCTION keep_report(new_id uuid, new_content bytea, new_names uuid[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO orthanc_transfers.reports (id, ended, content) VALUES (new_id, clock_timestamp(), new_content)
        ON CONFLICT (id) DO UPDATE SET content = excluded.content, ended = excluded.ended;
    INSERT INTO orthanc_transfers.report_names (name, report) SELECT DISTINCT unnest(new_names), new_id
        ON CONFLICT (name) DO UPDATE SET report = excluded.report;
$$;

-- A transfer has ended; what it succeeded with, no other commit deletes any more. Says whether it was ``me``'s.
CREATE FUNCTION finish(
    me bigint, which text, success boolean, new_outcome text, report uuid, content bytea, names uuid[]
)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    stays bigint[];
BEGIN
    IF success THEN
        PERFORM pg_advisory_xact_lock(1953653102, 3);
    END IF;
    SELECT hashes INTO stays FROM orthanc_transfers.transfers
        WHERE identifier = which AND owner = me FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE orthanc_transfers.transfers
        SET state = 'ended', outcome = new_outcome, plan = NULL, hashes = NULL, kept = '{}', heritage = '{}'
        WHERE identifier = which;
    IF success THEN
        -- Its own, too: it may have taken them over, and not have them yet.
        UPDATE orthanc_transfers.transfers SET kept = kept || orthanc_transfers.common(hashes, stays)
            WHERE state IN ('committing', 'undoing') AND identifier <> which
            AND orthanc_transfers.common(hashes, stays) <> '{}';
        UPDATE orthanc_transfers.leftovers SET kept = true WHERE NOT kept AND instance = ANY (stays);
    END IF;
    PERFORM orthanc_transfers.keep_report(report, content, names);
    RETURN true;
END $$;

-- Take all that a dead node had: ``surely`` dead, as an earlier start of this server, or because its lease has ended.
-- Says whether it is ``me``'s now.
CREATE FUNCTION adopt(me bigint, dead bigint, surely boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    -- In the order of their numbers: two that adopt each other do not wait for each other.
    PERFORM 1 FROM orthanc_transfers.nodes WHERE number IN (me, dead) ORDER BY number FOR UPDATE;
    PERFORM 1 FROM orthanc_transfers.nodes
        WHERE number = me AND adopted_by IS NULL AND NOT released AND expires > clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE orthanc_transfers.nodes SET adopted_by = me
        WHERE number = dead AND adopted_by IS NULL AND (released OR expires < clock_timestamp()
            -- Where the tables were made anew, the number of an earlier start may be that of another node.
            OR (surely AND number < me AND name = (SELECT name FROM orthanc_transfers.nodes WHERE number = me)));
    IF FOUND THEN
        -- Also what it had adopted itself.
        UPDATE orthanc_transfers.nodes SET adopted_by = me WHERE adopted_by = dead;
        UPDATE orthanc_transfers.transfers SET owner = me WHERE owner = dead;
        UPDATE orthanc_transfers.leftovers SET deleter = NULL WHERE deleter = dead;
    END IF;
    RETURN EXISTS (SELECT FROM orthanc_transfers.nodes WHERE number = dead AND adopted_by = me);
END $$;

-- Jobs are a server's own, over all its starts: by its name. Who has been away too long leaves them to others.
CREATE TABLE servers (
    name text PRIMARY KEY,
    seen timestamptz NOT NULL
);
CREATE TABLE jobs (
    identifier text PRIMARY KEY,
    server text NOT NULL,
    kind text NOT NULL,
    saved text NOT NULL,                -- JSON, as Orthanc saves it; empty once it is submitted
    paused boolean NOT NULL,
    adopter text,                       -- the server that goes on with it
    submitted boolean NOT NULL DEFAULT false    -- as a job of its own there
);
CREATE INDEX jobs_by_server ON jobs (server);
CREATE INDEX jobs_by_adopter ON jobs (adopter) WHERE NOT submitted;

-- What a server has now: ``all_of_them``, of which ``ids`` have changed. Returns those that another goes on with.
CREATE FUNCTION keep_jobs(
    me text, all_of_them text[], ids text[], kinds text[], states text[], pauses boolean[]
)
RETURNS TABLE (moved text, mover text) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orthanc_transfers.servers (name, seen) VALUES (me, clock_timestamp())
        ON CONFLICT (name) DO UPDATE SET seen = excluded.seen;
    DELETE FROM orthanc_transfers.jobs
        WHERE server = me AND adopter IS NULL AND identifier NOT IN (SELECT unnest(all_of_them));
    INSERT INTO orthanc_transfers.jobs (identifier, server, kind, saved, paused)
        SELECT one.identifier, me, one.kind, one.state, one.pause
        FROM unnest(ids, kinds, states, pauses) AS one (identifier, kind, state, pause)
        ON CONFLICT (identifier) DO UPDATE SET saved = excluded.saved, paused = excluded.paused
        WHERE jobs.server = me AND jobs.adopter IS NULL;
    RETURN QUERY SELECT identifier, adopter FROM orthanc_transfers.jobs WHERE server = me AND adopter IS NOT NULL;
END $$;

-- Take some jobs of servers that were not seen for so many seconds, and have no lease. Returns all that ``me`` has
-- taken and not submitted yet.
CREATE FUNCTION adopt_jobs(me text, after double precision, most integer)
RETURNS TABLE (taken text, of_server text, of_kind text, state text, was_paused boolean) LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        SELECT name FROM orthanc_transfers.servers
        WHERE name <> me AND seen < clock_timestamp() - make_interval(secs => after) AND NOT EXISTS (
            SELECT FROM orthanc_transfers.nodes
            WHERE nodes.name = servers.name AND adopted_by IS NULL AND NOT released AND expires > clock_timestamp())
    ), found AS (
        SELECT identifier FROM orthanc_transfers.jobs
        WHERE server IN (SELECT name FROM gone) AND NOT submitted
        AND (adopter IS NULL OR adopter IN (SELECT name FROM gone))
        ORDER BY identifier LIMIT most FOR UPDATE SKIP LOCKED
    )
    UPDATE orthanc_transfers.jobs SET adopter = me WHERE identifier IN (SELECT identifier FROM found);
    -- Names of pods are never used again. Should such a server come back nevertheless, its jobs go on there, too.
    DELETE FROM orthanc_transfers.jobs WHERE submitted AND server IN (
        SELECT name FROM orthanc_transfers.servers
        WHERE name <> me AND seen < clock_timestamp() - make_interval(days => 90, secs => after));
    DELETE FROM orthanc_transfers.servers
        WHERE name <> me AND seen < clock_timestamp() - make_interval(days => 90, secs => after)
        AND NOT EXISTS (SELECT FROM orthanc_transfers.jobs WHERE server = servers.name);
    RETURN QUERY SELECT identifier, server, kind, saved, paused FROM orthanc_transfers.jobs
        WHERE adopter = me AND NOT submitted;
END $$;
