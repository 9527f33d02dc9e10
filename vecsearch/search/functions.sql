-- What all collections' functions share. PGVECTOR is pgvector's schema, UUID a pattern of ids,
-- LEAST_EF what `vecsearch.vocabulary.least_ef_search` returns, MOST_EF the most, and IS_DISTRIBUTED
-- whether the table `collection` is in shards.

CREATE OR REPLACE FUNCTION vecsearch.embedding_distance(a PGVECTOR.halfvec, b PGVECTOR.halfvec)
RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN a OPERATOR(PGVECTOR.<=>) b;

COMMENT ON FUNCTION vecsearch.embedding_distance IS
'Cosine distance of two embeddings, as a <=> b, for tools that do not keep operators; an HNSW index serves ORDER BY embedding_distance(embedding, …) LIMIT …';

-- BELOW: called on the coordinator alone; what is above, by shards.

CREATE OR REPLACE FUNCTION vecsearch_internal.image_id(collection regclass, image text)
RETURNS uuid
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog
AS $$
DECLARE
    found uuid;
BEGIN
    IF image ~ 'UUID' THEN
        RETURN CAST(image AS uuid);
    END IF;
    EXECUTE format('SELECT id FROM %s WHERE path = $1 LIMIT 1', collection) INTO found USING image;
    IF found IS NULL AND image LIKE '[%]' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'This is an embedding as text.',
            HINT = 'Cast it: images_search(CAST(… AS halfvec), 10)';
    END IF;
    IF found IS NULL THEN
        RAISE no_data_found USING
            MESSAGE = format('There is no image %L in %s.', left(image, 200), collection),
            HINT = 'Name an image by its id or its absolute path, as in the column path.';
    END IF;
    RETURN found;
END $$;

CREATE OR REPLACE FUNCTION vecsearch_internal.embedding(collection regclass, image uuid)
RETURNS PGVECTOR.halfvec
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog
AS $$
DECLARE
    found PGVECTOR.halfvec;
BEGIN
    EXECUTE format('SELECT embedding FROM %s WHERE id = $1', collection) INTO found USING image;
    IF found IS NULL THEN
        RAISE no_data_found USING
            MESSAGE = format('There is no image with the id %s in %s.', image, collection);
    END IF;
    RETURN found;
END $$;

-- For a scan of an HNSW index that a caller's own LIMIT ends.
CREATE OR REPLACE FUNCTION vecsearch_internal.question(embedding PGVECTOR.halfvec)
RETURNS PGVECTOR.halfvec
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog
AS $$
BEGIN
    IF coalesce(current_setting('hnsw.iterative_scan', true), 'off') = 'off' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'hnsw.iterative_scan is off, so an index search would end after '
                || current_setting('hnsw.ef_search') || ' rows.',
            HINT = 'Once for the database: vecsearch db configure. '
                'In this session: SET hnsw.iterative_scan = relaxed_order';
    END IF;
    RETURN embedding;
END $$;

-- As `vecsearch.search.indexes.projection.Projection.project`.
CREATE OR REPLACE FUNCTION vecsearch_internal.compact(projection integer, embedding PGVECTOR.halfvec)
RETURNS PGVECTOR.halfvec
LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
    SELECT CAST(CAST(array_agg(
        CAST((c.component <#> p.mean) - (c.component <#> l2_normalize(CAST(embedding AS vector)))
            AS real) ORDER BY c.number) AS real[]) AS halfvec)
    FROM PROJECTIONS AS p, unnest(p.components) WITH ORDINALITY AS c (component, number)
    WHERE p.version = projection;
END;

-- Volatile, because EXPLAIN may run in no other function; it changes nothing.
CREATE OR REPLACE FUNCTION vecsearch_internal.estimate(
    statement text, OUT rows double precision, OUT cost double precision)
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    plan json;
BEGIN
    -- A loop takes one statement; EXECUTE alone would run several.
    FOR plan IN EXECUTE 'EXPLAIN (FORMAT json) ' || statement LOOP
        rows := plan -> 0 -> 'Plan' ->> 'Plan Rows';
        cost := plan -> 0 -> 'Plan' ->> 'Total Cost';
    END LOOP;
END $$;

-- By SET, which reaches shards, as set_config does not.
CREATE OR REPLACE FUNCTION vecsearch_internal.set_local(name text, value text)
RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    EXECUTE format('SET LOCAL %I = %L', name, value);
END $$;

-- collection: the table. image or embedding: the question. k, condition: see NAME_search.
-- path: the caller's search_path, in which the condition is read.
-- indexed, exact: the statement with and without the index, cut in two where the condition goes.
-- In both, $1 is the image, $2 is k, $3 the number of candidates, $4 the embedding.
-- minimum, per_row: there are so many candidates, or so many for each of the k rows if that is more.
-- row_cost: what comparing a row takes, in the planner's units of cost.
-- vectors: the table of the vectors that rank.
CREATE OR REPLACE FUNCTION vecsearch_internal.search(
    collection regclass,
    image uuid,
    embedding PGVECTOR.halfvec,
    k bigint,
    condition text,
    path text,
    indexed text[],
    exact text[],
    minimum integer,
    per_row double precision,
    row_cost double precision,
    vectors text)
RETURNS SETOF vecsearch.hit
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
ROWS 10
-- The body changes some of these; at its end, all are as they were.
SET search_path = pg_catalog
SET random_page_cost = 1.1
SET enable_sort = on
SET enable_seqscan = on
SET enable_indexscan = on
SET min_parallel_table_scan_size FROM CURRENT
SET parallel_setup_cost FROM CURRENT
AS $$
DECLARE
    candidates bigint := greatest(minimum, ceil(per_row * k));
    total double precision;
    matching double precision;
    cost double precision := 0;
    is_counted boolean := false;
    images text;
    earlier text[];
    hits vecsearch.hit[];
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE invalid_parameter_value USING MESSAGE =
            format('k is %s. Give 1 or more.', coalesce(CAST(k AS text), 'NULL'));
    END IF;
    IF image IS NULL AND embedding IS NULL THEN
        RETURN;
    END IF;
    -- The catalogue is first, so that this body is read as it is written; then the caller's own
    -- schemas, so that a condition names what it would name in the caller's session.
    condition := nullif(btrim(condition), '');
    PERFORM set_config('search_path',
        concat_ws(', ', 'pg_catalog', nullif(path, ''), 'vecsearch, PGVECTOR'), true);
    IF condition IS NOT NULL THEN
        SELECT format('FROM %s AS %I', collection, relname) INTO images
        FROM pg_class WHERE oid = collection;
        BEGIN
            -- Without parentheses around it, so that it cannot close them.
            SELECT e.rows, e.cost INTO matching, cost
            FROM vecsearch_internal.estimate(format(E'SELECT %s WHERE\n%s', images, condition)) AS e;
        EXCEPTION WHEN syntax_error_or_access_rule_violation THEN
            RAISE EXCEPTION USING
                ERRCODE = SQLSTATE,
                MESSAGE = format('The condition %s cannot be used: %s.', condition, SQLERRM),
                HINT = 'Write what would follow WHERE, about columns of the collection. '
                    'The distance is known only outside: … FROM images_search(…) WHERE distance < 0.5';
        END;
    END IF;
    -- Of a table in shards, the planner here knows next to nothing.
    IF IS_DISTRIBUTED THEN
        PERFORM set_config('citus.propagate_set_commands', 'local', true);
        SELECT format('FROM %s AS %I', collection, relname) INTO images
        FROM pg_class WHERE oid = collection;
        EXECUTE format(E'SELECT count(*), count(*) FILTER (WHERE (\n%s\n)) %s',
            coalesce(condition, 'true'), images)
        INTO total, matching;
        cost := 0;
        is_counted := true;
    ELSE
        SELECT reltuples INTO total FROM pg_class WHERE oid = collection;
        matching := coalesce(matching, total);
    END IF;
    IF indexed IS NOT NULL THEN
        -- Of some conditions the planner knows nothing, so where that may be dear, try a sample.
        IF condition IS NOT NULL AND NOT is_counted AND 1000 <
            least(cost + row_cost * matching, 15 * candidates * total / greatest(matching, 1))
        THEN
            EXECUTE format(
                E'SELECT count(*) %s TABLESAMPLE SYSTEM (%s) REPEATABLE (0) WHERE (\n%s\n)',
                images, least(100, 100000 / total), condition)
            INTO matching;
            matching := total * (matching + 0.5) / (least(1000, total) + 1);
        END IF;
        -- Compare every row that matches, or visit nodes of the graph until enough of them match?
        -- Both in the planner's units of cost, of which a visit takes 15.
        IF cost + row_cost * matching > 15 * candidates * total / greatest(matching, 1) THEN
            -- Loads pgvector, whose settings follow. They are no SET clauses of this function,
            -- because a role may give a function only settings that its session knows.
            PERFORM CAST('[0]' AS PGVECTOR.halfvec);
            earlier := ARRAY[current_setting('hnsw.iterative_scan'),
                current_setting('hnsw.max_scan_tuples'),
                current_setting('hnsw.scan_mem_multiplier'), current_setting('hnsw.ef_search')];
            PERFORM vecsearch_internal.set_local('hnsw.iterative_scan', 'relaxed_order'),
                vecsearch_internal.set_local('hnsw.max_scan_tuples', '2147483647'),
                vecsearch_internal.set_local('hnsw.scan_mem_multiplier', '1000'),
                vecsearch_internal.set_local('hnsw.ef_search',
                    CAST(CAST(least(MOST_EF, greatest(LEAST_EF, 3 * k, candidates)) AS integer) AS text)),
                -- So that the planner takes the index.
                vecsearch_internal.set_local('enable_sort', 'off');
            EXECUTE concat('SELECT array_agg(CAST(ROW(h.*) AS vecsearch.hit)) FROM (',
                indexed[1], coalesce(condition, 'true'), indexed[2], ') AS h')
            INTO hits USING image, k, candidates, embedding;
            PERFORM vecsearch_internal.set_local('enable_sort', 'on'),
                vecsearch_internal.set_local('hnsw.iterative_scan', earlier[1]),
                vecsearch_internal.set_local('hnsw.max_scan_tuples', earlier[2]),
                vecsearch_internal.set_local('hnsw.scan_mem_multiplier', earlier[3]),
                vecsearch_internal.set_local('hnsw.ef_search', earlier[4]);
            IF cardinality(hits) = k THEN
                RETURN QUERY SELECT * FROM unnest(hits);
                RETURN;
            END IF;
        END IF;
    END IF;
    PERFORM vecsearch_internal.set_local('enable_indexscan', 'off');
    IF matching > 10000 THEN
        PERFORM vecsearch_internal.set_local('min_parallel_table_scan_size', '0'),
            vecsearch_internal.set_local('parallel_setup_cost', '0');
    END IF;
    RETURN QUERY EXECUTE concat(exact[1], coalesce(condition, 'true'), exact[2])
    USING image, k, candidates, embedding;
    IF NOT FOUND AND image IS NOT NULL THEN
        PERFORM vecsearch_internal.embedding(collection, image);
        EXECUTE format('SELECT count(*) FROM %s WHERE id = $1', vectors) INTO total USING image;
        IF total = 0 THEN
            RAISE no_data_found USING
                MESSAGE = format('Image %s has no compact vector yet.', image),
                HINT = 'Run: vecsearch index create --method compact';
        END IF;
    END IF;
END $$;
