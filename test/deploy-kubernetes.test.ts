import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { loadConfig, SETTINGS } from '../server/config/load.ts'
import { MAX_DRAIN_MS } from '../server/shutdown.ts'

const ROOT = join(import.meta.dirname, '..')
const FOLDER = join(ROOT, 'deploy/kubernetes')
const read = (file: string) => parse(readFileSync(join(FOLDER, file), 'utf8'))

const kustomization = read('kustomization.yaml')
const deployment = read('deployment.yaml')
const pod = deployment.spec.template.spec
const [container] = pod.containers
const { paths } = parse(readFileSync(join(ROOT, 'openapi.yaml'), 'utf8'))
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

/** As in the container. */
const environment: Record<string, string> = Object.fromEntries([
  ...kustomization.configMapGenerator[0].literals.map((literal: string) => literal.split(/=(.*)/)),
  ...container.env.map(({ name, value }: { name: string; value: string }) => [name, value]),
])

describe('deploy/kubernetes', () => {
  test('the base names every file that exists, and no other', () => {
    const files = readdirSync(FOLDER).filter(file => file !== 'kustomization.yaml')
    expect([...kustomization.resources].sort()).toEqual(files.sort())
  })

  test('the image is of this version', () => {
    expect(kustomization.images).toEqual([{ name: container.image, newTag: manifest.version }])
  })

  test('every variable is a setting, and secrets come as files', () => {
    const known = SETTINGS.flatMap(({ name, secret }) => (secret ? [`${name}_FILE`] : [name as string]))
    expect(Object.keys(environment).filter(name => !known.includes(name))).toEqual([])
    expect(container.envFrom).toEqual([{ configMapRef: { name: kustomization.configMapGenerator[0].name } }])
  })

  test('with the secrets of make-secrets.sh, Assay accepts every setting', () => {
    const dir = mkdtempSync(join(tmpdir(), 'assay-secrets-'))
    spawnSync('sh', [join(ROOT, 'deploy/make-secrets.sh'), dir])
    const [{ mountPath }] = container.volumeMounts
    const config = loadConfig(environment, path => readFileSync(path.replace(mountPath, dir), 'utf8'))
    rmSync(dir, { recursive: true })
    expect(config.databaseUrl).toMatch(/^postgres:/)
    expect(config.masterKeys).toHaveLength(1)
    expect(config.signup).toBe('closed')
    expect(config.services).toHaveLength(1)
  })

  test('the probes use existing paths, on the port that the image listens on', () => {
    const { startupProbe, livenessProbe, readinessProbe } = container
    expect(livenessProbe.httpGet.path).toBe('/healthz')
    expect(readinessProbe.httpGet.path).toBe('/readyz')
    for (const { httpGet } of [startupProbe, livenessProbe, readinessProbe]) {
      expect(paths[httpGet.path].get).toBeDefined()
      expect(httpGet.port).toBe(container.ports[0].name)
    }
    const image = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
    expect(image).toContain(`EXPOSE ${container.ports[0].containerPort}`)
    expect(read('service.yaml').spec.ports[0].targetPort).toBe(container.ports[0].name)
  })

  test('Service and PodDisruptionBudget select these pods, and some are always available', () => {
    const { labels } = deployment.spec.template.metadata
    expect(deployment.spec.selector.matchLabels).toEqual(labels)
    expect(read('service.yaml').spec.selector).toEqual(labels)
    const budget = read('poddisruptionbudget.yaml').spec
    expect(budget.selector.matchLabels).toEqual(labels)
    expect(deployment.spec.replicas - budget.maxUnavailable).toBeGreaterThanOrEqual(2)
    expect(deployment.spec.strategy.rollingUpdate).toEqual({ maxSurge: 1, maxUnavailable: 0 })
  })

  test('only labelled pods can reach Assay, and their X-Forwarded-For is trusted', () => {
    const { podSelector, policyTypes, ingress } = read('networkpolicy.yaml').spec
    expect(podSelector).toEqual(deployment.spec.selector)
    expect(policyTypes).toEqual(['Ingress'])
    const [{ from, ports }, ...more] = ingress
    expect(more).toEqual([])
    const labelled = { matchLabels: { 'assay-client': 'true' } }
    expect(from).toEqual([{ podSelector: labelled }, { namespaceSelector: labelled }])
    expect(ports).toEqual([{ port: container.ports[0].name, protocol: 'TCP' }])
    expect(environment.TRUST_PROXY).toBeDefined()
  })

  test('a pod that ends has time to drain', () => {
    const [command, seconds] = container.lifecycle.preStop.exec.command
    expect(command).toBe('sleep')
    const drain = 3 + MAX_DRAIN_MS / 1_000
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(Number(seconds) + drain)
  })

  test('a pod has no unneeded privileges', () => {
    expect(pod.automountServiceAccountToken).toBe(false)
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      seccompProfile: { type: 'RuntimeDefault' },
    })
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
    // Readable only by its group, which is the pod's.
    expect(pod.volumes[0].secret.defaultMode).toBe(0o440)
    expect(pod.securityContext.fsGroup).toBe(pod.securityContext.runAsGroup)
  })
})
