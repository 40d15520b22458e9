import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Batch } from './verifiers/serve-verifier.ts'

/** Third-party verifiers, each in its own process, which know Assay only by an issuer and its JWKS. */

export interface Verifier {
  name: string
  /** The reason why each token is refused, in order; '' if it is accepted. */
  verify(batch: Batch): Promise<string[]>
  stop(): Promise<void>
}

interface Program {
  name: string
  file: string
  words?: string[]
}

const IN_NODE: Program[] = [
  { name: 'jose createRemoteJWKSet', file: 'jose.ts' },
  { name: 'express-oauth2-jwt-bearer', file: 'express.js' },
  { name: 'oauth4webapi, discovery by oauth2', file: 'oauth4webapi.ts', words: ['oauth2'] },
  { name: 'oauth4webapi, discovery by oidc', file: 'oauth4webapi.ts', words: ['oidc'] },
  { name: 'openid-client with jose', file: 'openid-client.ts' },
]
const PYJWT = 'PyJWT PyJWKClient'

/** Debian's Python, which has Debian's modules. */
export const PYTHON = '/usr/bin/python3'
const [faketime] = globSync('/usr/lib/*/faketime/libfaketime.so.1')

/** Whether PyJWT can run here. Its absence is an error in CI, where nothing is skipped. */
function hasPyJwt(): boolean {
  const found = faketime && spawnSync(PYTHON, ['-c', 'import jwt, cryptography']).status === 0
  if (!found && process.env.CI) throw new Error('python3-jwt or libfaketime is missing, and CI skips nothing')
  return Boolean(found)
}

export const VERIFIERS = [...IN_NODE.map(({ name }) => name), ...(hasPyJwt() ? [PYJWT] : [])]

export const startVerifiers = (): Verifier[] => [
  ...IN_NODE.map(startInNode),
  ...(VERIFIERS.includes(PYJWT) ? [startPyJwt()] : []),
]

const programOf = (file: string) => join(import.meta.dirname, 'verifiers', file)

function startInNode({ name, file, words = [] }: Program): Verifier {
  const child = spawn(process.execPath, [programOf(file), ...words], {
    env: { PATH: process.env.PATH },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  return overLines(name, child)
}

function startPyJwt(): Verifier {
  const folder = mkdtempSync(join(tmpdir(), 'assay-pyjwt-'))
  const timeFile = join(folder, 'time')
  writeFileSync(timeFile, '+0s')
  const child = spawn(PYTHON, [programOf('pyjwt.py')], {
    env: { LD_PRELOAD: faketime, FAKETIME_TIMESTAMP_FILE: timeFile, FAKETIME_NO_CACHE: '1' },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const verifier = overLines(PYJWT, child)
  const stop = async () => {
    await verifier.stop()
    rmSync(folder, { recursive: true })
  }
  return { ...verifier, stop }
}

const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

/** Sends each batch to the program as a line of JSON and reads a line back, one batch at a time. */
function overLines(name: string, child: ChildProcess): Verifier {
  const waiting: PromiseWithResolvers<string[]>[] = []
  const closed = once(child, 'close')
  living.add(child)
  child.stdin!.on('error', () => {}) // The program has ended, which 'close' reports too.
  child.on('close', () => {
    living.delete(child)
    for (const { reject } of waiting.splice(0)) reject(new Error(`${name} has ended`))
  })
  createInterface({ input: child.stdout! }).on('line', line => waiting.shift()!.resolve(JSON.parse(line)))
  async function verify(batch: Batch) {
    if (!living.has(child)) throw new Error(`${name} has ended`)
    const answer = Promise.withResolvers<string[]>()
    waiting.push(answer)
    child.stdin!.write(`${JSON.stringify(batch)}\n`)
    return answer.promise
  }
  async function stop() {
    child.stdin!.end()
    await closed
  }
  return { name, verify, stop }
}
