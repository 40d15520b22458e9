import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import { hashPassword, verifyPassword } from '../../server/crypto/password.ts'
import { MAX_PASSWORD_THREADS, PasswordThreads } from '../../server/crypto/password-threads.ts'
import { watchHashes } from '../support/hasher.ts'

const times = <Made>(n: number, make: () => Made) => Array.from({ length: n }, make)

/** The nice values of this process's threads (proc_pid_stat(5), field 19). */
const niceValues = () =>
  readdirSync('/proc/self/task').map(thread => {
    const afterName = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8').split(') ')[1]!
    return Number(afterName.split(' ')[16])
  })

test.runIf(process.platform === 'linux')(
  'the hashing threads have a lower priority, and no other thread has',
  async () => {
    await hashPassword('correct horse')
    const own = niceValues().filter(nice => nice !== 0)
    expect(own).toEqual([10])
  },
)

test('there are no more threads than cores, whatever the load, and each answers its own jobs', async () => {
  const threads = new Set<Worker>()
  const hashes = watchHashes(worker => threads.add(worker))
  const passwords = times(3 * MAX_PASSWORD_THREADS, () => String(Math.random()))
  const made = await Promise.all(passwords.map(password => hashPassword(password)))
  hashes.stop()
  expect(threads.size).toBe(MAX_PASSWORD_THREADS)
  const matched = await Promise.all(made.map((hash, i) => verifyPassword(hash, passwords[i]!)))
  expect(matched).toEqual(passwords.map(() => true))
})

test('the event loop keeps running while a password is hashed', async () => {
  let turns = 0
  let hashing = true
  const hashed = hashPassword('correct horse').finally(() => {
    hashing = false
  })
  while (hashing) await new Promise(resolve => setImmediate(resolve, turns++))
  await hashed
  expect(turns).toBeGreaterThan(100)
})

test('a malformed stored hash fails only its own job, and the next job is done', async () => {
  await expect(verifyPassword('no hash', 'correct horse')).rejects.toThrow()
  expect(await verifyPassword(await hashPassword('correct horse'), 'correct horse')).toBe(true)
})

test('if a thread ends, its jobs fail and the next job gets a new thread', async () => {
  const threads = new PasswordThreads()
  const job = { password: 'correct horse', options: {} }
  const workers: Worker[] = []
  const hashes = watchHashes(worker => void workers.push(worker))
  const failing = threads.run(job)
  await workers[0]!.terminate()
  await expect(failing).rejects.toThrow('a password hashing thread has exited')
  expect(await threads.run(job)).toMatch(/^\$argon2id\$/)
  hashes.stop()
  expect(workers[1]).not.toBe(workers[0])
})

const HASH_ONCE = `
  import { hashPassword } from '${new URL('../../server/crypto/password.ts', import.meta.url).href}'
  console.log(await hashPassword('correct horse'))`
const HASHING = [process.execPath, '--input-type=module', '-e', HASH_ONCE] as const

const run = promisify(execFile)

test('a process that has hashed a password ends by itself', async () => {
  const { stdout } = await run(HASHING[0], HASHING.slice(1))
  expect(stdout).toMatch(/^\$argon2id\$/)
})

test.runIf(process.platform === 'linux')(
  'a sandbox that forbids setpriority(2) keeps nobody out',
  async () => {
    const sandbox = new URL('../support/without-setpriority.py', import.meta.url).pathname
    const denied = 'import("node:os").then(({ setPriority }) => setPriority(0, 10))'
    await expect(run('python3', [sandbox, process.execPath, '-e', denied])).rejects.toThrow('EPERM')
    const { stdout } = await run('python3', [sandbox, ...HASHING])
    expect(stdout).toMatch(/^\$argon2id\$/)
  },
)
