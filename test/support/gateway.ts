import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { findProgram } from './program.ts'

/** A gateway as users run it: an installed program with the shipped files, in front of a backend. */
export interface Gateway {
  url: string
  port: number
  stop(): Promise<void>
}

/** Addresses, all on loopback. */
export interface Addresses {
  /** The ports of Assay's replicas. */
  assay: number[]
  backend: number
}

interface Program {
  name: string
  args: string[]
  /** The port where it will listen. */
  port: number
  /** Its own folder, which is deleted when the program has ended. */
  folder: string
  env?: Record<string, string>
}

const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

/** Starts the program; resolves once it accepts connections. */
export async function runGateway({ name, args, port, folder, env }: Program): Promise<Gateway> {
  const child = spawn(pathOf(name), args, {
    cwd: folder,
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  living.add(child)
  const stop = async () => {
    await end(child)
    living.delete(child)
    await rm(folder, { recursive: true })
  }
  const stderr = collect(child)
  await listening(child, port).catch(async cause => {
    await stop()
    throw new Error(`${name} did not start: ${stderr()}`, { cause })
  })
  return { url: `http://127.0.0.1:${port}`, port, stop }
}

export function pathOf(name: string): string {
  const path = findProgram(name)
  if (path === undefined) throw new Error(`${name} is not installed`)
  return path
}

/** Stops it and waits until it has ended. */
export async function end(child: ChildProcess) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  await exited
}

/** A shipped file with addresses replaced, as a user would edit them. Each old address must occur in it. */
export function withAddresses(text: string, changes: Record<string, string>): string {
  for (const from of Object.keys(changes))
    if (!text.includes(from)) throw new Error(`the shipped file has no ${from}`)
  // Replaces all in one pass, longest first: an inserted port may begin with another one that is to be replaced.
  const shipped = Object.keys(changes).sort((a, b) => b.length - a.length)
  return text.replace(new RegExp(shipped.map(escaped).join('|'), 'g'), from => changes[from]!)
}

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')

function collect(child: ChildProcess) {
  let text = ''
  child.stderr?.setEncoding('utf8').on('data', chunk => {
    text += chunk
  })
  return () => text
}

async function listening(child: ChildProcess, port: number) {
  const deadline = performance.now() + 60_000
  while (!(await accepts(port))) {
    if (child.exitCode !== null) throw new Error(`it exited with ${child.exitCode}`)
    if (performance.now() > deadline) throw new Error('it accepts no connection after 60 s')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}
