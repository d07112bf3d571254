"""clickhouse-connect against the front. Arguments: host, port, user, password, database."""

import datetime
import decimal
import sys
import threading
import time
import uuid

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

host, port, user, password, database = sys.argv[1:6]


def connect(**more):
    options = {"host": host, "port": int(port), "username": user, "password": password}
    return clickhouse_connect.get_client(**{**options, **more})


def rows_there_and_back(client):
    client.command(
        """CREATE TABLE types (
            id UInt64, name String, kind LowCardinality(String), maybe Nullable(Int32),
            at DateTime64(9, 'UTC'), day Date, tags Map(String, String), list Array(Int64),
            fixed FixedString(4), price Decimal(18, 4), flag Bool, key UUID,
            pair Tuple(a Int8, b String), state Enum8('on' = 1, 'off' = 2)
        ) ENGINE = MergeTree ORDER BY id"""
    )
    key = uuid.uuid4()
    at = datetime.datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=datetime.timezone.utc)
    columns = ["id", "name", "kind", "maybe", "at", "day", "tags", "list", "fixed", "price",
               "flag", "key", "pair", "state"]
    rows = [
        [i, f"näme\n\n; {i}", "kind", None if i % 2 else i, at, at.date(), {"a": "b"}, [1, -2],
         b"abcd", decimal.Decimal("1.2345"), True, key, (1, "x"), "off"]
        for i in range(20_000)
    ]
    summary = client.insert("types", rows, column_names=columns)
    assert summary.written_rows == 20_000, summary.summary
    result = client.query("SELECT * FROM types ORDER BY id")
    assert list(result.column_names) == columns
    assert len(result.result_rows) == 20_000
    first = dict(zip(columns, result.result_rows[0]))
    assert first["name"] == "näme\n\n; 0" and first["maybe"] == 0, first
    assert first["tags"] == {"a": "b"} and first["list"] == [1, -2], first
    assert first["key"] == key and first["price"] == decimal.Decimal("1.2345"), first
    assert first["state"] == "off" and first["flag"] is True, first
    assert result.result_rows[1][3] is None
    total = 0
    with client.query_row_block_stream("SELECT id FROM types") as blocks:
        for block in blocks:
            total += len(block)
    assert total == 20_000, total


def parameters(client):
    text = "it's\ta \\ test\n"
    query = "SELECT {x:String} AS x, {n:Int32} + 1, {l:Array(String)}"
    result = client.query(query, parameters={"x": text, "n": 41, "l": ["a", "b'c"]})
    assert list(result.result_rows[0]) == [text, 42, ["a", "b'c"]], result.result_rows
    assert client.query("SELECT %s", parameters=["y"]).result_rows[0][0] == "y"
    settings = {"max_threads": 3}
    assert client.command("SELECT getSetting('max_threads')", settings=settings) == 3
    assert client.command("SELECT getSetting('max_threads')") != 3


def compression():
    for compress in [True, False, "gzip", "zstd", "lz4"]:
        client = connect(database=database, compress=compress)
        count = client.query("SELECT number FROM numbers(300000)").result_columns
        assert len(count[0]) == 300_000, compress
        client.command("CREATE OR REPLACE TABLE c (n UInt64) ENGINE = Memory")
        client.insert("c", [[n] for n in range(1000)], column_names=["n"])
        assert client.command("SELECT sum(n) FROM c") == 499500, compress
        client.close()


def errors(client):
    for sql, code in [
        ("SELECT * FROM nowhere", "code: 60"),
        ("SELEC 1", "code: 62"),
        ("SELECT throwIf(1)", "code: 395"),
    ]:
        try:
            client.query(sql)
        except DatabaseError as error:
            assert code in str(error).lower(), (sql, error)
        else:
            raise AssertionError(sql)
    # After the first rows have gone out.
    try:
        client.query("SELECT throwIf(number = 2000000) FROM numbers(3000000)")
    except (DatabaseError, OperationalError) as error:
        assert "throwif" in str(error).lower() or "395" in str(error), error
    else:
        raise AssertionError("a late error went unseen")


def passwords():
    for more in [{"password": "wrong"}, {"username": "nobody"}]:
        try:
            connect(**more)
        except DatabaseError as error:
            assert "516" in str(error), error
        else:
            raise AssertionError(more)


def cancelled(client):
    def ask():
        slow = connect(database=database, send_receive_timeout=1)
        try:
            slow.query("SELECT 'from_python', count() FROM system.numbers WHERE NOT ignore(number)")
        except Exception:  # noqa: BLE001 - any way it ends is fine
            pass
        slow.close()

    thread = threading.Thread(target=ask)
    thread.start()
    running = (
        "SELECT count() FROM system.processes WHERE query LIKE '%from_python%' "
        "AND query NOT LIKE '%system.processes%'"
    )
    wait(lambda: client.command(running) >= 1, "the query never ran")
    thread.join()
    wait(lambda: client.command(running) == 0, "the query outlives its client")


def wait(condition, what):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def main():
    root = connect()
    assert root.server_tz is not None
    root.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    client = connect(database=database)
    rows_there_and_back(client)
    parameters(client)
    compression()
    errors(client)
    passwords()
    cancelled(client)
    print("ok")


main()
