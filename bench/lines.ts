import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Tree } from './trees.ts'

/** What production is made of. */
const FOLDERS = ['server', 'db', 'cli']

/** Lines of TypeScript that are neither empty nor a comment's, a statement's comments in SQL included. */
export const linesOfCode = ({ folder }: Tree): number =>
  FOLDERS.flatMap(each => globSync(join(folder, each, '**/*.ts')))
    .map(file => countLines(readFileSync(file, 'utf8')))
    .reduce((sum, each) => sum + each, 0)

/** A comment that stands beside code doesn't count, and a line that only holds a part of one doesn't either. */
export function countLines(text: string): number {
  let inComment = false
  let code = 0
  for (const line of text.split('\n').map(each => each.trim())) {
    const opens = !inComment && line.startsWith('/*')
    if (!inComment && !opens && line !== '' && !/^(\/\/|--)/.test(line)) code++
    if (inComment || opens) inComment = !line.includes('*/')
  }
  return code
}
