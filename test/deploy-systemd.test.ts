import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { SETTINGS } from '../server/config/load.ts'
import { MAX_DRAIN_MS } from '../server/shutdown.ts'

const ROOT = join(import.meta.dirname, '..')
const unit = readFileSync(join(ROOT, 'deploy/systemd/assay.service'), 'utf8')

/** The settings of the unit, also with the lines for Postgres. */
const lines = unit.split('\n').map(line => line.replace(/^#(?=[A-Z]\w+=)/, ''))
const all = (key: string) =>
  lines.filter(line => line.startsWith(`${key}=`)).map(line => line.slice(key.length + 1))
const one = (key: string) => {
  const [value, ...more] = all(key)
  expect({ key, more }).toEqual({ key, more: [] })
  return value
}

describe('deploy/systemd/assay.service', () => {
  test('starts an existing program', () => {
    const [node, flag, script] = one('ExecStart')!.split(' ')
    expect(node).toBe('/usr/bin/node')
    expect(flag).toBe('--disable-sigusr1')
    expect(existsSync(join(ROOT, script!))).toBe(true)
  })

  test('sets only known settings, and each secret is one of its credentials', () => {
    const pairs = all('Environment').flatMap(line => line.split(' ').map(pair => pair.split('=')))
    const known = SETTINGS.flatMap(({ name }) => [name as string, `${name}_FILE`])
    const others = pairs.map(([name]) => name!).filter(name => !known.includes(name))
    expect(others).toEqual(['NODE_ENV', 'NODE_COMPILE_CACHE'])
    expect(pairs).toContainEqual(['SIGNUP', 'closed'])
    const files = pairs.map(([, value]) => value!).filter(value => value.startsWith('%d/'))
    const credentials = all('LoadCredential').map(line => `%d/${line.split(':')[0]}`)
    expect(files.sort()).toEqual(credentials.sort())
  })

  test('lets a drain finish, and does not restart after faults that a restart cannot fix', () => {
    expect(Number(one('TimeoutStopSec'))).toBeGreaterThan(3 + MAX_DRAIN_MS / 1_000)
    expect(one('KillMode')).toBe('mixed')
    expect(one('Restart')).toBe('always')
    expect(one('RestartPreventExitStatus')).toBe('64 78')
  })

  test('has no unneeded privileges', () => {
    const yes = [
      'DynamicUser',
      'ProtectHome',
      'PrivateTmp',
      'PrivateDevices',
      'NoNewPrivileges',
      'LockPersonality',
    ]
    const kernel = ['Clock', 'KernelLogs', 'KernelModules', 'KernelTunables', 'ControlGroups', 'Hostname']
    for (const key of [...yes, ...kernel.map(part => `Protect${part}`)]) expect(one(key)).toBe('yes')
    expect(one('ProtectSystem')).toBe('strict')
    expect(one('CapabilityBoundingSet')).toBe('')
    expect(all('SystemCallFilter')).toEqual(['@system-service', '~@privileged'])
    expect(one('StateDirectoryMode')).toBe('0700')
    expect(one('LimitCORE')).toBe('0')
  })
})
