import { Writable } from 'node:stream'
import { expect, test } from 'vitest'
import { createLog } from '../server/log.ts'

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

test.each(NAMES)('what is called %s is not written, in a line or in a member of it', name => {
  const line = logged({ [name]: 'hidden', kept: 1, request: { [name]: 'hidden', kept: 2 } })
  expect(line).toMatchObject({ [name]: '***', kept: 1, request: { [name]: '***', kept: 2 } })
  expect(JSON.stringify(line)).not.toContain('hidden')
})

test('of an error that is not ours neither message nor members are written', () => {
  const error = Object.assign(new TypeError('hidden'), { parameters: ['hidden'], code: 'ECODE' })
  const line = logged({ err: error })
  expect(line.err).toMatchObject({ name: 'TypeError', code: 'ECODE' })
  expect(JSON.stringify(line)).not.toContain('hidden')
})
