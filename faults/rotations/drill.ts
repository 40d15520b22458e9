import { Worker } from 'node:worker_threads'
import { until } from '../../test/support/process.ts'
import { makeStage, type Stage } from '../stage.ts'
import { BOARD, type Findings, type Plan } from './board.ts'

const REPLICAS = 3
const CONNECTIONS = 32
const OTHERS = 4
/** The drill fails if the expected number of answers is not reached by then (ms). */
const PATIENCE = 120_000

export interface Outcome {
  findings: Findings
  /** Number of versions of the rotated secrets at the end, by use. */
  versions: { access: number; refresh: number }
  /** In milliseconds. */
  lasted: number
}

/**
 * Rotates both secrets of one customer the given number of times, while connections verify, refresh and issue for it and for
 * others.
 */
export async function drillRotations(
  serverUrl: string,
  rotations: number,
  requests: number,
): Promise<Outcome> {
  const began = performance.now()
  const stage = await makeStage({ serverUrl, replicas: REPLICAS, settings: SETTINGS })
  try {
    const [rotated, ...others] = await Promise.all(Array.from({ length: 1 + OTHERS }, () => signUp(stage)))
    const load = startLoad(stage, [rotated!.apiKey, ...others.map(({ apiKey }) => apiKey)])
    for (let rotation = 0; rotation < rotations; rotation++) {
      const share = (part: number) => Math.round(((rotation + part) / rotations) * requests)
      // Half of each round has no rotation, so that other work on the machine affects both halves equally.
      await load.answered(share(0.5))
      load.isRotating(true)
      await rotate(stage, rotated!.access, rotation + 2)
      await load.answered(share(1))
      load.isRotating(false)
    }
    const findings = await load.stop()
    return { findings, versions: await versionsOf(stage, rotated!.access), lasted: performance.now() - began }
  } finally {
    await stage.stop()
  }
}

/**
 * Tokens outlive the drill, so none fails because it expired. The bound is long enough that a busy replica is not mistaken for
 * one that lost the database.
 */
const SETTINGS = { ACCESS_TOKEN_TTL: '24h', MAX_ACCESS_TOKEN_TTL: '24h', MAX_STALENESS: '5s' }

function startLoad({ replicas }: Stage, apiKeys: Plan['apiKeys']) {
  const board = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT * Object.keys(BOARD).length)
  const shared = new Int32Array(board)
  const plan: Plan = {
    ports: replicas.map(({ process }) => process.port),
    connections: CONNECTIONS,
    apiKeys,
    board,
  }
  const worker = new Worker(new URL('./load.ts', import.meta.url), { workerData: plan })
  const ended = new Promise<Findings>((resolve, reject) =>
    worker.once('message', resolve).once('error', reject),
  )
  return {
    answered: (count: number) =>
      until(`${count} requests`, () => Atomics.load(shared, BOARD.requests) >= count, PATIENCE),
    isRotating(is: boolean) {
      Atomics.store(shared, BOARD.rotating, is ? 1 : 0)
    },
    stop() {
      Atomics.store(shared, BOARD.stop, 1)
      return ended
    },
  }
}

async function call({ replicas }: Stage, replica: number, path: string, bearer?: string, body?: object) {
  const response = await fetch(replicas[replica]!.process.url + path, {
    method: body ? 'POST' : 'GET',
    headers: {
      ...(bearer !== undefined && { Authorization: `Bearer ${bearer}` }),
      ...(body && { 'Content-Type': 'application/json' }),
    },
    ...(body && { body: JSON.stringify(body) }),
  })
  // biome-ignore lint/suspicious/noExplicitAny: the body of any route.
  const json = (await response.json()) as any
  if (!response.ok) throw new Error(`${path} answered ${response.status} ${json.error}`)
  return json
}

async function signUp(stage: Stage) {
  const email = `${crypto.randomUUID()}@example.com`
  const json = await call(stage, 0, '/api/auth/signup', undefined, { email, password: 'a long password' })
  return { apiKey: json.api_key as string, access: json.access_token as string }
}

/** Uses the account token of the first version, at each replica in turn. */
async function rotate(stage: Stage, access: string, version: number) {
  const { versions } = await call(stage, version % REPLICAS, '/api/secrets/rotate', access, { use: 'both' })
  const made = versions.map((made: { use: string; version: number }) => `${made.use} ${made.version}`)
  if (made.join() !== `access ${version},refresh ${version}`)
    throw new Error(`the rotation created ${made}, not version ${version}`)
}

async function versionsOf(stage: Stage, access: string): Promise<Outcome['versions']> {
  const { secrets } = await call(stage, 0, '/api/secrets', access)
  const count = (wanted: string) => secrets.filter(({ use }: { use: string }) => use === wanted).length
  return { access: count('access'), refresh: count('refresh') }
}
