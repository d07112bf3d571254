// @clickhouse/client against the front. Arguments: url, user, password, database.
import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { createClient } from '@clickhouse/client'

const [url, username, password, database] = process.argv.slice(2)
const connect = (more = {}) => createClient({ url, username, password, database, ...more })

async function rowsThereAndBack(client) {
  await client.command({
    query: `CREATE TABLE rows (id UInt64, name String, tags Map(String, String), list Array(Int32))
            ENGINE = MergeTree ORDER BY id`,
  })
  const rows = Array.from({ length: 20000 }, (_, id) => ({
    id: String(id), name: `näme\n\n; ${id}`, tags: { a: 'b' }, list: [1, -2],
  }))
  await client.insert({ table: 'rows', values: rows.slice(0, 10000), format: 'JSONEachRow' })
  await client.insert({
    table: 'rows',
    values: Readable.from(rows.slice(10000), { objectMode: true }),
    format: 'JSONEachRow',
  })
  const all = await client.query({ query: 'SELECT * FROM rows ORDER BY id', format: 'JSONEachRow' })
  const got = (await all.json()).map((row) => ({ ...row, id: String(row.id) }))
  assert.deepEqual(got, rows)
  const one = await client.query({ query: 'SELECT count() AS c FROM rows', format: 'JSON' })
  const json = await one.json()
  assert.equal(Number(json.data[0].c), 20000)
  assert.equal(json.meta[0].type, 'UInt64')
  let streamed = 0
  const stream = await client.query({ query: 'SELECT id FROM rows', format: 'JSONCompactEachRow' })
  for await (const batch of stream.stream()) streamed += batch.length
  assert.equal(streamed, 20000)
}

async function parameters(client) {
  const query_params = { x: "it's\ta \\ test\n", n: 41, l: ['a', "b'c"] }
  const result = await client.query({
    query: 'SELECT {x:String} AS x, {n:Int32} + 1 AS n, {l:Array(String)} AS l',
    format: 'JSONEachRow',
    query_params,
    clickhouse_settings: { max_threads: 3 },
    query_id: 'from-node',
  })
  assert.equal(result.query_id, 'from-node')
  assert.deepEqual(await result.json(), [{ x: query_params.x, n: 42, l: query_params.l }])
}

async function compression() {
  const client = connect({ compression: { request: true, response: true } })
  await client.command({ query: 'CREATE TABLE packed (n UInt32) ENGINE = Memory' })
  const values = Array.from({ length: 5000 }, (_, n) => ({ n }))
  await client.insert({ table: 'packed', values, format: 'JSONEachRow' })
  const result = await client.query({ query: 'SELECT n FROM packed', format: 'JSONEachRow' })
  assert.equal((await result.json()).length, 5000)
  await client.close()
}

async function errors(client) {
  for (const [query, code, type] of [
    ['SELECT * FROM nowhere', '60', 'UNKNOWN_TABLE'],
    ['selec 1', '62', 'SYNTAX_ERROR'],
    ['SELECT throwIf(1)', '395', 'FUNCTION_THROW_IF_VALUE_IS_NON_ZERO'],
  ]) {
    await assert.rejects(client.query({ query }), (error) => {
      assert.equal(error.code, code)
      assert.equal(error.type, type)
      return true
    })
  }
  // After the first rows have gone out.
  const late = await client.query({
    query: 'SELECT throwIf(number = 2000000) FROM numbers(3000000)', format: 'JSONEachRow',
  })
  await assert.rejects(late.json())
}

async function passwords() {
  for (const more of [{ password: 'wrong' }, { username: 'nobody' }]) {
    const client = connect(more)
    await assert.rejects(client.query({ query: 'SELECT 1' }), (error) => error.code === '516')
    await client.close()
  }
}

async function sessions() {
  const client = connect({ session_id: 'from-node', max_open_connections: 1 })
  await client.command({ query: 'CREATE TEMPORARY TABLE t (a UInt8)' })
  await client.insert({ table: 't', values: [{ a: 1 }, { a: 2 }], format: 'JSONEachRow' })
  const sum = await client.query({ query: 'SELECT sum(a) AS s FROM t', format: 'JSONEachRow' })
  assert.equal(Number((await sum.json())[0].s), 3)
  await client.close()
}

async function cancelled(client) {
  const running = async () => {
    const result = await client.query({
      query: `SELECT count() AS c FROM system.processes WHERE query LIKE '%from_javascript%'
              AND query NOT LIKE '%system.processes%'`,
      format: 'JSONEachRow',
    })
    return Number((await result.json())[0].c)
  }
  const abort = new AbortController()
  const slow = client.query({
    query: "SELECT 'from_javascript', count() FROM system.numbers WHERE NOT ignore(number)",
    abort_signal: abort.signal,
  })
  slow.catch(() => {})
  await until(async () => (await running()) >= 1, 'the query never ran')
  abort.abort()
  await until(async () => (await running()) === 0, 'the query outlives its client')
}

async function until(condition, what) {
  const end = Date.now() + 20000
  while (!(await condition())) {
    assert.ok(Date.now() < end, what)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const root = connect({ database: 'default' })
assert.equal((await root.ping()).success, true)
await root.command({ query: `CREATE DATABASE IF NOT EXISTS ${database}` })
await root.close()
const client = connect()
await rowsThereAndBack(client)
await parameters(client)
await compression()
await errors(client)
await passwords()
await sessions()
await cancelled(client)
await client.close()
console.log('ok')
