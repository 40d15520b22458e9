import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http'
import { type AddressInfo, createServer as createSocketServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { end } from './gateway.ts'

/** Servers that run behind a gateway, or in place of Assay. */

/** The demo backend as compose.yaml runs it. It answers with the identity that the gateway passed on. */
export async function startDemoBackend() {
  const script = join(import.meta.dirname, '../../deploy/demo-backend/server.ts')
  const env = { PATH: process.env.PATH, PORT: '0' }
  const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'ignore'] })
  const [line] = await once(createInterface(child.stdout), 'line')
  const { port }: { port: number } = JSON.parse(line.replace('listening ', ''))
  return { port, child, stop: () => end(child) }
}

/** One received request. */
export interface Heard {
  path: string
  headers: IncomingHttpHeaders
  /** Alternating names and values as received, including repeated headers and trailers. */
  raw: string[]
  /** Bytes of the body. */
  size: number
}

export type Listener = Awaited<ReturnType<typeof startListener>>

/** A server that records every request. */
export async function startListener(answer: RequestListener = failWhereAsked) {
  const heard: Heard[] = []
  const server = createServer((request, response) => {
    const { url: path = '', headers } = request
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
    })
    request.on('end', () => {
      heard.push({ path, headers, raw: [...request.rawHeaders, ...request.rawTrailers], size })
      answer(request, response)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => {
    server.close()
    server.closeAllConnections()
  }
  return { heard, port: (server.address() as AddressInfo).port, stop }
}

/** A server that answers 200 to any input and records the first line, even one that Node's parser rejects. */
export async function startByteListener() {
  const heard: string[] = []
  const server = createSocketServer(socket => {
    socket.on('error', () => {})
    socket.once('data', bytes => {
      heard.push(bytes.toString().split('\r\n')[0]!)
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async () => void server.close()
  return { heard, port: (server.address() as AddressInfo).port, stop }
}

/** Answers 500 to a path that ends in /fail. */
const failWhereAsked: RequestListener = (request, response) => {
  if (request.url?.endsWith('/fail')) response.statusCode = 500
  response.end('heard')
}
