import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { pathOf, withAddresses } from '../../test/support/gateway.ts'
import { freePort } from '../../test/support/port.ts'
import { until } from '../../test/support/process.ts'
import { findProgram } from '../../test/support/program.ts'
import { findBinaries, identity } from '../postgres.ts'
import { type Dcs, Member, PASSWORD } from './member.ts'

/** A Patroni cluster on the loopback interface: etcd, three members, and HAProxy with the shipped file in front of them. */

const HAPROXY = join(import.meta.dirname, '../../deploy/patroni/haproxy.cfg')
const MEMBERS = 3
/** Deadlines on a busy machine (ms): from the start of etcd to a primary with two standbys, and for a failover. */
const START_DEADLINE_MS = 90_000
export const FAILOVER_DEADLINE_MS = 60_000

const run = promisify(execFile)

/** The Debian packages of missing programs. In CI a missing program is an error. */
export function findMissingPackages(): string[] {
  const packages = { patroni: 'patroni', etcd: 'etcd-server', haproxy: 'haproxy' }
  const missing = Object.entries(packages).filter(([program]) => findProgram(program) === undefined)
  return [...missing.map(([, name]) => name), ...(findBinaries() === undefined ? ['postgresql'] : [])]
}

export type PatroniCluster = Awaited<ReturnType<typeof startCluster>>

export async function startCluster(dcs: Dcs) {
  const folder = makeFolder()
  const etcd = await startEtcd(folder.path)
  const hosts = [`127.0.0.1:${etcd.port}`]
  const options = { folder: folder.path, dcs, hosts, identity: identity() }
  const members: Member[] = []
  for (let number = 1; number <= MEMBERS; number++) members.push(await Member.start(number, options))
  const haproxy = await startHaproxy(folder.path, members)
  const url = `postgres://postgres:${PASSWORD}@127.0.0.1:${haproxy.port}/postgres`

  async function query(statement: string): Promise<string> {
    const { stdout } = await run('psql', ['-d', url, '-XAtqc', statement], {
      env: { PATH: process.env.PATH, PGCONNECT_TIMEOUT: '2' },
    })
    return stdout.trim()
  }

  async function isWhole(): Promise<boolean> {
    const states = await query('select sync_state from pg_stat_replication').catch(() => '')
    const standbys = states.split('\n')
    return standbys.length === MEMBERS - 1 && standbys.includes('sync')
  }

  /** The member that holds the leader key and runs as the primary. Undefined without such a member or its answer. */
  async function findLeader(): Promise<Member | undefined> {
    const leads = await Promise.all(members.map(member => member.isPrimary()))
    return members[leads.indexOf(true)]
  }

  /**
   * HAProxy balances over the members that it considers up, which after its start is all of them, so one answer proves nothing.
   */
  async function leadsTo(member: Member): Promise<boolean> {
    for (let round = 0; round < MEMBERS; round++) {
      const port = await query('show port').catch(() => '')
      if (port !== String(member.port)) return false
    }
    return true
  }

  /** Resolves with the leader, other than `old`, once HAProxy routes to it. */
  async function settleLeader(old?: Member): Promise<Member> {
    let leader: Member | undefined
    const isSettled = async () => {
      leader = await findLeader()
      return leader !== undefined && leader !== old && leadsTo(leader)
    }
    await until('HAProxy leads to a primary', isSettled, FAILOVER_DEADLINE_MS)
    return leader!
  }

  const cluster = {
    url,
    members,
    etcd,
    query,
    findLeader,
    settleLeader,
    /** Resolves once there is a primary with all its standbys, one of them synchronous. */
    async settle() {
      await settleLeader()
      await until('the cluster is whole', isWhole, START_DEADLINE_MS)
    },
    async stop() {
      await haproxy.stop()
      await Promise.all(members.map(member => member.stop()))
      await etcd.kill()
      folder.remove()
    },
  }

  await cluster.settle()
  return cluster
}

/** Postgres does not run as root, so its user needs access to the folder. */
function makeFolder() {
  const path = mkdtempSync(join(tmpdir(), 'assay-patroni-'))
  chmodSync(path, 0o755)
  const removeNow = () => rmSync(path, { recursive: true, force: true })
  process.on('exit', removeNow)
  function remove() {
    process.off('exit', removeNow)
    removeNow()
  }
  return { path, remove }
}

/** An etcd that can be killed and restarted with its data. */
async function startEtcd(folder: string) {
  const [port, peerPort] = [await freePort(), await freePort()]
  const [url, peerUrl] = [port, peerPort].map(port => `http://127.0.0.1:${port}`)
  const args = {
    'data-dir': join(folder, 'etcd'),
    'listen-client-urls': url,
    'advertise-client-urls': url,
    'listen-peer-urls': peerUrl,
    'initial-advertise-peer-urls': peerUrl,
    'initial-cluster': `default=${peerUrl}`,
    'enable-v2': 'true',
    logger: 'zap',
    'log-level': 'error',
  }
  const words = Object.entries(args).map(([name, value]) => `--${name}=${value}`)
  const launch = () => startProgram('etcd', words)
  let child = launch()
  const answers = () =>
    fetch(`${url}/health`).then(
      ({ ok }) => ok,
      () => false,
    )
  await until('etcd answers', answers, START_DEADLINE_MS)
  return {
    port,
    kill: () => kill(child),
    async restart() {
      child = launch()
      await until('etcd answers', answers, START_DEADLINE_MS)
    },
  }
}

/** HAProxy with the shipped file, in which only addresses are changed. */
async function startHaproxy(folder: string, members: Member[]) {
  const port = await freePort()
  const servers = members.flatMap(({ name, port, apiPort }, index) => [
    [`${name} 10.0.0.1${index + 1}:5432 check port 8008`, `${name} 127.0.0.1:${port} check port ${apiPort}`],
  ])
  const changes = { 'bind 127.0.0.1:5432': `bind 127.0.0.1:${port}`, ...Object.fromEntries(servers) }
  const file = join(folder, 'haproxy.cfg')
  writeFileSync(file, withAddresses(readFileSync(HAPROXY, 'utf8'), changes))
  const child = startProgram('haproxy', ['-db', '-f', file])
  return { port, stop: () => kill(child) }
}

/** Starts a program that is killed when this process exits. */
function startProgram(name: string, args: string[]): ChildProcess {
  const child = spawn(pathOf(name), args, { stdio: 'ignore' })
  const killNow = () => child.kill('SIGKILL')
  process.on('exit', killNow)
  child.once('exit', () => process.off('exit', killNow))
  return child
}

async function kill(child: ChildProcess) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}
