import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { secretText } from './secret-text.ts'

/** A longer file contains something other than secrets. */
const MAX_BYTES = 1_048_576

/** The secret in a file, or why it can't be read. No problem repeats a part of the file. */
export type SecretRead = { text: string; problem?: never } | { problem: string; text?: never }

/** Reads a secret while the server runs. Never throws, never waits for a pipe, and reads a limited number of bytes. */
export async function readSecret(path: string): Promise<SecretRead> {
  try {
    const text = secretText(await readBounded(path))
    return text === '' ? { problem: 'the file is empty' } : { text }
  } catch (error) {
    const { code = 'it is not a regular file, or is too large' } = error as NodeJS.ErrnoException
    return { problem: `the file can't be read (${code})` }
  }
}

async function readBounded(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const found = await file.stat()
    if (!found.isFile() || found.size > MAX_BYTES) throw new Error('unfit')
    const { buffer, bytesRead } = await file.read(Buffer.alloc(found.size), 0, found.size, 0)
    return buffer.toString('utf8', 0, bytesRead)
  } finally {
    await file.close()
  }
}
