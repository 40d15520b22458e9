import { readFileSync } from 'node:fs'

export const VERSION: string = JSON.parse(
  readFileSync(`${import.meta.dirname}/../../package.json`, 'utf8'),
).version
