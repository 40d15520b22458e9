import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'vitest'
import { freePort } from './port.ts'
import { until } from './process.ts'

/** The fenced blocks of pages, as they are printed. */

const ROOT = join(import.meta.dirname, '../..')

export interface Block {
  /** The opening line, such as "```sh". */
  fence: string
  /** Without the indentation of a list. */
  text: string
}

/** All blocks of a page. `page`: its path from the root. */
export const fencedBlocks = (page: string): Block[] =>
  [...readFileSync(join(ROOT, page), 'utf8').matchAll(/^( *)(```[^\n]*)\n(.*?)^ *```$/gms)].map(
    ([, indent, fence, text]) => ({
      fence: fence!,
      text: text!.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
    }),
  )

export const firstLineOf = ({ text }: Block): string => text.slice(0, text.indexOf('\n'))

/** The first block of a page with this first line, with its placeholders replaced. Each of them must occur in it. */
export function blockOf(page: string, firstLine: string, values: Record<string, string> = {}): string {
  let text = fencedBlocks(page).find(block => firstLineOf(block) === firstLine)?.text
  if (text === undefined) throw new Error(`${page} has no block that begins with ${firstLine}`)
  for (const [placeholder, value] of Object.entries(values)) {
    expect(text).toContain(placeholder)
    text = text.replaceAll(placeholder, value)
  }
  return text
}

/** The programs of a page in docs/: blocks of JavaScript that have the name of a file. */
export function blocksOf(page: string): Record<string, string> {
  const text = readFileSync(join(ROOT, 'docs', page), 'utf8')
  const blocks = [...text.matchAll(/^```js (\S+)\n(.*?)^```$/gms)]
  expect([...text.matchAll(/^```js\b/gm)], 'each block has a name').toHaveLength(blocks.length)
  return Object.fromEntries(blocks.map(([, name, code]) => [name!, code!]))
}

/** Writes the files to a folder in which the packages of this project can be imported. */
export function writeProgram(folder: string, files: Record<string, string>) {
  for (const [name, text] of Object.entries({ 'package.json': '{ "type": "module" }', ...files })) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
}

export interface Program {
  url: string
  child: ChildProcess
}

/** Starts a file on a port of its own (PORT), and resolves when it answers. `command`: what runs the file, if not Node. */
export async function startProgram(
  file: string,
  env: Record<string, string>,
  command = [process.execPath, file],
): Promise<Program> {
  const port = await freePort()
  const child = spawn(command[0]!, command.slice(1), {
    env: { PORT: String(port), ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const url = `http://127.0.0.1:${port}`
  const answers = () =>
    fetch(url).then(
      () => true,
      () => child.exitCode !== null,
    )
  await until(`${file} listens`, answers)
  expect(child.exitCode, `${file} has ended`).toBeNull()
  return { url, child }
}
