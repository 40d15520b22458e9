import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { CommandError, EXIT } from './errors.ts'

/** The file of `assay audit --follow --cursor-file`: it holds the cursor of the last event that was printed. */
export class CursorFile {
  readonly #file: string

  constructor(file: string) {
    this.#file = file
  }

  /** Returns undefined if there is no file yet. Throws CommandError if its content is no cursor. */
  read(): string | undefined {
    if (!existsSync(this.#file)) return undefined
    const text = this.#attempt(() => readFileSync(this.#file, 'utf8').trim())
    if (/^(0|\d+\.[\da-f-]{36})$/.test(text)) return text
    throw new CommandError(
      EXIT.settings,
      `there is no cursor in ${this.#file}; write the last known cursor to it, or delete it and use --after`,
    )
  }

  /**
   * Replaces the whole file, so that a crash never leaves half of a cursor. With `durable` the cursor also survives a power
   * failure, which costs a write to the disk.
   */
  write(cursor: string, durable: boolean) {
    const next = `${this.#file}.tmp`
    this.#attempt(() => {
      const descriptor = openSync(next, 'w')
      writeFileSync(descriptor, `${cursor}\n`)
      if (durable) fsyncSync(descriptor)
      closeSync(descriptor)
      renameSync(next, this.#file)
    })
  }

  #attempt<Result>(run: () => Result): Result {
    try {
      return run()
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      throw new CommandError(
        EXIT.settings,
        `the cursor file ${this.#file} can't be used (${code}); check its path and permissions`,
      )
    }
  }
}
