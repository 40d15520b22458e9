import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Tree } from './trees.ts'

/** The folders that run in production. */
const FOLDERS = ['server', 'db', 'cli']

/** Counts lines of TypeScript that are neither empty nor comments. Comments in SQL statements do not count either. */
export const linesOfCode = ({ folder }: Tree): number =>
  FOLDERS.flatMap(each => globSync(join(folder, each, '**/*.ts')))
    .map(file => countLines(readFileSync(file, 'utf8')))
    .reduce((sum, each) => sum + each, 0)

/** Counts lines of code, with or without a comment at their end, but not lines that only contain part of a comment. */
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
