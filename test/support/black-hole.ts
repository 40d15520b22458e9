import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** Listens and prints its port. The process is stopped before it accepts a connection. */
const LISTEN = `require('node:net').createServer().listen(
  { port: process.argv[1], host: '127.0.0.1', backlog: 1 }, function () { console.log(this.address().port) })`

/** More connections than fit in the backlog. */
const FILLERS = 4

/** Opens a port that answers no SYN, like a firewall that drops packets: the process is stopped and its backlog is full. */
export async function openBlackHole(wanted = 0) {
  const child = spawn(process.execPath, ['-e', LISTEN, String(wanted)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const kill = () => child.kill('SIGKILL')
  process.on('exit', kill)
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const port = Number(line)
  child.kill('SIGSTOP')
  const fillers = Array.from({ length: FILLERS }, () => connect(port, '127.0.0.1'))
  for (const filler of fillers) filler.on('error', () => {})
  while (!(await isFull(port))) fillers.push(keep(connect(port, '127.0.0.1')))
  return {
    port,
    async close() {
      process.off('exit', kill)
      kill()
      for (const filler of fillers) filler.destroy()
      await once(child, 'exit')
    },
  }
}

const keep = (socket: Socket) => socket.on('error', () => {})

/** True if no connection is made within a time that is ample on one machine. */
async function isFull(port: number): Promise<boolean> {
  const socket = keep(connect(port, '127.0.0.1'))
  socket.setTimeout(300)
  const [event] = await Promise.race([
    once(socket, 'connect').then(() => ['connect']),
    once(socket, 'timeout').then(() => ['timeout']),
  ])
  socket.destroy()
  return event === 'timeout'
}
