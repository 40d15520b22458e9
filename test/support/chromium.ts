import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { findProgram } from './program.ts'

export const findChromium = () => findProgram('chromium')

export type Chromium = Awaited<ReturnType<typeof startChromium>>
export type Page = Awaited<ReturnType<Chromium['open']>>

/** A real headless browser with its own profile folder, controlled over its DevTools protocol (CDP). */
export async function startChromium() {
  const profile = await mkdtemp(join(tmpdir(), 'assay-chromium-'))
  const child = spawn(findChromium()!, [...OPTIONS, `--user-data-dir=${profile}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const link = await connected(await addressOf(child))

  /** Opens a page in its own context, `width` pixels wide. Resolves once the expression `ready` is true in it. */
  async function open(url: string, width: number, ready: string) {
    const { browserContextId } = await link.call('Target.createBrowserContext')
    const { targetId } = await link.call('Target.createTarget', { url: 'about:blank', browserContextId })
    const { sessionId } = await link.call('Target.attachToTarget', { targetId, flatten: true })
    const call = (method: string, params: object = {}) => link.call(method, params, sessionId)
    const heard = link.heardBy(sessionId)
    for (const domain of ['Log', 'Runtime', 'Network', 'Page']) await call(`${domain}.enable`)
    const resize = (to: number) =>
      call('Emulation.setDeviceMetricsOverride', {
        width: to,
        height: 900,
        deviceScaleFactor: 1,
        mobile: to < 600,
      })
    await resize(width)
    await call('Page.navigate', { url })

    async function evaluate(expression: string) {
      const { result } = await call('Runtime.evaluate', { expression, returnByValue: true })
      return result.value
    }
    async function until(expression: string) {
      for (let tries = 0; !(await evaluate(expression)); tries++) {
        if (tries === 200) throw new Error(`the page isn't ready; it complained: ${complaintsOf(heard)}`)
        await sleep(100)
      }
    }
    await until(ready)
    return {
      evaluate,
      until,
      resize,
      call,
      complaints: () => complaintsOf(heard),
      asked: () => heard.flatMap(({ params }) => (params.request?.url as string | undefined) ?? []),
    }
  }

  async function stop() {
    link.close()
    const exited = once(child, 'exit')
    child.kill()
    await exited
    await rm(profile, { recursive: true, maxRetries: 5 })
  }

  return { open, stop }
}

const OPTIONS = [
  '--headless',
  '--remote-debugging-port=0',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
  // Connects only to the server under test.
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Chromium's sandbox cannot run as root in a container.
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
]

async function addressOf(child: ChildProcess): Promise<string> {
  const lines = createInterface(child.stderr!)
  for await (const line of lines) {
    const address = /DevTools listening on (ws:\S+)/.exec(line)?.[1]
    if (address !== undefined) {
      child.stderr!.resume()
      return address
    }
  }
  throw new Error('chromium ended before it listened')
}

interface Message {
  id?: number
  sessionId?: string
  method?: string
  // biome-ignore lint/suspicious/noExplicitAny: the protocol documents what each method returns.
  params: any
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  result?: any
  error?: { message: string }
}

async function connected(address: string) {
  const socket = new WebSocket(address)
  const waiting = new Map<number, (message: Message) => void>()
  const events = new Map<string, Message[]>()
  let last = 0
  socket.addEventListener('message', ({ data }) => {
    const message: Message = JSON.parse(data)
    if (message.id !== undefined) waiting.get(message.id)?.(message)
    else events.get(message.sessionId ?? '')?.push(message)
  })
  await once(socket, 'open')

  async function call(method: string, params: object = {}, sessionId?: string) {
    const id = ++last
    const answered = new Promise<Message>(resolve => waiting.set(id, resolve))
    socket.send(JSON.stringify({ id, method, params, sessionId }))
    const { result, error } = await answered
    waiting.delete(id)
    if (error) throw new Error(`${method}: ${error.message}`)
    return result
  }

  function heardBy(sessionId: string): Message[] {
    const heard: Message[] = []
    events.set(sessionId, heard)
    return heard
  }

  return { call, heardBy, close: () => socket.close() }
}

/** Browser log entries, the page's console and uncaught exceptions. */
const complaintsOf = (heard: Message[]): string[] =>
  heard.flatMap(({ method, params }) => {
    if (method === 'Log.entryAdded') return [`${params.entry.text} ${params.entry.url ?? ''}`]
    if (method === 'Runtime.exceptionThrown') return [String(params.exceptionDetails.exception?.description)]
    return method === 'Runtime.consoleAPICalled' ? [JSON.stringify(params.args)] : []
  })
