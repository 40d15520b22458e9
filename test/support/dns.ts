import { createSocket } from 'node:dgram'
import { once } from 'node:events'

const ADDRESS_RECORD = 1
const TTL_SECONDS = 1

/** A DNS server on loopback that resolves every name to one address. After `move()` without an address, no name exists. */
export async function startDns(first: string) {
  let address: string | undefined = first
  const socket = createSocket('udp4')
  socket.on('message', (query, { port }) => socket.send(answerTo(query, address), port, '127.0.0.1'))
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const move = (to?: string) => {
    address = to
  }
  return { port: socket.address().port, move, stop: async () => void socket.close() }
}

/** RFC 1035 4.1: the header, the question, and one answer record whose name points to the question. */
function answerTo(query: Buffer, address: string | undefined): Buffer {
  const end = endOfQuestion(query)
  const isAsked = query.readUInt16BE(end - 4) === ADDRESS_RECORD
  const header = Buffer.alloc(12)
  query.copy(header, 0, 0, 2)
  header.writeUInt16BE(address === undefined ? 0x8183 : 0x8180, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(address !== undefined && isAsked ? 1 : 0, 6)
  const record = [0xc0, 12, 0, ADDRESS_RECORD, 0, 1, 0, 0, 0, TTL_SECONDS, 0, 4, ...numbers(address)]
  return Buffer.concat([header, query.subarray(12, end), Buffer.from(header.readUInt16BE(6) ? record : [])])
}

/** A name is a list of length-prefixed labels and ends with an empty one. Type and class follow. */
function endOfQuestion(query: Buffer): number {
  let at = 12
  while (query[at] !== 0) at += query[at]! + 1
  return at + 5
}

const numbers = (address = '') => address.split('.').map(Number)
