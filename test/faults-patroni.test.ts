import { afterEach, expect, test, vi } from 'vitest'
import { findMissingPackages } from '../faults/patroni/cluster.ts'

afterEach(() => vi.unstubAllEnvs())

test('without Patroni and etcd the error names the packages to install', () => {
  vi.stubEnv('PATH', '/nonexistent')
  vi.stubEnv('CI', '')
  expect(findMissingPackages()).toEqual(expect.arrayContaining(['patroni', 'etcd-server']))
})

test('in CI a missing program is an error', () => {
  vi.stubEnv('PATH', '/nonexistent')
  vi.stubEnv('CI', 'true')
  expect(findMissingPackages).toThrow('patroni is not installed')
})
