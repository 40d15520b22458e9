import { Writable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { createLog, gathered } from '../server/lib/logger.ts'

function logged(line: object): Record<string, unknown> {
  let text = ''
  const sink = new Writable({
    write(chunk, _, done) {
      text += chunk
      done()
    },
  })
  createLog('info', sink).info(line, 'said')
  return JSON.parse(text)
}

const NAMES = 'password token secret authorization cookie access_token refresh_token api_key'.split(' ')

test.each(NAMES)('a value with the name %s is not written, in a line or in a member of it', name => {
  const line = logged({ [name]: 'hidden', kept: 1, request: { [name]: 'hidden', kept: 2 } })
  expect(line).toMatchObject({ [name]: '***', kept: 1, request: { [name]: '***', kept: 2 } })
  expect(JSON.stringify(line)).not.toContain('hidden')
})

test('of a foreign error neither message nor members are written', () => {
  const error = Object.assign(new TypeError('hidden'), { parameters: ['hidden'], code: 'ECODE' })
  const line = logged({ err: error })
  expect(line.err).toMatchObject({ name: 'TypeError', code: 'ECODE' })
  expect(JSON.stringify(line)).not.toContain('hidden')
})

describe('the lines of one turn', () => {
  const collecting = () => {
    const writes: string[] = []
    const lines = gathered({ write: text => void writes.push(text) })
    return { writes, log: createLog('info', lines) }
  }

  test('are written together, at its end, in order', async () => {
    const { writes, log } = collecting()
    for (let n = 0; n < 5; n++) log.info({ n }, 'said')
    await Promise.resolve()
    expect(writes).toEqual([])
    await new Promise(setImmediate)
    log.info({ n: 5 }, 'said')
    await new Promise(setImmediate)
    const numbers = writes.map(text =>
      text
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line).n),
    )
    expect(numbers).toEqual([[0, 1, 2, 3, 4], [5]])
  })

  test('are written at once if one of them precedes the end of the process', () => {
    const { writes, log } = collecting()
    log.info('before')
    log.fatal('the last')
    expect(writes.join('').trimEnd().split('\n')).toHaveLength(2)
  })
})
