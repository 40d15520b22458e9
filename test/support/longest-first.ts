import { relative } from 'node:path'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** The files that take longest and would otherwise run alone at the end. Grouped by project, so that each is loaded once. */
const LONGEST = [
  'postgres/faults.test.ts',
  'postgres/process-signals.test.ts',
  'postgres/process-early-leavers.test.ts',
  'postgres/upgrades.test.ts',
  'postgres/reference-page.test.ts',
  'postgres/npm-scripts.test.ts',
  'postgres/faults-server.test.ts',
  'redis/faults.test.ts',
  'process-signals.test.ts',
  'npm-scripts.test.ts',
  'cli.test.ts',
  'process-start.test.ts',
  'process-refusals.test.ts',
  'process-traces.test.ts',
  'process-drain.test.ts',
  'process-early-leavers.test.ts',
  'deploy-alerts.test.ts',
  'callers.test.ts',
  'local-verifiers.test.ts',
  'process-sockets.test.ts',
  'data-dir.test.ts',
  'token-cache-memory.test.ts',
]

/** Starts the longest files first, and the others in vitest's order. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const index = LONGEST.indexOf(relative(TEST_FOLDER, moduleId))
      return index < 0 ? LONGEST.length : index
    }
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b))
  }
}

const TEST_FOLDER = `${import.meta.dirname}/..`
