import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { expect, test } from 'vitest'
import { type Block, fencedBlocks, firstLineOf } from './support/page-blocks.ts'

/**
 * The test that runs each block of the README and of docs/ as it is printed, or compares it with what is printed. A block is
 * named by its first line or by its opening line, such as "```nginx". "```sql *" names all blocks with that opening line.
 */

const ROOT = join(import.meta.dirname, '..')

const TESTS: Record<string, Record<string, string[]>> = {
  'README.md': {
    'test/readme.test.ts': [
      'URL=http://localhost:3001',
      `ISSUED=$(curl -s $URL/issue -H "Authorization: Bearer $KEY" -H "$JSON" -d '{"subject":"user-42","scope":"orders:read","refresh":true}')`,
      'FRESH=$(curl -s $URL/refresh -d "refresh_token=$(echo "$ISSUED" | field refresh_token)")',
      'curl -i "$URL/verify?scope=orders:read" -H "Authorization: Bearer $TOKEN"',
      'HTTP/1.1 200 OK',
      `curl -s -w '\\n' $URL/introspect -H "Authorization: Bearer $KEY" -d "token=$TOKEN"`,
      `curl -s -w '\\n' $URL/revoke -H "Authorization: Bearer $KEY" -d "token=$TOKEN"`,
      '{"access_token":"eyJhbGci…","token_type":"Bearer","expires_in":300,"refresh_token":"eyJhbGci…","scope":"orders:read","session_id":"jy3c6zvy…"}',
      '{"active":true,"iss":"http://localhost:3001","sub":"user-42","aud":"http://localhost:3001","client_id":"tt4ntwteuerrutbo",…}',
    ],
    'test/postgres/nginx.sites.test.ts': ['cp -r deploy/nginx /etc/nginx/assay', '```nginx'],
  },
  'docs/accounts.md': {
    'test/account-mails.test.ts': ['```js accounts.js'],
    'test/page-commands.test.ts': ['assay customers reset-password ann@example.com'],
  },
  'docs/callers.md': {
    'test/callers.test.ts': [
      '```js assay.js',
      '```js express.js',
      '```js fastify.js',
      '```js hono.js',
      '```js app/orders/route.js',
      '```js introspect.js',
      '```js cached.js',
      '```python main.py',
      '```go main.go',
    ],
  },
  // It is generated.
  'docs/cli.md': { 'test/cli.test.ts': ['``` *'] },
  'docs/clients.md': {
    'test/page-commands.test.ts': [
      'npm run assay -- customers policy CUSTOMER --refresh-policy reusable --access-token-ttl 15m',
    ],
  },
  'docs/docker.md': { 'test/postgres/nginx.demo.test.ts': ['URL=http://localhost:3001'] },
  'docs/faults.md': {
    'test/page-commands.test.ts': [
      'npm run faults                       # every fault ten times, with the transaction open for a whole minute',
    ],
  },
  'docs/gateways.md': {
    'test/postgres/nginx.sites.test.ts': ['cp -r deploy/nginx /etc/nginx/assay', '```nginx'],
  },
  'docs/issuing.md': {
    'test/issuing.test.ts': [
      'npm run -s assay -- services create --name shop-api --may create,issue,refresh,revoke,sessions,rotate,disable',
      '```js assay.js',
      '```js accounts.js',
      '```js express.js',
      '```js hono.js',
      '{ "error": "invalid_grant", "error_description": "the session of this refresh token has ended; log in again", "request_id": "…" }',
      '{ "type": "about:blank", "title": "Not Found", "status": 404, "detail": "no such customer; check the id", "error": "not_found", "request_id": "…" }',
      'APP=http://localhost:3002',
      'curl -X POST http://127.0.0.1:3001/admin/customers/$CUSTOMER/secrets/rotate \\',
      'npm run -s assay -- services rotate shop-api --overlap 0s',
      'export DATA_DIR=$(mktemp -d) ASSAY_URL=http://127.0.0.1:3100',
      'kill $ASSAY',
    ],
  },
  'docs/local-verification.md': {
    'test/page-commands.test.ts': [
      'assay customers policy k5m2q7xw3bfz6tha --signing-alg EdDSA --access-token-ttl 5m --max-access-token-ttl 5m',
      '```js verify.js',
      `curl -s $ISSUER/issue -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\`,
    ],
  },
  'docs/observing.md': {
    'test/cli-follow.test.ts': ['```js'],
    'test/page-commands.test.ts': [
      'assay audit --follow --json --after 0 --cursor-file /var/lib/audit-shipper/cursor | shipper',
    ],
    'test/process-traces.test.ts': [
      'npm exec -- node --disable-sigusr1 --import ./deploy/opentelemetry/traces.mjs server/main.ts',
    ],
  },
  'docs/operating.md': {
    'test/page-commands.test.ts': [
      "alias assay='npm run -s assay --'",
      "assay customers list --all --json | jq -r '.[].id' |",
      'assay revoke everyone --wait',
      'assay services create --name gateway --may introspect',
    ],
    'test/postgres/operating.test.ts': [
      'sh deploy/make-secrets.sh',
      'DATABASE_URL="$MIGRATE_URL" npm run migrate',
      'npm run migrate',
      'pg_dump --format=custom --schema=assay --file=assay.dump "$MIGRATE_URL"',
      `psql "$MIGRATE_URL" --command 'alter schema assay rename to assay_lost'`,
      `psql "$MIGRATE_URL" --command "select setval('assay.epochs', nextval('assay.epochs') + 1000000)"`,
      '```sql *',
    ],
    'test/redis/restore-drill.test.ts': [
      'export DATABASE_URL=postgres://USER:PASSWORD@HOST:5432/DRILL REDIS_URL=redis://HOST:6379 PORT=3009',
      'field() { sed -n "s/.*\\"$1\\": *\\"\\([^\\"]*\\)\\".*/\\1/p"; }',
      'curl -s -o "$DRILL/answer" $ASSAY_URL/revoke -H "$KEY" -d "token=$REVOKED"',
      `psql "$DATABASE_URL" --quiet --command 'alter schema assay rename to assay_lost'`,
      'start',
      'stop',
    ],
  },
  'docs/performance.md': {
    'test/page-commands.test.ts': [
      'npm run bench                                  # everything, in turns; about a quarter of an hour',
    ],
  },
}

/** The blocks that no test runs, and why. */
const EXCEPTIONS: Record<string, Record<string, string>> = {
  'README.md': {
    'npm ci && npm start':
      'npm ci would replace the packages of the running tests; npm-scripts.test.ts runs npm start',
    'npm ci && npm test': 'as above; .ci/run runs both',
    '                     1. log in': 'a picture',
  },
  'docs/architecture.md': { '```mermaid *': 'a picture' },
  'docs/callers.md': {
    '```java SecurityConfiguration.java': 'needs Spring',
  },
  'docs/docker.md': { 'docker build --tag assay:0.1.0 .': 'needs Docker' },
  'docs/issuing.md': {
    'npm init -y && npm pkg set type=module && npm install express hono @hono/node-server':
      'installs from the registry; the tests use the same packages',
    'ASSAY_CREDENTIAL=assay_sv_... node express.js': 'startBackend does this on a free port',
  },
  'docs/observing.md': { '```dockerfile': 'needs Docker' },
  'docs/testing.md': { '```sh': 'starts all tests; .ci/run runs it' },
}

const pages = ['README.md', 'SECURITY.md', ...globSync('docs/*.md', { cwd: ROOT }).sort()]

const isNamedBy = (block: Block, name: string) =>
  [firstLineOf(block), block.fence, `${block.fence} *`].includes(name)

const namesOf = (page: string) => [
  ...Object.values(TESTS[page] ?? {}).flat(),
  ...Object.keys(EXCEPTIONS[page] ?? {}),
]

test.each(pages)('every block of %s has a test or an exception', page => {
  const missing = fencedBlocks(page).filter(block => !namesOf(page).some(name => isNamedBy(block, name)))
  expect(missing.map(firstLineOf)).toEqual([])
})

const named = [...new Set([...Object.keys(TESTS), ...Object.keys(EXCEPTIONS)])]

test.each(named)('each name in %s is that of one block', page => {
  for (const name of namesOf(page)) {
    const texts = new Set(
      fencedBlocks(page)
        .filter(block => isNamedBy(block, name))
        .map(({ text }) => text),
    )
    if (name.endsWith(' *')) expect(texts.size, name).toBeGreaterThan(1)
    else expect(texts.size, name).toBe(1)
  }
})

const pairs = Object.entries(TESTS).flatMap(([page, tests]) =>
  Object.keys(tests).map(file => [page, file] as const),
)

test.each(pairs)('the blocks of %s are run by %s, which reads the page', (page, file) => {
  expect(existsSync(join(ROOT, file))).toBe(true)
  expect(readFileSync(join(ROOT, file), 'utf8')).toContain(basename(page))
})
