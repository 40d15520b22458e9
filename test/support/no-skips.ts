import type { Reporter, TestModule } from 'vitest/node'

/** In CI a skipped test counts as failed. */
export default class NoSkips implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]) {
    const skipped = modules.flatMap(module => [...module.children.allTests('skipped')])
    for (const test of skipped) process.stderr.write(`skipped in CI: ${test.fullName}\n`)
    if (skipped.length > 0) process.exitCode = 1
  }
}
