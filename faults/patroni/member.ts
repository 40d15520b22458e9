import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { pathOf } from '../../test/support/gateway.ts'
import { freePort } from '../../test/support/port.ts'
import { until } from '../../test/support/process.ts'
import { findBinaries, type Identity } from '../postgres.ts'
import { childrenOf, hasEnded, signal } from '../processes.ts'

const SHIPPED = join(import.meta.dirname, '../../deploy/patroni/patroni.yaml')

export const PASSWORD = 'password-of-a-drill'
/** A REST call that is not answered in this time counts as refused (ms). */
const API_DEADLINE_MS = 1_000
const END_DEADLINE_MS = 30_000

/** Shorter than in the shipped file, so that a drill takes seconds. A failover waits for `ttl` (s). */
const TIMES = { ttl: 8, loop_wait: 1, retry_timeout: 3 }

/** The etcd API that Patroni uses, v2 or v3. */
export type Dcs = 'etcd' | 'etcd3'

export interface MemberOptions {
  folder: string
  dcs: Dcs
  /** Addresses of etcd. */
  hosts: string[]
  identity: Identity
}

/** One Patroni with its Postgres, as on a machine of its own: both are killed, frozen and resumed together. */
export class Member {
  readonly name: string
  readonly port: number
  readonly apiPort: number
  readonly #options: MemberOptions
  readonly #folder: string
  #child: ChildProcess

  static async start(number: number, options: MemberOptions): Promise<Member> {
    const member = new Member(number, options, await freePort(), await freePort())
    // The first member creates the cluster; the others copy it.
    await until(`${member.name} runs`, () => member.isRunning())
    return member
  }

  private constructor(number: number, options: MemberOptions, port: number, apiPort: number) {
    this.name = `pg${number}`
    this.port = port
    this.apiPort = apiPort
    this.#options = options
    this.#folder = join(options.folder, this.name)
    this.#makeFolder()
    this.#child = this.#launch()
    // Runs before the folder is removed, because pg_ctl finds the server through it.
    process.prependListener('exit', this.#endNow)
  }

  #makeFolder() {
    mkdirSync(this.#folder)
    writeFileSync(join(this.#folder, 'patroni.yaml'), JSON.stringify(this.#config()))
    const { uid, gid } = this.#options.identity
    if (uid !== undefined)
      for (const name of ['.', 'patroni.yaml']) chownSync(join(this.#folder, name), uid, gid!)
  }

  /** The shipped file with other addresses, folders and passwords, as JSON, which is valid YAML. */
  #config() {
    const shipped = parse(readFileSync(SHIPPED, 'utf8'))
    const { etcd: _, bootstrap, postgresql, ...rest } = shipped
    const [api, address] = [`127.0.0.1:${this.apiPort}`, `127.0.0.1:${this.port}`]
    const { dcs, hosts } = this.#options
    return {
      ...rest,
      name: this.name,
      restapi: { listen: api, connect_address: api },
      [dcs]: { hosts },
      bootstrap: { ...bootstrap, dcs: { ...bootstrap.dcs, ...TIMES } },
      postgresql: {
        ...postgresql,
        listen: address,
        connect_address: address,
        bin_dir: findBinaries(),
        data_dir: this.#data,
        authentication: withPasswords(postgresql.authentication),
        pg_hba: postgresql.pg_hba.map((line: string) => line.replace('10.0.0.0/24', '127.0.0.1/32')),
        parameters: { unix_socket_directories: this.#folder },
      },
      watchdog: { mode: 'off' },
    }
  }

  get #data() {
    return join(this.#folder, 'data')
  }

  #launch(): ChildProcess {
    const log = openSync(join(this.#folder, 'log'), 'a')
    return spawn(pathOf('patroni'), [join(this.#folder, 'patroni.yaml')], {
      ...this.#options.identity,
      cwd: this.#folder,
      env: { PATH: process.env.PATH, LC_ALL: 'C.UTF-8' },
      stdio: ['ignore', log, log],
    })
  }

  /** Whether its Patroni reports it as the primary that holds the leader key. */
  isPrimary = () => this.#answers('/primary')
  isRunning = () => this.#answers('/health')

  async #answers(path: string): Promise<boolean> {
    const url = `http://127.0.0.1:${this.apiPort}${path}`
    const signal = AbortSignal.timeout(API_DEADLINE_MS)
    return fetch(url, { signal }).then(
      ({ ok }) => ok,
      () => false,
    )
  }

  /** Asks this member, the leader, to hand over to another one. */
  async switchOverTo(candidate: Member) {
    const response = await fetch(`http://127.0.0.1:${this.apiPort}/switchover`, {
      method: 'POST',
      body: JSON.stringify({ leader: this.name, candidate: candidate.name }),
    })
    if (!response.ok) throw new Error(`the switchover failed: ${response.status} ${await response.text()}`)
  }

  /** The pid of the current or most recent postmaster. */
  #postmaster(): number | undefined {
    try {
      return Number(readFileSync(join(this.#data, 'postmaster.pid'), 'utf8').split('\n')[0])
    } catch {
      return undefined
    }
  }

  /** Patroni comes first, because it would treat a frozen Postgres as dead. */
  #pids(): number[] {
    const parents = [this.#child.pid!, this.#postmaster()].filter(pid => pid !== undefined)
    return parents.flatMap(pid => [pid, ...childrenOf(pid)])
  }

  /** Simulates a paused virtual machine. */
  freeze() {
    for (const pid of this.#pids()) signal(pid, 'SIGSTOP')
  }

  resume() {
    for (const pid of this.#pids().reverse()) signal(pid, 'SIGCONT')
  }

  /** Simulates a power loss. */
  async kill() {
    this.freeze()
    const pids = this.#pids()
    for (const pid of pids) signal(pid, 'SIGKILL')
    await until(`${this.name} has ended`, () => pids.every(hasEnded), END_DEADLINE_MS)
    // Without an init that reaps orphans, the old postmaster stays a zombie, and a new one would take it for a running server.
    rmSync(join(this.#data, 'postmaster.pid'), { force: true })
    rmSync(join(this.#folder, `.s.PGSQL.${this.port}.lock`), { force: true })
  }

  restart() {
    this.#child = this.#launch()
  }

  async stop() {
    process.off('exit', this.#endNow)
    this.resume()
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    const late = setTimeout(this.#endNow, END_DEADLINE_MS)
    await ended
    clearTimeout(late)
  }

  /** Synchronous, because it runs when this process exits: no child process may outlive it. */
  readonly #endNow = () => {
    try {
      this.#child.kill('SIGKILL')
      this.resume()
      const stop = ['-D', this.#data, '-m', 'immediate', 'stop']
      execFileSync(join(findBinaries()!, 'pg_ctl'), stop, { ...this.#options.identity, stdio: 'ignore' })
    } catch {} // It has already ended.
  }
}

const withPasswords = (users: Record<string, { username: string }>) =>
  Object.fromEntries(
    Object.entries(users).map(([role, { username }]) => [role, { username, password: PASSWORD }]),
  )
