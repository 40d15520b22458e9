import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'

/** A mail server for one test: it takes every mail (RFC 5321) and keeps it. */
export async function startSmtp() {
  const mails: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    serveMail(socket, mail => mails.push(mail))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `smtp://127.0.0.1:${(server.address() as AddressInfo).port}`,
    mails,
    async stop() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

function serveMail(socket: Socket, received: (mail: string) => void) {
  let unread = ''
  let isData = false
  socket.write('220 mail.test\r\n')
  socket.on('data', chunk => {
    unread += chunk
    for (;;) {
      const end = unread.indexOf(isData ? '\r\n.\r\n' : '\r\n')
      if (end < 0) return
      const text = unread.slice(0, end)
      unread = unread.slice(end + (isData ? 5 : 2))
      if (isData) received(text)
      const verb = isData ? '' : text.slice(0, 4).toUpperCase()
      isData = verb === 'DATA'
      socket.write(isData ? '354 send it\r\n' : verb === 'QUIT' ? '221 bye\r\n' : '250 ok\r\n')
    }
  })
}

/** The text of a mail, without its quoted-printable line ends. */
export const readMail = (mail: string) => {
  const to = /^To: (.*)$/m.exec(mail)?.[1]
  const text = mail.replaceAll('=\r\n', '').replaceAll('=3D', '=')
  return { to, text, token: /#(assay_ot_\w+)/.exec(text)?.[1] }
}
