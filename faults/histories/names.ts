/** Short names for ids and tokens, numbered in the order of their first appearance. */
export class Names {
  readonly #names = new Map<string, string>()
  readonly #counts = new Map<string, number>()

  /** `stem`: the prefix of the name. */
  of(stem: string, id: string): string {
    const known = this.#names.get(id)
    if (known !== undefined) return known
    const count = (this.#counts.get(stem) ?? 0) + 1
    this.#counts.set(stem, count)
    this.#names.set(id, `${stem}${count}`)
    return `${stem}${count}`
  }

  find(id: string): string | undefined {
    return this.#names.get(id)
  }
}
