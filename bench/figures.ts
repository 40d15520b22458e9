import { linesOfCode } from './lines.ts'
import { startsEmbedded, startsOnPostgres } from './starts.ts'
import { AT_OLD, here, old } from './trees.ts'

/** Values that are not measured in rounds: a name and a number each, for both versions of the code. */
export interface Figures {
  names: string[]
  measure(): Promise<[name: string, value: number][]>
}

const POSTGRES = 'start to ready on Postgres'
const IDLE = 'idle memory on Postgres'
const EMBEDDED = 'start to ready, embedded'
const LINES = 'lines of code without comments, server + db + cli'

const trees = () => Promise.all([here(), old()])
const ofBoth = (name: string) => [name, name + AT_OLD]
const named = (name: string, values: number[]): [string, number][] =>
  ofBoth(name).map((each, i) => [each, values[i]!])

export const figuresOf = (postgres: string): Figures[] => [
  {
    names: ofBoth(LINES),
    measure: async () => named(LINES, (await trees()).map(linesOfCode)),
  },
  {
    names: [...ofBoth(POSTGRES), ...ofBoth(IDLE)],
    async measure() {
      const starts = await startsOnPostgres(await trees(), postgres)
      return [
        ...named(
          POSTGRES,
          starts.map(each => each.readyAfter),
        ),
        ...named(
          IDLE,
          starts.map(each => each.idle),
        ),
      ]
    },
  },
  {
    names: ofBoth(EMBEDDED),
    async measure() {
      const starts = await startsEmbedded(await trees())
      return named(
        EMBEDDED,
        starts.map(each => each.readyAfter),
      )
    },
  },
]
