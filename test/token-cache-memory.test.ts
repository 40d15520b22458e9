import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Measured } from './support/token-cache-memory.ts'

const PROGRAM = join(import.meta.dirname, 'support/token-cache-memory.ts')

test('H25 a full token cache stays within its heap limit, whatever the tokens contain', {
  timeout: 180_000,
}, () => {
  const measured: Measured[] = JSON.parse(execFileSync(process.execPath, [PROGRAM], { encoding: 'utf8' }))
  expect(measured).toHaveLength(6)
  for (const { kind, tokens, bytes, maxBytes, heapBytes } of measured) {
    expect(bytes, kind).toBeGreaterThan(0.99 * maxBytes)
    expect(heapBytes, `${kind}, ${tokens} tokens`).toBeLessThan(maxBytes)
    // The estimate must be near the real use, otherwise the test proves nothing.
    expect(heapBytes, kind).toBeGreaterThan(maxBytes / 2)
  }
})
