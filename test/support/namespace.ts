import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { childrenOf } from '../../faults/processes.ts'

/** Only root may create one. */
export const mayMakeNamespace = () => process.getuid?.() === 0

/**
 * A machine within the machine, like a container: it has its own network, mount table and process table. Programs in it
 * may use any port, path and host name, and end with it. `prepare` is a shell script that sets it up.
 */
export async function makeNamespace(prepare: string) {
  const isolated = ['--mount', '--net', '--pid', '--fork', '--mount-proc', '--kill-child']
  const script = `set -e; ip link set lo up; ${prepare}\n echo ready; exec sleep infinity`
  const outside = spawn('unshare', [...isolated, 'sh', '-c', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const end = () => outside.kill('SIGKILL')
  process.on('exit', end)
  const [line] = await Promise.race([once(createInterface(outside.stdout), 'line'), once(outside, 'exit')])
  if (line !== 'ready') throw new Error('the namespace could not be made')
  const [first] = childrenOf(outside.pid!)
  const entered = (user: number | undefined, words: string[]) => [
    ...['--target', String(first), '--mount', '--net', '--pid', '--'],
    ...(user === undefined ? [] : unprivileged(user)),
    ...words,
  ]

  return {
    /** Starts a program in it. With `user`, the program runs as that user without capabilities. */
    start: (words: string[], { user, env = {}, cwd }: Ways = {}): ChildProcess =>
      spawn('nsenter', entered(user, cwd ? ['env', '-C', cwd, ...words] : words), {
        env: { PATH: process.env.PATH, ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    /** Runs a program until it ends and returns its output. Throws if it fails. */
    run: (words: string[], { user, env = {} }: Ways = {}): string =>
      execFileSync('nsenter', entered(user, words), {
        env: { PATH: process.env.PATH, ...env },
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    async destroy() {
      process.off('exit', end)
      const exited = once(outside, 'exit')
      end()
      await exited
    },
  }
}

interface Ways {
  user?: number | undefined
  env?: Record<string, string>
  cwd?: string
}

/** As in compose.yaml: `cap_drop: [ALL]` and `no-new-privileges`. */
const unprivileged = (user: number) => [
  'setpriv',
  `--reuid=${user}`,
  `--regid=${user}`,
  '--clear-groups',
  '--inh-caps=-all',
  '--no-new-privs',
]
